"""The upkeep: a sync each second, and snapshots in stages, none of which can lose anything."""

import errno
import logging
import os
import random
import signal
import subprocess
import threading
from types import SimpleNamespace

import pytest
from fake_disk import Ended, FakeDisk
from journal_files import BOOT, OTHER_BOOT, counted, name_of, outcome
from support import wait_until

from counter import keeper, snapshot
from counter.disk import Disk
from counter.keeper import FIRST_PAUSE, LONGEST_PAUSE, Child, Keeper
from counter.log import JournalFailed, Log
from counter.recovery import SYNC_FAILED, Damaged, recover
from counter.run import boot_id


class FakeChild:
    """A process that makes its snapshot when it is told to."""

    def __init__(self, disk, before, name):
        self._disk, self.before, self.name = disk, before, name
        self.code = None
        self.killed = False

    def exit_code(self):
        return self.code

    def kill(self):
        self.killed = True

    def work(self):
        try:
            snapshot.make(self._disk, BOOT, self.before, self.name, 0.0)
        except (OSError, Damaged):
            self.code = 1
        else:
            self.code = 0


class Stages(Keeper):
    """A keeper whose children are fake, and kept."""

    def __init__(self, *args):
        super().__init__(*args)
        self.children = []
        self.no_process = None

    def _start_child(self, before, name):
        if self.no_process:
            raise self.no_process
        self.children.append(FakeChild(self._disk, before, name))
        return self.children[-1]


class Upkeep:
    """A log with a keeper without a thread, and a clock that is set."""

    def __init__(self, syncs=True):
        self.disk = FakeDisk()
        self.log = Log(self.disk, BOOT, 0, not syncs)
        self.woken = 0
        self.now = 100.0
        self.keeper = Stages(self.disk, self.log, syncs, self._wake)

    def _wake(self):
        self.woken += 1

    @property
    def child(self):
        return self.keeper.children[-1]

    def grow(self, count=40):
        for _ in range(count):
            self.log.append([outcome(self.log.last + 1)])

    def to_child(self):
        """Through the stages until a child works."""
        for stage in (self.keeper.step, self.keeper.tend, self.keeper.step):
            stage()
        return self.child

    def files(self):
        return sorted(name for name in self.disk.names if name.endswith((".log", ".snapshot")))

    def has_snapshot(self):
        return any(name.endswith(".snapshot") for name in self.disk.names)

    def unfinished(self):
        return [name for name in self.disk.names if name.endswith(".new") and not name.startswith("sync")]

    def there(self):
        recovered = recover(self.disk, BOOT)
        assert counted(recovered.state) == recovered.last
        return recovered.last


@pytest.fixture
def upkeep(monkeypatch):
    monkeypatch.setattr(keeper, "SNAPSHOT_BYTES", 2000)
    made = Upkeep()
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_while_the_loop_switches_the_journals_thread_waits(upkeep, monkeypatch):
    """Else it prepares another log meanwhile, and the snapshot gets a name that nobody looks for."""
    switch = upkeep.log.switch

    def switch_and_let_the_other_go_on(prepared):
        upkeep.keeper.step()
        switch(prepared)
        upkeep.keeper.step()

    monkeypatch.setattr(upkeep.log, "switch", switch_and_let_the_other_go_on)
    upkeep.grow()
    upkeep.keeper.step()
    upkeep.keeper.tend()
    assert upkeep.woken == 1 and not upkeep.unfinished()
    upkeep.keeper.step()
    assert upkeep.child.before == upkeep.log.first == 41


def test_a_folder_that_cannot_be_listed_just_now_is_no_failure(tmp_path, monkeypatch):
    """No descriptor may be free for a second or two."""
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.01)
    disk = Disk(tmp_path)
    log = Log(disk, boot_id(), 0, always=True)
    asked = []

    def sizes():
        asked.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(disk, "sizes", sizes)
    made = Keeper(disk, log, False, lambda: None)
    made.start()
    try:
        wait_until(lambda: len(asked) > 5)
        made.tend()
    finally:
        made.stop()
        log.close()


