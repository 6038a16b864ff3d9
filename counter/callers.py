"""Who asked last: of each caller its last request and the reply, so that a repeated one is answered alike."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Sized
from math import ceil, floor
from typing import Generic, TypeVar

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

    def remember(self, caller: bytes, record: Caller[S]) -> None:
        """Keep *record* of *caller* until its deadline."""
        self.bytes += self.cost(record) - self.cost(self._records.get(caller))
        self._records[caller] = record
        self.ends.put(caller, ceil(record.deadline))

    def forget(self, caller: bytes) -> None:
        """Drop the record of *caller*, which there is."""
        self.bytes -= self.cost(self._records.pop(caller))
        self.ends.drop(caller)

    def late(self, ticks: float) -> Iterator[bytes]:
        """Those whose deadlines have passed at *ticks*; take them before one is forgotten."""
        return self.ends.due(floor(ticks))

    def cost(self, record: Caller[S] | None) -> int:
        """The bytes that *record* counts for."""
        return 0 if record is None else self._size_of(record.reply) + OVERHEAD
