"""Where a manager lives: its folder and who may enter, its key, its locks, its socket.

`prepare`, `lock`, `ensure_key`, `bind` and `unlink_socket` are the manager's, in this order; `connect` and
`read_key` are its clients'. The folder's mode says who they are: 0700 its owner, 0750 its group as well.
Local file systems only: locks and sockets mean nothing across a network.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import secrets
import shlex
import socket
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import InvalidRequest, StoreUnavailable
from .folder import LockedFolder, open_file, sync_folder, told

KEY_BYTES = 32
BACKLOG = 1024
ADDRESS_BYTES = 103  # what every Unix takes for a socket's address: Linux 107, macOS 103


class Home(LockedFolder):
    """The folder `path` of one manager and what is in it. Making the object touches nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.socket_path = self.path / "manager.sock"
        self.key_path = self.path / "authkey"
        self.journal_path = self.path / "journal"
        self._seen = False
        self._bound: tuple[int, ...] | None = None

    def prepare(self, group: str | None = None) -> None:
        """Make the folder (0700, like those missing above it), or see that the existing one is safe.

        An existing one is left as it is, or refused; only *group* changes it, to mode 0750 and that group.

        Raises:
            StoreUnavailable: it is a link, no folder, not ours, or open to others; and what to do.
            InvalidRequest: there is no such group.
        """
        gid = -1 if group is None else _gid(group)
        with told(f"cannot prepare {self.path}"):
            for missing in [at for at in (*reversed(self.path.parents), self.path) if not at.exists()]:
                with contextlib.suppress(FileExistsError):
                    missing.mkdir(0o700 if group is None or missing == self.path else 0o711)
                with contextlib.suppress(PermissionError):  # who may write in a folder may not always read it
                    sync_folder(missing.parent)  # or a power cut could take the home, with all that is in it
            with self.opened() as folder:
                found = os.fstat(folder)
                if found.st_uid != os.geteuid():
                    whose = f"belongs to user {found.st_uid} and this is user {os.geteuid()}"
                    raise StoreUnavailable(f"{self.path} {whose}: run as that user, or choose another --home")
                if group is not None:
                    os.fchown(folder, -1, gid)
                    os.fchmod(folder, 0o750)  # nosec B103  # --group asked for it
                elif found.st_mode & 0o077:
                    fix = f"`chmod 700 {shlex.quote(str(self.path))}`, or let a group in with --group"
                    raise StoreUnavailable(f"{self.path} is open to other users ({_mode(found)}): {fix}")

    def read_key(self) -> bytes:
        """The 32 random bytes that both sides prove to know, from a file that is closed to others.

        Raises:
            StoreUnavailable: there is none, or it is unsafe or damaged. No sentence contains any of it.
        """
        # Not blocking: a fifo in its place must not hang us.
        reading = told(f"cannot read {self.key_path}", missing="start the manager, it makes one")
        with reading, open_file(self.key_path, os.O_RDONLY | os.O_NONBLOCK) as file:
            found, owner = os.fstat(file), self.path.stat().st_uid
            key = os.read(file, KEY_BYTES + 1) if stat.S_ISREG(found.st_mode) else None
        if key is None:
            wrong = "is not a regular file"
        elif found.st_uid != owner:
            wrong = f"belongs to user {found.st_uid}, its folder to user {owner}"
        elif found.st_mode & 0o037:
            wrong = f"was open to other users ({_mode(found)})"
        elif len(key) != KEY_BYTES:
            wrong = f"does not hold exactly {KEY_BYTES} bytes"
        else:
            return key
        raise StoreUnavailable(
            f"{self.key_path} {wrong}: remove it and restart the manager, it makes a new one"
        )

    def ensure_key(self) -> bytes:
        """The key, made now if there is none; the folder's group may read it if it may enter.

        Raises:
            StoreUnavailable: as `read_key`; an unsafe key is never replaced.
        """
        with told(f"cannot write {self.key_path}"):
            if not self.key_path.exists():
                self._make_key()
            key = self.read_key()
            self._share(self.key_path, 0o040)
            return key

    def _make_key(self) -> None:
        """Whole or not at all, whatever interrupts it, and never over one that came first."""
        temporary = self.path / f"authkey.{secrets.token_hex(4)}"
        try:
            with open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
                os.write(file, secrets.token_bytes(KEY_BYTES))
                os.fsync(file)
            with contextlib.suppress(FileExistsError):
                self.key_path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def bind(self) -> socket.socket:
        """A listening, non-blocking socket at `socket_path`, for the owner, or the folder's group as well.

        Call it holding the lock: what is there is then stale, and is replaced in one step, so a restart never
        shows clients a folder without a socket.

        Raises:
            StoreUnavailable: the socket cannot be made there.
        """
        temporary = self.path / "manager.sock.new"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with told(f"cannot listen in {self.path}"):
                temporary.unlink(missing_ok=True)
                with self._address(temporary.name) as address:
                    listener.bind(address)
                # Until listen() every connect is refused, so no umask is needed (it is the whole process's).
                self._share(temporary, 0o060)
                listener.listen(BACKLOG)
                listener.setblocking(False)
                self._bound = _identity(temporary)
                temporary.rename(self.socket_path)
        except BaseException:
            listener.close()
            raise
        return listener

    def unlink_socket(self) -> None:
        """Remove the file of the socket that this process bound; a successor's is left alone.

        Call it before closing the listener (until then its inode is not used again) and releasing the lock.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._bound is not None and self._bound == _identity(self.socket_path):
                self.socket_path.unlink()
        self._bound = None

    def connect(self, deadline: float) -> socket.socket:
        """Connect to the manager; tries at least once, and waits for one that restarts or is swamped.

        Where there is no socket it fails at once, unless this object has seen one: then it waits, one time.
        The socket's timeout is the time that was left; set your own.

        Args:
            deadline: when to give up, on `time.monotonic`.

        Raises:
            StoreUnavailable: no manager is here, none answered in time, or somebody else than the owner does.
        """
        started, pause, expected = time.monotonic(), 0.002, self._seen
        with told(f"cannot connect in {self.path}"):
            while True:
                try:
                    connection = self._connect_once(deadline)
                    self._seen = True
                    return connection
                except FileNotFoundError:
                    failure = (
                        f"no manager is running in {self.path}; start one: `counter run`; "
                        "elsewhere? set COUNTER_URL; in tests: COUNTER_URL=memory://"
                    )
                except (BlockingIOError, ConnectionRefusedError, TimeoutError):
                    # A full backlog is EAGAIN at once, whatever the timeout; a dead manager's file refuses.
                    failure = f"nothing answered in {self.path} for {time.monotonic() - started:.1f} s"
                    expected = True
                now = time.monotonic()
                if now >= deadline or not expected:
                    self._seen = False
                    raise StoreUnavailable(failure)
                time.sleep(min(pause, deadline - now))
                pause = min(2 * pause, 0.05)

    def _connect_once(self, deadline: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            with self._address(self.socket_path.name) as address:
                connection.connect(address)
            owner, uid = self.path.stat().st_uid, peer_uid(connection)
            if uid not in (owner, None):
                raise StoreUnavailable(f"user {uid} answers in {self.path}, which is user {owner}'s: refused")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _address(self, name: str) -> Iterator[str]:
        """The address of the socket *name*: its path, or where that is too long a short way to the same."""
        plain = str(self.path / name)
        with self.opened() as folder:
            if len(os.fsencode(plain)) <= ADDRESS_BYTES:
                yield plain
            elif Path("/proc/self/fd").is_dir():
                yield f"/proc/self/fd/{folder}/{name}"
            else:
                raise StoreUnavailable(f"{plain} is too long for a socket here: choose a shorter --home")

    def _share(self, path: Path, extra: int) -> None:
        """Make *path* ours alone, or, where the folder's group may enter, give that group *extra*."""
        folder = self.path.stat()
        shared = folder.st_mode & 0o070
        if shared:
            os.chown(path, -1, folder.st_gid)
        path.chmod(0o600 | extra if shared else 0o600)


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder used where none is named: COUNTER_HOME, else `counter` in the user's folder for state.

    Raises:
        StoreUnavailable: nothing says where the user's folders are.
    """
    if environ.get("COUNTER_HOME"):
        return Path(environ["COUNTER_HOME"]).absolute()
    state = environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):  # The XDG specification: a relative path is to be ignored.
        return Path(state) / "counter"
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError as exc:
            raise StoreUnavailable("HOME is not set: say where with --home or COUNTER_HOME") from exc
    return Path(home) / ".local/state/counter"


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end of a Unix socket; to a client, who called listen() last.

    None where the system has no SO_PEERCRED (macOS): there the folder's mode and the key stand alone.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, 12))
    return int(uid)


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise InvalidRequest(f"there is no group {group!r} on this host") from exc


def _mode(found: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(found.st_mode):04o}"


def _identity(path: Path) -> tuple[int, ...]:
    """What tells a file made by this process from any other that is ever at the same path."""
    found = path.lstat()
    return os.getpid(), found.st_dev, found.st_ino, found.st_mtime_ns
