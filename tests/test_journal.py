"""An open journal: what a start finds is safe before it is used, and what the disk refuses is told."""

import errno
import logging
import random
import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from fake_disk import Ended, FakeDisk
from journal_files import BOOT, OTHER_BOOT, at, counted, encode, log_bytes, name_of, outcome
from support import wait_until

from counter import journal, keeper
from counter.disk import Disk, DiskFile
from counter.errors import JournalFull, StoreUnavailable
from counter.journal import PROBE_SECONDS, Journal, NoJournal, is_journal
from counter.log import JournalFailed
from counter.records import FileFormat
from counter.recovery import SYNC_FAILED, Damaged


class Host:
    """A disk and a boot that journals are opened on."""

    def __init__(self, folder):
        self.disk, self.boot, self.folder = FakeDisk(), BOOT, folder

    def open(self, always=False):
        return Journal.open(self.folder, always)

    def appended(self, *numbers, **fields):
        """Append to a journal of its own, which is then killed."""
        opened, _ = self.open()
        for number in numbers:
            opened.append([outcome(number, **fields)])
        self.disk.kill()

    def crash(self, seed=0, **how):
        self.disk.crash(random.Random(seed), **how)
        self.boot = OTHER_BOOT

    def logs(self):
        return sorted(name for name in self.disk.names if name.endswith((".log", ".snapshot")))


@pytest.fixture
def host(tmp_path, monkeypatch):
    made = Host(tmp_path)
    monkeypatch.setattr(journal, "Disk", lambda folder: made.disk)
    monkeypatch.setattr(journal, "boot_id", lambda: made.boot)
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: 0.0))
    return made


# -- a start


def test_it_goes_on_where_it_ended(host):
    for number in (1, 2, 3):
        opened, state = host.open()
        assert counted(state) == number - 1
        opened.append([outcome(number)])
        opened.close()
        assert not host.disk.open_files
        host.disk.kill()
    assert host.logs() == [name_of(1), name_of(2), name_of(3)]
    assert opened.figures().cut is None


def test_what_was_read_is_on_the_disk_before_it_is_used(host):
    host.appended(1, 2)
    host.disk.calls.clear()
    opened, state = host.open()
    assert counted(state) == 2
    assert ("file_sync", name_of(1)) in host.disk.calls
    host.disk.kill()
    host.crash()
    assert counted(host.open()[1]) == 2
    assert opened.figures().cut is None


def test_every_log_that_was_read_is_synced(host):
    host.appended(1)
    host.appended(2)
    host.disk.calls.clear()
    host.open()
    synced = [name for kind, name in host.disk.calls if kind == "file_sync"]
    assert synced[:2] == [name_of(1), name_of(2)]
    kinds = [kind for kind, _ in host.disk.calls]
    assert "sync" in kinds[: kinds.index("create")]  # the names as well, before there is a new one


def test_what_was_cut_off_is_told_and_gone(host, caplog):
    host.appended(1, 2)
    host.disk.names[name_of(1)].cut(len(host.disk.bytes_of(name_of(1))) - 3)
    opened, state = host.open()
    assert counted(state) == 1
    assert "the journal was not whole at its end" in caplog.text and f"of {name_of(1)} on" in caplog.text
    assert f"bytes were cut off, from byte {len(host.disk.bytes_of(name_of(1)))} of" in opened.figures().cut
    host.disk.kill()
    caplog.clear()
    opened, state = host.open()
    assert counted(state) == 1 and not caplog.records and opened.figures().cut is None


def test_damage_is_refused_and_nothing_is_changed(host):
    host.appended(1, 2, 3)
    data = host.disk.bytes_of(name_of(1))
    host.disk.put(name_of(1), data[:60] + b"??" + data[62:])
    host.disk.put("x.new", b"left")
    before = {name: host.disk.bytes_of(name) for name in host.disk.names}
    with pytest.raises(Damaged, match=f"{name_of(1)} at byte"):
        host.open()
    assert {name: host.disk.bytes_of(name) for name in host.disk.names} == before


