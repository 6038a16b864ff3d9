"""diskcache, a cache in SQLite with `incr`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.load import Client, Target
from benchmarks.peers import Peer

SUBJECT = "diskcache"


def connect(path: str) -> Client:
    """A client with a connection for each thread."""
    import diskcache  # type: ignore[import-untyped]  # has no type hints

    cache: Any = diskcache.Cache(path)
    return Client(cache.incr, lambda name: int(cache.get(name, 0)), close=cache.close)


@contextlib.contextmanager
def disk_cache(folder: Path) -> Iterator[Peer]:
    """A cache with its defaults, in *folder*."""
    yield Peer(SUBJECT, Target(connect, str(folder / "diskcache")))
