"""What a worker serves, counted: how many requests, of which routes, how long they took."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from .errors import CounterError, StoreFailure
from .information import LATENCY_BOUNDS, OTHER, Http, Latencies, StatusClass
from .ops import Report, Request
from .store import Store

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

REPORT_SECONDS = 1.0
"""Between two reports, and the longest that one takes."""
_CLASSES: dict[str, StatusClass] = {"1": "1xx", "2": "2xx", "3": "3xx", "4": "4xx", "5": "5xx"}

logger = logging.getLogger("counter.worker")


class Slots(Protocol):
    """How many clients can wait for changes at once, and how many do."""

    @property
    def count(self) -> int:
        """How many can."""
        ...

    @property
    def used(self) -> int:
        """How many do."""
        ...


class Meter:
    """Counts the requests that *app* is given, and how long they take, and reports them to the manager.

    An app finds in its environ ``counter.report``, which reports at once; ``counter.stopping``, which tells
    whether this worker is about to end: time to close a stream; and ``counter.slots``, to be told of the
    slots of this process. It may put ``counter.route`` there before it starts to answer: the route that the
    request is counted under.
    """

    def __init__(self, app: WSGIApplication, store: Store, stopping: Callable[[], bool]) -> None:
        self._app = app
        self._store = store
        self._stopping = stopping
        self._tally = Tally()
        self._slots: Slots | None = None
        self._counting = threading.Lock()
        self._reporting = threading.Lock()
        self._late: Report | None = None  # sent, but perhaps not arrived

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Hand a request on to the app."""
        began = time.monotonic()
        with self._counting:
            self._tally.requests += 1
        environ["counter.report"] = self.report
        environ["counter.stopping"] = self._stopping
        environ["counter.slots"] = self._know_slots
        started = False

        def start(status: str, *others: Any) -> Callable[[bytes], object]:  # noqa: ANN401
            nonlocal started
            if not started:  # else it is an error's answer, in place of one that had not left yet
                started = True
                self._count(environ, status, time.monotonic() - began)
            return start_response(status, *others)

        try:
            return self._app(environ, start)
        except BaseException:
            if not started:
                self._count(environ, "500", time.monotonic() - began)
            raise

    def report(self) -> None:
        """Report what was not reported yet. Never fails: what may not have arrived is sent again later."""
        if not self._reporting.acquire(timeout=REPORT_SECONDS):
            return  # the manager is slow, and whoever reports now is going to have waited long enough
        try:
            if self._late is None or self._sent(self._late):
                with self._counting:
                    tally, self._tally = self._tally, Tally()
                self._sent(tally.report(self._slots))
        finally:
            self._reporting.release()

    def _sent(self, report: Report) -> bool:
        self._late = report
        try:
            self._store.execute(Request([report]), REPORT_SECONDS).only()
        except StoreFailure:
            return False
        except CounterError as error:  # as a manager of another version may say: of no use a second time
            logger.warning("the manager refused a report: %s", error)
        self._late = None
        return True

    def _know_slots(self, slots: Slots) -> None:
        self._slots = slots

    def _count(self, environ: WSGIEnvironment, status: str, seconds: float) -> None:
        with self._counting:
            self._tally.add(environ.get("counter.route", OTHER), status, seconds)


class Tally:
    """What was served since the last report."""

    def __init__(self) -> None:
        self.requests = 0
        self._seconds: dict[tuple[str, StatusClass], float] = {}
        self._counts: dict[tuple[str, StatusClass], list[int]] = {}

    def add(self, route: str, status: str, seconds: float) -> None:
        """A request of *route* was answered with *status* after *seconds*."""
        kind = route, _CLASSES.get(status[:1], "5xx")
        if kind not in self._counts:
            self._seconds[kind], self._counts[kind] = 0.0, [0] * (len(LATENCY_BOUNDS) + 1)
        self._seconds[kind] += seconds
        self._counts[kind][bisect_left(LATENCY_BOUNDS, seconds)] += 1

    def report(self, slots: Slots | None) -> Report:
        """All of it; its number is above that of every report before, of processes with the same pid too."""
        http: Http = {}
        for (route, status), counts in self._counts.items():
            latencies = Latencies(self._seconds[route, status], counts)
            http.setdefault(route, {})[status] = latencies
        count, used = (slots.count, slots.used) if slots else (0, 0)
        return Report(time.monotonic_ns(), self.requests, count, used, http)
