"""The manager's door: who is let in, how many at once, and who has to prove to hold the key."""

from __future__ import annotations

import logging
import os
import resource
import socket
from collections.abc import Iterator

from .connection import Connection
from .errors import StoreUnavailable
from .handshake import ServerHandshake
from .home import Home, peer_uid

MAX_CONNECTIONS = 1024
MAX_STRANGERS = 512
"""Connections that have not proved to hold the key yet; one more and the oldest goes."""
HANDSHAKE_SECONDS = 5.0
KEY_GRACE_SECONDS = 60.0
"""How long a key is still accepted after it was replaced."""

_RESERVED_FILES = 32
_PAUSE_SECONDS = 0.1
_BATCH = 128

logger = logging.getLogger("counter.manager")


class Door:
    """A listening socket and those who came through it; times are seconds on the monotonic clock.

    Out of descriptors or memory it stops accepting for a moment instead of spinning: `opens_at` says until
    when, and the kernel keeps the callers waiting meanwhile.
    """

    def __init__(self, home: Home, listener: socket.socket, shared: bool) -> None:
        self.listener = listener
        self.opens_at = 0.0
        self._home = home
        self._shared = shared
        self._most = _connection_limit()
        self._short = False  # of descriptors or memory, at the last try
        self._members: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}  # oldest first
        self._keys = Keys(home)

    def __len__(self) -> int:
        return len(self._members) + len(self._strangers)

    def __iter__(self) -> Iterator[Connection]:
        yield from self._members
        yield from self._strangers

    @property
    def strangers(self) -> bool:
        """Whether there are any."""
        return bool(self._strangers)

    def accept(self, ticks: float) -> list[Connection]:
        """Take in who waits, a batch at the most; each has been sent its challenge."""
        came: list[Connection] = []
        for _ in range(_BATCH):
            try:
                sock, _address = self.listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM
                if not self._short:
                    logger.warning("accepting no connections for now: %s", error.strerror)
                self._short, self.opens_at = True, ticks + _PAUSE_SECONDS
                break
            self._short = False
            if self._may_come(sock):
                connection = Connection(sock, ServerHandshake(self._keys.accepted(ticks)), ticks)
                self._strangers[connection] = None
                came.append(connection)
            else:
                sock.close()
        return came

    def admit(self, connection: Connection, ticks: float) -> None:
        """*connection* has proved to hold the key."""
        del self._strangers[connection]
        self._members.add(connection)
        connection.since = ticks

    def leave(self, connection: Connection) -> None:
        """*connection* is closed."""
        self._members.discard(connection)
        self._strangers.pop(connection, None)

    def unwelcome(self, ticks: float) -> list[Connection]:
        """Strangers that took too long, or are too many: the oldest first."""
        excess = max(len(self._strangers) - MAX_STRANGERS, len(self) - self._most)
        found: list[Connection] = []
        for connection in self._strangers:
            if excess <= len(found) and ticks < connection.since + HANDSHAKE_SECONDS:
                break
            found.append(connection)
        return found

    def next_deadline(self) -> float | None:
        """When the oldest stranger's time is up."""
        oldest = next(iter(self._strangers), None)
        return None if oldest is None else oldest.since + HANDSHAKE_SECONDS

    def _may_come(self, sock: socket.socket) -> bool:
        if len(self._members) >= self._most:
            return False
        # root could read the key anyway; with a group, the socket's mode decides
        return self._shared or peer_uid(sock) in (None, os.geteuid(), 0)


class Keys:
    """The key in the home, read again when its file changes, and the one before it for a while."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._current = home.read_key()
        self._seen = self._fingerprint()
        self._previous: bytes | None = None
        self._previous_until = 0.0

    def accepted(self, ticks: float) -> list[bytes]:
        """The keys that open now, the newest first."""
        fingerprint = self._fingerprint()
        if fingerprint != self._seen:
            self._seen = fingerprint
            self._replace(ticks)
        if self._previous is not None and ticks < self._previous_until:
            return [self._current, self._previous]
        return [self._current]

    def _replace(self, ticks: float) -> None:
        try:
            key = self._home.read_key()
        except StoreUnavailable as error:
            logger.warning("the key before stays in force: %s", error)
            return
        if key != self._current:
            self._previous, self._previous_until = self._current, ticks + KEY_GRACE_SECONDS
            self._current = key
            logger.info("a new key is in force; the one before opens for %.0f s more", KEY_GRACE_SECONDS)

    def _fingerprint(self) -> tuple[int, ...] | None:
        try:
            found = self._home.key_path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


def _connection_limit() -> int:
    """Raise the limit of open files to what is needed, as far as allowed, and leave some for ourselves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MAX_CONNECTIONS + _RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:  # macOS refuses to raise it to infinity
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, files - _RESERVED_FILES)
