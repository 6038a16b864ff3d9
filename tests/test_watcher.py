"""One watcher a process wakes those who wait, rests when nobody does, and survives forks and a sick store."""

import os
import threading
import time

import pytest
from support import wait_until

from counter.errors import StoreUnavailable
from counter.ops import Changes, Increment, Request
from counter.store import Store
from counter.stores.memory import MemoryStore
from counter.web import watcher as module
from counter.web.watcher import Slots, Watch, Watcher

EVER = 30.0


class Asked(Store):
    """A store that notes what it was asked, and fails while it is told to."""

    def __init__(self):
        self.inner = MemoryStore()
        self.error = None
        self.ops = []

    def execute(self, request, timeout=None):
        self.ops.append(request.ops[0])
        if self.error is not None:
            raise self.error
        return self.inner.execute(request, timeout)

    def close(self):
        pass

    def increment(self, name="a"):
        return self.inner.execute(Request([Increment(name)])).only()

    def look(self, **options):
        return self.inner.execute(Request([Changes(**options)])).only()


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    """Nobody's promise: how long it takes until something is noticed."""
    monkeypatch.setattr(module, "PACE_SECONDS", 0.005)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(module, "_ASK_SECONDS", 0.05)
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.02)


@pytest.fixture
def store():
    return Asked()


@pytest.fixture
def watcher(store):
    return Watcher(store, 3)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "watcher"]


@pytest.fixture(autouse=True)
def the_thread_ends():
    wait_until(lambda: not threads())  # those of other tests
    yield
    wait_until(lambda: not threads())


class Follower:
    """One who waits as the handlers do, in a thread, until it has seen *wanted* changes of its prefix."""

    def __init__(self, watcher, store, prefix, wanted):
        self.seen = []
        self.thread = threading.Thread(target=self.run, args=[watcher, store, prefix, wanted])
        self.thread.start()

    def run(self, watcher, store, prefix, wanted):
        since = None
        while len(self.seen) < wanted:
            moment = watcher.moment
            page = store.look(since=since, prefix=prefix)
            since = page.version
            self.seen += [(entry.name, entry.value) for entry in page.counters]
            if not page.tells and not watcher.wait(moment, since, EVER):
                return

    def join(self):
        self.thread.join(20)
        return self.seen


def test_nothing_is_asked_before_somebody_waits(store, watcher):
    assert (store.ops, threads(), watcher.slots.count) == ([], [], 3)


def test_whoever_waits_is_woken_by_a_change(store, watcher):
    version, told = store.look().version, []
    assert watcher.wait(watcher.moment, version, EVER)  # once, in case it has looked too early
    moment = watcher.moment
    assert not watcher.wait(moment, version, 0.01)
    thread = threading.Thread(target=lambda: told.append(watcher.wait(moment, version, EVER)))
    thread.start()
    store.increment()
    thread.join(20)
    assert (told, watcher.moment > moment) == ([True], True)


def test_a_change_between_the_look_and_the_wait_is_not_missed(store, watcher):
    assert watcher.wait(watcher.moment, store.look().version, EVER)
    moment, version = watcher.moment, store.look().version
    store.increment()
    assert watcher.wait(moment, version, EVER)


def test_who_looked_before_the_one_that_started_the_thread_misses_nothing(store, watcher):
    moment, old = watcher.moment, store.look().version
    store.increment()
    assert watcher.wait(watcher.moment, store.look().version, EVER)
    assert watcher.wait(moment, old, EVER)


@pytest.mark.parametrize("seed", range(3))
def test_many_see_all_of_theirs_whenever_they_come(store, watcher, seed):
    followers = [Follower(watcher, store, f"{at}:", 1) for at in range(10)]
    for at in range(10):
        for name in (f"{at}:a", "other"):
            store.increment(name)
    followers += [Follower(watcher, store, "late:", 1)]
    store.increment("late:a")
    assert [follower.join() for follower in followers] == [
        *([(f"{at}:a", 1)] for at in range(10)),
        [("late:a", 1)],
    ]
    assert len(threads()) <= 1


