"""Numbers in a file that all processes map into their memory, each increment under the file's lock."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import NAMES, Client, Target
from benchmarks.peers import Peer

SUBJECT = "fcntl + mmap"
_NUMBER = struct.Struct("=q")


def connect(path: str) -> Client:
    """A client for one thread: the lock belongs to the process."""
    file = os.open(path, os.O_RDWR)
    memory = mmap.mmap(file, 0)
    offsets = {name: index * _NUMBER.size for index, name in enumerate(NAMES)}

    def increment(name: str) -> int:
        offset = offsets[name]
        fcntl.lockf(file, fcntl.LOCK_EX)
        value: int = _NUMBER.unpack_from(memory, offset)[0] + 1
        _NUMBER.pack_into(memory, offset, value)
        fcntl.lockf(file, fcntl.LOCK_UN)
        return value

    def get(name: str) -> int:
        value: int = _NUMBER.unpack_from(memory, offsets[name])[0]
        return value

    def close() -> None:
        memory.close()
        os.close(file)

    return Client(increment, get, close=close)


@contextlib.contextmanager
def mapped(folder: Path) -> Iterator[Peer]:
    """A file in *folder*."""
    path = folder / "mapped"
    path.write_bytes(bytes(_NUMBER.size * len(NAMES)))
    yield Peer(SUBJECT, Target(connect, str(path)))
