"""Redis, or Valkey, with its append-only file, and redis-py with hiredis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import Client, Target
from benchmarks.peers import Peer
from benchmarks.peers.process import serving

EVERYSEC = "redis-py"
ALWAYS = "redis-py, AOF always"


def connect(path: str) -> Client:
    """A client of the server that listens on the socket at *path*; its threads share a pool."""
    import redis

    client: Any = redis.Redis(unix_socket_path=path)

    def update(names: Sequence[str]) -> object:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.incr(name)
        return pipeline.execute()

    return Client(client.incr, lambda name: int(client.get(name) or 0), update, client.close)


def everysec(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """What was answered is with the kernel, on the disk a second later."""
    return _server("redis-server", "everysec", EVERYSEC, folder)


def always(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """What was answered is on the disk."""
    return _server("redis-server", "always", ALWAYS, folder)


def valkey_everysec(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """As `everysec`."""
    return _server("valkey-server", "everysec", "redis-py on Valkey", folder)


def valkey_always(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """As `always`."""
    return _server("valkey-server", "always", "redis-py on Valkey, AOF always", folder)


@contextlib.contextmanager
def _server(program: str, fsync: str, subject: str, folder: Path) -> Iterator[Peer]:
    data = folder / f"{program}-{fsync}"
    data.mkdir()
    path = folder / f"{program[:3]}-{fsync}.sock"
    settings = {"port": "0", "unixsocket": str(path), "dir": str(data), "save": "", "daemonize": "no"}
    settings |= {"appendonly": "yes", "appendfsync": fsync}
    command = [program, *(word for name, value in settings.items() for word in (f"--{name}", value))]
    with serving(command, path) as pid:
        yield Peer(subject, Target(connect, str(path)), [pid])
