"""Journals that were really written: what each record made of the state, and where it is, is known.

From that, and not from what the reader does, it is told what a reader must find after a damage.
"""

import contextlib
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from counter import journal, snapshot
from counter.disk import Disk, DiskFile
from counter.journal import Journal
from counter.log import Log
from counter.records import HEADER_BYTES
from counter.recovery import LOG, SNAPSHOT, UNFINISHED, Damaged, file_name, recover
from counter.results import Entry
from counter.state import Outcome, State

BOOT, NEXT_BOOT = b"the boot this is", b"a boot after it."
"""16 bytes each."""
REFUSED = -1
"""In place of the last sequence that is there."""
_LATER = 1e9
"""Seconds for which callers are kept."""
_BEGAN = datetime.now(UTC)


class Place(NamedTuple):
    """Where a record is, and which sequence it says was known to be on the disk."""

    file: str
    sequence: int
    begin: int
    end: int
    mark: int


class Written:
    """A journal that is being written to *disk*.

    Attributes:
        states: for each sequence, what it and all before it come to; `facts` of it.
        places: of all records in logs.
        marks: what the header of each file says was known to be on the disk.
    """

    def __init__(self, disk, chance, longest=40):
        self.disk = disk
        self.states = [facts(State())]
        self.places = []
        self.marks = {}
        self._chance = chance
        self._longest = longest
        self._state = State()
        self.log = Log(disk, BOOT, 0, always=False)
        self._name = file_name(1, LOG)
        self.marks[self._name] = 0

    def append(self, records):
        """Write so many records."""
        for _ in range(records):
            begin, mark = self.disk.sizes()[self._name], self.log.synced
            outcomes = [self._outcome() for _ in range(self._chance.choice((1, 1, 1, 3)))]
            self.log.append(outcomes)
            for outcome in outcomes:
                self._state.assign(outcome)
            self.states.append(facts(self._state))
            end = self.disk.sizes()[self._name]
            self.places.append(Place(self._name, self.log.last, begin, end, mark))

    def switch(self):
        """Go on in a new log."""
        prepared = self.log.prepare()
        self.log.switch(prepared)
        self._name = file_name(self.log.first, LOG)
        self.marks[self._name] = prepared.form.synced

    @property
    def is_begun(self):
        """Whether the open log has a record."""
        return self.log.last >= self.log.first

    def snapshot(self):
        """Have a snapshot of all logs but the one that is written."""
        before, name = self.log.first, f"made{SNAPSHOT}{UNFINISHED}"
        snapshot.make(self.disk, BOOT, before, name, time.monotonic())
        snapshot.adopt(self.disk, name, before)
        self.places = [place for place in self.places if place.sequence >= before]
        self.marks = {name: mark for name, mark in self.marks.items() if int(Path(name).stem) >= before}
        self.marks[file_name(before, SNAPSHOT)] = before - 1

    def close(self):
        """Give the descriptors back; nothing is synced."""
        with patch.object(DiskFile, "sync", lambda _: None):
            self.log.close()

    def files(self):
        """What is in each file."""
        return {name: self.disk.read(name) for name in self.disk.sizes()}

    def last_after(self, lost, boot):
        """Which sequence a reader in *boot* must find to be the last when the places *lost* are damaged.

        `REFUSED` if something else shows that it was on the disk, or that the file was not only cut short.
        """
        if not lost:
            return len(self.states) - 1
        first = min(place.sequence for place in lost)
        others = [place for place in self.places if place not in lost]
        marks = [*self.marks.values(), *(place.mark for place in others)]
        behind = any(place.sequence > first for place in others)
        if max(marks) >= first or (boot == BOOT and behind):
            return REFUSED
        return first - 1

    def _outcome(self):
        chance, number = self._chance, len(self.states)
        at = _BEGAN + timedelta(milliseconds=number)
        changed = {}
        for name in chance.sample(("a", "b", "c", "d", "e"), chance.choice((1, 1, 2))):
            text = chance.randbytes(chance.randint(1, self._longest)).hex()
            entry = Entry(name, chance.randrange(-(2**63), 2**63), text, at, at)
            changed[name] = chance.choice((entry, entry, entry, None))
        if chance.random() < 0.1:
            return Outcome(at, changed)  # as of a sweep
        reply = chance.randbytes(chance.randint(1, self._longest))
        key = f"key {chance.randrange(20)}" if chance.random() < 0.3 else None
        digest = b"digest" if key else b""
        return Outcome(
            at, changed, reply, chance.randbytes(1) * 16, number, time.monotonic() + _LATER, key, digest
        )


