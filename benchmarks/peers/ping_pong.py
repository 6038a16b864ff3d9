"""The least that asking another Python process costs: a name over a Unix socket, a number back.

``python -m benchmarks.peers.ping_pong SOCKET`` serves it, a thread for each connection, until it is ended.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
from pathlib import Path

from benchmarks.load import Client
from benchmarks.peers import Peer
from benchmarks.peers.process import python_peer

SUBJECT = "raw ping-pong"
NUMBER = struct.Struct("=q")
READ = b"?"
"""In front of a name that is only to be read."""


def connect(path: str) -> Client:
    """A client with one connection, for one thread."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)

    def increment(name: str) -> int:
        server.send(name.encode())
        value: int = NUMBER.unpack(server.recv(NUMBER.size))[0]
        return value

    return Client(increment, lambda name: increment(READ.decode() + name), close=server.close)


def _serve(path: str) -> None:
    values: dict[bytes, int] = {}
    lock = threading.Lock()

    def answer(client: socket.socket) -> None:
        while name := client.recv(256):
            with lock:
                value = values.get(name.removeprefix(READ), 0)
                if name[:1] != READ:
                    value = values[name] = value + 1
            client.send(NUMBER.pack(value))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(128)
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def ping_pong(folder: Path) -> contextlib.AbstractContextManager[Peer]:
    """The server, on a socket in *folder*."""
    return python_peer(SUBJECT, __name__, connect, folder / "ping-pong.sock")


if __name__ == "__main__":
    _serve(sys.argv[1])