def test_a_log_that_somebody_removed_is_noticed(tmp_path, monkeypatch):
    """What is appended to it is synced, and found by nobody."""
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.01)
    disk = Disk(tmp_path)
    log = Log(disk, boot_id(), 0, always=True)
    log.append([outcome(1)])
    woken = threading.Event()
    made = Keeper(disk, log, False, woken.set)
    made.start()
    try:
        log.switch(log.prepare())
        log.append([outcome(2)])
        made.tend()
        disk.remove(name_of(2))
        assert woken.wait(20)
        with pytest.raises(JournalFailed, match="somebody has removed"):
            made.tend()
    finally:
        made.stop()
        log.close()


# -- what is worth a snapshot


def test_small_logs_are_not_worth_one(upkeep):
    upkeep.grow(3)
    upkeep.keeper.step()
    assert not upkeep.woken and not upkeep.unfinished()


def test_large_logs_are_worth_one(upkeep):
    upkeep.grow()
    upkeep.keeper.step()
    assert upkeep.woken == 1 and len(upkeep.unfinished()) == 1


def test_logs_smaller_than_the_last_snapshot_are_not(upkeep):
    upkeep.disk.put(name_of(1, ".snapshot"), bytes(20_000))
    upkeep.grow()
    upkeep.keeper.step()
    assert not upkeep.woken
    while sum(upkeep.disk.sizes()[name] for name in upkeep.files() if name.endswith(".log")) < 20_000:
        upkeep.grow(1)
    upkeep.keeper.step()
    assert upkeep.woken


def test_many_logs_are_worth_one(upkeep, monkeypatch):
    monkeypatch.setattr(keeper, "SNAPSHOT_BYTES", 10**9)
    for count in range(1, keeper.SNAPSHOT_LOGS):
        upkeep.keeper.step()
        assert not upkeep.woken, count
        upkeep.grow(1)
        upkeep.log.switch(upkeep.log.prepare())
    upkeep.keeper.step()
    assert upkeep.woken


# -- the stages


def test_a_snapshot_takes_the_place_of_the_logs_before_it(upkeep, caplog):
    caplog.set_level(logging.INFO, "counter.manager")
    upkeep.grow()
    upkeep.keeper.step()  # prepared
    upkeep.keeper.step()  # and not again
    assert len(upkeep.unfinished()) == 1 and upkeep.files() == [name_of(1)]
    upkeep.grow(1)
    upkeep.keeper.tend()  # switched, by the loop
    upkeep.keeper.tend()
    assert upkeep.files() == [name_of(1), name_of(42)] and not upkeep.keeper.children
    upkeep.grow(1)
    upkeep.keeper.step()
    assert (upkeep.child.before, upkeep.child.name) == (42, "42.snapshot.new")
    upkeep.keeper.step()  # it works
    upkeep.grow(1)
    assert not upkeep.has_snapshot() and len(upkeep.keeper.children) == 1
    upkeep.child.work()
    assert upkeep.there() == 43 and upkeep.files() == [name_of(1), name_of(42)]
    upkeep.keeper.step()
    assert upkeep.files() == [name_of(42), name_of(42, ".snapshot")] and not upkeep.unfinished()
    assert upkeep.there() == 43 and upkeep.has_snapshot()
    assert "before 42" in caplog.text
    upkeep.grow()
    upkeep.to_child().work()
    upkeep.keeper.step()
    assert upkeep.there() == 83 and upkeep.files() == [name_of(84), name_of(84, ".snapshot")]


def test_only_the_loop_switches(upkeep):
    upkeep.grow()
    for _ in range(5):
        upkeep.keeper.step()
    assert upkeep.log.first == 1 and upkeep.woken == 1


def test_it_stops_with_its_child(upkeep):
    upkeep.grow()
    child = upkeep.to_child()
    upkeep.keeper.start()
    upkeep.keeper.stop()
    assert child.killed and upkeep.there() == 40


# -- what fails


