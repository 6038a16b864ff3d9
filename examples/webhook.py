"""A webhook that counts each event once, however often and to however many workers it is delivered.

In this folder:

    $ counter run webhook:app --workers 3

In another terminal, one payment that is delivered twice, and another:

    $ curl http://127.0.0.1:8000/webhook --json '{"id":"evt_1"}'
    {"paid":1}
    $ curl http://127.0.0.1:8000/webhook --json '{"id":"evt_1"}'
    {"paid":1}
    $ curl http://127.0.0.1:8000/webhook --json '{"id":"evt_2"}'
    {"paid":2}

While the counters cannot be reached the answer is 503 or 504, and the provider delivers again later: that is
as good as a first time. An event is known for 24 hours, or until 100,000 others have come.
"""

from flask import Flask, request

from counter import InvalidRequest
from counter.flask import FlaskCounter

app = Flask(__name__)
payments = FlaskCounter(app)


@app.post("/webhook")
def webhook() -> tuple[dict[str, int | str], int]:
    """Count a payment; each delivery of one event gets the same answer."""
    # First of all check the provider's signature, as its documentation says.
    match request.get_json():
        case {"id": str(event)}:
            try:
                return {"paid": payments.increment("paid", idempotency_key=f"webhook:{event}")}, 200
            except InvalidRequest as error:
                return {"error": str(error)}, 400
        case _:
            return {"error": "an event is an object with an id"}, 400
