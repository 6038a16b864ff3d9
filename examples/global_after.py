"""The global variable of `global_before.py`, shared by all workers: every answer is right, and given once.

In this folder:

    $ counter run global_after:app --workers 3

In another terminal, five hits:

    $ for i in 1 2 3 4 5; do curl -X POST http://127.0.0.1:8000/hit; done
    {"hits":1}
    {"hits":2}
    {"hits":3}
    {"hits":4}
    {"hits":5}

Whichever worker answers. Stop it and start it again, and it goes on with 6.
"""

from flask import Flask

import counter

app = Flask(__name__)
hits = counter.connect()


@app.post("/hit")
def hit() -> dict[str, int]:
    """Count a hit for all processes, and tell the number."""
    return {"hits": hits.increment("page")}
