"""A peer's server process: started, waited for until it listens, and ended."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.load import Client, Target
from benchmarks.peers import Missing, Peer

PATIENCE = 30.0


@contextlib.contextmanager
def serving(command: Sequence[str], path: Path) -> Iterator[int]:
    """The pid of *command*, which listens on the socket at *path* until the end of the block.

    Raises:
        Missing: there is no such command here.
        RuntimeError: it did not listen.
    """
    if shutil.which(command[0]) is None:
        raise Missing(f"{command[0]} is not installed")
    with path.with_suffix(".log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603  our own command, and no shell
        try:
            end = time.monotonic() + PATIENCE
            while not _listens(path):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} does not listen: {log.read()}")
                time.sleep(0.01)
            yield process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            process.wait()


@contextlib.contextmanager
def python_peer(subject: str, module: str, connect: Callable[[str], Client], path: Path) -> Iterator[Peer]:
    """*subject*, which ``python -m MODULE SOCKET`` serves on *path*, and to which *connect* makes clients."""
    with serving([sys.executable, "-m", module, str(path)], path) as pid:
        yield Peer(subject, Target(connect, str(path)), [pid])


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