def give_up_at(upkeep, stage):
    """Go through a snapshot whose *stage* fails."""
    disk = upkeep.disk
    if stage in ("create", "write", "file_sync"):
        disk.fail(stage, errno.ENOSPC, part=0.5)
    upkeep.keeper.step()
    if stage == "switch":
        disk.fail("rename", errno.EIO)
    upkeep.keeper.tend()
    if stage == "process":
        upkeep.keeper.no_process = OSError(errno.EAGAIN, "no process")
    upkeep.keeper.step()
    upkeep.keeper.no_process = None
    if not upkeep.keeper.children:
        return
    if stage == "child":
        disk.fail("file_sync", errno.EIO)
    upkeep.child.work()
    if stage == "killed":
        upkeep.child.code = -9
    if stage.startswith("adopt "):
        disk.fail(stage.removeprefix("adopt "), errno.EIO)
    upkeep.keeper.step()


STAGES = (
    "create",
    "write",
    "file_sync",
    "switch",
    "process",
    "child",
    "killed",
    "adopt rename",
    "adopt remove",
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_fails_loses_nothing_and_is_tried_again_later(upkeep, stage, caplog):
    upkeep.grow()
    give_up_at(upkeep, stage)
    assert "no snapshot could be made, and the journal grows" in caplog.text and len(caplog.records) == 1
    assert upkeep.there() == 40 and upkeep.has_snapshot() is (stage == "adopt remove")
    upkeep.disk.heal()
    upkeep.grow(1)
    upkeep.now += FIRST_PAUSE - 0.1
    tried = len(upkeep.keeper.children)
    upkeep.to_child() if tried else upkeep.keeper.step()
    assert len(upkeep.keeper.children) == tried, "too early"
    upkeep.now += 0.2
    upkeep.grow(40)
    upkeep.to_child().work()
    upkeep.keeper.step()
    assert upkeep.there() == 81 and upkeep.has_snapshot()
    assert len(upkeep.files()) == 2


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_fails_leaves_no_descriptor(upkeep, stage):
    upkeep.grow()
    give_up_at(upkeep, stage)
    upkeep.disk.heal()
    upkeep.log.sync()
    assert len(upkeep.disk.open_files) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_snapshots_that_fail_again_and_again_do_not_fill_the_disk(upkeep, stage):
    upkeep.grow()
    for _ in range(3):
        give_up_at(upkeep, stage)
        upkeep.disk.heal()
        upkeep.grow(1)
        upkeep.now += LONGEST_PAUSE
    assert len(upkeep.unfinished()) <= 1, upkeep.unfinished()


def test_names_that_cannot_be_synced_end_it_and_lose_nothing(upkeep):
    upkeep.grow()
    upkeep.log.sync()
    upkeep.to_child().work()
    upkeep.disk.fail("sync", errno.EIO)
    with pytest.raises(JournalFailed):
        upkeep.keeper.step()
    assert upkeep.there() == 40 and SYNC_FAILED in upkeep.disk.names
    with pytest.raises(JournalFailed):
        upkeep.grow(1)


def test_a_snapshot_is_made_though_one_that_failed_left_its_file(upkeep):
    upkeep.grow()
    give_up_at(upkeep, "killed")
    upkeep.now += LONGEST_PAUSE
    upkeep.to_child().work()  # nothing was appended since: it has the same name
    upkeep.keeper.step()
    assert upkeep.has_snapshot() and upkeep.there() == 40


def test_the_pauses_double_up_to_the_longest_and_begin_anew_after_a_snapshot(upkeep):
    upkeep.grow()
    pauses = []
    for _ in range(9):
        upkeep.disk.fail("create", errno.ENOSPC)
        upkeep.keeper.step()
        pauses.append(upkeep.keeper._due - upkeep.now)
        upkeep.keeper.step()
        upkeep.disk.heal()
        upkeep.now = upkeep.keeper._due
    assert pauses == pytest.approx([10, 20, 40, 80, 160, 320, 600, 600, 600])
    upkeep.to_child().work()
    upkeep.keeper.step()
    upkeep.disk.fail("create", errno.ENOSPC)
    upkeep.grow()
    upkeep.keeper.step()
    assert upkeep.keeper._due - upkeep.now == pytest.approx(10)


@pytest.mark.parametrize("power", [False, True])
def test_whenever_it_ends_nothing_is_lost(monkeypatch, power):
    monkeypatch.setattr(keeper, "SNAPSHOT_BYTES", 2000)
    for calls in range(60):
        upkeep = Upkeep()
        upkeep.grow(20)
        upkeep.log.sync()
        upkeep.disk.end_after(calls, torn=0.5)
        try:
            upkeep.to_child().work()
            upkeep.keeper.step()
        except Ended:
            upkeep.disk.crash(random.Random(calls), calls % 2 == 0) if power else upkeep.disk.kill()
            recovered = recover(upkeep.disk, OTHER_BOOT if power else BOOT)
            assert counted(recovered.state) == recovered.last == 20
        else:
            assert calls > 10
            return


# -- the thread


@pytest.fixture
def running(monkeypatch):
    """A keeper with its thread, and seconds that are short."""
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.01)
    upkeep = Upkeep()
    upkeep.keeper.start()
    yield upkeep
    upkeep.keeper.stop()


