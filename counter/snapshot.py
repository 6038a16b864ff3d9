"""Snapshots: a whole state in one file, in place of the logs that made it.

They are made of files, by a process of its own: ``python -m counter.snapshot LINK FOLDER BEFORE NAME``
replays the journal in FOLDER up to the sequence BEFORE and writes the file NAME there. Whoever started it
gives that file its final name.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from .disk import Disk
from .keys import Keys
from .link import Link
from .records import FileFormat
from .recovery import LOG, SNAPSHOT, Damaged, file_name, numbered, recover
from .run import boot_id
from .state import State

_CHUNK = 1024 * 1024
_NICE = 10
_encoder = msgspec.msgpack.Encoder()


def make(disk: Disk, boot: bytes, before: int, name: str, ticks: float) -> None:
    """Write what the journal holds up to the sequence *before* to the new file *name*, and sync it.

    Raises:
        Damaged: a file is damaged, or the logs do not reach that far.
        OSError: it cannot be read or written.
    """
    recovered = recover(disk, boot, before)
    if recovered.last != before - 1 or recovered.cut is not None:
        raise Damaged(f"the closed logs end at {recovered.last}, and not before {before}: {recovered.cut}")
    write(disk, name, boot, recovered.state, recovered.last, ticks)


def write(disk: Disk, name: str, boot: bytes, state: State[bytes], last: int, ticks: float) -> None:
    """Write *state*, which has everything up to the sequence *last*, to the new file *name*, and sync it.

    Callers whose deadline is past at *ticks*, and keys that are too old, are left out.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    form = FileFormat.new("snapshot", boot, last)
    state.callers = {caller: kept for caller, kept in state.callers.items() if kept.deadline > ticks}
    if state.at is not None:
        Keys(len, state.keys).trim(state.at)
    with contextlib.closing(disk.create(name)) as file:
        try:
            at, chunk, sequence = 0, bytearray(form.header()), 0
            for outcome in state.outcomes():
                sequence += 1
                chunk += form.record(sequence, 0, _encoder.encode([outcome]))
                if len(chunk) >= _CHUNK:
                    file.write(bytes(chunk), at)
                    at += len(chunk)
                    chunk.clear()
            chunk += form.record(sequence + 1, 0, _encoder.encode([]))
            file.write(bytes(chunk), at)
            file.sync()
        except BaseException:
            with contextlib.suppress(OSError):
                disk.remove(name)
            raise


def adopt(disk: Disk, name: str, before: int, sync_names: Callable[[], None] | None = None) -> None:
    """Let the snapshot in the file *name* take the place of everything before the sequence *before*.

    Args:
        disk: the journal's folder.
        name: a synced file.
        before: what the snapshot stands for.
        sync_names: instead of the disk's own sync.

    Raises:
        OSError: it has not done so, or what it replaces is still there; the next one takes that away, too.
    """
    disk.rename(name, file_name(before, SNAPSHOT))
    (sync_names or disk.sync)()  # a log may go only when the snapshot cannot
    names = disk.sizes()
    for suffix in (LOG, SNAPSHOT):
        for first, old in numbered(names, suffix).items():
            if first < before:
                disk.remove(old)


def main(arguments: list[str]) -> int:
    """Make the snapshot that *arguments* ask for; the exit code."""
    link, folder, before, name = arguments
    Link(int(link)).watch()
    os.nice(_NICE)
    gc.disable()  # nothing here is garbage before the end
    try:
        make(Disk(Path(folder)), boot_id(), int(before), name, time.monotonic())
    except (Damaged, OSError) as error:
        print(f"counter.snapshot: {error}", file=sys.stderr)  # noqa: T201  the manager's log is there
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
