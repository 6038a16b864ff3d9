"""The access log: a line for each request, written beside the serving, which it never holds up.

Whoever serves puts down what there is to say and goes on. A thread writes it to stderr ten times a second,
many lines at once; where stderr is read too slowly, lines are left out, and the next one says how many.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .logs import printable, utc

MOST = 10_000
"""Requests that wait to be written."""
_WRITE_SECONDS = 0.1
_END_SECONDS = 1.0
_PIECE = 4096  # what goes into a pipe in one piece: other processes write lines to the same one


class Served(NamedTuple):
    """A request that was answered.

    Attributes:
        at: when, in seconds since the epoch.
        route: such as `/v1/counters/{name}`, which holds no names.
        path: as it was asked for, without the query.
        seconds: from when the request was there to the end of its answer.
        size: bytes of the body of the answer.
        token: the name of the token that it came with, if any.
    """

    at: float
    method: str
    route: str
    path: str
    status: int
    seconds: float
    size: int
    request_id: str
    token: str


Line = Callable[[Served], str]


class AccessLog:
    """Writes of each request the line that *line* makes of it, to *file*."""

    def __init__(self, line: Line, file: int = 2) -> None:
        self._line = line
        self._file = file
        self._waiting: deque[Served] = deque()
        self._left_out = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="access log", daemon=True)
        self._thread.start()

    def add(self, served: Served) -> None:
        """Have it written soon; from any thread."""
        if len(self._waiting) < MOST:
            self._waiting.append(served)
        else:
            self._left_out += 1

    def close(self) -> None:
        """Write what is left, unless that takes long."""
        self._stopping.set()
        self._thread.join(_END_SECONDS)

    def _write(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(_WRITE_SECONDS)
            for piece in _pieces(self._lines()):
                self._put(piece)

    def _lines(self) -> Iterator[bytes]:
        for _ in range(len(self._waiting)):  # what comes meanwhile can wait: the end is not to be put off
            yield (self._line(self._waiting.popleft()) + "\n").encode(errors="backslashreplace")
        if left_out := self._left_out:
            self._left_out -= left_out
            told = f"({left_out} requests left out: this is read too slowly)"
            yield (self._line(Served(time.time(), "-", told, told, 0, 0.0, 0, "-", "")) + "\n").encode()

    def _put(self, piece: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            while piece:
                piece = piece[os.write(self._file, piece) :]


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """*lines* together, as many as go into a pipe in one piece."""
    piece = b""
    for line in lines:
        if len(piece) + len(line) > _PIECE:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece


def text_line(process: str, names: bool) -> Line:
    """`2026-01-31T12:00:00.123Z worker[123] GET /v1/counters/{name} 200 1.2 ms 250 bytes id=… token=…`.

    Args:
        process: who writes it.
        names: whether to show the path, with the counter's name in it, in place of the route.
    """
    who = f"{process}[{os.getpid()}]"

    def line(served: Served) -> str:
        where = served.path.replace(" ", "%20") if names else served.route  # a space would forge a field
        token = f" token={served.token}" if served.token else ""
        return printable(
            f"{utc(served.at)} {who} {served.method} {where} {served.status} {served.seconds * 1000:.1f} ms "
            f"{served.size} bytes id={served.request_id}{token}"
        )

    return line


def json_line(process: str, names: bool) -> Line:
    """One object, with what every line of `logs` has; *process* and *names* as of `text_line`."""
    pid = os.getpid()

    def line(served: Served) -> str:
        fields = {
            "time": utc(served.at),
            "level": "info",
            "process": process,
            "pid": pid,
            "logger": "counter.access",
            "message": f"{served.method} {served.route} {served.status}",
            "method": served.method,
            "route": served.route,
            "status": served.status,
            "ms": round(served.seconds * 1000, 1),
            "bytes": served.size,
            "request_id": served.request_id,
        }
        fields |= {"path": served.path} if names else {}
        fields |= {"token": served.token} if served.token else {}
        return json.dumps(fields)

    return line
