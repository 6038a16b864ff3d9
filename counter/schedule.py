"""When things end: keys in buckets of one second, so that moving, dropping and finding them is cheap."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Schedule(Generic[K]):
    """Keys by the second at which they end; a key has one end."""

    def __init__(self) -> None:
        self._second_of: dict[K, int] = {}
        self._buckets: dict[int, set[K]] = {}
        self._seconds: list[int] = []  # a heap of every second in _queued, also where the bucket has gone
        self._queued: set[int] = set()

    def __len__(self) -> int:
        return len(self._second_of)

    def put(self, key: K, second: int) -> None:
        """Let *key* end at *second*, wherever it ended before."""
        before = self._second_of.get(key)
        if before == second:
            return
        if before is not None:
            self._leave(key, before)
        self._second_of[key] = second
        self._buckets.setdefault(second, set()).add(key)
        if second not in self._queued:
            self._queued.add(second)
            heapq.heappush(self._seconds, second)

    def drop(self, key: K) -> None:
        """Forget *key*, if it is there."""
        second = self._second_of.pop(key, None)
        if second is not None:
            self._leave(key, second)

    def _leave(self, key: K, second: int) -> None:
        bucket = self._buckets[second]
        bucket.discard(key)
        if not bucket:
            del self._buckets[second]

    def due(self, second: int) -> Iterator[K]:
        """The keys that end at *second* or earlier; they stay. Take them before the schedule changes."""
        while self._seconds and self._seconds[0] <= second and self._seconds[0] not in self._buckets:
            self._queued.discard(heapq.heappop(self._seconds))
        for each in self._seconds_until(second):
            yield from self.at(each)

    def at(self, second: int) -> Collection[K]:
        """The keys that end at *second*."""
        return self._buckets.get(second, ())

    def count_due(self, second: int) -> int:
        """How many keys end at *second* or earlier."""
        return sum(len(self.at(each)) for each in self._seconds_until(second))

    def _seconds_until(self, second: int) -> Iterator[int]:
        places = [0]
        while places:  # down the heap, only where it can still hold a due second
            place = places.pop()
            if place < len(self._seconds) and self._seconds[place] <= second:
                yield self._seconds[place]
                places += (2 * place + 1, 2 * place + 2)
