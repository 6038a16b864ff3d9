"""Stands for your app: whichever worker answers, nobody gets the number of another."""

from flask import Flask

import counter

app = Flask(__name__)
hits = counter.connect()


@app.post("/hit")
def hit() -> dict[str, int]:
    """Count, and tell the number of this request."""
    return {"hits": hits.increment("page")}
