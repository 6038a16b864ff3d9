"""The end of the journal, where outcomes are appended, and how far it is known to be on the disk.

One thread, the loop's, appends and switches files; any thread may sync.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from .disk import Disk, DiskFile
from .errors import JournalFull
from .records import HEADER_BYTES, FileFormat
from .recovery import LOG, SYNC_FAILED, SYNC_FAILED_SPARE, UNFINISHED, file_name
from .state import Outcome

SLOW_SECONDS = 2.0
"""A sync that takes longer is told of: with `everysec`, so much more could be lost with the power."""
PROBE_BYTES = 64 * 1024
"""Room for so much is room again."""
_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger("counter.manager")
_encoder = msgspec.msgpack.Encoder()


class JournalFailed(Exception):
    """The disk failed so that nobody knows what is on it: end this process, and let the next one recover."""


class Prepared(NamedTuple):
    """A log that nothing was appended to yet, *name* being its name for now; its header is on the disk."""

    name: str
    form: FileFormat
    file: DiskFile


class Log:
    """Appends outcomes, to one file after the other.

    Args:
        disk: the journal's folder.
        boot: the id of the running boot.
        last: the sequence that was appended last; it and all before it are on the disk.
        always: sync each append before it returns.

    Raises:
        OSError: the first file cannot be made, and not because the disk is full: that may pass.
        JournalFailed: the disk failed.
    """

    def __init__(self, disk: Disk, boot: bytes, last: int, always: bool) -> None:
        self.last = last
        self.synced = last
        self.synced_at: datetime | None = None
        self.refused: OSError | None = None  # why the last append was refused
        self._disk = disk
        self._boot = boot
        self._always = always
        self._failed: OSError | None = None
        self._syncing = threading.Lock()  # one sync at a time
        self._switching = threading.Lock()  # guards the three that a sync takes over
        self._closed: list[DiskFile] = []
        self._renamed = False
        self.first = 0  # the sequence that the open file begins with
        self._size = 0  # of the open file
        self._open: Prepared | None = None
        try:
            self._begin()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._refuse(error)

    @property
    def behind(self) -> bool:
        """Whether something is not known to be on the disk."""
        return self.synced < self.last or self._renamed

    def append(self, outcomes: Sequence[Outcome[bytes]]) -> None:
        """Write *outcomes* as one record; with *always*, return when it is on the disk.

        Raises:
            JournalFull: it could not be written, and nothing of it is there.
            JournalFailed: nobody knows what is there.
        """
        self.check()
        try:
            log = self._open or self._begin()
            record = log.form.record(self.last + 1, self.synced, _encoder.encode(outcomes))
            log.file.write(record, self._size)
        except OSError as error:
            self._cut_back()
            self._refuse(error)
            raise JournalFull(
                f"the change could not be written down ({error.strerror}), and nothing was changed; reads go "
                "on, and changes as soon as that is mended"
            ) from error
        self._size += len(record)
        self.last += 1
        if self._always:
            self.sync()

    def probe(self) -> None:
        """After a refusal, see whether there is room again: for more than a record, or it would come and go.

        Raises:
            JournalFailed: nobody knows what is there.
        """
        try:
            file = (self._open or self._begin()).file
            file.write(bytes(PROBE_BYTES), self._size)
        except OSError:
            return
        finally:
            self._cut_back()
        logger.info("the journal can be written again")
        self.refused = None

    def check(self) -> None:
        """See that the disk has not failed, in whichever thread.

        Raises:
            JournalFailed: it has.
        """
        if self._failed is not None:
            raise JournalFailed(f"the disk failed under the journal: {self._failed}")

    def sync(self) -> None:
        """Return when all that was appended before the call is on the disk.

        Raises:
            JournalFailed: it may not be, and asking again would not tell.
        """
        with self._syncing:
            self.check()
            begun = time.monotonic()
            with self._switching:
                last, closed, self._closed = self.last, self._closed, []
                current = [self._open.file] if self._open else []
                renamed, self._renamed = self._renamed, False
            for file in (*closed, *current):
                self._carefully(file.sync)
            if renamed:
                self.sync_names()
            for file in closed:
                file.close()
            self.synced, self.synced_at = last, datetime.now(UTC)
        if (took := time.monotonic() - begun) >= SLOW_SECONDS:
            logger.warning("a sync of the journal took %.1f s", took)

    def sync_names(self) -> None:
        """Return when the names of the journal's files are on the disk as they are now.

        Raises:
            JournalFailed: as `sync`.
        """
        self._carefully(self._disk.sync)

    def prepare(self) -> Prepared:
        """A new file to `switch` to; any thread may ask for it.

        Raises:
            OSError: it cannot be made.
        """
        form = FileFormat.new("log", self._boot, self.synced)
        name = form.id.hex() + UNFINISHED
        file = self._disk.create(name)
        try:
            file.write(form.header(), 0)
            file.sync()
        except OSError:
            self._discard(name, file)
            raise
        return Prepared(name, form, file)

    def switch(self, prepared: Prepared) -> None:
        """Append to *prepared* from now on.

        Raises:
            OSError: it cannot be given its name; the file before goes on.
        """
        first = self.last + 1
        try:
            self._disk.rename(prepared.name, file_name(first, LOG))
        except OSError:
            self._discard(prepared.name, prepared.file)
            raise
        with self._switching:
            if self._open is not None:
                self._closed.append(self._open.file)
            self._open, self._size, self.first = prepared, HEADER_BYTES, first
            self._renamed = True

    def close(self) -> None:
        """Sync what was appended, and give the descriptors back.

        Raises:
            JournalFailed: as `sync`.
        """
        if self.behind:
            self.sync()
        if self._open is not None:
            self._open.file.close()

    def _discard(self, name: str, file: DiskFile) -> None:
        file.close()
        with contextlib.suppress(OSError):
            self._disk.remove(name)

    def _begin(self) -> Prepared:
        with contextlib.suppress(FileExistsError):
            self._disk.create(SYNC_FAILED_SPARE).close()
        prepared = self.prepare()
        self.switch(prepared)
        self.sync()
        return prepared

    def _cut_back(self) -> None:
        if self._open is None:
            return
        try:
            self._open.file.cut(self._size)
        except OSError as error:
            self._fail(error)
            self.check()

    def _refuse(self, error: OSError) -> None:
        if self.refused is None:
            logger.error("the journal cannot be written (%s): changes are refused until it can", error)
        self.refused = error

    def _carefully(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except OSError as error:
            self._fail(error)
            self.check()

    def _fail(self, error: OSError) -> None:
        """Tell this process, and by a file the next one, that what is cached of these logs proves nothing."""
        self._failed = error
        try:
            self._disk.rename(SYNC_FAILED_SPARE, SYNC_FAILED)  # needs no room, where a disk is full
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.create(SYNC_FAILED).close()
