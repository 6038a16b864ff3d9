"""The counters of one run and the turn that changes them: a dict behind a lock, and an overlay above it.

A turn executes any number of requests on its overlay. `commit` hands what came out to *append*, which writes
it down, and only then merges it: if append fails, nothing of the turn has happened. Pure: time, the form of
a sealed answer and the place to append to are arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from math import ceil, floor
from types import TracebackType
from typing import Generic, TypeVar, cast

from msgspec import Struct

from .errors import CounterError, InvalidRequest, LimitExceeded, OutcomeUnknown
from .names import SortedNames
from .ops import CounterOp, Entry, Problem, Reply, Request, Result
from .schedule import Schedule
from .transition import transition

S = TypeVar("S")
SWEEP = 1000
"""How many expired counters a turn sweeps at the most."""
LONGEST_DEADLINE = 3600.0
"""How far ahead a request's deadline may lie, in seconds: callers are remembered until then."""


class Caller(Struct, Generic[S], frozen=True):
    """The last request of one caller: what a repeated one is answered with, until *deadline* has passed."""

    seq: int
    deadline: float
    reply: S


class Outcome(Struct, Generic[S], frozen=True):
    """What came out of one request, or of a sweep: all that is needed to have it again."""

    at: datetime
    changed: dict[str, Entry | None]
    caller: bytes | None = None
    record: Caller[S] | None = None


Append = Callable[[Sequence[Outcome[S]]], None]
"""Writes outcomes down, or raises `StoreUnavailable` and has written none."""


class CounterTable(Generic[S]):
    """The counters and callers of one run.

    `lock` guards everything below it; a turn holds it from beginning to end. *S* is what a reply is sealed
    into (bytes in the manager), and what a repeated request gets again.
    """

    def __init__(self, run: str, max_counters: int) -> None:
        self.run = run
        self.max_counters = max_counters
        self.lock = threading.Lock()
        self.entries: dict[str, Entry] = {}
        self.names = SortedNames()
        self.ends: Schedule[str] = Schedule()
        self.callers: dict[bytes, Caller[S]] = {}
        self.caller_ends: Schedule[bytes] = Schedule()
        self._revision = 0

    def next_version(self) -> str:
        """A version never given before, in this run or another."""
        self._revision += 1
        return f"{self.run}.{self._revision}"

    def turn(self, now: datetime) -> Turn[S]:
        """A turn at *now*; use it in a `with` block, which holds the lock."""
        return Turn(self, now)

    def ending(self, now: datetime) -> list[str]:
        """The names that end within the second of *now*: some may be gone that no sweep comes to yet."""
        boundary = now.timestamp()
        return [] if boundary == floor(boundary) else list(self.ends.at(ceil(boundary)))


