"""A folder that one process at a time may own: opened safely, and locked by files in it.

What the system says against a call is raised as one `StoreUnavailable`, with a sentence that helps. Local
file systems only: locks mean nothing across a network.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from .errors import CounterError, InvalidRequest, StoreUnavailable

TURN_SECONDS = 5.0
"""The longest wait for a turn at the lock files, in seconds; one takes microseconds."""

LockName = Literal["lock", "supervisor"]
"""The manager's lock, and that of `counter run`."""


class AlreadyRunning(StoreUnavailable):
    """Another process, `pid`, holds the lock."""

    def __init__(self, detail: str, pid: int) -> None:
        super().__init__(detail)
        self.pid = pid

    def __reduce__(self) -> tuple[Any, Any]:
        return type(self), (self.detail, self.pid)


class Lock(contextlib.AbstractContextManager["Lock"]):
    """A lock that is ours until `release`, the end of `with`, or of this process, kill -9 included.

    The kernel keeps it for whoever has the file open. Python opens files so that a program started from here
    does not get them, and a fork closes its copy: no child makes a dead holder look alive.
    """

    def __init__(self, file: int) -> None:
        self._file: int | None = file
        os.register_at_fork(after_in_child=lambda: self._close(unlock=False))

    def release(self) -> None:
        """Let the next one have it. Repeated, or in a forked child, it does nothing."""
        self._close(unlock=True)

    def _close(self, unlock: bool) -> None:
        file, self._file = self._file, None
        if file is not None:
            if unlock:  # Closing is not enough: a child that another thread forks just now has it open, too.
                fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class LockedFolder:
    """The folder `path` and the locks in it. Making the object touches nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if "\0" in os.fspath(path):
            raise InvalidRequest("a home is a path, and a path has no NUL character")
        self.path = Path(path).absolute()

    def lock(self, name: LockName = "lock") -> Lock:
        """Take the lock *name* and write our pid into its file.

        Raises:
            AlreadyRunning: another process has it; sentence and `pid` say which.
            StoreUnavailable: the folder or the file cannot be used.
        """
        with self._lock_file(name, os.O_RDWR | os.O_CREAT) as file:
            if not _try_lock(file):
                pid = _pid_in(file)
                who = f"a manager (pid {pid})" if name == "lock" else f"`counter run` (pid {pid})"
                stop = "stop it with `counter stop`, or choose another --home"
                raise AlreadyRunning(f"{who} already runs in {self.path}: {stop}", pid)
            # One width, never truncated: once the file is there, a full disk is no obstacle.
            os.pwrite(file, f"{os.getpid():>10}\n".encode(), 0)
            return Lock(os.dup(file))

    def holder(self, name: LockName = "lock") -> int | None:
        """The pid of the process that has the lock *name* now, or None. What a dead one left is no holder.

        Raises:
            StoreUnavailable: the folder or the file cannot be read; only the owner can ask.
        """
        with told(f"cannot see who runs in {self.path}"):
            if not (self.path / name).exists():
                return None
            with self._lock_file(name, os.O_RDONLY) as file:
                if not _try_lock(file):
                    return _pid_in(file)
                fcntl.flock(file, fcntl.LOCK_UN)
                return None

    def wait_released(self, name: LockName, timeout: float) -> bool:
        """Wait at most *timeout* seconds until nobody has the lock *name*; False if somebody still does."""
        deadline = time.monotonic() + timeout
        while self.holder(name) is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    @contextlib.contextmanager
    def _lock_file(self, name: LockName, flags: int) -> Iterator[int]:
        """The lock's file, open, and for that moment nobody else looks at one: the folder is locked.

        So the pid in a held file is its holder's, not that of a dead one just before it is overwritten; and
        a question, which has to try the lock, never stops a manager that starts just then.
        """
        deadline = time.monotonic() + TURN_SECONDS
        with told(f"cannot lock {self.path / name}"), self.opened() as folder:
            while not _try_lock(folder):
                if time.monotonic() >= deadline:
                    raise StoreUnavailable(f"another program keeps {self.path} locked; `fuser` says which")
                time.sleep(0.002)
            try:
                with open_file(self.path / name, flags) as file:
                    yield file
            finally:
                fcntl.flock(folder, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """The folder itself, open: not what a link in its place points to."""
        try:
            with open_file(self.path, os.O_RDONLY | os.O_DIRECTORY) as folder:
                yield folder
        except NotADirectoryError as exc:
            what = "a symbolic link: name the folder itself" if self.path.is_symlink() else "not a folder"
            raise StoreUnavailable(f"{self.path} is {what}") from exc


_DENIED = "permission denied; choose another with --home or COUNTER_HOME, or have its owner use --group"


@contextlib.contextmanager
def told(what: str, missing: str | None = None, hints: bool = True) -> Iterator[None]:
    """Raise an error of the system as ours, with a sentence that begins with *what* failed.

    With *hints* it says what helps where a home is not for everybody.
    """
    try:
        yield
    except CounterError:
        raise
    except OSError as exc:
        reasons = {
            errno.ENOENT: missing,
            errno.ELOOP: "it is a symbolic link",
            errno.EACCES: _DENIED if hints else None,
            errno.EPERM: "not permitted; only a member of a group can open a folder to it" if hints else None,
        }
        raise StoreUnavailable(f"{what}: {reasons.get(exc.errno or 0) or exc.strerror or exc}") from exc


@contextlib.contextmanager
def open_file(path: Path, flags: int) -> Iterator[int]:
    """The file at *path*, open, and not what a link there points to; made for its owner alone."""
    file = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def sync_folder(path: Path) -> None:
    """Return when the names in the folder *path* are on the disk as they are now.

    Raises:
        OSError: as the system does.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(file: int) -> int:
    text = os.pread(file, 32, 0).strip()
    if not text.isdigit():
        raise StoreUnavailable("the lock is held by a program that is not ours; `fuser` says which")
    return int(text)