def test_callers_are_found_in_this_boot_and_forgotten_in_another(host):
    host.appended(1, reply=b"reply", caller=b"anna", seq=1, deadline=9.0)
    assert list(host.open()[1].callers) == [b"anna"]
    host.disk.kill()
    host.boot = OTHER_BOOT
    assert not host.open()[1].callers


def test_unfinished_files_are_removed(host):
    host.disk.put("abc.new", b"x")
    host.disk.put(name_of(5, ".snapshot.new"), b"x")
    host.open()
    assert "abc.new" not in host.disk.names and name_of(5, ".snapshot.new") not in host.disk.names


def test_a_start_on_a_full_disk_serves_what_is_there(host):
    host.appended(1)
    host.disk.room = 0
    opened, state = host.open()
    assert counted(state) == 1 and opened.refusing and not opened.figures().writable
    with pytest.raises(JournalFull):
        opened.append([outcome(2)])
    host.disk.room = None
    opened.append([outcome(2)])
    opened.tend(100.0)
    assert not opened.refusing and opened.figures().writable


# -- after a sync that failed


def fail_a_sync(host, evict=False):
    """A journal with 1 synced and 2 not, whose disk has failed."""
    host.appended(1)
    opened, _ = host.open()
    opened.append([outcome(2)])
    host.disk.fail("file_sync", errno.EIO)
    with pytest.raises(JournalFailed):
        opened.close()
    host.disk.kill()
    assert SYNC_FAILED in host.disk.names


def test_everything_is_written_anew_and_no_old_log_is_synced(host, caplog):
    fail_a_sync(host)
    host.disk.calls.clear()
    opened, state = host.open()
    assert counted(state) == 2 and "written anew" in caplog.text
    synced = [name for kind, name in host.disk.calls if kind == "file_sync"]
    assert name_of(1) not in synced and name_of(2) not in synced and synced[0] == "recovered.snapshot.new"
    kinds = [kind for kind, name in host.disk.calls if not name.startswith("sync")]
    first = kinds.index("file_sync")
    assert kinds.index("rename", first) < kinds.index("sync", first) < kinds.index("remove", first)
    assert host.logs() == [name_of(3), name_of(3, ".snapshot")] and SYNC_FAILED not in host.disk.names
    opened.append([outcome(3)])
    opened.close()
    host.crash()
    assert counted(host.open()[1]) == 3


def test_without_the_mark_a_power_cut_would_take_it(host):
    """That the disk of these tests does what a failed sync does."""
    fail_a_sync(host)
    host.disk.remove(SYNC_FAILED)
    host.open()
    host.crash(disordered=False)
    with pytest.raises(Damaged, match="record 2 is lost"):
        host.open()


def test_the_snapshot_is_written_again_if_that_failed(host):
    for kind in ("create", "write", "file_sync", "rename", "sync"):
        fail_a_sync(host) if not host.logs() else None
        host.disk.fail(kind, errno.EIO)
        with pytest.raises(JournalFailed):
            host.open()
        host.disk.heal()
        host.disk.kill()
        assert SYNC_FAILED in host.disk.names
    assert counted(host.open()[1]) == 2


@pytest.mark.parametrize("power", [False, True])
def test_whatever_interrupts_a_start_after_that_loses_nothing(host, power):
    for calls in range(60):
        host.disk, host.boot = FakeDisk(), BOOT
        fail_a_sync(host)
        host.disk.end_after(calls, torn=0.5)
        try:
            host.open()
        except Ended:
            host.crash(calls, disordered=calls % 2 == 0) if power else host.disk.kill()
            assert counted(host.open()[1]) in ({1, 2} if power else {2})
            host.disk.kill()
            host.crash(calls)
            host.open()
        else:
            assert calls > 15
            return


@pytest.mark.parametrize("kind", ["file_sync", "sync"])
def test_a_start_whose_sync_fails_ends_and_leaves_the_mark(host, kind):
    host.appended(1)
    host.disk.fail(kind, errno.EIO)
    with pytest.raises(JournalFailed, match="what was read cannot be synced"):
        host.open()
    assert SYNC_FAILED in host.disk.names
    host.disk.kill()
    assert counted(host.open()[1]) == 1 and SYNC_FAILED not in host.disk.names


