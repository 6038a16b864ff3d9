"""Client processes that POST over connections which stay open, and the time that each answer took.

An HTTP library would cost more than what is measured: the request is the same bytes each time, and of an
answer only the status and the length of its body are read before the next one is sent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import select
import socket
import time
from array import array
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.web.servers import HOST

PROCESSES = 2
CONNECTIONS = 4
"""Of each process."""
EACH = 50
"""Answers after which a connection is replaced.

Workers that share a socket get unequal shares of the connections: one of two was seen without any for a turn.
"""
SETTLE = 0.1
"""Seconds between an order and its start: by then every connection has had its first answer."""
PATIENCE = 30.0
"""Seconds without any answer after which a client gives up."""

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_spawn = multiprocessing.get_context("spawn")


class Answers(NamedTuple):
    """What one client process was answered in a turn.

    Attributes:
        seconds: how long each answer took, but for the first of each connection.
        bodies: of all answers, also of those before the turn.
        answered: how many came in the turn.
        cpu_seconds: what the client itself cost in it.
    """

    seconds: array[float]
    bodies: list[bytes]
    answered: int
    cpu_seconds: float


class Clients:
    """Processes with a few connections each, to one server at a time. Use it in a `with`."""

    def __init__(self) -> None:
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(PROCESSES):
            ours, theirs = _spawn.Pipe()
            process = _spawn.Process(target=_client, args=(theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()  # it has started: a turn measures no imports

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()

    def run(self, port: int, path: str, seconds: float) -> list[Answers]:
        """One turn: POST to *path* on *port* until *seconds* after its start.

        Raises:
            RuntimeError: an answer was not 200, or did not come.
        """
        begin = time.monotonic() + SETTLE
        for pipe in self._pipes:
            pipe.send((port, path, begin, begin + seconds))
        found = [pipe.recv() for pipe in self._pipes]
        for each in found:
            if isinstance(each, str):
                raise RuntimeError(f"POST {path}: {each}")
        return found


def _client(orders: Connection, parent: int) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # whoever started it has ended
        orders.send(None)
        while os.getppid() == parent:
            port, path, begin, end = orders.recv()
            try:
                orders.send(_turn(port, path, begin, end))
            except (OSError, RuntimeError) as error:
                orders.send(f"{type(error).__name__}: {error}")


def _turn(port: int, path: str, begin: float, end: float) -> Answers:
    request = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: 0\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(_Line(port, request)) for _ in range(CONNECTIONS)]
        first = list(_exchange(lines, array("d"), 0.0))
        for number, line in enumerate(lines):
            line.left = EACH * (number + 1) // CONNECTIONS  # not all at once
        time.sleep(max(0.0, begin - time.monotonic()))
        seconds: array[float] = array("d")
        before = time.process_time()
        bodies = list(_exchange(lines, seconds, end))
        in_time = max(1, len(bodies) - CONNECTIONS)  # the last answer of each comes after the end
        return Answers(seconds, first + bodies, in_time, time.process_time() - before)


class _Line:
    """A client that asks one thing after the other, on one connection after the other."""

    def __init__(self, port: int, request: bytes) -> None:
        self._address = HOST, port
        self._request = request
        self._data = b""
        self.sent_at = 0.0
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(self._address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = EACH

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self) -> None:
        if not self.left:
            self.socket.close()
            self._connect()
        self.left -= 1
        self.sent_at = time.monotonic()
        self.socket.sendall(self._request)

    def receive(self) -> bytes | None:
        """The body of the answer, once all of it is there."""
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError("the server closed the connection")
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or (length and len(body) < int(length[1])):
            return None
        if not length or not head.startswith(b"HTTP/1.1 200 ") or len(body) > int(length[1]):
            raise RuntimeError(f"answered {self._data[:500]!r}")
        self._data = b""
        return body


def _exchange(lines: list[_Line], seconds: array[float], end: float) -> Iterator[bytes]:
    """Let each of *lines* ask again and again, once at least, until *end*: the bodies of the answers."""
    with select.epoll() as waiting:
        asking = {}
        for line in lines:
            line.send()
            waiting.register(line.socket, select.EPOLLIN)
            asking[line.socket.fileno()] = line
        while asking:
            events = waiting.poll(PATIENCE)
            if not events:
                raise RuntimeError(f"no answer in {PATIENCE:.0f} s")
            for number, _ in events:
                line = asking[number]
                if (body := line.receive()) is None:
                    continue
                now = time.monotonic()
                if line.left < EACH - 1:
                    seconds.append(now - line.sent_at)
                yield body
                if now < end and line.left:
                    line.send()
                    continue
                del asking[number]  # closing its socket makes epoll forget it
                if now < end:
                    line.send()
                    waiting.register(line.socket, select.EPOLLIN)
                    asking[line.socket.fileno()] = line
