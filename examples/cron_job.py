"""A cron job and a web app that number invoices together: no number is given twice, and none is left out.

In this folder the web app:

    $ counter run cron_job:app --workers 3

In another terminal a request, the job, and a shell script's way:

    $ curl -X POST http://127.0.0.1:8000/invoices
    {"invoice":1}
    $ python3 cron_job.py Ada Grace
    invoice 2 for Ada
    invoice 3 for Grace
    $ counter incr invoice
    4

In a crontab, for the first of each month, as the user who runs the web app:

    0 6 1 * * cd /srv/shop && .venv/bin/python cron_job.py Ada Grace
"""

import sys

from flask import Flask

import counter

app = Flask(__name__)
numbers = counter.connect()


@app.post("/invoices")
def invoice() -> tuple[dict[str, int], int]:
    """The next number, for a sale in the shop."""
    return {"invoice": numbers.increment("invoice")}, 201


def main(customers: list[str]) -> None:
    """The next numbers, for those who pay each month."""
    for customer in customers:
        print(f"invoice {numbers.increment('invoice')} for {customer}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except counter.CounterError as error:
        sys.exit(f"cron_job: {error}")
