"""The end of the journal: what `append` returned from can be read again, what it refused is not there."""

import errno
import logging
import os
import random
import threading

import pytest
from fake_disk import Ended, FakeDisk
from journal_files import BOOT, OTHER_BOOT, counted, name_of, outcome

from counter.disk import Disk
from counter.errors import JournalFull
from counter.log import PROBE_BYTES, JournalFailed, Log
from counter.records import HEADER_BYTES, RECORD_BYTES, FileFormat
from counter.recovery import SYNC_FAILED, recover

FULL = pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
MODES = pytest.mark.parametrize("always", [False, True])


@pytest.fixture
def disk():
    return FakeDisk()


def start(disk, last=0, always=False):
    return Log(disk, BOOT, last, always)


def append(log, *numbers):
    for number in numbers:
        log.append([outcome(number)])


def there(disk, boot=BOOT):
    """Up to which number outcomes can be read."""
    recovered = recover(disk, boot)
    assert counted(recovered.state) == recovered.last
    return recovered.last


def after_power_cut(disk, seed=0, **how):
    copy = disk.copy_for_crash()
    copy.crash(random.Random(seed), **how)
    return there(copy, OTHER_BOOT)


def is_safe(disk, number):
    """Whether no power cut takes what is up to *number*."""
    return min(after_power_cut(disk, seed, disordered=seed % 2 > 0) for seed in range(24)) >= number


# -- a log


def test_a_new_log_is_on_the_disk_before_it_is_used(disk):
    start(disk)
    assert name_of(1) in disk.durable_names
    assert len(disk.durable_names[name_of(1)].durable) == HEADER_BYTES
    kinds = [kind for kind, _ in disk.calls]
    assert kinds.index("write") < kinds.index("file_sync") < kinds.index("rename") < kinds.index("sync")


def test_a_log_begins_with_the_sequence_after_the_last(disk):
    log = start(disk, last=41)
    assert (log.last, log.synced, log.first, log.behind) == (41, 41, 42, False)
    form = FileFormat.read(disk.bytes_of(name_of(42)))
    assert (form.kind, form.boot, form.synced) == ("log", BOOT, 41)


def test_what_was_appended_can_be_read_again(disk):
    log = start(disk)
    append(log, 1, 2)
    log.append([outcome(3), outcome(4)])
    assert log.last == 3 and counted(recover(disk, BOOT).state) == 4
    log.append([])
    assert log.last == 4 and recover(disk, BOOT).last == 4


def test_everysec_returns_before_it_is_on_the_disk_and_a_sync_puts_it_there(disk):
    log = start(disk)
    append(log, 1, 2)
    assert log.behind and log.synced == 0 and not is_safe(disk, 1)
    log.sync()
    assert not log.behind and log.synced == 2 and is_safe(disk, 2) and log.synced_at is not None
    append(log, 3)
    assert log.behind and is_safe(disk, 2) and not is_safe(disk, 3)


def test_always_returns_when_it_is_on_the_disk(disk):
    log = start(disk, always=True)
    for number in (1, 2, 3):
        append(log, number)
        assert log.synced == number and not log.behind and is_safe(disk, number)


@pytest.mark.parametrize(("always", "marks"), [(False, [0, 0, 0]), (True, [0, 1, 2])])
def test_a_record_says_how_far_it_was_known_to_be_synced(disk, always, marks):
    log = start(disk, always=always)
    append(log, 1, 2, 3)
    data = disk.bytes_of(name_of(1))
    form, at, found = FileFormat.read(data), HEADER_BYTES, []
    while record := form.record_at(data, at):
        found.append(record.synced)
        at = record.end
    assert found == marks


def test_what_is_appended_during_a_sync_is_not_taken_for_synced(disk):
    log = start(disk)
    append(log, 1)
    disk.during["file_sync"] = lambda: append(log, 2)
    log.sync()
    assert log.last == 2 and log.synced == 1 and log.behind
    assert is_safe(disk, 1) and not is_safe(disk, 2)
    log.sync()
    assert log.synced == 2 and is_safe(disk, 2)


