"""What the counters are compared with: each module starts one, and is its client as its own docs show it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Target


class Missing(Exception):
    """A subject that cannot be compared, and why."""


class Peer(NamedTuple):
    """A subject that is up: where its clients count, and the processes that serve them."""

    subject: str
    target: Target
    pids: Sequence[int] = ()
    shared: Target | None = None
    """What threads of a process share, if that is not what `target` connects to."""


Start = Callable[[Path], AbstractContextManager[Peer]]
"""Starts a subject, whose files are in that folder, until the end of the block."""


@contextlib.contextmanager
def started(starts: Sequence[Start], folder: Path) -> Iterator[tuple[list[Peer], list[str]]]:
    """All subjects that there are here, and a note on each of the others, until the end of the block."""
    peers, notes = [], []
    with contextlib.ExitStack() as stack:
        for start in starts:
            try:
                peers.append(stack.enter_context(start(folder)))
            except Missing as error:
                notes.append(f"{error}: not compared")
        yield peers, notes
