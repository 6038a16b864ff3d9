"""The journal of a home: what the manager writes down before it answers, and finds again when it starts.

Theory of operation
-------------------
A turn's outcomes are one record at the end of a log (`log`). Durability `everysec` answers when the record
is with the kernel, so the end of the process loses nothing, and a thread syncs each second (`keeper`);
`always` answers when it is on the disk. A record holds what came out, never what was asked: reading it again
assigns and decides nothing, so no setting, clock or newer code can make another number of it.

A start reads the newest snapshot and the logs behind it (`recovery`), cuts off what an interrupted write or a
power cut left at the end, syncs what it read, and opens a new log: nobody is shown what could still be lost.
When logs have grown, a process of its own makes a snapshot of the closed ones (`snapshot`).

After a sync that failed, the kernel may take for written what is not, so no second one is tried. The process
ends and leaves a mark, by which the next start writes everything anew, to a snapshot, before it serves.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import snapshot
from .disk import Disk
from .errors import StoreUnavailable
from .folder import told
from .information import JournalFigures
from .keeper import Keeper, outgrown
from .log import JournalFailed, Log
from .recovery import SNAPSHOT, SYNC_FAILED, UNFINISHED, Damaged, Recovered, numbered, recover, repair
from .run import boot_id
from .state import Outcome, State

PROBE_SECONDS = 1.0
"""How often it is tried whether a journal that could not be written can be again."""
RESTORING = "restoring"
"""A file in the home while its journal is exchanged: without it, none would be taken for an empty one."""
OVERDUE = 2.0
"""Logs that have outgrown so far are replaced by a start: managers that live shortly finish no snapshot."""
MAY_PASS = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors that somebody else may end: a supervisor tries again."""

logger = logging.getLogger("counter.manager")


class Journal:
    """An open journal; the folder belongs to this process alone."""

    def __init__(self, disk: Disk, log: Log, always: bool, cut: str | None) -> None:
        self._disk = disk
        self._log = log
        self._always = always
        self._cut = cut
        self._keeper: Keeper | None = None
        self._probed = 0.0

    @classmethod
    def open(cls, folder: Path, always: bool) -> tuple[Journal, State[bytes]]:
        """The journal in *folder*, which is made if it is missing, and what it holds.

        Args:
            folder: in the home, whose lock is held.
            always: sync each append before it returns.

        Raises:
            Damaged: it lost what was known to be on the disk; nothing was changed.
            StoreUnavailable: the folder cannot be used.
            JournalFailed: the disk failed.
        """
        with _opening(folder):
            if (folder.parent / RESTORING).exists():
                raise StoreUnavailable(f"{folder.parent} is half restored: repeat `counter restore`")
            if not folder.exists():
                folder.mkdir(0o700)
                Disk(folder.parent).sync()
            disk, boot = Disk(folder), boot_id()
            recovered = recover_in(folder, disk, boot)
            if recovered.cut is not None:
                logger.warning("the journal was not whole at its end: %s", recovered.cut)
            repair(disk, recovered)
            _make_safe(disk, boot, recovered)
            log = Log(disk, boot, recovered.last, always)
        cut = str(recovered.cut) if recovered.cut else None
        return cls(disk, log, always, cut), recovered.state

    def start(self, wake: Callable[[], None]) -> None:
        """Begin the upkeep; *wake* is called when the loop should `tend`."""
        self._keeper = Keeper(self._disk, self._log, not self._always, wake)
        self._keeper.start()

    def append(self, outcomes: Sequence[Outcome[bytes]]) -> None:
        """Write down what came out of a turn; then it may be told.

        Raises:
            JournalFull: it could not be written; nothing of it is there.
            JournalFailed: nobody knows what is there: end this process.
        """
        self._log.append(outcomes)

    def tend(self, ticks: float) -> None:
        """What is to be done between two turns.

        Raises:
            JournalFailed: end this process.
        """
        if self._keeper is not None:
            self._keeper.tend()
        if self.refusing and ticks >= self._probed + PROBE_SECONDS:
            self._probed = ticks
            self._log.probe()  # while we are not ready, nobody may ask for a change

    @property
    def refusing(self) -> bool:
        """Whether the last append could not be written."""
        return self._log.refused is not None

    def figures(self) -> JournalFigures:
        """How it is."""
        names: dict[str, int] = {}
        with contextlib.suppress(OSError):  # a disk that fails is found out by those who write
            names = self._disk.sizes()
        snapshots = numbered(names, SNAPSHOT)
        made = None
        if snapshots:
            with contextlib.suppress(FileNotFoundError):  # the next one has just taken its place
                seconds = (self._disk.folder / snapshots[max(snapshots)]).stat().st_mtime
                made = datetime.fromtimestamp(seconds, UTC)
        return JournalFigures(sum(names.values()), not self.refusing, self._log.synced_at, made, self._cut)

    def close(self) -> None:
        """End the upkeep, and sync.

        Raises:
            JournalFailed: the disk failed.
        """
        if self._keeper is not None:
            self._keeper.stop()
        self._log.close()


def recover_in(folder: Path, disk: Disk, boot: bytes) -> Recovered:
    """What `recover` says, and of damage also where *folder* is."""
    try:
        return recover(disk, boot)
    except Damaged as error:
        raise Damaged(f"{folder}: {error.detail}", error.what) from None


class NoJournal:
    """Durability `memory`: nothing is written down, and nothing is found."""

    refusing = False

    def start(self, wake: Callable[[], None]) -> None:
        """Nothing is to be kept up."""

    def append(self, outcomes: Sequence[Outcome[bytes]]) -> None:
        """What came out is told, and stays in memory."""

    def tend(self, ticks: float) -> None:
        """Nothing is to be done."""

    def figures(self) -> None:
        """There are none."""

    def close(self) -> None:
        """Nothing is open."""


def is_journal(folder: Path) -> bool:
    """Whether there is a journal in *folder*."""
    return folder.exists() and any(folder.iterdir())


def _make_safe(disk: Disk, boot: bytes, recovered: Recovered) -> None:
    """Have on the disk what was read: what is only cached must not be served as if it were kept."""
    names = disk.sizes()
    if SYNC_FAILED in names:
        logger.warning("the disk failed under the last manager: everything is written anew")
        _renew(disk, boot, recovered)
        disk.remove(SYNC_FAILED)
        return
    if outgrown(names) >= OVERDUE:
        try:
            _renew(disk, boot, recovered)
        except OSError as error:
            logger.warning("no snapshot could be made, and the journal grows: %s", error)
        else:
            return
    try:
        for name in recovered.logs:
            with contextlib.closing(disk.open(name)) as file:
                file.sync()
        disk.sync()
    except OSError as error:
        disk.create(SYNC_FAILED).close()
        raise JournalFailed(f"what was read cannot be synced: {error}") from error


def _renew(disk: Disk, boot: bytes, recovered: Recovered) -> None:
    """Put a snapshot in the place of everything that was read."""
    name = f"recovered{SNAPSHOT}{UNFINISHED}"
    snapshot.write(disk, name, boot, recovered.state, recovered.last, time.monotonic())
    snapshot.adopt(disk, name, recovered.last + 1)


@contextlib.contextmanager
def _opening(folder: Path) -> Iterator[None]:
    """Tell what may pass, so that a supervisor tries again, from what somebody has to change."""
    with told(f"cannot use the journal in {folder}", hints=False):
        try:
            yield
        except OSError as error:
            if error.errno in MAY_PASS:
                raise JournalFailed(f"cannot use the journal in {folder}: {error.strerror}") from error
            raise
