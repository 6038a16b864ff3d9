"""Backups: a home's counters in one file, and back; with or without a running manager."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from . import snapshot
from .disk import Disk
from .errors import StoreUnavailable
from .folder import AlreadyRunning, told
from .home import Home
from .journal import is_journal
from .recovery import SNAPSHOT, UNFINISHED, Damaged, Recovered, file_name, read_snapshot, recover
from .run import boot_id
from .state import State

TRIES = 5
"""How often the files of a running manager are read anew, when it replaced some meanwhile."""
_PAUSE_SECONDS = 0.2


class Saved(NamedTuple):
    """What a backup holds: the number of *counters*, and the time *at* which the last of them changed.

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
    """
    folder = home.journal_path
    with told(f"cannot read the journal in {folder}"), _unless_running(home) as alone:
        if not is_journal(folder):
            raise StoreUnavailable(f"there is no journal in {home.path}: `counter export` saves any store")
        boot = boot_id()
        found = recover(Disk(folder), boot) if alone else _read_while_written(Disk(folder), boot)
    target = Disk(file.absolute().parent)
    temporary = f".{file.name}.{secrets.token_hex(4)}{UNFINISHED}"
    with told(f"cannot write {file}"):
        snapshot.write(target, temporary, boot, found.state, found.last, time.monotonic())
        target.rename(temporary, file.name)
        target.sync()
    cut = str(found.cut) if alone and found.cut else None
    return Saved(len(found.state.entries), found.state.at, cut)


def restore(home: Home, file: Path) -> tuple[Saved, Path | None]:
    """Let the manager that starts next in *home* begin with the backup in *file*.

    A journal that is there is not lost but moved aside. Tells what was restored, and where the old one is.

    Raises:
        AlreadyRunning: a manager or `counter run` is running there.
        StoreUnavailable: *file* is no whole backup, or the home cannot be written.
    """
    with told(f"cannot read {file}"):
        data = file.read_bytes()
    state: State[bytes] = State()
    try:
        last = read_snapshot(data, str(file), boot_id(), state)
    except Damaged as error:
        raise StoreUnavailable(f"{file} is not a whole backup: {error.what}") from None
    home.prepare()
    with home.lock("supervisor"), home.lock(), told(f"cannot restore to {home.path}"):
        new = home.path / f"journal.{secrets.token_hex(4)}{UNFINISHED}"
        new.mkdir(0o700)
        disk = Disk(new)
        with contextlib.closing(disk.create(file_name(last + 1, SNAPSHOT))) as copy:
            copy.write(data, 0)
            copy.sync()
        disk.sync()
        aside = None
        if is_journal(home.journal_path):
            aside = home.path / f"journal.{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
            home.journal_path.rename(aside)
        new.rename(home.journal_path)
        Disk(home.path).sync()
    return Saved(len(state.entries), state.at), aside


@contextlib.contextmanager
def _unless_running(home: Home) -> Iterator[bool]:
    """Keep a manager from starting; False if one is running."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(home.lock())
        except AlreadyRunning:
            yield False
        else:
            yield True


def _read_while_written(disk: Disk, boot: bytes) -> Recovered:
    """What the files hold now; a snapshot may take the place of some while they are read."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(FileNotFoundError, Damaged):
            return recover(disk, boot)
        time.sleep(_PAUSE_SECONDS)
    return recover(disk, boot)
