"""A snapshot holds what the files before it held, is whole or not there, and only then takes their place."""

import errno
import random
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from fake_disk import Ended, FakeDisk
from journal_files import BOOT, NOW, OTHER_BOOT, at, counted, log_bytes, name_of, outcome, snapshot_bytes
from support import clean_environ

from counter import keys, snapshot
from counter.disk import Disk
from counter.records import FileFormat
from counter.recovery import Damaged, recover
from counter.run import boot_id
from counter.state import Caller, Keyed, Outcome, State

NEW = "5.snapshot.new"


@pytest.fixture
def disk():
    """Three logs: 1-2, 3-4, and 5-6, which is still written."""
    disk = FakeDisk()
    for first in (1, 3, 5):
        disk.put(name_of(first), log_bytes(first, first + 1))
    return disk


def state_of(*outcomes):
    state = State()
    for each in outcomes:
        state.assign(each)
    return state


def written(state, ticks=0.0, boot=BOOT):
    """*state* after it was written to a snapshot and read again."""
    disk = FakeDisk()
    snapshot.write(disk, "x.new", BOOT, state, 9, ticks)
    assert not disk.open_files
    snapshot.adopt(disk, "x.new", 10)
    recovered = recover(disk, boot)
    assert recovered.last == 9 and not recovered.stale
    return recovered.state


# -- made of files


def test_it_holds_what_the_files_before_it_hold(disk):
    snapshot.make(disk, BOOT, 5, NEW, 0.0)
    assert bytes(disk.names[NEW].durable) == disk.bytes_of(NEW)
    form = FileFormat.read(disk.bytes_of(NEW))
    assert (form.kind, form.boot, form.synced) == ("snapshot", BOOT, 4)
    assert sorted(disk.names) == sorted([NEW, *map(name_of, (1, 3, 5))])  # it replaces nothing
    snapshot.adopt(disk, NEW, 5)
    assert sorted(disk.names) == sorted([name_of(5), name_of(5, ".snapshot")])
    recovered = recover(disk, BOOT)
    assert counted(recovered.state) == recovered.last == 6


def test_the_next_one_is_made_of_the_last_and_the_logs_behind_it(disk):
    snapshot.make(disk, BOOT, 3, "a.new", 0.0)
    snapshot.adopt(disk, "a.new", 3)
    snapshot.make(disk, BOOT, 5, NEW, 0.0)
    snapshot.adopt(disk, NEW, 5)
    assert sorted(disk.names) == sorted([name_of(5), name_of(5, ".snapshot")])
    assert counted(recover(disk, BOOT).state) == 6


def test_logs_that_do_not_reach_that_far_make_none(disk):
    disk.remove(name_of(3))
    with pytest.raises(Damaged, match="end at 2, and not before 5"):
        snapshot.make(disk, BOOT, 5, NEW, 0.0)
    disk.put(name_of(3), log_bytes(3, 4) + b"rubbish")
    with pytest.raises(Damaged, match="end at 4"):
        snapshot.make(disk, BOOT, 5, NEW, 0.0)
    assert NEW not in disk.names


def test_nothing_of_the_log_being_written_is_read(disk):
    disk.put(name_of(5), b"\x89c")
    snapshot.make(disk, BOOT, 5, NEW, 0.0)
    assert ("read", name_of(5)) not in disk.calls


# -- what is written


def test_a_whole_state_comes_back(monkeypatch):
    monkeypatch.setattr(snapshot, "_CHUNK", 300)
    state = state_of(
        *(outcome(number) for number in range(1, 30)),
        Outcome(at(30), {}, b"reply", b"anna", 7, 5.5, "k", b"d"),
        Outcome(at(31), {}, b"other", None, key="l", digest=b"e"),
    )
    again = written(state)
    assert counted(again) == 29 and again.at == at(31)
    assert again.callers == {b"anna": Caller(7, 5.5, b"reply")}
    assert again.keys == {"k": Keyed(b"d", at(30), b"reply"), "l": Keyed(b"e", at(31), b"other")}


def test_an_empty_state_comes_back():
    assert counted(written(State())) == 0


def test_the_time_comes_back_when_nothing_else_is_left():
    assert written(state_of(outcome(1), Outcome(at(9), {"n1": None, "all": None}))).at == at(9)


def test_callers_of_the_past_are_left_out():
    state = state_of(*(Outcome(NOW, {}, b"r", bytes([n]), 1, float(n)) for n in (4, 5, 6)))
    assert list(written(state, ticks=5.0).callers) == [bytes([6])]
    assert list(written(state_of(Outcome(NOW, {}, b"r", b"anna", 1, 9.0)), boot=OTHER_BOOT).callers) == []


