"""A hall of 100 seats that is never oversold, however many book and cancel at once.

In this folder:

    $ counter run seats:app --workers 3

In another terminal:

    $ curl -X POST http://127.0.0.1:8000/book
    {"left":99,"ticket":1}
    $ curl -X POST http://127.0.0.1:8000/cancel/1
    {"left":100}
    $ curl -X POST http://127.0.0.1:8000/cancel/1
    {"error":"ticket 1 is cancelled already"}

No two tickets have the same number, also after cancellations.
"""

from flask import Flask

from counter import OutOfBounds
from counter.flask import FlaskCounter

SEATS = 100

Answer = tuple[dict[str, int | str], int]

app = Flask(__name__)
hall = FlaskCounter(app).view("hall:")


@app.post("/book")
def book() -> Answer:
    """A ticket, or 409: of all who ask at once, exactly as many get one as there are seats."""
    try:
        sold = hall.increment("sold", max=SEATS)
    except OutOfBounds:
        return {"error": "sold out"}, 409
    # In this order: a worker that dies in between leaves a seat empty, and never sells one twice.
    return {"ticket": hall.increment("tickets"), "left": SEATS - sold}, 201


@app.post("/cancel/<int:ticket>")
def cancel(ticket: int) -> Answer:
    """The seat of *ticket* is free again, once, however often it is cancelled."""
    if not 1 <= ticket <= hall["tickets"]:
        return {"error": f"there is no ticket {ticket}"}, 404
    try:
        hall.increment(f"cancelled:{ticket}", max=1)
    except OutOfBounds:
        return {"error": f"ticket {ticket} is cancelled already"}, 409
    return {"left": SEATS - hall.decrement("sold", min=0)}, 200
