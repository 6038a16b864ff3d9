"""One manager process: what it ends with, and what it refuses to begin."""

import contextlib
import errno
import gc
import os
import signal
import sys
import threading

import pytest
from manager_process import start_manager
from support import start_process

from counter.disk import DiskFile
from counter.errors import OutcomeUnknown, StoreUnavailable
from counter.folder import AlreadyRunning, told
from counter.home import Home
from counter.log import Log
from counter.manager import DISK_FAILED, serve
from counter.ops import Get, Increment, Request, Set
from counter.recovery import SYNC_FAILED
from counter.settings import DURABILITIES, ManagerOptions
from counter.stores.manager import ManagerStore


@pytest.fixture(autouse=True)
def undone():
    """What `serve` sets in its process is set back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers, threshold = [signal.getsignal(number) for number in numbers], gc.get_threshold()
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    gc.set_threshold(*threshold)


def served(home, durability, client=lambda: None):
    """What `serve` returns when *client* was called in another thread and the process was told to end."""
    failures = []

    def ready():
        def act():
            try:
                client()
            except Exception as error:  # noqa: BLE001  the test's thread judges it
                failures.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=act).start()

    code = serve(ManagerOptions(home, durability), ready)
    return code, failures


def asked(home, *ops):
    def client():
        with contextlib.closing(ManagerStore(home, 5.0)) as store:
            results.extend(store.execute(Request([op])).only() for op in ops)

    results = []
    return client, results


@pytest.mark.parametrize("durability", ["everysec", "always"])
def test_it_ends_with_0_and_finds_again_what_it_told(tmp_path, durability):
    client, results = asked(tmp_path, Increment("a", 5), Set("b", value=7))
    assert served(tmp_path, durability, client) == (0, [])
    assert [result.value for result in results] == [5, 7]
    client, results = asked(tmp_path, Get("a"), Increment("b"))
    assert served(tmp_path, durability, client) == (0, [])
    assert [result.value for result in results] == [5, 8]
    assert {result.version.partition(".")[0] for result in results} == {results[0].version.partition(".")[0]}


def test_memory_ends_with_0_and_keeps_nothing(tmp_path):
    for _ in range(2):
        client, results = asked(tmp_path, Increment("a"))
        assert served(tmp_path, "memory", client) == (0, []) and results[0].value == 1
    assert not Home(tmp_path).journal_path.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("name", ["lock", "ensure_key", "bind"])
def test_what_may_pass_is_no_wrong_configuration(tmp_path, monkeypatch, name, number):
    """A supervisor ends for exit code 3, and tries again for this one."""

    def full(*_):
        with told("cannot begin"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Home, name, full)
    assert served(tmp_path, "everysec") == (DISK_FAILED, [])


def test_what_does_not_pass_is_told(tmp_path, monkeypatch):
    def refused(*_):
        with told("cannot begin"):
            raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Home, "bind", refused)
    with pytest.raises(StoreUnavailable, match="cannot begin"):
        served(tmp_path, "everysec")


def test_memory_is_refused_where_there_is_a_journal(tmp_path):
    served(tmp_path, "everysec")
    with pytest.raises(
        StoreUnavailable, match="has a journal, which --durability memory would neither read nor"
    ):
        served(tmp_path, "memory")
    assert served(tmp_path, "always") == (0, [])


def test_memory_is_not_refused_for_an_empty_folder(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    home.journal_path.mkdir()
    assert served(tmp_path, "memory") == (0, [])


def test_a_home_that_has_a_manager_is_refused(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    with home.lock(), pytest.raises(AlreadyRunning):
        served(tmp_path, "everysec")


def test_the_home_is_free_after_it(tmp_path):
    for durability in DURABILITIES[:2]:
        assert served(tmp_path, durability) == (0, [])
    assert Home(tmp_path).holder() is None


def fails(*args):
    raise OSError(errno.EIO, "Input/output error")


def test_a_disk_that_fails_at_the_start_is_5(tmp_path, monkeypatch, caplog):
    served(tmp_path, "everysec")
    monkeypatch.setattr(DiskFile, "sync", fails)
    assert serve(ManagerOptions(tmp_path), lambda: pytest.fail("it is ready")) == DISK_FAILED == 5
    assert "ending, so that the next start recovers what is there" in caplog.text
    assert Home(tmp_path).holder() is None
    monkeypatch.undo()
    assert served(tmp_path, "everysec") == (0, [])


LAUNCHER = """
import errno, sys
from pathlib import Path
from counter.disk import DiskFile
from counter.manager import serve
from counter.settings import ManagerOptions

home, sync = Path(sys.argv[1]), DiskFile.sync

def fails_when_it_is_broken(file):
    if (home / "broken").exists():
        raise OSError(errno.EIO, "Input/output error")
    sync(file)

DiskFile.sync = fails_when_it_is_broken
sys.exit(serve(ManagerOptions(home, sys.argv[2]), lambda: print("ready", flush=True)))
"""


@pytest.mark.process
@pytest.mark.parametrize("durability", ["everysec", "always"])
def test_a_disk_that_fails_under_it_is_5_and_the_next_start_recovers(tmp_path, durability):
    with start_process([sys.executable, "-c", LAUNCHER, tmp_path, durability]) as running:
        running.line("ready")
        with contextlib.closing(ManagerStore(tmp_path, 1.0)) as store:
            assert store.execute(Request([Increment("a")])).only().value == 1
            (tmp_path / "broken").touch()
            if (
                durability == "everysec"
            ):  # told before the sync that fails: it is kept, because the kernel has it
                assert store.execute(Request([Increment("a")])).only().value == 2
            else:
                with pytest.raises((OutcomeUnknown, StoreUnavailable)):
                    store.execute(Request([Increment("a")]))
            assert running.wait() == DISK_FAILED
            assert "the disk failed under the journal" in running.stderr
    assert (Home(tmp_path).journal_path / SYNC_FAILED).exists()
    client, results = asked(tmp_path, Increment("a"))
    assert served(tmp_path, durability, client) == (0, []) and results[0].value == 3


def test_a_journal_that_lost_something_is_refused(tmp_path):
    client, _ = asked(tmp_path, *[Increment("a")] * 3)
    served(tmp_path, "always", client)
    (log,) = Home(tmp_path).journal_path.glob("*.log")
    data = log.read_bytes()
    log.write_bytes(data[:60] + b"??" + data[62:])
    with pytest.raises(StoreUnavailable, match=rf"{log.name} at byte \d+"):
        served(tmp_path, "always")
    assert log.read_bytes()[60:62] == b"??" and Home(tmp_path).holder() is None


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert served(tmp_path, "memory") == (0, [])
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.process
@pytest.mark.parametrize("durability", ["everysec", "always"])
def test_a_killed_manager_loses_nothing(tmp_path, durability):
    for count in range(3):
        with start_manager(tmp_path / "home", durability=durability) as running, running.connect() as client:
            before = client.request(Increment("a", 0)).only().value
            assert before == 10 * count
            for _ in range(10):
                last = client.request(Increment("a")).only().value
            running.process.send(signal.SIGKILL)
            assert running.process.wait() == -signal.SIGKILL and last == before + 10


def test_an_orderly_end_syncs_what_was_told(tmp_path, monkeypatch):
    logs = []
    monkeypatch.setattr(Log, "sync", lambda log, sync=Log.sync: (sync(log), logs.append(log)))
    client, results = asked(tmp_path, Increment("a"))
    assert served(tmp_path, "everysec", client) == (0, []) and results[0].value == 1
    assert len(logs) > 1 and not logs[-1].behind and logs[-1].last == 1
