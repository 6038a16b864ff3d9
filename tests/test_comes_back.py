"""The manager is killed again and again in mid-call, and every caller's next call works by itself."""

import contextlib
import json
import os
import signal
import sys
import threading
import time

import pytest
from manager_process import start_manager
from support import start_process, wait_until

from counter import SharedCounter, VersionMismatch
from counter.ops import Get, Increment, Request, Set
from counter.stores.manager import ManagerStore

pytestmark = pytest.mark.process

KILLS = 20
PROCESSES, THREADS = 2, 4

CLIENT = """
import json, os, signal, sys, threading
from pathlib import Path
import counter
from counter import Increment, Request

store = counter.open_store(sys.argv[1])
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
told = []

def work(name):
    mine = []
    told.append(mine)
    while not stop.is_set():
        try:
            change, _ = store.execute(Request([Increment("n"), Increment(name)])).unwrap()
            mine.append([change.version, change.value])
        except Exception as error:
            mine.append(["error", repr(error)])
            return

threads = [threading.Thread(target=work, args=(name,)) for name in sys.argv[3:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
store.close()
Path(sys.argv[2]).write_text(json.dumps(told))
"""


def test_killed_twenty_times_it_costs_nobody_a_call(tmp_path):
    """No call fails, every thread counts in every life, and the numbers are 1 to n, each told once.

    The version's first part tells the lives apart.
    """
    home, threads = tmp_path / "home", [f"thread {number}" for number in range(PROCESSES * THREADS)]
    files = [tmp_path / f"{number}.json" for number in range(PROCESSES)]
    with contextlib.ExitStack() as running, contextlib.closing(ManagerStore(home, 60.0)) as watcher:
        crowd = []
        for life in range(KILLS + 1):
            manager = running.enter_context(start_manager(home))
            for number in range(len(crowd), PROCESSES):
                command = [sys.executable, "-c", CLIENT, f"counter://{home}?timeout=60", files[number]]
                crowd.append(running.enter_context(start_process([*command, *threads[number::PROCESSES]])))
            begun = {name: value(watcher, name) for name in threads}
            wait_until(lambda: all(value(watcher, name) > begun[name] + 3 for name in threads), 60)  # noqa: B023
            if life < KILLS:
                os.kill(manager.pid, signal.SIGKILL)
                manager.process.wait()
        for client in crowd:
            client.send(signal.SIGTERM)
        assert [client.wait(90) for client in crowd] == [0] * PROCESSES
    told = [mine for file in files for mine in json.loads(file.read_text())]
    assert len(told) == PROCESSES * THREADS
    assert [entry for mine in told for entry in mine if entry[0] == "error"] == []
    for mine in told:
        lives = {version.rpartition(".")[0] for version, _ in mine}
        assert len(lives) == KILLS + 1, "a thread missed a life of the manager"
    numbers = sorted(number for mine in told for _, number in mine)
    assert numbers == list(range(1, len(numbers) + 1))
    print(f"{len(numbers)} calls in {KILLS + 1} lives")


def value(store, name):
    reply = store.execute(Request([Get(name)]))
    return 0 if reply.problem else reply.only().value


def test_a_call_under_way_when_the_manager_is_killed_is_repeated(tmp_path):
    """It stands still when the call comes, so the answer is certainly lost with it."""
    home = tmp_path / "home"
    with contextlib.closing(ManagerStore(home, 60.0)) as store:
        with start_manager(home) as manager:
            counters = SharedCounter(store)
            assert counters.increment("a") == 1
            os.kill(manager.pid, signal.SIGSTOP)
            told = []
            thread = threading.Thread(target=lambda: told.append(counters.increment("a")))
            thread.start()
            wait_until(lambda: not store._pools_of_process().usual._idle)
            os.kill(manager.pid, signal.SIGKILL)
            manager.process.wait()
        assert not told
        with start_manager(home):
            thread.join(60)
            assert told == [2]


def test_a_manager_that_is_gone_for_a_while_is_waited_for(tmp_path):
    """Killed, it leaves its socket behind; whoever calls meanwhile waits."""
    home = tmp_path / "home"
    with contextlib.closing(ManagerStore(home, 60.0)) as store:
        with start_manager(home) as manager:
            store.execute(Request([Increment("a")]))
            os.kill(manager.pid, signal.SIGKILL)
            manager.process.wait()
        counters, told = SharedCounter(store), []
        threads = [threading.Thread(target=lambda: told.append(counters.increment("a"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # so that they wait for some time; nothing depends on how long
        assert not told
        with start_manager(home):
            for thread in threads:
                thread.join(60)
        assert sorted(told) == list(range(2, 10))


def test_a_version_from_before_a_restart_never_matches(tmp_path):
    home = tmp_path / "home"
    seen = []
    with contextlib.closing(ManagerStore(home, 60.0)) as store:
        for _ in range(3):
            with start_manager(home) as manager:
                counters = SharedCounter(store)
                for name in ("a", "b"):
                    counters.set(name, 5)
                for version in seen:
                    for change in (Set("a", 6, if_version=version), Increment("a", if_version=version)):
                        with pytest.raises(VersionMismatch) as caught:
                            store.execute(Request([change])).only()
                        assert caught.value.current == counters.entry("a")
                    with pytest.raises(VersionMismatch):
                        counters.delete("a", if_version=version)
                assert counters["a"] == 5
                fresh = [counters.entry(name).version for name in ("a", "b")]
                assert counters.set("a", 5, if_version=fresh[0]) == 5
                assert not set(fresh) & set(seen)
                seen += [*fresh, counters.entry("a").version]
                manager.process.stop(signal.SIGKILL)
