"""A number in a global variable: each worker process has one of its own, so they count wrong together.

In this folder:

    $ counter run global_before:app --workers 3

In another terminal, five hits:

    $ for i in 1 2 3 4 5; do curl -X POST http://127.0.0.1:8000/hit; done
    {"hits":1}
    {"hits":1}
    {"hits":2}
    {"hits":1}
    {"hits":3}

Which worker answers, and so with what number, is different each time. `global_after.py` is the same app with
the number shared.
"""

from flask import Flask

app = Flask(__name__)
hits = 0


@app.post("/hit")
def hit() -> dict[str, int]:
    """Count a hit in this process, and tell the number."""
    global hits
    hits += 1
    return {"hits": hits}
