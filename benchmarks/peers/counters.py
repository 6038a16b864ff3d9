"""Our own manager, as `counter manager` starts it, and the library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import Target, ours
from benchmarks.managers import manager
from benchmarks.peers import Peer
from benchmarks.row import OURS


@contextlib.contextmanager
def everysec(folder: Path) -> Iterator[Peer]:
    """With the default durability."""
    with manager(folder / "counter", "everysec") as running:
        yield Peer(OURS, Target(ours, running.url), [running.pid])


@contextlib.contextmanager
def always(folder: Path) -> Iterator[Peer]:
    """What is answered is on the disk."""
    with manager(folder / "counter", "always") as running:
        yield Peer(OURS, Target(ours, running.url), [running.pid])
