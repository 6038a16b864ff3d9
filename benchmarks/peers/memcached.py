"""memcached, which keeps nothing on disk, and pymemcache."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.load import Client, Target
from benchmarks.peers import Peer
from benchmarks.peers.process import serving

SUBJECT = "pymemcache"


def connect(path: str) -> Client:
    """A client with one connection, for one thread."""
    from pymemcache.client.base import Client as Memcache  # type: ignore[import-untyped]  # has no type hints

    return _client(Memcache(f"unix:{path}"))


def connect_shared(path: str) -> Client:
    """A client that threads share."""
    from pymemcache.client.base import PooledClient

    return _client(PooledClient(f"unix:{path}"))


def _client(client: Any) -> Client:  # noqa: ANN401  two classes without a common one
    def increment(name: str) -> int:
        value: int | None = client.incr(name, 1)
        while value is None:  # it increments only what is there
            client.add(name, "0", noreply=False)
            value = client.incr(name, 1)
        return value

    return Client(increment, lambda name: int(client.get(name) or 0), close=client.close)


@contextlib.contextmanager
def memcached(folder: Path) -> Iterator[Peer]:
    """The server with its defaults, on a socket in *folder*."""
    path = folder / "memcached.sock"
    with serving(["memcached", "-s", str(path), "-u", getpass.getuser()], path) as pid:
        yield Peer(SUBJECT, Target(connect, str(path)), [pid], Target(connect_shared, str(path)))
