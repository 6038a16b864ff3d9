"""Backups: everything acknowledged is in them, whether a manager runs or not, and restoring loses nothing."""

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest
from manager_process import start_manager
from support import COMMAND, start_process, wait_until

from counter import Get, Increment, InvalidRequest, Request, Set, StoreUnavailable, VersionMismatch, backup
from counter.disk import Disk
from counter.folder import AlreadyRunning
from counter.home import Home
from counter.journal import Journal
from counter.recovery import Damaged
from counter.results import Entry
from counter.run import Run
from counter.state import Outcome


def entry(name, value):
    now = Run().now()
    return Entry(name, value, "v", now, now)


def write(home, *outcomes):
    """A journal in *home* with these outcomes, closed."""
    journal, _ = Journal.open(home.journal_path, always=False)
    for outcome in outcomes:
        journal.append([outcome])
    journal.close()


def read(home):
    journal, state = Journal.open(home.journal_path, always=False)
    journal.close()
    return {name: each.value for name, each in state.entries.items()}


def ask(manager, op):
    with contextlib.closing(manager.store()) as store:
        return store.execute(Request([op])).only()


@pytest.fixture
def full_home(home):
    write(home, *(Outcome(Run().now(), {name: entry(name, n)}) for n, name in enumerate("abc")))
    return home


def test_a_backup_restored_elsewhere_has_everything(full_home, tmp_path):
    file = tmp_path / "backup"
    saved = backup.save(full_home, file)
    assert (saved.counters, saved.cut) == (3, None)
    assert file.stat().st_mode & 0o777 == 0o600
    other = Home(tmp_path / "other")
    restored, aside = backup.restore(other, file)
    assert (restored.counters, restored.at, aside) == (3, saved.at, None)
    assert read(other) == {"a": 0, "b": 1, "c": 2}


