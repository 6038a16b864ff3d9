"""Idempotency keys: what came out under each, for so long, for so many, and in so many bytes.

Keys stand in the order of their times, so what is forgotten is always the oldest. A key is forgotten after
`KEPT`, or earlier when a new one needs its room, but never before `SURE`: a client that repeats a request by
itself does so within seconds. Forgetting is no outcome; what was replayed is trimmed by the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

import msgspec

from .errors import LimitExceeded
from .ops import Request
from .state import Keyed

S = TypeVar("S")

KEPT = timedelta(hours=24)
"""A key is forgotten when it is so old."""
SURE = timedelta(seconds=60)
"""A key that is younger is never forgotten."""
MAX_KEYS = 100_000
MAX_BYTES = 64 * 1024 * 1024
"""Most bytes of keys: of each its own length, that of its sealed reply, and `OVERHEAD`."""
OVERHEAD = 400
"""Bytes that a key takes besides: 300 were measured, and dicts grow in steps."""

_encoder = msgspec.msgpack.Encoder()


class Asked(NamedTuple):
    """A key in its scope, and what of: equal digests are requests that mean the same."""

    key: str
    digest: bytes

    @classmethod
    def by(cls, request: Request) -> Asked | None:
        """What *request* asks under its key; None if it has none."""
        if request.idempotency_key is None:
            return None
        # Neither default fields nor how a client wrote the ops come into the encoding.
        content = _encoder.encode((request.ops, request.atomic))
        key = f"{request.scope}\n{request.idempotency_key}"
        return cls(key, blake2b(content, digest_size=16).digest())


class Keys(Generic[S]):
    """The keys of a table. *size_of* tells the bytes of a sealed reply."""

    def __init__(self, size_of: Callable[[S], int], items: dict[str, Keyed[S]] | None = None) -> None:
        self.size_of = size_of
        self.items: dict[str, Keyed[S]] = {} if items is None else items
        self.bytes = sum(self.cost(key, keyed) for key, keyed in self.items.items())

    def __len__(self) -> int:
        return len(self.items)

    def cost(self, key: str, keyed: Keyed[S]) -> int:
        """The bytes that *key* counts for."""
        return len(key) + self.size_of(keyed.reply) + OVERHEAD

    def put(self, key: str, keyed: Keyed[S]) -> None:
        """Keep *keyed*, the newest of all, under *key*."""
        self.drop(key)
        self.items[key] = keyed
        self.bytes += self.cost(key, keyed)

    def drop(self, key: str) -> None:
        """Forget *key*, if it is there."""
        keyed = self.items.pop(key, None)
        if keyed is not None:
            self.bytes -= self.cost(key, keyed)

    def trim(self, now: datetime) -> None:
        """Forget what is too old at *now*, and the oldest of what is too much."""
        overlay = KeysOverlay(self, now)
        overlay.sweep(len(self))
        overlay.make_room(0, 0)
        overlay.merge()


class KeysOverlay(Generic[S]):
    """What a turn at *now* makes of the keys, unseen by others until it is merged."""

    def __init__(self, keys: Keys[S], now: datetime) -> None:
        self._keys, self._now = keys, now
        self._added: dict[str, Keyed[S]] = {}
        self._gone: set[str] = set()
        self._bytes = 0  # more than in *keys*, or fewer
        self._oldest: Iterator[str] | None = None  # begun when it is needed: then the turn has the lock
        self._next: list[str] = []  # taken from there and still kept, the oldest last

    def get(self, key: str) -> Keyed[S] | None:
        """What is kept under *key*."""
        if (keyed := self._added.get(key)) is not None:
            return keyed
        keyed = self._keys.items.get(key)
        return None if keyed is None or key in self._gone or self._is_over(keyed) else keyed

    def add(self, key: str, keyed: Keyed[S]) -> None:
        """Keep *keyed* under *key*, which is not there, and forget as many of the oldest as that takes.

        Raises:
            LimitExceeded: they are too young to be forgotten; nothing changed.
        """
        cost = self._keys.cost(key, keyed)
        if not self.make_room(1, cost):
            raise LimitExceeded(
                "the idempotency keys of the last minute fill the room there is for keys: nothing was done; "
                "repeat it in a minute"
            )
        self._added[key] = keyed
        self._bytes += cost

    def make_room(self, more: int, cost: int) -> bool:
        """Forget the oldest until *more* keys of *cost* bytes fit in, or none of them if that cannot be."""
        keys, freed = self._keys, 0
        going: list[str] = []
        least = len(keys) - len(self._gone) + len(self._added) + more - MAX_KEYS
        spare = keys.bytes + self._bytes + cost - MAX_BYTES
        while len(going) < least or freed < spare:
            key = self._take_oldest()
            if key is None or keys.items[key].at > self._now - SURE:
                self._next += [key] if key is not None else []
                break
            going.append(key)
            freed += keys.cost(key, keys.items[key])
        else:
            for key in going:
                self._forget(key)
            return True
        self._next += reversed(going)
        return False

    def sweep(self, most: int) -> bool:
        """Forget up to *most* keys that are too old; whether there was any."""
        swept = 0
        while swept < most and (key := self._take_oldest()) is not None:
            if not self._is_over(self._keys.items[key]):
                self._next.append(key)
                break
            self._forget(key)
            swept += 1
        return swept > 0

    def merge(self) -> None:
        """Let the keys be so."""
        for key in self._gone:
            self._keys.drop(key)
        for key, keyed in self._added.items():
            self._keys.put(key, keyed)

    def _is_over(self, keyed: Keyed[S]) -> bool:
        return keyed.at <= self._now - KEPT

    def _forget(self, key: str) -> None:
        self._gone.add(key)
        self._bytes -= self._keys.cost(key, self._keys.items[key])

    def _take_oldest(self) -> str | None:
        """The oldest key that is still kept; give it back to `_next` if it stays."""
        if self._next:
            return self._next.pop()
        if self._oldest is None:
            self._oldest = iter(self._keys.items)
        return next(self._oldest, None)