def test_a_start_whose_sync_fails_for_want_of_space_ends_as_well(host):
    host.appended(1)
    host.disk.fail("file_sync", errno.ENOSPC)
    with pytest.raises(JournalFailed):
        host.open()
    assert SYNC_FAILED in host.disk.names


@pytest.mark.parametrize("kind", ["sizes", "read", "remove", "cut", "open", "create", "rename"])
def test_what_may_pass_is_told_from_what_somebody_has_to_change(host, kind):
    for number, error in ((errno.EIO, JournalFailed), (errno.EACCES, StoreUnavailable)):
        host.disk = FakeDisk()
        host.disk.put(name_of(1), log_bytes(1, 2) + b"half")
        host.disk.put("x.new", b"x")
        host.disk.fail(kind, number, times=99)
        with pytest.raises(error, match="journal in") as caught:
            host.open()
        assert str(host.folder) in str(caught.value)
        host.disk.heal()
        host.disk.kill()
        assert counted(host.open()[1]) == 2


# -- an end at any moment, with starts between


@pytest.mark.parametrize("power", [False, True])
def test_whenever_starts_and_appends_end_what_was_promised_is_there(host, power):
    for calls in range(0, 400, 3):
        rng = random.Random(calls)
        host.disk, host.boot = FakeDisk(), BOOT
        host.disk.end_after(calls, torn=rng.random())
        promised = number = 0
        try:
            for _ in range(5):
                opened, state = host.open(always=power)
                number = counted(state)
                for _ in range(3):
                    opened.append([outcome(number + 1)])
                    number = promised = number + 1
                host.disk.life += 1  # killed, and `left` goes on
                host.disk.open_files.clear()
        except Ended:
            if power:
                host.crash(calls, disordered=calls % 2 == 0)
            host.disk.kill()
            assert promised <= counted(host.open()[1]) <= number + 1
        else:
            assert calls > 50
            return


# -- while it is open


def test_tend_tries_now_and_then_whether_there_is_space_again(host):
    opened, _ = host.open()
    host.disk.fail("write", errno.ENOSPC, times=99)
    with pytest.raises(JournalFull):
        opened.append([outcome(1)])
    writes = len(host.disk.calls)
    opened.tend(100.0)
    assert opened.refusing and len(host.disk.calls) > writes
    writes = len(host.disk.calls)
    opened.tend(100.0 + PROBE_SECONDS / 2)
    assert len(host.disk.calls) == writes
    host.disk.heal()
    opened.tend(100.1 + PROBE_SECONDS)
    assert not opened.refusing
    opened.append([outcome(1)])
    host.disk.kill()
    assert counted(host.open()[1]) == 1


def test_tend_does_nothing_while_all_is_well(host):
    opened, _ = host.open()
    calls = len(host.disk.calls)
    opened.tend(100.0)
    assert len(host.disk.calls) == calls


def test_a_failure_while_it_is_tried_is_told(host):
    opened, _ = host.open()
    host.disk.fail("write", errno.ENOSPC, times=2, part=0.5)
    with pytest.raises(JournalFull):
        opened.append([outcome(1)])
    host.disk.fail("cut", errno.EIO)
    with pytest.raises(JournalFailed):
        opened.tend(100.0)


def test_an_upkeep_that_failed_is_told_by_tend(host, monkeypatch):
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.01)
    woken = threading.Event()
    opened, _ = host.open()
    opened.start(woken.set)
    host.disk.fail("file_sync", errno.EIO)
    opened.append([outcome(1)])
    assert woken.wait(20)
    with pytest.raises(JournalFailed):
        opened.tend(0.0)
    with pytest.raises(JournalFailed):
        opened.close()


@pytest.mark.parametrize(("always", "syncs"), [(False, True), (True, False)])
def test_only_everysec_syncs_by_itself(host, monkeypatch, always, syncs):
    made = []
    monkeypatch.setattr(
        journal, "Keeper", lambda *args: made.append(args) or SimpleNamespace(start=lambda: None)
    )
    opened, _ = host.open(always)
    opened.append([outcome(1)])
    opened.start(lambda: None)
    assert made[0][2] is syncs and opened._log.behind is not always


