"""The counters of one run and the turn that changes them: a dict behind a lock, and an overlay above it.

A turn executes any number of requests on its overlay. `commit` hands what came out to *append*, which writes
it down, and only then merges it: if append fails, nothing of the turn has happened. Pure: time, the form of
a sealed answer and the place to append to are arguments.

A request that its caller repeats, or that has an idempotency key used before, is answered with what came out
then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from itertools import islice
from math import ceil, floor
from types import TracebackType
from typing import Generic, TypeVar

from msgspec.structs import force_setattr

from .callers import LONGEST_DEADLINE, OVERHEAD, Callers, CallersOverlay
from .errors import CounterError, InvalidRequest, KeyReused, LimitExceeded, OutcomeUnknown
from .history import History
from .keys import Asked, Keys, KeysOverlay
from .names import SortedNames
from .ops import AnyOp, CounterOp, Request
from .results import Entry, Problem, Reply, Result
from .schedule import Schedule
from .state import Caller, Keyed, Outcome, State
from .transition import transition
from .versions import Versions

S = TypeVar("S")
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
        size_of: the bytes of a sealed reply, about; left out, none are counted.
    """

    def __init__(
        self,
        run: str,
        max_counters: int,
        as_replayed: Callable[[S], S] = lambda sealed: sealed,
        size_of: Callable[[S], int] = lambda sealed: 0,
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
                self.callers.remember({caller: last}, self.size_of(last.reply) + OVERHEAD)
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


class Turn(Generic[S]):
    """What some requests make of a table: seen by those after them in the turn, by all others once merged.

    `reply` is what the last `execute` sealed; None if its answer was given before.
    """

    def __init__(self, table: CounterTable[S], now: datetime) -> None:
        self.now = now
        self.reply: Reply | None = None
        self._table = table
        self._overlay: dict[str, Entry | None] = {}
        self._callers = CallersOverlay(table.callers)
        self._keys: KeysOverlay[S] | None = None  # made when it is needed: few requests have a key
        self._outcomes: list[Outcome[S]] = []
        self._size = 0  # of the table with the overlay; known once the lock is held
        self._due: Iterator[str] | None = None  # begun by the first sweep: each is come to once in a turn
        self._mutates = False  # the request at hand; and who asks was told this last:
        self._last: Caller[S] | None = None

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
        return self._decided(request, seal) if settled is None else settled

    def settled(self, request: Request, ticks: float, seal: Callable[[Reply], S]) -> S | None:
        """The answer to a request that is not to be decided: it was before, or is too late; None if it is."""
        self.reply = None
        caller = request.caller
        self._mutates = request.mutates
        if caller is not None and self._mutates:
            self._last = last = self._callers.last(caller)
            in_time = ticks < request.deadline <= ticks + LONGEST_DEADLINE
            if not in_time or (last is not None and request.seq <= last.seq):
                return self._repeated_or_late(request, last, ticks, seal)
        return None if request.idempotency_key is None else self._replayed(request, seal)

    def _repeated_or_late(
        self, request: Request, last: Caller[S] | None, ticks: float, seal: Callable[[Reply], S]
    ) -> S:
        if last is not None and request.seq == last.seq:
            return last.reply
        error: CounterError
        if last is not None and request.seq < last.seq:
            error = InvalidRequest(f"seq goes up: {request.seq} comes after {last.seq}")
        elif request.deadline <= ticks:
            error = OutcomeUnknown("came after its deadline and was not executed now")
        else:
            error = InvalidRequest(f"a deadline is at most {LONGEST_DEADLINE:.0f} s away")
        return self._refused(error, seal)

    def _replayed(self, request: Request, seal: Callable[[Reply], S]) -> S | None:
        """What came out under the key before; from now on it is also what the caller is remembered by."""
        asked = Asked.by(request)
        if asked is None or (keyed := self._keys_overlay().get(asked.key)) is None:
            return None
        try:
            if keyed.digest != asked.digest:
                raise KeyReused(
                    f"the idempotency key {request.idempotency_key!r} was used for another request: "
                    "take a new key for each thing that is to be done once"
                )
            sealed = self._table.as_replayed(keyed.reply)
            if request.caller is not None:
                self._keep(request, {}, sealed, None)
        except CounterError as error:
            return self._refused(error, seal)
        return sealed

    def _refused(self, error: CounterError, seal: Callable[[Reply], S]) -> S:
        self.reply = refusal = Reply.refusing(error)
        return seal(refusal)

    def sweep(self, ticks: float, most: int = SWEEP) -> bool:
        """Remove up to *most* expired counters, and forget as many callers and keys of the past at the most.

        Returns whether there was any.
        """
        if self._due is None:
            self._due = self._table.ends.due(floor(self.now.timestamp()))
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
        swept_keys = self._keys_overlay().sweep(most)
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
        for name in self._merge():
            self._remove(name)
        self._callers.merge()
        if self._keys is not None:
            self._keys.merge()

    def _decided(self, request: Request, seal: Callable[[Reply], S]) -> S:
        ops, size, mutates = request.ops, self._size, self._mutates
        if mutates and size + len(ops) > self._table.max_counters:
            self.sweep(0.0, len(ops))
            size = self._size
        draft: dict[str, Entry | None] = {}
        try:
            alone = len(ops) == 1 and request.atomic
            reply = Reply([self._apply(ops[0], draft)] if alone else self._apply_each(request, draft))
            sealed = seal(reply)
        except CounterError as error:  # all or nothing: the draft is dropped
            draft, self._size = {}, size
            reply = Reply.refusing(error)
            sealed = seal(reply)
        if mutates:
            try:
                self._keep(request, draft, sealed, Asked.by(request) if request.idempotency_key else None)
            except LimitExceeded as error:
                self._size = size
                return self._refused(error, seal)
        self.reply = reply
        overlay = self._overlay
        for name, entry in draft.items():
            overlay.pop(name, None)  # the order is that of the latest changes
            overlay[name] = entry
        return sealed

    def _keep(
        self, request: Request, changed: dict[str, Entry | None], sealed: S, asked: Asked | None
    ) -> None:
        """Have what came out written down, and remember what it tells of who asked.

        Raises:
            LimitExceeded: there is no room for that; nothing was done.
        """
        caller, last, deadline = request.caller, self._last, request.deadline
        if asked is None:
            if caller is not None:
                deadline = self._callers.add(caller, last, request.seq, deadline, sealed)
                self._outcomes.append(Outcome(self.now, changed, sealed, caller, request.seq, deadline))
            elif changed:  # nobody is to be remembered
                self._outcomes.append(Outcome(self.now, changed))
            return
        if caller is not None:
            self._callers.check(self._table.size_of(sealed) + OVERHEAD)  # or more than it takes
        self._keys_overlay().add(asked.key, Keyed(asked.digest, self.now, sealed))
        if caller is not None:
            deadline = self._callers.add(caller, last, request.seq, deadline, sealed)
        self._outcomes.append(Outcome(self.now, changed, sealed, caller, request.seq, deadline, *asked))

    def _apply_each(self, request: Request, draft: dict[str, Entry | None]) -> list[Result]:
        results: list[Result] = []
        for index, op in enumerate(request.ops):
            try:
                results.append(self._apply(op, draft))
            except CounterError as error:
                if request.atomic:
                    error.index = index
                    raise
                results.append(Problem.of(error))
        return results

    def _apply(self, each: AnyOp, draft: dict[str, Entry | None]) -> Result:
        if not each.on_counter:
            raise InvalidRequest("this op is not one on a counter")
        op: CounterOp = each  # type: ignore[assignment]  # to ask by its type takes five times as long
        name, table = op.name, self._table
        before = draft[name] if name in draft else self._lookup(name)
        if not op.mutates:
            return transition(before, op, self.now, "")[1]
        after, result = transition(before, op, self.now, table.versions.next())
        if before is None and after is not None:
            if self._size >= table.max_counters:
                most = f"there are {self._size} counters, the most allowed"
                raise LimitExceeded(f"{most}: delete some, or raise --max-counters")
            self._size += 1
        elif after is None and before is not None:
            self._size -= 1
        draft.pop(name, None)  # the order is that of the latest changes
        draft[name] = after
        return result

    def _keys_overlay(self) -> KeysOverlay[S]:
        if self._keys is None:
            self._keys = KeysOverlay(self._table.keys, self.now)
        return self._keys

    def _lookup(self, name: str) -> Entry | None:
        return self._overlay[name] if name in self._overlay else self._table.entries.get(name)

    def _merge(self) -> list[str]:
        """Put what was written into the table, in the order of its revisions; the names that are gone."""
        table, entries, gone = self._table, self._table.entries, []
        revision, changed = table.versions.revision, table.history.changed
        for name, entry in self._overlay.items():
            if entry is None:
                gone.append(name)
                continue
            last = entries.get(name)
            if last is None:
                table.names.add(name)
            changed(name, revision(entry), 0 if last is None else revision(last))
            entries[name] = entry
            if entry.expires_at is not None:
                table.ends.put(name, ceil(entry.expires_at.timestamp()))
            elif last is not None and last.expires_at is not None:
                table.ends.drop(name)
        return gone

    def _remove(self, name: str) -> None:
        table = self._table
        last = table.entries.pop(name, None)
        if last is None:
            return
        table.names.remove(name)
        table.ends.drop(name)
        table.history.removed(name, table.versions.next_revision(), table.versions.revision(last))
