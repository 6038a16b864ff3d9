"""Who asked last: of each caller its last request and the reply, so that a repeated one is answered alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, floor
from typing import Generic, TypeVar

from .errors import LimitExceeded
from .schedule import Schedule
from .state import Caller

S = TypeVar("S")
LONGEST_DEADLINE = 3600.0
"""How far ahead a request's deadline may lie, in seconds: callers are remembered until then."""
MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of what callers are remembered by: of each its sealed reply, and `OVERHEAD`."""
OVERHEAD = 400
"""Bytes that a caller takes besides: 300 were measured, and dicts grow in steps."""


class Callers(Generic[S]):
    """Records of callers, until their deadlines; *size_of* tells the bytes of a sealed reply, about."""

    def __init__(self, size_of: Callable[[S], int]) -> None:
        self.bytes = 0
        self.ends: Schedule[bytes] = Schedule()
        self.size_of = size_of
        self.records: dict[bytes, Caller[S]] = {}

    def __len__(self) -> int:
        return len(self.records)

    def remember(self, records: dict[bytes, Caller[S]], growth: int) -> None:
        """Keep *records*, of callers, until their deadlines; they count for *growth* bytes more."""
        self.bytes += growth
        self.records.update(records)
        put = self.ends.put
        for caller, record in records.items():
            put(caller, ceil(record.deadline))

    def forget(self, caller: bytes) -> None:
        """Drop the record of *caller*, which there is."""
        self.bytes -= self.size_of(self.records.pop(caller).reply) + OVERHEAD
        self.ends.drop(caller)

    def late(self, ticks: float) -> Iterator[bytes]:
        """Those whose deadlines have passed at *ticks*; take them before one is forgotten."""
        return self.ends.due(floor(ticks))


class CallersOverlay(Generic[S]):
    """What a turn makes of *callers*, unseen by others until it is merged."""

    def __init__(self, callers: Callers[S]) -> None:
        self._callers = callers
        self._before = callers.records
        self._records: dict[bytes, Caller[S]] = {}
        self._growth = 0

    def last(self, caller: bytes) -> Caller[S] | None:
        """The record of *caller*, None if there is none."""
        return self._records.get(caller) or self._before.get(caller)

    def add(self, caller: bytes, last: Caller[S] | None, seq: int, deadline: float, reply: S) -> float:
        """Keep *reply*, to the request *seq*, in place of *last*; the latest deadline that *caller* gave.

        Raises:
            LimitExceeded: there is no room for it; nothing changed.
        """
        size_of = self._callers.size_of
        growth = size_of(reply) + OVERHEAD if last is None else size_of(reply) - size_of(last.reply)
        if growth > 0:
            self.check(growth)
        if last is not None and last.deadline > deadline:
            deadline = last.deadline
        self._records[caller] = Caller(seq, deadline, reply)
        self._growth += growth
        return deadline

    def check(self, growth: int) -> None:
        """See that there is room for *growth* bytes more.

        Raises:
            LimitExceeded: there is not.
        """
        if self._callers.bytes + self._growth + growth > MAX_BYTES:
            raise LimitExceeded(
                "the answers kept for callers that may repeat a request fill the room there is for them: "
                "nothing was done; repeat it in some seconds"
            )

    def merge(self) -> None:
        """Let the callers be so."""
        if self._records:
            self._callers.remember(self._records, self._growth)
