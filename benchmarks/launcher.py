"""A manager that watches its own loop, and makes a snapshot when the file `WANTED` appears in its home.

``python -m benchmarks.launcher HOME DURABILITY FILE`` starts it. When it ends it writes to FILE each time
that the loop was busy for longer than `WORTH_TELLING`. Linux tells how long the thread was ready to run and
had no CPU, and its own clock how long it ran; in what is left it waited for the disk or for another thread.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from counter import keeper
from counter.manager import serve
from counter.server import ManagerServer
from counter.settings import ManagerOptions

WANTED = "snapshot-wanted"
WORTH_TELLING = 0.001


class Stall(NamedTuple):
    """A time, from *begin* on the monotonic clock, in which the loop did one thing; in seconds.

    Of *wall* it was *running*, and for *queued* it was ready to run and had no CPU. *waking*: it had work to
    do, waited for a CPU before it began, and that is all.
    """

    begin: float
    wall: float
    running: float
    queued: float
    waking: bool

    @property
    def blocked(self) -> float:
        """How long it waited for the disk, or for another thread of its process."""
        return max(0.0, self.wall - self.running - self.queued)

    @property
    def own(self) -> float:
        """How long it was, without the time for which others had the CPU."""
        return max(0.0, self.wall - self.queued)


class Watch:
    """Takes the place of `ManagerServer._work`, in the thread that makes it."""

    def __init__(self) -> None:
        self.stalls: list[Stall] = []
        self._work = ManagerServer._work
        self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self._ended = float("inf")  # what came before the loop is no stall

    def work(self, server: ManagerServer) -> None:
        """Do what is to be done, and look how long it took."""
        begin, queued, running = time.monotonic(), self._queued(), time.thread_time()
        waited = queued - self._ended
        if waited >= WORTH_TELLING:
            self.stalls.append(Stall(begin - waited, waited, 0.0, waited, True))
        self._work(server)
        wall = time.monotonic() - begin
        self._ended = self._queued()
        if wall >= WORTH_TELLING:
            running = time.thread_time() - running
            self.stalls.append(Stall(begin, wall, running, self._ended - queued, False))

    def _queued(self) -> float:
        return int(os.pread(self._schedule, 100, 0).split()[1]) / 1e9


def main(home: Path, durability: str, file: Path) -> int:
    """Run it until it is told to end; the exit code."""
    watch = Watch()
    _replace(ManagerServer, "_work", lambda server: watch.work(server))
    _replace(keeper, "outgrown", lambda _: _wanted(home / WANTED))
    code = serve(ManagerOptions(home, durability), lambda: print("ready", flush=True))  # noqa: T201
    file.write_text(json.dumps(watch.stalls))
    return code


def _replace(owner: object, name: str, stand_in: object) -> None:
    getattr(owner, name)  # where it has another name by now, this is an error and no benchmark of nothing
    setattr(owner, name, stand_in)


def _wanted(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
