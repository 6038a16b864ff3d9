"""When things end: keys in buckets of one second, so that moving, dropping and finding them is cheap."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Schedule(Generic[K]):
    """Keys by the second at which they end; a key has one end."""

    def __init__(self) -> None:
        self._second_of: dict[K, int] = {}
        self._buckets: dict[int, set[K]] = {}
        self._first = 0  # no key ends earlier

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
        self._first = min(self._first, second)

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
        for each in self._seconds_until(second):
            yield from self.at(each)

    def at(self, second: int) -> Collection[K]:
        """The keys that end at *second*."""
        return self._buckets.get(second, ())

    def count_due(self, second: int) -> int:
        """How many keys end at *second* or earlier."""
        return sum(len(self.at(each)) for each in self._seconds_until(second))

    def _seconds_until(self, second: int) -> list[int]:
        """Those with keys, up to *second*: looked for second by second from the last time on, or in all."""
        since = range(self._first, second + 1)
        if len(since) <= len(self._buckets):
            found = [each for each in since if each in self._buckets]
        else:
            found = [each for each in self._buckets if each <= second]
        self._first = max(self._first, min(found, default=second + 1))
        return found
