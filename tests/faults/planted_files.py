"""Mistakes that a manager could make in what it writes to its journal, syncs, takes away and reads again."""

import time

from msgspec.structs import replace

from counter import journal, keeper, snapshot
from counter.journal import Journal
from counter.log import JournalFailed, Log
from counter.records import FileFormat
from counter.recovery import LOG, _Replay, numbered
from counter.state import State

GAP_SECONDS = 0.005
"""Between writing and answering, where a kill is to come: without the mistake it does no harm there."""
LATE_OUTCOMES = 50
MOST_COUNTERS = 5


# What is written


def answer_before_writing(_text):
    """What is told is written somewhat later."""
    real, waiting = Journal.append, []

    def append(journal, outcomes):
        waiting.extend(outcomes)
        if len(waiting) >= LATE_OUTCOMES:
            real(journal, waiting)
            waiting.clear()

    Journal.append = append


def write_no_callers(_text):
    """Who asked is remembered, but not in the journal."""
    _write_without(caller=None)


def write_no_keys(_text):
    """What was asked under which key is remembered, but not in the journal."""
    _write_without(key=None)


def _write_without(**fields):
    real = Journal.append

    def append(journal, outcomes):
        real(journal, [replace(outcome, **fields) for outcome in outcomes])
        time.sleep(GAP_SECONDS)

    Journal.append = append


def write_callers_apart(_text):
    """Who asked is in a record of its own, after that of what came out."""
    real = Journal.append

    def append(journal, outcomes):
        real(journal, [replace(outcome, caller=None) for outcome in outcomes])
        asked = [replace(outcome, changed={}) for outcome in outcomes if outcome.caller is not None]
        if asked:
            real(journal, asked)

    Journal.append = append


def leave_what_was_cut(_text):
    """After a write that failed, what there is of it stays."""
    Log._cut_back = lambda log: None


def snapshots_without_callers(_text):
    """A snapshot has the counters and keys alone."""
    _outcomes_without("caller")


def snapshots_without_keys(_text):
    """A snapshot has the counters and callers alone."""
    _outcomes_without("key")


def _outcomes_without(field):
    real = State.outcomes
    State.outcomes = lambda state: (each for each in real(state) if getattr(each, field) is None)


# What is synced


def names_of_logs_unsynced(_text):
    """A new log's name is not known to be on the disk when its records are said to be."""
    real = Log.switch

    def switch(log, prepared):
        real(log, prepared)
        log._renamed = False

    Log.switch = switch


def names_of_snapshots_unsynced(_text):
    """The old logs are removed before the snapshot's name is on the disk."""
    _adopt_as(lambda real, disk, name, before, sync_names=None: real(disk, name, before, lambda: None))


def logs_removed_first(_text):
    """The old logs are removed, and then the snapshot takes their place."""

    def adopt(real, disk, name, before, sync_names=None):
        for first, old in numbered(disk.sizes(), LOG).items():
            if first < before:
                disk.remove(old)
        real(disk, name, before, sync_names)

    _adopt_as(adopt)


def _adopt_as(mistaken):
    real = snapshot.adopt

    def adopt(*arguments):
        mistaken(real, *arguments)

    snapshot.adopt = keeper.adopt = adopt


def snapshots_unsynced(_text):
    """A snapshot takes the place of the logs before it is on the disk."""
    real = snapshot.write

    def write(disk, *arguments):
        real(_UnsyncedDisk(disk), *arguments)

    snapshot.write = write


class _UnsyncedDisk:
    """A disk whose new files say that they are synced, and are not."""

    def __init__(self, disk):
        self._disk = disk

    def __getattr__(self, name):
        return getattr(self._disk, name)

    def create(self, name):
        file = self._disk.create(name)
        file.sync = lambda: None
        return file


def sync_again(_text):
    """A sync that failed is tried again, and then the kernel says that all is well."""

    def carefully(log, sync):
        try:
            sync()
        except OSError:
            sync()

    Log._carefully = carefully


def go_on_after_a_failed_sync(_text):
    """A sync that failed is logged, and that is all."""
    real = Log._carefully

    def carefully(log, sync):
        try:
            real(log, sync)
        except JournalFailed:
            log._failed = None

    Log._carefully = carefully


def forget_a_failed_sync(_text):
    """The process ends after a sync that failed; the next one does not know, and trusts what is cached."""
    Log._fail = lambda log, error: setattr(log, "_failed", error)


def sync_after_answering(_text):
    """With `always`, a turn is merged and told before it is synced; readers and callers see it at once."""
    append, tend = Log.append, Journal.tend

    def append_alone(log, outcomes):
        always, log._always = log._always, False
        try:
            append(log, outcomes)
        finally:
            log._always = always

    def tend_and_sync(journal, ticks):
        tend(journal, ticks)
        if journal._always and journal._log.behind:
            journal._log.sync()

    Log.append, Journal.tend = append_alone, tend_and_sync


def serve_what_is_not_synced(_text):
    """A start does not sync what it read."""
    journal._make_safe = lambda disk, boot, recovered: None


# What is read


def ignore_checksums(_text):
    """Whatever has the length of a record is one."""
    FileFormat._checksum = lambda form, head, payload: 0


def ignore_marks(_text):
    """That a record was known to be on the disk means nothing: without it, the journal just ends earlier."""
    _Replay.end = lambda replay: replay._bad


def write_no_marks(_text):
    """No record says what is known to be on the disk."""
    record, init = FileFormat.record, FileFormat.__init__
    FileFormat.record = lambda form, sequence, synced, payload: record(form, sequence, 0, payload)
    FileFormat.__init__ = lambda form, kind, boot, synced, file_id: init(
        form, kind, boot, synced if kind == "snapshot" else 0, file_id
    )


def ignore_what_follows(_text):
    """Something whole behind a damaged record, in the same boot, means nothing."""
    _Replay._found_behind = lambda replay, record: None


def take_all_for_this_boot(_text):
    """Each file counts as written in this boot."""
    _take_all_for(lambda: journal.boot_id())  # what it is when a file is read: a scenario may change it


def take_all_for_another_boot(_text):
    """Each file counts as written in an earlier boot."""
    _take_all_for(lambda: b"an earlier boot.")


def _take_all_for(boot_of_files):
    real = FileFormat.read.__func__

    def read(cls, data):
        form = real(cls, data)
        form.boot = boot_of_files()
        return form

    FileFormat.read = classmethod(read)


def replay_up_to_a_limit(_text):
    """A replay leaves out the counters that are more than there may be now."""

    def changed(state, name, entry):
        known = entry is None or name in state.entries or len(state.entries) < MOST_COUNTERS
        return {name: entry} if known else {}

    _assign_instead(changed)


def replay_adds(_text):
    """A replay adds what each request asked for, as if all of them were increments by 1."""

    def changed(state, name, entry):
        before = state.entries.get(name)
        return {name: entry and replace(entry, value=(before.value if before else 0) + 1)}

    _assign_instead(changed)


def _assign_instead(decide):
    real = State.assign

    def assign(state, outcome):
        decided = {}
        for name, entry in outcome.changed.items():
            decided |= decide(state, name, entry)
        real(state, replace(outcome, changed=decided))

    State.assign = assign