def test_what_was_appended_is_synced_by_itself(running):
    for _ in range(3):
        running.grow(1)
        wait_until(lambda: not running.log.behind)
    assert running.log.synced == 3
    running.keeper.stop()
    assert not running.keeper._thread.is_alive()


def test_nothing_is_synced_when_nothing_is_behind(running):
    running.grow(1)
    wait_until(lambda: not running.log.behind)
    syncs = [call for call in running.disk.calls if call[0] == "file_sync"]
    looked = len(running.disk.calls)
    wait_until(lambda: len(running.disk.calls) > looked + 5)
    assert [call for call in running.disk.calls if call[0] == "file_sync"] == syncs


def test_always_leaves_syncing_to_the_loop(monkeypatch):
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.01)
    upkeep = Upkeep(syncs=False)
    upkeep.log.switch(upkeep.log.prepare())
    upkeep.keeper.start()
    looked = len(upkeep.disk.calls)
    wait_until(lambda: len(upkeep.disk.calls) > looked + 5)
    upkeep.keeper.stop()
    assert upkeep.log.behind


@pytest.mark.parametrize("error", [OSError(errno.EIO, "disk"), RuntimeError("a bug")])
def test_the_end_of_the_thread_is_told_in_the_loop(running, monkeypatch, error):
    def fails():
        raise error

    running.keeper.tend()
    if isinstance(error, OSError):
        running.disk.fail("file_sync")
    else:
        monkeypatch.setattr(running.keeper, "step", fails)
    running.grow(1)
    wait_until(lambda: running.woken)
    with pytest.raises(JournalFailed):
        running.keeper.tend()


# -- the process


@pytest.mark.process
def test_a_real_process_makes_a_real_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "SNAPSHOT_BYTES", 2000)
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.02)
    disk = Disk(tmp_path)
    log = Log(disk, boot_id(), 0, False)
    woken = threading.Event()
    kept = Keeper(disk, log, True, woken.set)
    for number in range(1, 41):
        log.append([outcome(number)])
    kept.start()
    assert woken.wait(20)
    kept.tend()
    log.append([outcome(41)])
    wait_until(lambda: sorted(disk.sizes())[:2] == [name_of(41), name_of(41, ".snapshot")])
    kept.stop()
    log.close()
    assert sorted(disk.sizes())[:2] == [name_of(41), name_of(41, ".snapshot")]
    recovered = recover(disk, boot_id())
    assert counted(recovered.state) == recovered.last == 41


@pytest.mark.process
def test_a_process_ends_when_it_is_killed_and_when_its_starter_is_gone(tmp_path):
    os.mkfifo(tmp_path / name_of(1))  # so that it waits for ever
    killed, orphan = Child(tmp_path, 5, "a.new"), Child(tmp_path, 5, "b.new")
    assert killed.exit_code() is None and orphan.exit_code() is None
    killed.kill()
    assert killed.exit_code() == -signal.SIGKILL
    orphan._link.close()
    wait_until(lambda: orphan._process.poll() is not None)
    orphan.kill()


@pytest.mark.process
def test_a_process_that_cannot_be_started_leaves_no_descriptor(tmp_path, monkeypatch):
    def fails(*args, **how):
        raise OSError(errno.EAGAIN, "no process")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(subprocess, "Popen", fails)
    with pytest.raises(OSError, match="no process"):
        Child(tmp_path, 5, "a.new")
    assert len(os.listdir("/proc/self/fd")) == before
