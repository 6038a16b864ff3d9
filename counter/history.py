"""Which names changed last, in the order of their changes: so a watcher can be told what it has not seen.

Each name that is there has one place, that of its latest change; so has each of the newest that are gone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

MOST_GONE = 100_000
"""How many names that are gone are remembered, the latest."""
_BLOCK = 512


class _Block:
    """Some places in a row; None stands where a name has changed again since."""

    __slots__ = ("live", "names", "revisions")

    def __init__(self) -> None:
        self.revisions = array("q")
        self.names: list[str | None] = []
        self.live = 0

    @classmethod
    def of(cls, first: int, names: list[str]) -> _Block:
        """*names*, which changed one after the other from the revision *first* on."""
        block = cls()
        block.revisions.extend(range(first, first + len(names)))
        block.names += names
        block.live = len(names)
        return block

    def take_from(self, other: _Block) -> None:
        for revision, name in zip(other.revisions, other.names, strict=True):
            if name is not None:
                self.revisions.append(revision)
                self.names.append(name)
        self.live = len(self.names)


class History:
    """Names by the revision of their latest change, in blocks: a change touches two, however many there are.

    Revisions only go up; `newest` is the last one. `forgotten` is the newest one of a name that is gone and
    no longer known: whoever has seen less than that cannot be told what is missing, and begins anew.
    """

    def __init__(self, most_gone: int = MOST_GONE) -> None:
        self.newest = 0
        self.forgotten = 0
        self._most_gone = most_gone
        self._blocks: list[_Block] = []
        self._firsts: list[int] = []  # a revision that no place in the block is below
        self._gone: OrderedDict[str, int] = OrderedDict()

    def fill(self, names: Iterable[str]) -> None:
        """Begin with *names*, which changed in this order, at the revisions from 1 on."""
        left = iter(names)
        while some := list(islice(left, _BLOCK)):  # a million by `_append` would take half a second
            self._blocks.append(_Block.of(self.newest + 1, some))
            self._firsts.append(self.newest + 1)
            self.newest += len(some)

    def changed(self, name: str, revision: int, before: int) -> None:
        """*name* has changed at *revision*, and last *before* that; 0: it was not there."""
        before = before or self._gone.pop(name, 0)
        if before:
            name = self._drop(before) or name
        block = self._blocks[-1] if self._blocks else None
        if block is None or len(block.names) >= _BLOCK:
            block = self._begin(revision)
        block.revisions.append(revision)
        block.names.append(name)
        block.live += 1
        self.newest = revision

    def removed(self, name: str, revision: int, before: int) -> None:
        """*name*, which had changed *before*, is gone since *revision*."""
        self.changed(name, revision, before)
        self._gone[name] = revision
        if len(self._gone) > self._most_gone:
            _, self.forgotten = self._gone.popitem(last=False)
            self._drop(self.forgotten)

    def after(self, revision: int, most: int) -> list[tuple[int, str]]:
        """The next changes above *revision*, in order: *most* places are looked at, or those of a block."""
        found: list[tuple[int, str]] = []
        looked = 0
        for at in range(max(bisect_right(self._firsts, revision) - 1, 0), len(self._blocks)):
            block = self._blocks[at]
            start = bisect_right(block.revisions, revision)
            places = zip(block.revisions[start:], block.names[start:], strict=True)
            found += [(place, name) for place, name in places if name is not None]
            looked += len(block.names) - start
            if looked >= most and found:
                break
        return found

    def _begin(self, first: int) -> _Block:
        """A new block, of which *first* is the first place."""
        self._blocks.append(_Block())
        self._firsts.append(first)
        self._tidy(len(self._blocks) - 2)  # while it was the last, nothing was taken out of it
        return self._blocks[-1]

    def _drop(self, revision: int) -> str | None:
        """Take out what changed at *revision*.

        Its name goes to the next place: the one that a request brings is another str, of 64 bytes and more.
        """
        at = bisect_right(self._firsts, revision) - 1
        block = self._blocks[at]
        names, place = block.names, bisect_right(block.revisions, revision) - 1
        name, names[place] = names[place], None
        block.live = live = block.live - 1
        if live * 4 < _BLOCK and block is not self._blocks[-1]:  # mostly it is not so, and a call less
            self._tidy(at)
        return name

    def _tidy(self, at: int) -> None:
        if 0 <= at < len(self._blocks) - 1 and self._blocks[at].live * 4 < len(self._blocks[at].names):
            self._shrink(at)

    def _shrink(self, at: int) -> None:
        """Rewrite the block at *at* without its gaps, together with the one before if both are small."""
        merged = _Block()
        first = at - 1 if at and self._blocks[at - 1].live + self._blocks[at].live <= _BLOCK // 2 else at
        for block in self._blocks[first : at + 1]:
            merged.take_from(block)
        filled = bool(merged.live)
        self._blocks[first : at + 1] = [merged] * filled
        self._firsts[first : at + 1] = self._firsts[first : first + filled]
