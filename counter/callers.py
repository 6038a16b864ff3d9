"""Who asked last: of each caller its last request and the reply, so that a repeated one is answered alike."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Sized
from math import ceil, floor
from typing import Generic, TypeVar

from .errors import LimitExceeded
from .schedule import Schedule
from .state import Caller

S = TypeVar("S", bound=Sized)
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
        self._size_of = size_of
        self._records: dict[bytes, Caller[S]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def items(self) -> ItemsView[bytes, Caller[S]]:
        """The callers with their records."""
        return self._records.items()

    def get(self, caller: bytes) -> Caller[S] | None:
        """The record of *caller*, None if there is none."""
        return self._records.get(caller)

    def remember(self, records: dict[bytes, Caller[S]], growth: int) -> None:
        """Keep *records*, of callers, until their deadlines; they count for *growth* bytes more."""
        self.bytes += growth
        self._records.update(records)
        put = self.ends.put
        for caller, record in records.items():
            put(caller, ceil(record.deadline))

    def forget(self, caller: bytes) -> None:
        """Drop the record of *caller*, which there is."""
        self.bytes -= self._size_of(self._records.pop(caller).reply) + OVERHEAD
        self.ends.drop(caller)

    def late(self, ticks: float) -> Iterator[bytes]:
        """Those whose deadlines have passed at *ticks*; take them before one is forgotten."""
        return self.ends.due(floor(ticks))

    def growth(self, before: Caller[S] | None, after: Caller[S]) -> int:
        """How many bytes more *after* counts for than *before* did."""
        if before is None:
            return self._size_of(after.reply) + OVERHEAD
        return self._size_of(after.reply) - self._size_of(before.reply)


class CallersOverlay(Generic[S]):
    """What a turn makes of *callers*, unseen by others until it is merged."""

    def __init__(self, callers: Callers[S]) -> None:
        self._callers = callers
        self._records: dict[bytes, Caller[S]] = {}
        self._growth = 0

    def last(self, caller: bytes) -> Caller[S] | None:
        """The record of *caller*, None if there is none."""
        return self._records.get(caller) or self._callers.get(caller)

    def made(self, caller: bytes, seq: int, deadline: float, reply: S) -> tuple[Caller[S], int]:
        """The record of *caller* now that it is told *reply*, and how many bytes more it counts for.

        Its deadline is the latest that *caller* gave.

        Raises:
            LimitExceeded: there is no room for it.
        """
        callers, last = self._callers, self.last(caller)
        record = Caller(seq, deadline if last is None else max(deadline, last.deadline), reply)
        growth = callers.growth(last, record)
        if growth > 0 and callers.bytes + self._growth + growth > MAX_BYTES:
            raise LimitExceeded(
                "the answers kept for callers that may repeat a request fill the room there is for them: "
                "nothing was done; repeat it in some seconds"
            )
        return record, growth

    def add(self, caller: bytes, record: Caller[S], growth: int) -> None:
        """Keep what was `made`."""
        self._records[caller] = record
        self._growth += growth

    def merge(self) -> None:
        """Let the callers be so."""
        if self._records:
            self._callers.remember(self._records, self._growth)
