"""What both apps answer: a number and the process that gave it, and what became of the process meanwhile."""

import itertools
import os
import time

_HOOKED = []
os.register_at_fork(after_in_child=lambda: _HOOKED.append(os.getpid()))


def add_views(app, hits):
    """Let *app* count in *hits*."""
    answering, numbers = set(), itertools.count()
    gaps, beating = [], []

    @app.post("/hit")
    def hit():
        number = next(numbers)
        answering.add(number)
        try:
            return {"told": [hits.increment("page"), os.getpid(), os.getpid() in _HOOKED]}
        finally:
            answering.discard(number)

    @app.get("/ready")
    def ready():
        return "ready\n"

    @app.get("/beat")
    def beat():
        """How many requests are being answered, how often a greenlet has slept, and its longest 10 ms."""
        import gevent

        if not beating:
            beating.append(gevent.spawn(sleep_on, gevent.sleep, gaps))
        return {"answering": len(answering), "beats": len(gaps), "slowest": max(gaps, default=0.0)}


def sleep_on(sleep, gaps):
    """Put into *gaps* how many seconds each of endless sleeps of 10 ms took."""
    last = time.monotonic()
    while True:
        sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