def test_a_close_syncs_and_gives_every_descriptor_back(disk):
    log = start(disk)
    append(log, 1)
    log.switch(log.prepare())
    append(log, 2)
    log.close()
    assert is_safe(disk, 2) and not disk.open_files


# -- to the next file


@MODES
def test_a_switch_goes_on_in_a_new_file_without_a_gap(disk, always):
    log = start(disk, always=always)
    append(log, 1, 2)
    prepared = log.prepare()
    append(log, 3)  # the loop goes on meanwhile
    log.switch(prepared)
    assert log.first == 4
    append(log, 4, 5)
    log.switch(log.prepare())
    assert there(disk) == 5
    recovered = recover(disk, BOOT)
    assert recovered.logs == [name_of(1), name_of(4), name_of(6)]
    assert recovered.cut is None and is_safe(disk, 5 if always else 0)
    log.sync()
    assert is_safe(disk, 5) and not log.behind and len(disk.open_files) == 1


def test_a_sync_puts_the_closed_file_and_the_new_name_on_the_disk(disk):
    log = start(disk)
    append(log, 1)
    log.switch(log.prepare())
    assert log.behind
    append(log, 2)
    log.sync()
    assert name_of(2) in disk.durable_names and is_safe(disk, 2)


def test_a_switch_without_an_append_is_behind_until_its_name_is_on_the_disk(disk):
    log = start(disk)
    log.sync()
    log.switch(log.prepare())
    assert log.behind
    log.sync()
    assert not log.behind and name_of(1) in disk.durable_names


def test_a_switch_of_an_empty_log_takes_its_name(disk):
    log = start(disk)
    log.switch(log.prepare())
    append(log, 1)
    log.sync()
    assert [name for name in disk.names if name.endswith(".log")] == [name_of(1)] and is_safe(disk, 1)


def test_a_prepared_log_is_on_the_disk_but_for_its_name(disk):
    log = start(disk)
    append(log, 1)
    log.sync()
    append(log, 2)
    prepared = log.prepare()
    inode = disk.names[prepared.name]
    assert bytes(inode.durable) == prepared.form.header() and prepared.form.synced == 1
    assert prepared.name.endswith(".new") and log.last == 2


@pytest.mark.parametrize("kind", ["create", "write", "file_sync"])
def test_a_log_that_cannot_be_prepared_leaves_nothing(disk, kind):
    log = start(disk)
    names = dict(disk.names)
    disk.fail(kind, errno.EIO, part=0.5)
    with pytest.raises(OSError, match="Input/output"):
        log.prepare()
    assert disk.names == names and len(disk.open_files) == 1
    append(log, 1)
    log.sync()
    assert is_safe(disk, 1)