def test_keys_that_are_too_old_or_too_many_are_left_out(monkeypatch):
    def keyed(seconds, key):
        return Outcome(at(seconds), {}, b"r", key=key)

    day = keys.KEPT.total_seconds()
    state = state_of(keyed(0, "over"), keyed(1, "kept"), Outcome(at(0) + timedelta(seconds=day), {}))
    assert list(written(state).keys) == ["kept"]
    monkeypatch.setattr(keys, "MAX_KEYS", 2)
    assert list(written(state_of(*(keyed(100 * n, f"k{n}") for n in range(4)))).keys) == ["k2", "k3"]


@pytest.mark.parametrize("kind", ["create", "write", "file_sync"])
def test_what_cannot_be_written_leaves_nothing(disk, kind):
    names = sorted(disk.names)
    disk.fail(kind, errno.ENOSPC, part=0.5)
    with pytest.raises(OSError, match="No space"):
        snapshot.make(disk, BOOT, 5, NEW, 0.0)
    assert sorted(disk.names) == names and not disk.open_files


# -- in place of what it replaces


def test_nothing_is_removed_before_the_snapshot_and_its_name_are_on_the_disk(disk):
    snapshot.make(disk, BOOT, 5, NEW, 0.0)
    disk.calls.clear()
    snapshot.adopt(disk, NEW, 5)
    kinds = [kind for kind, _ in disk.calls if kind != "sizes"]
    assert kinds == ["rename", "sync", "remove", "remove"]


@pytest.mark.parametrize("kind", ["rename", "sync", "remove"])
def test_an_adoption_that_fails_loses_nothing_and_the_next_one_finishes_it(disk, kind):
    snapshot.make(disk, BOOT, 5, NEW, 0.0)
    disk.fail(kind, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        snapshot.adopt(disk, NEW, 5)
    assert counted(recover(disk, BOOT).state) == 6
    snapshot.write(disk, "b.new", BOOT, recover(disk, BOOT).state, 6, 0.0)
    snapshot.adopt(disk, "b.new", 7)
    assert [name for name in disk.names if not name.endswith(".new")] == [name_of(7, ".snapshot")]


@pytest.mark.parametrize("power", [False, True])
def test_whatever_interrupts_it_nothing_is_lost(power):
    for calls in range(100):
        disk = FakeDisk()
        disk.put(name_of(3, ".snapshot"), snapshot_bytes(2))
        disk.put(name_of(1), log_bytes(1, 2))
        for first in (3, 5):
            disk.put(name_of(first), log_bytes(first, first + 1))
        disk.end_after(calls, torn=0.5)
        try:
            snapshot.make(disk, BOOT, 5, NEW, 0.0)
            snapshot.adopt(disk, NEW, 5)
        except Ended:
            disk.crash(random.Random(calls), calls % 2 == 0) if power else disk.kill()
            recovered = recover(disk, BOOT)
            assert counted(recovered.state) == recovered.last == 6
        else:
            assert calls > 10
            return


# -- the process


def child(folder, before, name):
    """What the process says and ends with, its starter being here."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [
            sys.executable,
            "-m",
            "counter.snapshot",
            str(theirs.fileno()),
            str(folder),
            str(before),
            name,
        ]
        environ = clean_environ()
        return subprocess.run(
            command, pass_fds=[theirs.fileno()], capture_output=True, env=environ, text=True
        )


@pytest.mark.process
def test_a_process_makes_one(tmp_path):
    for first in (1, 3):
        (tmp_path / name_of(first)).write_bytes(log_bytes(first, first + 1, boot=boot_id()))
    done = child(tmp_path, 5, NEW)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    snapshot.adopt(Disk(tmp_path), NEW, 5)
    assert counted(recover(Disk(tmp_path), BOOT).state) == 4
    (path,) = tmp_path.iterdir()
    assert path.name == name_of(5, ".snapshot") and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.process
def test_a_process_that_cannot_says_why_in_a_line(tmp_path):
    done = child(tmp_path, 5, NEW)
    assert (
        done.returncode == 1 and "end at 0, and not before 5" in done.stderr and done.stderr.count("\n") == 1
    )
    assert not list(tmp_path.iterdir())
    done = child(tmp_path / "missing", 5, NEW)
    assert done.returncode == 1 and "No such file" in done.stderr and done.stderr.count("\n") == 1
