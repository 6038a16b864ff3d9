"""A WSGI server in processes of its own, and what they cost."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.managers import cpu_seconds

ROOT = Path(__file__).parents[2]
WORKERS = 2
HOST = "127.0.0.1"
PATIENCE = 60.0


class Server:
    """A server that answers on *port* of the loopback interface."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        children = psutil.Process(pid).children(recursive=True)
        self.pids = [pid, *(child.pid for child in children)]

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return sum(map(cpu_seconds, self.pids))


Command = Callable[[int], Sequence[str]]
"""The command that serves on a port."""


@contextlib.contextmanager
def server(
    command: Command,
    probe: str,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> Iterator[Server]:
    """What *command* starts, until the end of the block; it is ready once GET *probe* is answered 200.

    It logs into *folder*; *environ* comes on top of our own environment. If it has not ended *patience*
    seconds after it was asked to, it is killed.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    port = _free_port()
    words, log = command(port), folder / f"{port}.log"
    with log.open("w") as output:
        process = psutil.Popen(
            words, cwd=ROOT, env={**os.environ, **(environ or {})}, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(port, probe):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(words)} did not come to serve: {log.read_text()}")
            time.sleep(0.05)
        yield Server(port, process.pid)
    finally:
        family = [process, *(process.children(recursive=True) if process.is_running() else ())]
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        for member in psutil.wait_procs(family, patience)[1]:
            member.kill()
        process.wait()


def _answers(port: int, probe: str) -> bool:
    connection = HTTPConnection(HOST, port, timeout=PATIENCE)
    with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
        connection.request("GET", probe)
        return connection.getresponse().status == 200
    return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def workers(home: Path, app: str | None = None, server: str = "waitress") -> Command:
    """`WORKERS` workers of `counter`, with *app* or the HTTP API; *server* is theirs."""
    serve = [sys.executable, "-m", "counter", "workers", *([app] if app else ()), "--server", server]
    return lambda port: [*serve, "--home", str(home), "--workers", str(WORKERS), "--port", str(port)]


def program(name: str) -> str | None:
    """Where *name* is, beside this Python or on the path; None where it is not installed."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which(name, path=places)