def test_a_switch_that_fails_goes_on_in_the_file_before(disk):
    log = start(disk)
    append(log, 1)
    prepared = log.prepare()
    disk.fail("rename", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        log.switch(prepared)
    append(log, 2)
    log.sync()
    assert log.first == 1 and is_safe(disk, 2)


# -- no space


@FULL
@MODES
@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_what_could_not_be_written_is_refused_and_not_there(disk, number, always, part, caplog):
    caplog.set_level(logging.INFO, "counter.manager")
    log = start(disk, always=always)
    append(log, 1)
    whole = disk.bytes_of(name_of(1))
    disk.fail("write", number, times=2, part=part)
    for _ in range(2):
        with pytest.raises(JournalFull, match="could not be written down"):
            append(log, 2)
        assert disk.bytes_of(name_of(1)) == whole
        assert log.refused.errno == number and log.last == 1 and there(disk) == 1
    append(log, 2)
    assert log.refused.errno == number and there(disk) == 2  # there may be room for this one and no more
    whole = disk.bytes_of(name_of(1))
    log.probe()
    assert log.refused is None and disk.bytes_of(name_of(1)) == whole
    log.sync()
    assert is_safe(disk, 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]  # each once


def test_it_takes_room_for_more_than_a_record_to_be_writable_again(disk):
    """Or the state would come and go with each record that is small enough."""
    log = start(disk)
    append(log, 1)
    whole = disk.bytes_of(name_of(1))
    disk.room = 0
    with pytest.raises(JournalFull):
        append(log, 2)
    for room, writable in ((1000, False), (PROBE_BYTES - 1, False), (PROBE_BYTES, True)):
        disk.room = room
        log.probe()
        assert (log.refused is None) is writable
        assert disk.bytes_of(name_of(1)) == whole
    disk.room = None
    append(log, 2)
    assert there(disk) == 2


def test_any_other_error_of_a_write_is_refused_as_well(disk):
    log = start(disk)
    disk.fail("write", errno.EIO, part=0.5)
    with pytest.raises(JournalFull):
        append(log, 1)
    append(log, 1)
    assert there(disk) == 1


def test_a_disk_that_is_full_and_has_space_again(disk):
    log = start(disk)
    disk.room = 300
    appended = 0
    with pytest.raises(JournalFull):
        while True:
            append(log, appended + 1)
            appended += 1
    assert there(disk) == appended and 0 < disk.room < 300 - appended * RECORD_BYTES
    disk.room = None
    append(log, appended + 1)
    assert there(disk) == appended + 1


@FULL
@pytest.mark.parametrize("kind", ["create", "write", "file_sync", "rename"])
def test_a_start_on_a_full_disk_refuses_changes_until_there_is_space(disk, number, kind):
    disk.fail(kind, number, times=9)
    log = start(disk)
    assert log.refused.errno == number and not log.behind
    log.sync()
    for _ in range(2):
        with pytest.raises(JournalFull):
            append(log, 1)
    disk.heal()
    log.probe()
    append(log, 1)
    assert log.refused is None and there(disk) == 1 and name_of(1) in disk.durable_names
    log.close()
    assert is_safe(disk, 1)


def test_a_mark_is_kept_for_a_failing_sync_also_where_the_start_had_no_room(disk):
    """Made in advance, because a disk that refuses a sync may refuse a new file, too."""
    disk.room = 0
    log = start(disk)
    disk.room = None
    append(log, 1)
    disk.fail("create", errno.ENOSPC, times=99)
    disk.fail("file_sync", errno.EIO)
    with pytest.raises(JournalFailed):
        log.sync()
    assert SYNC_FAILED in disk.names


def test_a_log_that_never_began_can_be_closed(disk):
    disk.room = 0
    start(disk).close()
    assert not disk.open_files


@pytest.mark.parametrize("kind", ["create", "write", "file_sync", "rename"])
def test_a_start_that_fails_otherwise_says_so(disk, kind):
    disk.fail(kind, errno.EIO, times=9)
    with pytest.raises(OSError, match="Input/output"):
        start(disk)


# -- a disk that fails


def test_a_cut_that_fails_ends_it_all(disk):
    log = start(disk)
    append(log, 1)
    disk.fail("write", errno.ENOSPC, part=0.5)
    disk.fail("cut", errno.EIO)
    with pytest.raises(JournalFailed, match="Input/output"):
        append(log, 2)
    for refuses in (lambda: append(log, 2), log.sync, log.check, log.close):
        with pytest.raises(JournalFailed):
            refuses()
    assert SYNC_FAILED in disk.names and there(disk) == 1


@MODES
@pytest.mark.parametrize("kind", ["file_sync", "sync"])
def test_a_sync_that_fails_is_never_tried_again_and_leaves_a_mark(disk, always, kind):
    log = start(disk, always=always)
    append(log, 1)
    log.sync()
    log.switch(log.prepare())
    disk.fail(kind, errno.EIO)
    with pytest.raises(JournalFailed, match="Input/output"):
        append(log, 2)
        log.sync()
    assert log.synced == 1 and SYNC_FAILED in disk.names
    syncs = [call for call in disk.calls if "sync" in call[0]]
    for refuses in (lambda: append(log, 3), log.sync, log.check, log.close):
        with pytest.raises(JournalFailed):
            refuses()
    assert [call for call in disk.calls if "sync" in call[0]] == syncs
    assert there(disk) == 2 and is_safe(disk, 1)


def test_a_closed_file_that_cannot_be_synced_fails_it_as_well(disk):
    log = start(disk)
    append(log, 1)
    log.switch(log.prepare())
    append(log, 2)
    disk.fail("file_sync", errno.EIO)
    with pytest.raises(JournalFailed):
        log.sync()
    assert log.synced == 0


def test_a_failure_in_another_thread_stops_the_next_append(disk):
    log = start(disk)
    append(log, 1)
    disk.fail("file_sync", errno.EIO)

    def fails():
        with pytest.raises(JournalFailed):
            log.sync()

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    with pytest.raises(JournalFailed):
        append(log, 2)
    assert there(disk) == 1


@pytest.mark.parametrize("kind", ["file_sync", "cut"])
def test_the_mark_needs_no_room(disk, kind):
    log = start(disk)
    append(log, 1)
    disk.fail("create", errno.ENOSPC, times=9)
    disk.fail("write", errno.ENOSPC, part=0.5)
    disk.fail(kind, errno.EIO)
    with pytest.raises((JournalFailed, JournalFull)):
        append(log, 2)
    if kind == "file_sync":
        with pytest.raises(JournalFailed):
            log.sync()
    assert SYNC_FAILED in disk.names


# -- an end at any moment


def some_work(disk, done, always):
    """Appends and switches; the number of the last append that returned is put into *done*."""
    log = start(disk, always=always)
    for number in range(1, 9):
        append(log, number)
        done["appended"] = number
        if always:
            done["synced"] = number
        if number % 3 == 0:
            log.switch(log.prepare())
        if number % 4 == 2:
            log.sync()
            done["synced"] = number


@MODES
@pytest.mark.parametrize("power", [False, True])
def test_whenever_it_ends_what_was_promised_is_there(always, power):
    for calls in range(200):
        disk, done = FakeDisk(), {"appended": 0, "synced": 0}
        disk.end_after(calls, torn=calls % 10 / 10)
        try:
            some_work(disk, done, always)
        except Ended:
            promised = done["synced" if power else "appended"]
            disk.crash(random.Random(calls), calls % 3 == 0) if power else disk.kill()
            assert promised <= there(disk, OTHER_BOOT if power else BOOT) <= done["appended"] + 1
        else:
            assert calls > 20
            return
    raise AssertionError("it never came to the end")


# -- the real disk


def test_real_files(tmp_path):
    log = Log(Disk(tmp_path), BOOT, 0, True)
    append(log, 1, 2)
    log.switch(log.prepare())
    append(log, 3)
    log.close()
    assert there(Disk(tmp_path)) == 3
    assert sorted(path.name for path in tmp_path.glob("*.log")) == [name_of(1), name_of(3)]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    with pytest.raises(FileExistsError):
        Disk(tmp_path).create(name_of(1))


def test_a_real_disk_goes_on_after_a_short_write(tmp_path, monkeypatch):
    written, pwrite = [], os.pwrite

    def short(file, data, at):
        written.append(at)
        return pwrite(file, data[:7], at)

    monkeypatch.setattr("counter.disk.os.pwrite", short)
    file = Disk(tmp_path).create("file")
    file.write(b"0123456789" * 3, 5)
    assert written == [5, 12, 19, 26, 33] and (tmp_path / "file").read_bytes() == bytes(5) + b"0123456789" * 3
    file.cut(8)
    file.sync()
    file.close()
    assert Disk(tmp_path).sizes() == {"file": 8}


def test_a_real_disk_follows_no_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(OSError, match="symbolic"):
        Disk(tmp_path).open("link")
