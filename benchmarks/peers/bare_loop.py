"""The most that one loop in Python can answer: it reads who is ready, adds in a dict, and sends the numbers.

No handshake, no journal, nothing that is checked or remembered. ``python -m benchmarks.peers.bare_loop
SOCKET`` serves it until it is ended; clients are those of `ping_pong`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import Target
from benchmarks.peers import Peer
from benchmarks.peers.ping_pong import NUMBER, READ, connect
from benchmarks.peers.process import serving

SUBJECT = "bare loop"


def _serve(path: str) -> None:
    values: dict[bytes, int] = {}
    clients: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener, select.epoll() as ready:
        listener.bind(path)
        listener.listen(128)
        ready.register(listener, select.EPOLLIN)
        while True:
            answers = []
            for file, _ in ready.poll():
                client = clients.get(file)
                if client is None:
                    client = listener.accept()[0]
                    clients[client.fileno()] = client
                    ready.register(client, select.EPOLLIN)
                    continue
                name = client.recv(256)
                if not name:
                    ready.unregister(client)
                    clients.pop(file).close()
                    continue
                value = values.get(name.removeprefix(READ), 0)
                if name[:1] != READ:
                    value = values[name] = value + 1
                answers.append((client, value))
            for client, value in answers:
                with contextlib.suppress(BrokenPipeError):
                    client.send(NUMBER.pack(value))


@contextlib.contextmanager
def bare_loop(folder: Path) -> Iterator[Peer]:
    """The server, on a socket in *folder*."""
    path = folder / "loop.sock"
    with serving([sys.executable, "-m", __name__, str(path)], path) as pid:
        yield Peer(SUBJECT, Target(connect, str(path)), [pid])


if __name__ == "__main__":
    _serve(sys.argv[1])
