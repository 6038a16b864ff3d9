"""Names in order, so that a page of a listing costs what the page holds, however many counters there are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

_CHUNK = 1000


class SortedNames:
    """A sorted set of names in short sorted lists: adding one moves a few kilobytes at most."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        wanted = sorted(names)  # each once
        self._chunks = [wanted[at : at + _CHUNK] for at in range(0, len(wanted), _CHUNK)]
        self._lasts = [chunk[-1] for chunk in self._chunks]  # or, later, one that was the last

    def add(self, name: str) -> None:
        """Put *name*, which is not there, in its place."""
        if not self._chunks:
            self._chunks.append([name])
            self._lasts.append(name)
            return
        at = min(bisect_left(self._lasts, name), len(self._lasts) - 1)
        chunk = self._chunks[at]
        insort(chunk, name)
        if len(chunk) > 2 * _CHUNK:
            self._chunks[at : at + 1] = [chunk[:_CHUNK], chunk[_CHUNK:]]
            self._lasts.insert(at, chunk[_CHUNK - 1])
            at += 1
        self._lasts[at] = self._chunks[at][-1]

    def remove(self, name: str) -> None:
        """Take *name*, which is there, out."""
        at = bisect_left(self._lasts, name)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, name)]
        if not chunk:
            del self._chunks[at], self._lasts[at]

    def after(self, name: str, inclusive: bool = False) -> Iterator[str]:
        """The names above *name* (*inclusive*: and itself), in order; take them before the set changes."""
        bisect = bisect_left if inclusive else bisect_right
        first = bisect(self._lasts, name)
        for at in range(first, len(self._chunks)):
            chunk = self._chunks[at]
            yield from chunk[bisect(chunk, name) :] if at == first else chunk
