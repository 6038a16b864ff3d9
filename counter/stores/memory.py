"""Counters in this process alone: for tests and development, and the reference for every other store."""

from __future__ import annotations

import threading
from collections.abc import Collection

from msgspec import structs

from ..changes import changes
from ..errors import CounterError, InvalidRequest
from ..information import Information, Limits
from ..listing import Job, T, count, page
from ..ops import Changes, Hello, Info, List, Report, Request
from ..results import ChangesPage, Reply, Result
from ..run import Run
from ..settings import VERSION, number
from ..store import Store, StoreUrl
from ..table import CounterTable

_SWEEP_SECONDS = 1.0
_RESULT_BYTES = 400  # of a `Change` with its times and version, about


class MemoryStore(Store):
    """A table of this process, with the manager's turn and nothing to append to."""

    capabilities = frozenset({"list", "info"})

    def __init__(self, max_counters: int | None = None, run: Run | None = None, url: str = "") -> None:
        self.url = url
        self._run = run or Run()
        limit = int(number("max_counters")) if max_counters is None else max_counters
        self._table: CounterTable[Reply] = CounterTable(self._run.id, limit, _as_replayed, _size)
        # Held from asking the time on, or the turn that asked first could come second, with an earlier time.
        self._in_order = threading.Lock()
        self._changed = threading.Condition()
        self._changes = 0

    @classmethod
    def from_url(cls, url: StoreUrl) -> MemoryStore:
        """`memory://`, or `memory://NAME` for one of several.

        Raises:
            InvalidRequest: it has a path or options.
        """
        url.only_options()
        if url.path:
            raise InvalidRequest(f"memory:// takes a name and nothing more, not {url.path!r}")
        return cls(url=url.url)

    def execute(self, request: Request, timeout: float | None = None) -> Reply:
        """As every store does; nothing can fail on the way, and *timeout* has no effect."""
        op = request.ops[0]
        if isinstance(op, Changes):
            return Reply([self._wait_for(op)])
        if isinstance(op, List | Info | Hello | Report):
            try:
                return Reply([self._answer(op)])
            except CounterError as error:
                return Reply.refusing(error)
        with self._in_order, self._table.turn(self._run.now()) as turn:
            turn.sweep(self._run.ticks())
            reply = turn.execute(request, self._run.ticks(), seal=lambda reply: reply)
            turn.commit(append=lambda outcomes: None)
        self._tell(turn.changed)
        return reply

    def close(self) -> None:
        """Nothing to give back; the counters stay as long as the process."""

    def _wait_for(self, op: Changes) -> ChangesPage:
        until = self._run.ticks() + op.wait
        while True:
            self._sweep()
            seen = self._changes  # before the look: what comes during it is looked for again
            page = self._finish(changes(self._table, op, self._run.now()))
            left = until - self._run.ticks()
            if page.tells or left <= 0:
                return page
            op = structs.replace(op, since=page.version)
            with self._changed:
                self._changed.wait_for(lambda: self._changes != seen, min(left, _SWEEP_SECONDS))  # noqa: B023

    def _tell(self, changed: Collection[str]) -> None:
        """Wake those who wait, if anything changed."""
        if changed:
            with self._changed:
                self._changes += 1
                self._changed.notify_all()

    def _sweep(self) -> None:
        """Find what has ended, where nobody else comes by."""
        with self._in_order, self._table.turn(self._run.now()) as turn:
            turn.sweep(self._run.ticks())
            turn.commit(append=lambda outcomes: None)
        self._tell(turn.changed)

    def _answer(self, op: List | Info | Hello | Report) -> Result:
        now = self._run.now()
        if isinstance(op, List):
            return self._finish(page(self._table, op, now))
        if isinstance(op, Report):
            return None
        limits = Limits(max_counters=self._table.max_counters, max_frame=int(number("max_frame")))
        if isinstance(op, Hello):
            return limits
        counters = self._finish(count(self._table, now))
        return Information(VERSION, "memory", "memory", self._run.id, counters, limits)

    def _finish(self, job: Job[T]) -> T:
        """Run *job* to its end, letting others in between two slices."""
        while True:
            with self._table.lock:
                try:
                    next(job)
                except StopIteration as end:
                    answer: T = end.value
                    return answer


def _as_replayed(reply: Reply) -> Reply:
    return structs.replace(reply, replayed=True)


def _size(reply: Reply) -> int:
    return _RESULT_BYTES * (1 + len(reply.results))