def test_what_changed_is_not_fetched_and_soon_gone_over(store, watcher):
    """However many change at once, one is told, the rest skipped, and then there is nothing to wake for."""
    assert watcher.wait(watcher.moment, store.look().version, EVER)
    moment, version = watcher.moment, store.look().version
    store.inner.execute(Request([Increment(f"n{number}") for number in range(5000)]))
    assert watcher.wait(moment, version, EVER)
    wait_until(lambda: [op for op in store.ops if op.prefix])
    assert [watcher.wait(watcher.moment, version, 0.1) for _ in range(5)].count(True) <= 2
    assert {op.limit for op in store.ops if not op.prefix} == {1}


def test_a_name_that_begins_oddly_is_a_change_too(store, watcher):
    assert watcher.wait(watcher.moment, store.look().version, EVER)
    for _ in range(3):
        moment, version = watcher.moment, store.look().version
        store.increment(module._NO_NAME + "x")
        store.increment(module._NO_NAME + "y")
        assert watcher.wait(moment, version, EVER)


def test_it_ends_when_nobody_waits_and_begins_again(store, watcher):
    for _ in range(2):
        assert watcher.wait(watcher.moment, store.look().version, EVER)
        wait_until(lambda: not threads())
        asked = len(store.ops)
        store.increment()
        assert len(store.ops) == asked


def test_at_most_so_many_wakes_a_second(store, watcher, monkeypatch):
    monkeypatch.setattr(module, "PACE_SECONDS", 0.05)
    begun, woken = time.monotonic(), 0
    version = store.look().version
    while time.monotonic() < begun + 0.3:
        store.increment()
        woken += watcher.wait(watcher.moment, version, 0.01)
    assert 1 <= woken <= (time.monotonic() - begun) / 0.05 + 1


def test_a_store_that_fails_is_asked_again_in_a_while(store, watcher):
    assert watcher.wait(watcher.moment, store.look().version, EVER)
    moment, version = watcher.moment, store.look().version
    store.error = StoreUnavailable("no manager")
    asked = len(store.ops)
    assert not watcher.wait(moment, version, 0.2)
    assert 1 < len(store.ops) - asked < 60
    store.increment()
    store.error = None
    assert watcher.wait(moment, version, EVER)


def test_another_run_of_the_store_wakes(store, watcher):
    assert watcher.wait(watcher.moment, store.look().version, EVER)
    moment, version = watcher.moment, store.look().version
    store.inner = MemoryStore()
    assert watcher.wait(moment, version, EVER)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_a_mistake_has_ended_is_replaced(store, watcher):
    store.error = ZeroDivisionError()
    assert not watcher.wait(watcher.moment, "x", 0.05)
    wait_until(lambda: not threads())
    store.error = None
    assert watcher.wait(watcher.moment, store.look().version, EVER)


def test_slots_are_as_many_as_there_are_and_each_is_freed_once():
    slots = Slots(2)
    first, second = slots.take(), slots.take()
    assert (slots.take(), slots.used, slots.count) == (None, 2, 2)
    first.free()
    first.free()
    assert slots.used == 1
    again = slots.take()
    assert (slots.take(), slots.used) == (None, 2)
    del second, again
    assert slots.used == 0


def test_a_fork_has_a_watcher_of_its_own_with_all_its_slots(store):
    watch = Watch(store, 2)
    mine = watch.here()
    assert watch.here() is mine
    slot = mine.slots.take()
    assert mine.wait(mine.moment, store.look().version, EVER)
    with mine._changed:  # held, as it may be by another thread at the moment of the fork
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            told = b"no"
            try:
                store.inner = MemoryStore()  # this one's lock could be held as well
                theirs = watch.here()
                woken = theirs.wait(theirs.moment, store.look().version, EVER)
                fresh = theirs is not mine and theirs is watch.here() and len(watch._watchers) == 1
                told = b"yes" if woken and fresh and theirs.slots.used == 0 else b"no"
            finally:
                os.write(writing, told)
                os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        assert said.read() == b"yes"
    os.waitpid(pid, 0)
    assert (watch.here(), mine.slots.used) == (mine, 1)
    slot.free()
