"""What the files of a journal hold, read by one rule: a prefix of what was written, or a refusal.

Files are named by the first sequence they hold: ``N.log``, or ``N.snapshot``, which stands for everything
before N. The newest snapshot and the logs from there on are replayed. Where a record is damaged or missing,
the reader asks whether an interrupted write or a power cut can have done this:

- Its sequence is one that was known to be on the disk: no. Refused.
- The host has not been restarted since it was written, no sync failed, and something whole follows: no.
  Refused, because the kernel keeps what was written, and the only thing that can be cut off is the end.
- Else the journal ends there, with everything behind it cut off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from .disk import Disk
from .errors import StoreUnavailable
from .records import HEADER_BYTES, FileFormat, Record, Unreadable
from .run import UNKNOWN_BOOT
from .state import Outcome, State

LOG, SNAPSHOT, UNFINISHED = ".log", ".snapshot", ".new"
SYNC_FAILED = "sync-failed"
"""A file whose existence says that no log here can be synced any more."""
SYNC_FAILED_SPARE = SYNC_FAILED + UNFINISHED

_outcomes = msgspec.msgpack.Decoder(list[Outcome[bytes]])


class Damaged(StoreUnavailable):
    """A journal that lost what was safely stored: nothing is served from it. *what* says how it shows."""

    def __init__(self, detail: str, what: str = "") -> None:
        super().__init__(detail)
        self.what = what

    def __reduce__(self) -> tuple[Any, Any]:
        return type(self), (self.detail, self.what)


class Cut(NamedTuple):
    """Where a journal was found to end: in *file* at *offset*, with *size* bytes behind it in all its files.

    At offset 0 the whole file goes: what came before it is missing.
    """

    file: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.size} bytes were cut off, from byte {self.offset} of {self.file} on"


class Recovered(NamedTuple):
    """What a journal holds: *state* with everything up to the sequence *last*.

    *logs* are to be kept, *stale* files to be removed, and *cut* is to be cut off, if there is anything.
    """

    state: State[bytes]
    last: int
    logs: list[str]
    stale: list[str]
    cut: Cut | None


def numbered(names: Iterable[str], suffix: str) -> dict[int, str]:
    """The files among *names* that end in *suffix*, by the number they are named by, ascending."""
    found = {name.removesuffix(suffix): name for name in names if name.endswith(suffix)}
    return dict(sorted((int(number), name) for number, name in found.items() if number.isdecimal()))


def file_name(first: int, suffix: str) -> str:
    """The name of the file that begins with the sequence *first*; all of them sort by it."""
    return f"{first:020}{suffix}"


def recover(disk: Disk, boot: bytes, before: int | None = None) -> Recovered:
    """Read a journal; nothing is changed.

    Args:
        disk: its folder.
        boot: the id of the running boot.
        before: leave out the logs from this sequence on: they are being written.

    Raises:
        Damaged: naming file and offset.
        OSError: a file cannot be read.
    """
    names = disk.sizes()
    snapshots, logs = numbered(names, SNAPSHOT), numbered(names, LOG)
    logs = {first: name for first, name in logs.items() if before is None or first < before}
    state: State[bytes] = State()
    base = max(snapshots, default=1)
    if snapshots:
        last = read_snapshot(disk.read(snapshots[base]), snapshots[base], boot, state)
        if last != base - 1:
            raise _damaged(snapshots[base], 0, f"it goes up to {last} and has another name")
    # A log that begins below the snapshot ends there: one is made where a log ends.
    replay = _Replay(boot, state, base - 1, SYNC_FAILED in names)
    kept = [name for first, name in logs.items() if first >= base]
    for name in kept:
        replay.read(name, disk.read(name))
    cut = replay.end()
    if cut is not None:
        kept = kept[: kept.index(cut.file) + (cut.offset > 0)]
    known = {*kept, *([snapshots[base]] if snapshots else ())}
    stale = [*snapshots.values(), *logs.values()]
    stale += [name for name in names if name.endswith(UNFINISHED)]
    return Recovered(state, replay.last, kept, [name for name in stale if name not in known], cut)


def repair(disk: Disk, recovered: Recovered) -> None:
    """Cut off what is to be cut off, and remove what is no longer needed.

    Later files first: whatever interrupts this, the next reader finds the same end.
    """
    for name in reversed(recovered.stale):
        disk.remove(name)
    if recovered.cut is None or not recovered.cut.offset:
        return
    with contextlib.closing(disk.open(recovered.cut.file)) as file:
        file.cut(recovered.cut.offset)


def read_snapshot(data: bytes, name: str, boot: bytes, state: State[bytes]) -> int:
    """Assign all of a snapshot to *state*; the sequence of the last record that it stands for.

    Raises:
        Damaged: it is not whole.
    """
    form = _format(data, name, "snapshot")
    at, sequence = HEADER_BYTES, 0
    while True:
        record = form.record_at(data, at)
        sequence += 1
        if record is None or record.sequence != sequence:
            raise _damaged(name, at, "a record of the snapshot is damaged")
        outcomes = _decode(record, name, at)
        at = record.end
        if not outcomes:
            break
        for outcome in outcomes:
            state.assign(outcome)
    if at != len(data):
        raise _damaged(name, at, "something follows the end of the snapshot")
    _forget_callers(form, boot, state)
    return form.synced


class _Replay:
    """Assigns the records of logs, one after the other, and judges where they stop."""

    def __init__(self, boot: bytes, state: State[bytes], last: int, sync_failed: bool) -> None:
        self.last = last
        self._sync_failed = sync_failed
        self._boot = boot
        self._state = state
        self._known = last  # the highest sequence that was known to be on the disk
        self._bad: Cut | None = None  # the place of the record that should have come next
        self._bad_in_this_boot = False
        self._end = ("", 0)
        self._in_this_boot = False

    def read(self, name: str, data: bytes) -> None:
        """Replay the log *name*; behind the damaged place, only look what is whole."""
        form = _format(data, name, "log")
        self._known = max(self._known, form.synced)
        gap = int(name.removesuffix(LOG)) != self.last + 1
        if gap and self._is_of_this_boot(form):  # it was opened when all before it had been read
            file, at = (self._bad.file, self._bad.offset) if self._bad else (name, 0)
            raise _damaged(file, at, f"records from {self.last + 1} on are missing before {name}")
        if gap and self._bad is None:
            self._stop(*(self._end if self._end[0] else (name, 0)), 0, self._in_this_boot)
        if self._bad is None:
            self._in_this_boot = self._is_of_this_boot(form)
            at = self._assign(name, data, form)
            _forget_callers(form, self._boot, self._state)
            self._end = (name, at)
            if at < len(data):
                self._stop(name, at, len(data) - at, self._in_this_boot)
        else:
            at = HEADER_BYTES
            self._bad = self._bad._replace(size=self._bad.size + len(data))
        while (record := form.record_after(data, at)) is not None:
            self._found_behind(record)
            at = record.end

    def end(self) -> Cut | None:
        """What is to be cut off.

        Raises:
            Damaged: what is lost was known to be on the disk.
        """
        if self._bad is not None and self._known > self.last:
            lost = f"record {self.last + 1} is lost, and up to {self._known} all were on the disk"
            raise _damaged(self._bad.file, self._bad.offset, lost)
        return self._bad

    def _is_of_this_boot(self, form: FileFormat) -> bool:
        """Whether the kernel has all of it still: after a failed sync it may have dropped some."""
        return form.boot == self._boot != UNKNOWN_BOOT and not self._sync_failed

    def _assign(self, name: str, data: bytes, form: FileFormat) -> int:
        """Assign records as long as each is the next one; where that ends."""
        at = HEADER_BYTES
        while (record := form.record_at(data, at)) is not None and record.sequence == self.last + 1:
            for outcome in _decode(record, name, at):
                self._state.assign(outcome)
            self.last = record.sequence
            self._known = max(self._known, record.synced)
            at = record.end
        return at

    def _stop(self, name: str, at: int, size: int, in_this_boot: bool) -> None:
        self._bad = Cut(name, at, size)
        self._bad_in_this_boot = in_this_boot

    def _found_behind(self, record: Record) -> None:
        if self._bad is None:
            return
        self._known = max(self._known, record.synced)
        if self._bad_in_this_boot and self._known <= self.last:
            behind = f"record {self.last + 1} is damaged, and {record.sequence} behind it is whole"
            raise _damaged(self._bad.file, self._bad.offset, behind)


def _format(data: bytes, name: str, kind: str) -> FileFormat:
    """A file gets its name when its header is on the disk: a bad one is no trace of a power cut."""
    try:
        form = FileFormat.read(data)
    except Unreadable as error:
        raise _damaged(name, 0, str(error)) from None
    if form.kind != kind:
        raise _damaged(name, 0, f"it is a {form.kind} and not a {kind}")
    return form


def _decode(record: Record, name: str, at: int) -> list[Outcome[bytes]]:
    try:
        return _outcomes.decode(record.payload)
    except (
        msgspec.MsgspecError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:  # the last: a deep unknown field
        raise _damaged(name, at, f"record {record.sequence} cannot be read: {error}") from None


def _forget_callers(form: FileFormat, boot: bytes, state: State[bytes]) -> None:
    """Deadlines are on the clock of their boot: with it, all of them are past."""
    if form.boot != boot:
        state.callers.clear()


def _damaged(name: str, at: int, what: str) -> Damaged:
    return Damaged(
        f"the journal is damaged in {name} at byte {at}: {what}. Nothing was changed; "
        "`counter restore` brings a backup back",
        f"at byte {at}, {what}",
    )