class Turn(Generic[S]):
    """What some requests make of a table: seen by those after them in the turn, by all others once merged."""

    def __init__(self, table: CounterTable[S], now: datetime) -> None:
        self.now = now
        self._table = table
        self._overlay: dict[str, Entry | None] = {}
        self._callers: dict[bytes, Caller[S]] = {}
        self._outcomes: list[Outcome[S]] = []
        self._size = 0  # of the table with the overlay; known once the lock is held
        self._due = table.ends.due(floor(now.timestamp()))  # each is come to once in a turn

    def __enter__(self) -> Turn[S]:
        self._table.lock.acquire()
        self._size = len(self._table.entries)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.lock.release()

    def execute(self, request: Request, ticks: float, seal: Callable[[Reply], S]) -> S:
        """Decide *request* on the overlay and return its sealed answer; hand that out after `commit` only.

        Args:
            request: ops on counters; `List` and `Info` are answered beside the turn.
            ticks: the host's monotonic clock, seconds: a request past its deadline is not executed.
            seal: makes of a reply what is sent; it may refuse it with a `CounterError`, and nothing was done.
        """
        settled = self.settled(request, ticks, seal)
        return self._decide(request, seal) if settled is None else settled

    def settled(self, request: Request, ticks: float, seal: Callable[[Reply], S]) -> S | None:
        """The answer to a request that is not to be decided: it was before, or is too late; None if it is."""
        if request.caller is None or not request.mutates:
            return None
        last = self._last(request.caller)
        if last is not None and request.seq == last.seq:
            return last.reply
        if last is not None and request.seq < last.seq:
            return seal(Reply.refusing(InvalidRequest(f"seq goes up: {request.seq} comes after {last.seq}")))
        if request.deadline <= ticks:
            return seal(Reply.refusing(OutcomeUnknown("came after its deadline and was not executed now")))
        if request.deadline > ticks + LONGEST_DEADLINE:
            ahead = InvalidRequest(f"a deadline is at most {LONGEST_DEADLINE:.0f} s away")
            return seal(Reply.refusing(ahead))
        return None

    def sweep(self, ticks: float, most: int = SWEEP) -> bool:
        """Remove up to *most* expired counters and forget callers of the past; whether there was any."""
        entries = ((name, self._lookup(name)) for name in self._due)
        expired = (name for name, entry in entries if entry is not None and entry.expired(self.now))
        gone: dict[str, Entry | None] = dict.fromkeys(islice(expired, most))
        if gone:
            self._overlay.update(gone)
            self._size -= len(gone)
            self._outcomes.append(Outcome(self.now, gone))
        late = list(islice(self._table.caller_ends.due(floor(ticks)), most))
        for caller in late:
            self._table.caller_ends.drop(caller)
            del self._table.callers[caller]
        return bool(gone or late)

    def commit(self, append: Append[S]) -> None:
        """Write down what came out, then let everybody see it.

        Raises:
            StoreUnavailable: from *append*; nothing of this turn has happened.
        """
        if not self._outcomes:
            return
        append(self._outcomes)
        for name, entry in self._overlay.items():
            self._merge(name, entry)
        for caller, record in self._callers.items():
            self._table.callers[caller] = record
            self._table.caller_ends.put(caller, ceil(record.deadline))

    def _decide(self, request: Request, seal: Callable[[Reply], S]) -> S:
        mutates = request.mutates
        if mutates and self._size + len(request.ops) > self._table.max_counters:
            self.sweep(0.0, len(request.ops))
        draft: dict[str, Entry | None] = {}
        try:
            reply, size = self._answer(request, draft)
            sealed = seal(reply)
        except CounterError as error:  # all or nothing: the draft is dropped
            draft, size = {}, self._size
            sealed = seal(Reply.refusing(error))
        self._overlay.update(draft)
        self._size = size
        if request.caller is not None and mutates:
            last = self._last(request.caller)
            latest = request.deadline if last is None else max(request.deadline, last.deadline)
            record = Caller(request.seq, latest, sealed)
            self._callers[request.caller] = record
            self._outcomes.append(Outcome(self.now, draft, request.caller, record))
        elif draft:
            self._outcomes.append(Outcome(self.now, draft))
        return sealed

    def _answer(self, request: Request, draft: dict[str, Entry | None]) -> tuple[Reply, int]:
        """The reply, the changes in *draft*, and how many counters there are with them."""
        results: list[Result] = []
        size = self._size
        for index, op in enumerate(request.ops):
            try:
                if not op.on_counter:
                    raise InvalidRequest("this op is not one on a counter")
                result, grown = self._apply(cast(CounterOp, op), draft, size)
            except CounterError as error:
                if request.atomic:
                    if len(request.ops) > 1:
                        error.index = index
                    raise
                results.append(Problem.of(error))
            else:
                results.append(result)
                size += grown
        return Reply(results), size

    def _apply(self, op: CounterOp, draft: dict[str, Entry | None], size: int) -> tuple[Result, int]:
        before = draft[op.name] if op.name in draft else self._lookup(op.name)
        if not op.mutates:
            return transition(before, op, self.now, "")[1], 0
        after, result = transition(before, op, self.now, self._table.next_version())
        grown = (after is not None) - (before is not None)
        if grown > 0 and size >= self._table.max_counters:
            raise LimitExceeded(
                f"there are {size} counters, the most allowed: delete some, or raise --max-counters"
            )
        draft[op.name] = after
        return result, grown

    def _last(self, caller: bytes) -> Caller[S] | None:
        return self._callers.get(caller) or self._table.callers.get(caller)

    def _lookup(self, name: str) -> Entry | None:
        return self._overlay[name] if name in self._overlay else self._table.entries.get(name)

    def _merge(self, name: str, entry: Entry | None) -> None:
        table = self._table
        known = name in table.entries
        if entry is None:
            if known:
                del table.entries[name]
                table.names.remove(name)
                table.ends.drop(name)
            return
        if not known:
            table.names.add(name)
        table.entries[name] = entry
        if entry.expires_at is not None:
            table.ends.put(name, ceil(entry.expires_at.timestamp()))
        elif len(table.ends):
            table.ends.drop(name)
