"""The counters of one run and the turn that changes them: a dict behind a lock, and an overlay above it.

A turn executes any number of requests on its overlay. `commit` hands what came out to *append*, which writes
it down, and only then merges it: if append fails, nothing of the turn has happened. Pure: time, the form of
a sealed answer and the place to append to are arguments.

A request that its caller repeats, or that has an idempotency key used before, is answered with what came out
then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence, Sized
from datetime import datetime
from itertools import islice
from math import ceil, floor, inf
from types import TracebackType
from typing import Generic, TypeVar, cast

from msgspec.structs import force_setattr

from .callers import LONGEST_DEADLINE, MAX_BYTES, Callers
from .errors import CounterError, InvalidRequest, KeyReused, LimitExceeded, OutcomeUnknown
from .history import History
from .keys import Asked, Keys, KeysOverlay
from .names import SortedNames
from .ops import CounterOp, Request
from .results import Entry, Problem, Reply, Result
from .schedule import Schedule
from .state import Caller, Keyed, Outcome, State
from .transition import transition
from .versions import Versions, revision

S = TypeVar("S", bound=Sized)
SWEEP = 1000
"""How many expired counters a turn sweeps at the most."""

Append = Callable[[Sequence[Outcome[S]]], None]
"""Writes outcomes down, or raises `StoreUnavailable` and has written none."""


class CounterTable(Generic[S]):
    """The counters and callers of one run.

    `lock` guards everything below it; a turn holds it from beginning to end. *S* is what a reply is sealed
    into (bytes in the manager), and what a repeated request gets again.

    Args:
        run: the id of this run, for versions.
        max_counters: most counters there can be.
        as_replayed: makes of a sealed reply the same one, marked as given before under its idempotency key;
            left out, there is no mark.
        size_of: the bytes of a sealed reply, about.
    """

    def __init__(
        self,
        run: str,
        max_counters: int,
        as_replayed: Callable[[S], S] = lambda sealed: sealed,
        size_of: Callable[[S], int] = len,
    ) -> None:
        self.versions = Versions(run)
        self.max_counters = max_counters
        self.as_replayed = as_replayed
        self.size_of = size_of
        self.lock = threading.Lock()
        self.entries: dict[str, Entry] = {}
        self.names = SortedNames()
        self.ends: Schedule[str] = Schedule()
        self.callers: Callers[S] = Callers(size_of)
        self.history = History()
        self.keys: Keys[S] = Keys(size_of)

    def restore(self, state: State[S], ticks: float) -> None:
        """Take *state* over, dicts and all, into this table, which is empty; forget callers of the past.

        Every counter gets a version of this run. One of an earlier run may have been told of a change that
        was lost with the power, so a compare-and-set with it must fail.
        """
        self.entries = state.entries
        self.names = SortedNames(state.entries)
        self.history.fill(state.entries)
        for name, entry in state.entries.items():
            force_setattr(entry, "version", self.versions.next())
            if entry.expires_at is not None:
                self.ends.put(name, ceil(entry.expires_at.timestamp()))
        for caller, last in state.callers.items():
            if ticks < last.deadline <= ticks + LONGEST_DEADLINE:  # else past, or on another boot's clock
                self.callers.remember(caller, last)
        state.callers.clear()  # most may be of the past
        self.keys = Keys(self.size_of, state.keys)
        if state.at is not None:
            self.keys.trim(state.at)

    def turn(self, now: datetime) -> Turn[S]:
        """A turn at *now*; use it in a `with` block, which holds the lock."""
        return Turn(self, now)

    def ending(self, now: datetime) -> list[str]:
        """The names that end within the second of *now*: some may be gone that no sweep comes to yet."""
        boundary = now.timestamp()
        return [] if boundary == floor(boundary) else list(self.ends.at(ceil(boundary)))


def _revision_after(changed: tuple[str, Entry | None]) -> float:
    """Where a change belongs among those of its turn; what is gone gets its place behind them."""
    entry = changed[1]
    return inf if entry is None else revision(entry)


class Turn(Generic[S]):
    """What some requests make of a table: seen by those after them in the turn, by all others once merged."""

    def __init__(self, table: CounterTable[S], now: datetime) -> None:
        self.now = now
        self._table = table
        self._overlay: dict[str, Entry | None] = {}
        self._callers: dict[bytes, Caller[S]] = {}
        self._caller_bytes = 0  # more than in the table
        self._keys = KeysOverlay(table.keys, now)
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
        sealed = None
        if request.caller is not None and request.mutates:
            sealed = self._repeated_or_late(request, request.caller, ticks, seal)
        if sealed is not None or request.idempotency_key is None:
            return sealed
        return self._replayed(request, seal)

    def _repeated_or_late(
        self, request: Request, caller: bytes, ticks: float, seal: Callable[[Reply], S]
    ) -> S | None:
        last = self._last(caller)
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

    def _replayed(self, request: Request, seal: Callable[[Reply], S]) -> S | None:
        """What came out under the key before; from now on it is also what the caller is remembered by."""
        asked = Asked.by(request)
        if asked is None or (keyed := self._keys.get(asked.key)) is None:
            return None
        try:
            if keyed.digest != asked.digest:
                raise KeyReused(
                    f"the idempotency key {request.idempotency_key!r} was used for another request: "
                    "take a new key for each thing that is to be done once"
                )
            sealed = self._table.as_replayed(keyed.reply)
            if request.caller is not None:
                self._keep(self._outcome(request, {}, sealed, None))
        except CounterError as error:
            return seal(Reply.refusing(error))
        return sealed

    def sweep(self, ticks: float, most: int = SWEEP) -> bool:
        """Remove up to *most* expired counters, and forget as many callers and keys of the past at the most.

        Returns whether there was any.
        """
        entries = ((name, self._lookup(name)) for name in self._due)
        expired = (name for name, entry in entries if entry is not None and entry.expired(self.now))
        gone: dict[str, Entry | None] = dict.fromkeys(islice(expired, most))
        if gone:
            self._overlay.update(gone)
            self._size -= len(gone)
            self._outcomes.append(Outcome(self.now, gone))
        late = list(islice(self._table.callers.late(ticks), most))
        for caller in late:
            self._table.callers.forget(caller)
        swept_keys = self._keys.sweep(most)
        return bool(gone or late or swept_keys)

    @property
    def changed(self) -> Collection[str]:
        """The names of counters that this turn changed."""
        return self._overlay.keys()

    def commit(self, append: Append[S]) -> None:
        """Write down what came out, then let everybody see it.

        Raises:
            StoreUnavailable: from *append*; nothing of this turn has happened.
        """
        if self._outcomes:
            append(self._outcomes)
        for name, entry in sorted(self._overlay.items(), key=_revision_after) if self._overlay else ():
            self._merge(name, entry)
        for caller, record in self._callers.items():
            self._table.callers.remember(caller, record)
        self._keys.merge()

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
        if mutates:
            try:
                self._keep(self._outcome(request, draft, sealed, Asked.by(request)))
            except LimitExceeded as error:
                return seal(Reply.refusing(error))
        self._overlay.update(draft)
        self._size = size
        return sealed

    def _outcome(
        self, request: Request, changed: dict[str, Entry | None], sealed: S, asked: Asked | None
    ) -> Outcome[S]:
        caller = request.caller
        if caller is None and asked is None:
            return Outcome(self.now, changed)  # nobody to be remembered
        last = None if caller is None else self._last(caller)
        latest = request.deadline if last is None else max(request.deadline, last.deadline)
        key, digest = asked or (None, b"")
        return Outcome(self.now, changed, sealed, caller, request.seq, latest, key, digest)

    def _keep(self, outcome: Outcome[S]) -> None:
        """Have *outcome* written down, and remember what it tells of who asked.

        Raises:
            LimitExceeded: there is no room for that; nothing was done.
        """
        reply, caller = outcome.reply, outcome.caller
        record, growth = None, 0
        if reply is not None and caller is not None:
            record = Caller(outcome.seq, outcome.deadline, reply)
            callers = self._table.callers
            growth = callers.cost(record) - callers.cost(self._last(caller))
            if growth > 0 and callers.bytes + self._caller_bytes + growth > MAX_BYTES:
                raise LimitExceeded(
                    "the answers kept for callers that may repeat a request fill the room there is for them: "
                    "nothing was done; repeat it in some seconds"
                )
        if reply is not None and outcome.key is not None:
            self._keys.add(outcome.key, Keyed(outcome.digest, outcome.at, reply))
        if record is not None and caller is not None:
            self._callers[caller] = record
            self._caller_bytes += growth
        if reply is not None or outcome.changed:
            self._outcomes.append(outcome)

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
        after, result = transition(before, op, self.now, self._table.versions.next())
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
        last = table.entries.get(name)
        before = 0 if last is None else revision(last)
        if entry is None:
            if last is not None:
                del table.entries[name]
                table.names.remove(name)
                table.ends.drop(name)
                table.history.removed(name, table.versions.next_revision(), before)
            return
        if last is None:
            table.names.add(name)
        table.history.changed(name, revision(entry), before)
        table.entries[name] = entry
        if entry.expires_at is not None:
            table.ends.put(name, ceil(entry.expires_at.timestamp()))
        elif len(table.ends):
            table.ends.drop(name)
