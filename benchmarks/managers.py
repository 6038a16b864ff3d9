"""Managers in processes of their own, and what they cost."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

PATIENCE = 300.0
"""Seconds until a manager that has not come to its end when asked is killed."""


class Manager:
    """A manager that is ready in the folder *home*; *ready_seconds* is how long that took."""

    def __init__(self, home: Path, process: subprocess.Popen[str], ready_seconds: float) -> None:
        self.home = home
        self.pid = process.pid
        self.ready_seconds = ready_seconds
        self._process = process

    @property
    def url(self) -> str:
        """What a client connects to."""
        return "counter://" + quote(str(self.home))

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        return cpu_seconds(self.pid)

    @property
    def memory(self) -> int:
        """Bytes that are resident."""
        return memory(self.pid)

    @property
    def peak_memory(self) -> int:
        """Most bytes that ever were."""
        return _status(self.pid, "VmHWM")

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        return _errors(self.home).read_text()


@contextlib.contextmanager
def manager(home: Path, durability: str, command: Sequence[str] = ()) -> Iterator[Manager]:
    """A manager in *home*, until the end of the block.

    *command* is the end of a Python command that starts another one than `counter manager` does.
    """
    ours = ("-m", "counter", "manager", "--home", str(home), "--durability", durability)
    with _errors(home).open("w+") as errors:
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  our own command, and no shell
            [sys.executable, *(command or ours)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert process.stdout is not None  # noqa: S101  for mypy: it is a pipe
            with process.stdout:
                if not process.stdout.readline().startswith("ready"):
                    errors.seek(0)
                    raise RuntimeError(f"no manager could be started: {errors.read()}")
                yield Manager(home, process, time.monotonic() - began)
                process.terminate()
                process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of the process *pid* so far."""
    clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) makes it on Linux: by the ns, not by the tick
    return time.clock_gettime(clock)


def memory(pid: int) -> int:
    """Bytes of the process *pid* that are resident."""
    return _status(pid, "VmRSS")


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith(field + ":"))
    return int(found) * 1024


def _errors(home: Path) -> Path:
    return home.parent / f"{home.name}.stderr"
