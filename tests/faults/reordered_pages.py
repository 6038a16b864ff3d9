"""A power cut leaves any of the pages written since the last sync: what was synced is there, as a prefix.

The disk here knows of each file, and of each name, what was synced. After that every page of 4 KiB, or
sector of 512 bytes, is there or not, each for itself; one that is not is zeros, or as it was, and the file
may be shorter. A file that was renamed may have its old name. In another boot this is never refused. Then a
page below what is known to be on the disk is destroyed, and that is refused.
"""

import os
import shutil

from counter.disk import Disk, DiskFile
from faults.written import NEXT_BOOT, REFUSED, Written, facts, found_in, in_boot, wrong, wrong_when_opened

PAGE, SECTOR = 4096, 512
RECORDS = 40
LONGEST = 1500


class RememberingFile(DiskFile):
    """Knows what of it was synced."""

    def __init__(self, file):
        super().__init__(file)
        self.durable = b""
        self.name = self.durable_name = ""

    def sync(self):
        self.durable = os.pread(self._file, os.fstat(self._file).st_size, 0)


class RememberingDisk(Disk):
    """Knows of each file what was synced, and of each name."""

    def __init__(self, folder):
        super().__init__(folder)
        self.made = []

    def create(self, name):
        file = RememberingFile(os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        file.name = file.durable_name = name
        self.made.append(file)
        return file

    def rename(self, old, new):
        super().rename(old, new)
        for file in self.made:
            if file.name == old:
                file.name = new

    def sync(self):
        for file in self.made:
            file.durable_name = file.name


def run(trial):
    trial.figures |= {"cuts": 0, "records_behind_the_last_sync": 0, "of_them_kept": 0, "pages_destroyed": 0}
    for number in range(trial.runs):
        cut_power(trial, trial.folder / f"journal.{number}")


def cut_power(trial, folder):
    """Write a journal, and cut the power."""
    folder.mkdir()
    disk, chance = RememberingDisk(folder), trial.chance
    journal = Written(disk, chance, LONGEST)
    for _ in range(chance.randrange(RECORDS)):
        journal.append(1)
        what = chance.random()
        if what < 0.1 and journal.is_begun:
            journal.switch()
        elif what < 0.25:
            journal.log.sync()
    last, synced = journal.log.last, journal.log.synced
    written, files = journal.files(), dict(survivors(disk, chance))
    journal.close()
    shutil.rmtree(folder)
    trial.figures["cuts"] += 1
    found = found_in(files, NEXT_BOOT)
    if isinstance(found, str):
        trial.require(False, f"refused after a power cut, {synced} of {last} synced: {found}")
        return
    trial.figures["records_behind_the_last_sync"] += last - synced
    trial.figures["of_them_kept"] += max(0, found.last - synced)
    trial.require(found.last >= synced, f"{found.last} is the last, and {synced} was synced")
    same = facts(found.state) == in_boot(journal.states[found.last], NEXT_BOOT)
    trial.require(same, f"another state than the one after record {found.last}")
    said = wrong_when_opened(journal, files, NEXT_BOOT, found.last, trial.folder / "opened")
    trial.require(said is None, f"opened after a power cut: {said}")
    there = [place for place in journal.places if is_there(place, written, files)]
    destroy(trial, journal, there, files)


def survivors(disk, chance):
    """The files as the power cut leaves them."""
    unit = chance.choice((PAGE, PAGE, SECTOR))
    kept = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    for file in disk.made:
        written = disk.read(file.name)
        data = bytearray(written)
        for at in range(0, len(data), unit):
            if chance.random() >= kept:
                before = file.durable[at : at + unit]
                data[at : at + unit] = before.ljust(len(data[at : at + unit]), b"\0")
        ends = [size for size in range(unit, len(data), unit) if size > len(file.durable)]
        size = chance.choice([len(file.durable), len(data), len(data), *ends])
        yield chance.choice((file.name, file.durable_name)), bytes(data[:size])


def is_there(place, written, files):
    """Whether the record is in *files* as it was *written*."""
    part = slice(place.begin, place.end)
    return files.get(place.file, b"")[part] == written[place.file][part]


def destroy(trial, journal, there, files):
    """Fill a page with zeros in which something is that is known to have been on the disk."""
    marks = [mark for name, mark in journal.marks.items() if name in files]
    candidates = [
        (name, at)
        for name, data in files.items()
        for at in range(0, len(data), PAGE)
        if name in journal.marks and must_be_missed(there, marks, name, at)
        if any(data[at : at + PAGE])  # the last byte of a record is a zero, and may be all of a page
    ]
    if not candidates:
        return
    name, at = trial.chance.choice(candidates)
    data = bytearray(files[name])
    page = data[at : at + PAGE]
    data[at : at + PAGE] = bytes(len(page))
    trial.figures["pages_destroyed"] += 1
    said = wrong(journal, files | {name: bytes(data)}, NEXT_BOOT, REFUSED, name)
    trial.require(said is None, f"the page at {at} of {name} is destroyed: {said}")


def must_be_missed(there, marks, name, at):
    """Whether something that is left says that what is in this page was on the disk."""
    lost = [each for each in there if each.file == name and each.begin < at + PAGE and each.end > at]
    left = [each.mark for each in there if each not in lost]
    return at == 0 or (bool(lost) and max(marks + left) >= lost[0].sequence)
