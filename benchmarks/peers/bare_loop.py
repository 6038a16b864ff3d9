"""The most that one loop in Python can answer: it reads who is ready, adds in a dict, and sends the numbers.

No handshake, no journal, nothing that is checked or remembered. ``python -m benchmarks.peers.bare_loop
SOCKET`` serves it until it is ended; clients are those of `ping_pong`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from pathlib import Path

from benchmarks.peers import Peer
from benchmarks.peers.ping_pong import NUMBER, READ, connect
from benchmarks.peers.process import python_peer

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


def bare_loop(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """The server, on a socket in *folder*."""
    return python_peer(SUBJECT, __name__, connect, folder / "loop.sock")


if __name__ == "__main__":
    _serve(sys.argv[1])