def test_memory_keeps_nothing():
    nothing = NoJournal()
    nothing.start(lambda: None)
    nothing.append([outcome(1)])
    nothing.tend(0.0)
    assert nothing.figures() is None and not nothing.refusing
    nothing.close()


# -- real files


def test_the_folder_is_made_for_its_owner_alone(tmp_path):
    folder = tmp_path / "journal"
    assert not is_journal(folder)
    opened, state = Journal.open(folder, False)
    assert counted(state) == 0 and folder.stat().st_mode & 0o777 == 0o700 and is_journal(folder)
    opened.append([outcome(1)])
    opened.close()
    assert counted(Journal.open(folder, True)[1]) == 1


def test_an_empty_folder_is_no_journal(tmp_path):
    assert not is_journal(tmp_path)


def test_figures_tell_how_it_is(tmp_path):
    before = datetime.now(UTC)
    opened, _ = Journal.open(tmp_path, True)
    opened.append([outcome(1)])
    figures = opened.figures()
    assert figures.bytes == sum(path.stat().st_size for path in tmp_path.iterdir()) > 100
    assert figures.writable and figures.snapshot_at is None and figures.cut is None
    assert before <= figures.synced_at <= datetime.now(UTC)
    opened.close()
    (tmp_path / SYNC_FAILED).write_bytes(b"")
    opened, _ = Journal.open(tmp_path, True)
    assert before.replace(microsecond=0) <= opened.figures().snapshot_at
    opened.close()


def test_a_folder_that_cannot_be_used_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match=r"cannot use the journal in .*file"):
        Journal.open(tmp_path / "file", False)
    with pytest.raises(StoreUnavailable, match="cannot use the journal"):
        Journal.open(tmp_path / "missing" / "journal", False)


def test_a_read_only_folder_is_refused_with_a_sentence(tmp_path, monkeypatch):
    """Root writes everywhere, so the refusal is made by hand."""

    def refuses(disk, name):
        raise OSError(errno.EROFS, "Read-only file system")

    opened, _ = Journal.open(tmp_path, False)
    opened.append([outcome(1)])
    opened.close()
    monkeypatch.setattr(Disk, "create", refuses)
    with pytest.raises(StoreUnavailable, match="Read-only file system"):
        Journal.open(tmp_path, False)


def test_a_record_of_keys_and_times_is_found_again(tmp_path):
    opened, _ = Journal.open(tmp_path, True)
    opened.append([outcome(1, reply=b"reply", key="k", digest=b"d")])
    opened.append([outcome(2)])
    opened.close()
    _, state = Journal.open(tmp_path, True)
    assert state.at == at(2) and state.keys["k"].digest == b"d" and state.keys["k"].at == at(1)


def test_a_journal_of_a_newer_format_is_refused(tmp_path):
    form = FileFormat("log", BOOT, 0, b"12345678")
    data = form.header() + form.record(1, 0, encode(outcome(1)))
    (tmp_path / name_of(1)).write_bytes(data[:8] + b"\x63" + data[9:])
    with pytest.raises(Damaged):
        Journal.open(tmp_path, False)


def test_real_syncs_are_made(tmp_path, monkeypatch):
    syncs = []
    monkeypatch.setattr(DiskFile, "sync", lambda file: syncs.append(file))
    opened, _ = Journal.open(tmp_path, True)
    begun = len(syncs)
    opened.append([outcome(1)])
    assert len(syncs) == begun + 1
    opened.close()


def test_a_journal_syncs_by_itself_and_ends_its_thread(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.01)
    caplog.set_level(logging.WARNING)
    opened, _ = Journal.open(tmp_path, False)
    opened.start(lambda: None)
    opened.append([outcome(1)])
    wait_until(lambda: not opened._log.behind)
    opened.close()
    assert not opened._keeper._thread.is_alive() and not caplog.records
