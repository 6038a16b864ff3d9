"""Who belongs to the family that the supervisor keeps, the socket they share, and one process of it."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from .errors import InvalidRequest, StoreUnavailable
from .worker import GRACE

KILL_SECONDS = GRACE + 5.0
"""How long a child may take to end after SIGTERM; a worker gives its requests a little less."""
BACKLOG = 1024
PACKAGES = Path(__file__).resolve().parent.parent
"""Where this package lies: children run the same one, whatever else is installed or in the current folder."""

logger = logging.getLogger("counter.supervisor")

Role = Literal["manager", "worker"]


class Family(NamedTuple):
    """Who belongs to it.

    Attributes:
        home: where the manager lives.
        manager: the command that runs it; None if it is not ours.
        workers: how many.
        app: what they serve; None for the HTTP API.
        listener: the socket they share; None without workers.
        environ: the children's environment.
        folder: where the app is imported from.
    """

    home: Path
    manager: list[str] | None
    workers: int
    app: str | None
    listener: socket.socket | None
    environ: Mapping[str, str]
    folder: Path


def bind(host: str, port: int, open_to_others: bool, advice: str = "choose another") -> socket.socket:
    """A listening socket; *port* 0 takes any that is free.

    Args:
        host: a name or address of this host.
        port: its port.
        open_to_others: whether others than this host may reach it.
        advice: what to do if they may not.

    Raises:
        InvalidRequest: no such host, or others could reach it.
        StoreUnavailable: the port is taken, or cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as exc:
        raise InvalidRequest(f"--bind {host}: {exc.strerror or exc}") from exc
    if not (open_to_others or _is_loopback(str(address[0]))):
        raise InvalidRequest(f"--bind {host} lets everyone in who can reach this host: {advice}")
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)  # only this finds out about another one that listens
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise StoreUnavailable(f"port {port} is in use: choose another with --port") from exc
        raise StoreUnavailable(f"cannot listen on {host} port {port}: {exc.strerror or exc}") from exc
    return listener


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def ready_line(home: Path, mode: str, family: Family | None = None) -> str:
    """What is said on stdout, once, when everyone is ready."""
    counters = f"counters in {home} ({mode})"
    if family is None or family.listener is None:
        return f"ready  {counters}"
    host, port = family.listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"ready http://{host}:{port}  {family.app or 'api'} x {family.workers}  {counters}"


class Child:
    """One process, and our end of its link.

    It has a process group of its own, so that Ctrl-C is heard by the supervisor alone, which knows the order
    in which to end. What it prints goes to stderr.
    """

    def __init__(self, role: Role, family: Family) -> None:
        self.role = role
        self.mode: str | None = None  # the durability it found, once it is ready
        self.leaving = False
        self.kill_at = float("inf")
        self.deaf = False  # its end of the link is closed: it ends, or has ended
        self.link, theirs = socket.socketpair()
        self.link.setblocking(False)
        files = [theirs.fileno()]
        if family.listener is not None and role == "worker":
            files.append(family.listener.fileno())
        try:
            with theirs:
                self._process = _start(_command(role, family, files), family, files)
        except OSError:
            self.link.close()
            raise
        self.pid = self._process.pid

    def __str__(self) -> str:
        return f"{self.role} {self.pid}"

    def hear(self) -> None:
        """Take in what it said, if anything: its mode, when it is ready."""
        with contextlib.suppress(BlockingIOError):
            try:
                said = self.link.recv(64)
            except ConnectionError:
                said = b""
            self.deaf = not said
            if said and self.mode is None:
                self.mode = said.decode().strip()
                logger.info("%s is ready", self)

    def end(self) -> None:
        """Ask it to end; `kill_if_late` sees to it that it does."""
        if not self.leaving:
            self.leaving = True
            self.kill_at = time.monotonic() + KILL_SECONDS
            self._process.terminate()

    def kill_if_late(self, now: float) -> None:
        """End it without asking if it was asked long ago."""
        if now >= self.kill_at:
            logger.warning("%s did not end in time and is killed", self)
            self.kill_at = float("inf")
            self._process.kill()

    def exit_code(self) -> int | None:
        """None while it lives; a signal's number is negative."""
        code = self._process.poll()
        if code is not None:
            self.link.close()
        return code


def _command(role: Role, family: Family, files: list[int]) -> list[str]:
    if role == "manager":
        return [*(family.manager or ()), "--link", str(files[0])]
    app = [family.app] if family.app else []
    return [sys.executable, "-m", "counter.worker", *map(str, files), str(family.folder), *app]


def _start(command: list[str], family: Family, files: list[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # nosec B603  # our own command, and no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        cwd=PACKAGES,
        env=family.environ,
        pass_fds=files,
        process_group=0,
    )
