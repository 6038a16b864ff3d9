"""Backups: a home's counters in one file, and back; with or without a running manager."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from . import snapshot
from .disk import Disk
from .errors import InvalidRequest, StoreUnavailable
from .folder import told
from .home import Home
from .journal import RESTORING, is_journal, recover_in
from .records import HEADER_BYTES, FileFormat, Unreadable
from .recovery import SNAPSHOT, UNFINISHED, Damaged, Recovered, file_name, read_snapshot
from .run import boot_id
from .state import State

TRIES = 5
"""How often the files of a running manager are read anew, when it replaced some meanwhile."""
_PAUSE_SECONDS = 0.2


class Saved(NamedTuple):
    """What a backup holds: the number of *counters*, and the time *at* which the last record was written.

    *cut* says what the journal has at its end that cannot be read; None if it is whole.
    """

    counters: int
    at: datetime | None
    cut: str | None = None


def save(home: Home, file: Path) -> Saved:
    """Write everything that was acknowledged before the call to *file*, in place of what it was.

    The manager is not asked and not held up: this reads its files. The backup is a snapshot, synced, for its
    owner alone; half written it has another name.

    Raises:
        StoreUnavailable: there is no journal, it is damaged, or *file* cannot be written.
        InvalidRequest: *file* can be no backup: it is something else than a regular file, or in the journal.
    """
    _check_target(home, file)
    folder = home.journal_path
    with told(f"cannot read the journal in {folder}", hints=False):
        if not home.path.exists():
            raise StoreUnavailable(f"there is no home in {home.path}: say where with --home or COUNTER_HOME")
        if not is_journal(folder):
            why = "its manager keeps none, or never ran; `counter export` saves what a running one has"
            raise StoreUnavailable(f"there is no journal in {home.path}: {why}")
        boot = boot_id()
        found = _read(Disk(folder), boot)
    target = Disk(file.absolute().parent)
    temporary = f".{file.name}.{secrets.token_hex(4)}{UNFINISHED}"
    with told(f"cannot write {file}", hints=False):
        snapshot.write(target, temporary, boot, found.state, found.last, time.monotonic())
        try:
            target.rename(temporary, file.name)
        except OSError:
            target.remove(temporary)
            raise
        target.sync()
    cut = str(found.cut) if found.cut and not _is_running(home) else None
    return Saved(len(found.state.entries), found.state.at, cut)


def restore(home: Home, file: Path) -> tuple[Saved, Path | None]:
    """Let the manager that starts next in *home* begin with the backup in *file*.

    A journal that is there is not lost but moved aside. Tells what was restored, and where the old one is.

    Raises:
        AlreadyRunning: a manager or `counter run` is running there.
        StoreUnavailable: *file* is no whole backup, or the home cannot be written.
    """
    state: State[bytes] = State()
    try:
        data = _read_backup(file)
        last = read_snapshot(data, str(file), boot_id(), state)
    except (Damaged, Unreadable) as error:
        what = error.what if isinstance(error, Damaged) else f"at byte 0, {error}"
        raise StoreUnavailable(f"{file} is not a whole backup: {what}") from None
    if not home.path.exists():
        home.prepare()
    elif home.path.stat().st_uid != os.geteuid():
        raise StoreUnavailable(f"{home.path} belongs to another user: restore as that user")
    with home.lock("supervisor"), home.lock(), told(f"cannot restore to {home.path}", hints=False):
        for left in home.path.glob(f"journal.*{UNFINISHED}"):  # by one that was killed
            shutil.rmtree(left)
        new = home.path / f"journal.{secrets.token_hex(4)}{UNFINISHED}"
        try:
            _write_journal(new, file_name(last + 1, SNAPSHOT), data)
            aside = _exchange(home, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)  # there only if something went wrong
    return Saved(len(state.entries), state.at), aside


def _write_journal(folder: Path, name: str, backup: bytes) -> None:
    folder.mkdir(0o700)
    disk = Disk(folder)
    with contextlib.closing(disk.create(name)) as copy:
        copy.write(backup, 0)
        copy.sync()
    disk.sync()


def _exchange(home: Home, new: Path) -> Path | None:
    """Put the folder *new* in the place of the journal, which is moved aside; where to.

    Interrupted in between, the home has no journal, and a manager must not begin with an empty one.
    """
    mark, aside, disk = home.path / RESTORING, None, Disk(home.path)
    mark.touch(0o600)
    disk.sync()
    if is_journal(home.journal_path):
        aside = home.path / f"journal.{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        home.journal_path.rename(aside)
    new.rename(home.journal_path)
    disk.sync()
    mark.unlink()
    disk.sync()
    return aside


def _read_backup(file: Path) -> bytes:
    """All of *file*, if it begins as a backup: any other may be large, or have no end."""
    with told(f"cannot read {file}", hints=False), file.open("rb") as opened:
        head = opened.read(HEADER_BYTES)
        FileFormat.read(head)
        return head + opened.read()


def _check_target(home: Home, file: Path) -> None:
    """Refuse what renaming would replace by mistake, such as /dev/stdout."""
    if file.name == "-" or (os.path.lexists(file) and (file.is_symlink() or not file.is_file())):
        raise InvalidRequest(f"{file} is no regular file; `counter export` is what writes to stdout")
    if file.absolute().parent.resolve() == home.journal_path.resolve():
        raise InvalidRequest(f"{file} is in the journal itself: save it elsewhere, best on another disk")


def _is_running(home: Home) -> bool:
    """Whether a manager is at the end of the journal, and it is no wonder that this is not whole."""
    try:
        return home.holder() is not None
    except StoreUnavailable:
        return True  # nobody can tell


def _read(disk: Disk, boot: bytes) -> Recovered:
    """What the files hold now; a snapshot may take the place of some while they are read.

    Nothing is locked: a manager that starts meanwhile must not be refused.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(FileNotFoundError, Damaged):
            return recover_in(disk.folder, disk, boot)
        time.sleep(_PAUSE_SECONDS)
    return recover_in(disk.folder, disk, boot)
