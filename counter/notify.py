"""How systemd is told how this service stands, in datagrams to the socket that `NOTIFY_SOCKET` names."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

VARIABLE = "NOTIFY_SOCKET"
PATIENCE = 1.0
"""Seconds that a service may be held up by one who does not listen."""


class Notifier:
    """Tells whoever started this process, if they asked for it. What goes wrong with that stops nothing."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Take the address out of *environ*: what a child says is not said for the service."""
        self._address = environ.pop(VARIABLE, "")

    def ready(self) -> None:
        """The service is ready, or has been reloaded."""
        self._say("READY=1")

    def reloading(self) -> None:
        """It reloads, and says `ready` when that has ended, well or not."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It begins to end."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if not self._address.startswith(("/", "@")):
            return  # nobody asked, or in a way for virtual machines
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(PATIENCE)
            sender.sendto(state.encode(), address)