class Files:
    """A folder of files in memory, as much of a `Disk` as a reader needs."""

    def __init__(self, files):
        self._files = files

    def sizes(self):
        return {name: len(data) for name, data in self._files.items()}

    def read(self, name):
        return self._files[name]


def facts(state):
    """What is to be compared of a state."""
    return dict(state.entries), dict(state.callers), dict(state.keys)


def written(folder, chance, logs, with_snapshot, longest=40, synced=0.2):
    """A closed journal in the new *folder*, with so many records in each of *logs*.

    The snapshot is in place of all but the last two. After a record there is a sync with the chance *synced*.
    """
    folder.mkdir()
    result = Written(Disk(folder), chance, longest)
    for number, records in enumerate(logs):
        if number:
            result.switch()
        if with_snapshot and number == len(logs) - 2:
            result.log.sync()
            result.snapshot()
        for _ in range(records):
            result.append(1)
            if chance.random() < synced:
                result.log.sync()
    result.close()
    return result


def found_in(files, boot):
    """What a reader in *boot* finds: `Recovered`, or the text of a refusal."""
    try:
        return recover(Files(files), boot)
    except Damaged as error:
        return str(error)


def wrong(known, files, boot, due, damaged_file=None):
    """What is wrong with what a reader in *boot* finds in *files*, None if it is right.

    *due* is the last sequence that should be there, or `REFUSED`.
    """
    found = found_in(files, boot)
    if isinstance(found, str):
        named = re.search(r"damaged in (\S+) at byte (\d+):", found)
        if due != REFUSED:
            return f"refused, and {due} records are whole: {found}"
        if named is None or named[1] not in files or (damaged_file and named[1] != damaged_file):
            return f"the refusal does not name {damaged_file} and the byte: {found}"
        return None
    if due == REFUSED:
        return f"not refused, but cut after {found.last}: {found.cut}"
    if found.last != due:
        return f"{found.last} is the last, and should be {due}: {found.cut}"
    if facts(found.state) != in_boot(known.states[due], boot):
        return f"another state than the one after record {due}"
    return None


def in_boot(state, boot):
    """The facts that a reader in *boot* keeps of *state*: callers of another boot have nothing to repeat."""
    entries, callers, keys = state
    return entries, callers if boot == BOOT else {}, keys


def wrong_when_opened(known, files, boot, due, folder):
    """What is wrong when a manager in *boot* opens *files*, writes one more record and ends; None if nothing.

    It does so in *folder*; what is there goes first.
    """
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(journal, "boot_id", lambda: boot))
        stack.enter_context(patch.object(DiskFile, "sync", lambda _: None))  # there are thousands of these
        stack.enter_context(patch.object(Disk, "sync", lambda _: None))
        stack.enter_context(patch.object(journal.logger, "disabled", True))
        try:
            opened, state = Journal.open(folder, always=False)
        except Damaged as error:
            unchanged = {name: (folder / name).read_bytes() for name in Disk(folder).sizes()} == files
            return None if due == REFUSED and unchanged else f"refused, unchanged: {unchanged}: {error}"
        if due == REFUSED:
            return "not refused"
        if facts(state) != in_boot(known.states[due], boot):
            return f"opened with another state than the one after record {due}"
        entry = Entry("new", 1, "x", _BEGAN, _BEGAN)
        opened.append([Outcome(_BEGAN, {"new": entry})])
        opened.close()
    again = recover(Disk(folder), boot)
    entries, callers, keys = in_boot(known.states[due], boot)
    if again.last != due + 1 or facts(again.state) != (entries | {"new": entry}, callers, keys):
        return f"it did not go on from {due}: {again.last} is the last"
    return None


def is_vital(name, offset):
    """Whether nothing of the file *name* can be read without the byte at *offset*."""
    return name.endswith(SNAPSHOT) or offset < HEADER_BYTES