def test_a_backup_replaces_an_older_one_and_leaves_nothing_beside_it(full_home, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    backup.save(full_home, folder / "b")
    first = (folder / "b").read_bytes()
    write(full_home, Outcome(Run().now(), {"d": entry("d", 4)}))
    backup.save(full_home, folder / "b")
    assert (folder / "b").read_bytes() != first
    assert [each.name for each in folder.iterdir()] == ["b"]


def test_reading_for_a_backup_changes_nothing_and_tells_of_a_torn_end(full_home, tmp_path):
    log = max(full_home.journal_path.glob("*.log"), key=lambda path: path.stat().st_size)
    with log.open("ab") as file:
        file.write(b"half a record")
    before = {path: path.read_bytes() for path in full_home.journal_path.iterdir()}
    saved = backup.save(full_home, tmp_path / "b")
    assert saved.counters == 3
    assert "13 bytes" in saved.cut
    assert {path: path.read_bytes() for path in full_home.journal_path.iterdir()} == before


@pytest.mark.parametrize("at", [1, 2])
def test_a_restore_that_was_interrupted_is_not_taken_for_an_empty_home(full_home, tmp_path, monkeypatch, at):
    """Between moving the old journal aside and the new one in, there is none."""
    backup.save(full_home, tmp_path / "b")
    rename, calls = Path.rename, []

    def interrupted(path, target):
        calls.append(path)
        if len(calls) == at:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backup.restore(full_home, tmp_path / "b")
    monkeypatch.undo()
    with pytest.raises(StoreUnavailable, match="is half restored: repeat `counter restore`"):
        read(full_home)
    backup.restore(full_home, tmp_path / "b")
    (full_home.path / "journal.0123abcd.new").mkdir()  # as kill -9 leaves it
    backup.restore(full_home, tmp_path / "b")
    assert read(full_home) == {"a": 0, "b": 1, "c": 2}
    assert not list(full_home.path.glob("*.new"))


def test_what_is_no_backup_is_known_by_its_first_bytes(full_home):
    with pytest.raises(StoreUnavailable, match="is not a whole backup: at byte 0, its header is damaged"):
        backup.restore(full_home, Path("/dev/zero"))


def test_a_home_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(StoreUnavailable, match="there is no home"):
        backup.save(Home(tmp_path / "no"), tmp_path / "b")
    (tmp_path / "empty").mkdir(0o700)
    with pytest.raises(StoreUnavailable, match="there is no journal"):
        backup.save(Home(tmp_path / "empty"), tmp_path / "b")
    assert not list((tmp_path / "empty").iterdir())


def test_restoring_moves_what_is_there_aside(full_home, tmp_path):
    backup.save(full_home, tmp_path / "b")
    write(full_home, Outcome(Run().now(), {"a": None, "later": entry("later", 9)}))
    _, aside = backup.restore(full_home, tmp_path / "b")
    assert read(full_home) == {"a": 0, "b": 1, "c": 2}
    aside.rename(tmp_path / "other.journal")
    other = Home(tmp_path / "other")
    other.prepare()
    (tmp_path / "other.journal").rename(other.journal_path)
    assert read(other) == {"b": 1, "c": 2, "later": 9}


@pytest.mark.process
def test_every_version_is_a_new_one_after_restoring(tmp_path):
    with start_manager(tmp_path / "home") as manager:
        before = ask(manager, Set("a", 5))
        backup.save(Home(manager.home), tmp_path / "b")
        assert manager.stop() == 0
    backup.restore(Home(tmp_path / "home"), tmp_path / "b")
    with start_manager(tmp_path / "home") as manager:
        after = ask(manager, Get("a"))
        assert after.value == 5
        assert after.version != before.version
        with pytest.raises(VersionMismatch):
            ask(manager, Increment("a", if_version=before.version))


@pytest.mark.parametrize("content", [b"", b"not a backup", b"\x89counter" + bytes(60)])
def test_what_is_no_backup_is_not_restored(full_home, tmp_path, content):
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(StoreUnavailable, match="is not a whole backup: at byte 0"):
        backup.restore(full_home, tmp_path / "b")
    assert read(full_home) == {"a": 0, "b": 1, "c": 2}


@pytest.mark.slow
def test_a_backup_that_is_cut_or_changed_anywhere_is_not_restored(full_home, tmp_path):
    backup.save(full_home, tmp_path / "b")
    whole = (tmp_path / "b").read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            (tmp_path / "b").write_bytes(damaged)
            with pytest.raises(StoreUnavailable, match="not a whole backup"):
                backup.restore(full_home, tmp_path / "b")
    (tmp_path / "b").write_bytes(whole + b"x")
    with pytest.raises(StoreUnavailable, match="something follows"):
        backup.restore(full_home, tmp_path / "b")
    assert read(full_home) == {"a": 0, "b": 1, "c": 2}


def test_nothing_is_restored_under_a_running_manager(full_home, tmp_path):
    backup.save(full_home, tmp_path / "b")
    for name in ("lock", "supervisor"):
        with full_home.lock(name), pytest.raises(AlreadyRunning):
            backup.restore(full_home, tmp_path / "b")


def test_what_cannot_be_saved_says_so(home, full_home, tmp_path):
    with pytest.raises(StoreUnavailable, match="cannot write"):
        backup.save(full_home, tmp_path / "missing" / "b")
    empty = Home(tmp_path / "empty")
    empty.prepare()
    with pytest.raises(StoreUnavailable, match="there is no journal"):
        backup.save(empty, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_is_no_regular_file_is_not_replaced(full_home, tmp_path):
    """Such as /dev/stdout, which a rename would take from everybody."""
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe", "-"):
        with pytest.raises(InvalidRequest, match="is no regular file"):
            backup.save(full_home, tmp_path / name)
    with pytest.raises(InvalidRequest, match="is in the journal itself"):
        backup.save(full_home, full_home.journal_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "home", "link", "pipe"]


def test_a_backup_is_made_where_nothing_can_be_locked(full_home, tmp_path, monkeypatch):
    """On a disk that became read-only: when one is needed most."""

    def read_only(*_):
        raise StoreUnavailable("cannot lock: Read-only file system")

    monkeypatch.setattr(Home, "lock", read_only)
    assert backup.save(full_home, tmp_path / "b").counters == 3


def test_nothing_is_locked_while_a_backup_reads(full_home, tmp_path, monkeypatch):
    """A manager that is restarted just then would be refused, and its supervisor would end."""
    recover_in = backup.recover_in

    def while_a_manager_starts(*args):
        with full_home.lock(), full_home.lock("supervisor"):
            return recover_in(*args)

    monkeypatch.setattr(backup, "recover_in", while_a_manager_starts)
    assert backup.save(full_home, tmp_path / "b").counters == 3


def test_a_home_that_a_group_may_enter_is_restored_as_it_is(full_home, tmp_path):
    backup.save(full_home, tmp_path / "b")
    full_home.path.chmod(0o750)
    backup.restore(full_home, tmp_path / "b")
    assert full_home.path.stat().st_mode & 0o777 == 0o750


def test_a_backup_that_cannot_get_its_name_leaves_nothing_behind(full_home, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "backups"
    folder.mkdir()
    monkeypatch.setattr(Disk, "rename", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        backup.save(full_home, folder / "b")
    assert not list(folder.iterdir())


def test_files_that_are_replaced_while_they_are_read_are_read_anew(full_home, tmp_path, monkeypatch):
    tries = []

    def read_file(disk, name):
        tries.append(name)
        if len(tries) == 1:
            raise FileNotFoundError
        if len(tries) == 2:
            return b"torn"
        return (disk.folder / name).read_bytes()

    monkeypatch.setattr(Disk, "read", read_file)
    monkeypatch.setattr(backup, "_PAUSE_SECONDS", 0)
    with full_home.lock():
        assert backup.save(full_home, tmp_path / "b").counters == 3
    monkeypatch.setattr(Disk, "read", lambda disk, name: b"torn")
    with full_home.lock(), pytest.raises(Damaged):
        backup.save(full_home, tmp_path / "b")


@pytest.mark.process
def test_a_backup_under_load_has_all_that_was_acknowledged_before(tmp_path):
    """Twenty times, each restored and looked at: between what was told before it and what was after."""
    with start_manager(tmp_path / "home") as manager:
        done, told = threading.Event(), [0]

        def load():
            with contextlib.closing(manager.store()) as store:
                while not done.is_set():
                    told[0] = store.execute(Request([Increment("a")])).only().value

        thread = threading.Thread(target=load)
        thread.start()
        try:
            wait_until(lambda: told[0])
            for n in range(20):
                before = told[0]
                backup.save(Home(manager.home), tmp_path / "b")
                after = told[0] + 1  # the one under way may be in it
                other = Home(tmp_path / f"other{n}")
                backup.restore(other, tmp_path / "b")
                assert before <= read(other)["a"] <= after + 1
        finally:
            done.set()
            thread.join()
        assert manager.stop() == 0


@pytest.mark.process
def test_the_commands(tmp_path):
    file, home = tmp_path / "b", tmp_path / "home"
    with start_manager(home) as manager:
        ask(manager, Increment("a", 7))
        with start_process([*COMMAND, "backup", file, "--home", home]) as saving:
            assert saving.wait() == 0
            assert saving.stdout.startswith("1 counter as of ")
        with start_process([*COMMAND, "restore", file, "--home", home]) as restoring:
            assert restoring.wait() == 3
            assert "already runs" in restoring.stderr
        assert manager.stop() == 0
    with start_process([*COMMAND, "restore", file, "--home", home]) as restoring:
        assert restoring.wait() == 0
        aside = Path(restoring.stdout.splitlines()[1].removeprefix("what was there before is in "))
        assert list(aside.glob("*.log"))
    with start_process([*COMMAND, "restore", "/dev/null", "--home", home]) as restoring:
        assert restoring.wait() == StoreUnavailable.exit_code
        assert "not a whole backup" in restoring.stderr
