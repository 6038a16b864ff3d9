"""The standard library's managers: an object with its own lock, and the usual dict and lock side by side.

``python -m benchmarks.peers.stock SOCKET`` serves both, until it is ended.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from multiprocessing import managers
from pathlib import Path
from typing import Any

from benchmarks.load import Client
from benchmarks.peers import Peer
from benchmarks.peers.process import python_peer

OBJECT = "stock manager"
DICT = "dict + Lock"
AUTHKEY = b"benchmark"


class Counts:
    """Numbers that one thread at a time changes."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}
        self._lock = threading.Lock()

    def increment(self, name: str) -> int:
        """Add 1 to the number *name* and return it."""
        with self._lock:
            value = self._values[name] = self._values.get(name, 0) + 1
            return value

    def get(self, name: str) -> int:
        """The number *name*."""
        with self._lock:
            return self._values.get(name, 0)


class Shared(managers.BaseManager):
    """What both sides know: the names of the objects."""


def _register() -> None:
    counts, numbers, lock = Counts(), dict[str, int](), threading.Lock()
    Shared.register("counts", callable=lambda: counts, exposed=("increment", "get"))
    Shared.register("numbers", callable=lambda: numbers, proxytype=managers.DictProxy)
    proxy = managers.AcquirerProxy  # type: ignore[attr-defined]  # typeshed leaves it out
    Shared.register("lock", callable=lambda: lock, proxytype=proxy)


def _connected(path: str) -> Any:  # noqa: ANN401  `register` makes methods that mypy does not see
    _register()
    manager = Shared(path, AUTHKEY)
    manager.connect()
    return manager


def connect_object(path: str) -> Client:
    """A client of the object, which counts in one call."""
    counts = _connected(path).counts()
    return Client(counts.increment, counts.get)


def connect_dict(path: str) -> Client:
    """A client of the dict, which takes the lock, reads, writes, and gives the lock back."""
    manager = _connected(path)
    numbers, lock = manager.numbers(), manager.lock()

    def increment(name: str) -> int:
        with lock:
            value: int = numbers.get(name, 0) + 1
            numbers[name] = value
            return value

    return Client(increment, lambda name: numbers.get(name, 0))


def stock_object(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """The object with its own lock."""
    return python_peer(OBJECT, __name__, connect_object, folder / "object.sock")


def stock_dict(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """The dict and the lock."""
    return python_peer(DICT, __name__, connect_dict, folder / "dict.sock")


if __name__ == "__main__":
    _register()
    Shared(sys.argv[1], AUTHKEY).get_server().serve_forever()
