"""The line between the supervisor and a child: "I am ready" one way, and for both, that the other lives.

It is a pair of connected sockets, each end open in one process only. So the end of either process, kill -9
included, closes its end, and the other reads an end of file.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

ORPHAN_SECONDS = 1.5
"""How long a child goes on after its supervisor is gone."""


class Link:
    """A child's end."""

    def __init__(self, file: int) -> None:
        """Take over the inherited file descriptor *file*, and keep it from this child's own children."""
        os.set_inheritable(file, False)
        self._socket = socket.socket(fileno=file)

    def say_ready(self, mode: str) -> None:
        """Tell the supervisor that this child is ready, and the durability *mode* it found."""
        try:
            self._socket.sendall(mode.encode() + b"\n")
        except OSError:
            return  # the supervisor is gone, and `watch` sees it

    def watch(self) -> None:
        """From now on, end this process when the supervisor is gone: as by SIGTERM, then without asking."""
        threading.Thread(target=self._wait_for_the_end, name="link", daemon=True).start()

    def _wait_for_the_end(self) -> None:
        try:
            while self._socket.recv(64):
                pass
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)
