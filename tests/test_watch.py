"""Watching: pages of what changes for as long as they are taken, also through a restart."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from flask import Flask
from manager_process import start_manager
from support import clean_environ, free_port, wait_until

import counter.watch
from counter import InvalidRequest, NotFound, Reply, SharedCounter, Store, StoreUnavailable
from counter.flask import FlaskCounter
from counter.results import ChangesPage

EVER = 30.0


def told(page):
    return {entry.name: entry.value for entry in page.counters}, page.gone


class Scripted(Store):
    """Answers each question with the next of *answers*, and keeps what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def execute(self, request, timeout=None):
        self.asked.append((*request.ops, timeout))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Reply([answer])

    def close(self):
        pass


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        self.slept = []
        monkeypatch.setattr(counter.watch, "time", self)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def page(version, gone=(), complete=False, more=False):
    return ChangesPage([], list(gone), version, more, complete)


# -- what is told


def test_it_begins_with_all_there_is_and_goes_on_with_what_changes(counters):
    counters.update({"a": 1, "b": 2})
    watching = counters.watch()
    first = next(watching)
    assert (told(first), first.complete) == (({"a": 1, "b": 2}, []), True)
    counters.increment("a")
    del counters["b"]
    second = next(watching)
    assert (told(second), second.complete) == (({"a": 2}, ["b"]), False)
    watching.close()


def test_it_goes_on_from_a_version(counters):
    counters.increment("a")
    since = next(counters.watch()).version
    counters.increment("b")
    page = next(counters.watch(since=since))
    assert (told(page), page.complete) == (({"b": 1}, []), False)


def test_pages_have_their_limit_and_the_first_of_them_alone_is_complete(counters):
    counters.update({f"n{number}": 1 for number in range(5)})
    watching = counters.watch(limit=2)
    pages = [next(watching) for _ in range(3)]
    assert [len(page.counters) for page in pages] == [2, 2, 1]
    assert [(page.complete, page.more) for page in pages] == [(True, True), (False, True), (False, False)]


def test_a_view_and_a_prefix_show_their_own(counters):
    counters.update({"shop:cart": 1, "shop:cash": 2, "blog": 3})
    assert told(next(counters.watch("shop:")))[0] == {"shop:cart": 1, "shop:cash": 2}
    assert told(next(counters.view("shop:").watch()))[0] == {"cart": 1, "cash": 2}
    watching = counters.view("shop:").watch("car")
    assert told(next(watching))[0] == {"cart": 1}
    counters.increment("shop:cash")
    counters.increment("shop:cart")
    assert told(next(watching))[0] == {"cart": 2}


def test_a_flask_counter_watches_the_counters_of_its_app():
    app, hits = Flask("shop"), FlaskCounter()
    app.config["COUNTER_URL"] = f"memory://watch-{free_port()}"
    hits.init_app(app)
    with app.app_context():
        hits.increment("page", 5)
        watching = hits.watch()
        assert told(next(watching))[0] == {"page": 5}
        hits.increment("page")
        assert told(next(watching))[0] == {"page": 6}


def test_a_name_may_be_any_text(counters):
    class Shop(str):
        __slots__ = ()

    counters.increment("shop:a")
    assert told(next(counters.watch(Shop("shop:"))))[0] == {"shop:a": 1}


def test_what_cannot_be_watched_is_refused_at_the_call(counters):
    for wrong in ({"wait": 0}, {"wait": -1}, {"wait": 61}, {"limit": 0}, {"limit": 1001}, {"since": 5}):
        with pytest.raises(InvalidRequest):
            counters.watch(**wrong)
    with pytest.raises(InvalidRequest):
        counters.watch("\n")


# -- waiting


def test_an_empty_page_comes_where_it_is_asked_for(counters):
    watching = counters.watch(wait=0.2)
    next(watching)
    began = time.monotonic()
    page = next(watching)
    assert not page.tells
    assert 0.2 <= time.monotonic() - began < EVER


def test_it_asks_on_from_each_page_and_keeps_empty_ones_for_itself():
    store = Scripted(page("a.1", complete=True), page("a.2"), page("a.3", gone=["x"]))
    watching = SharedCounter(store).watch("p", limit=7, timeout=3)
    assert [next(watching).version for _ in range(2)] == ["a.1", "a.3"]
    assert [(op.since, op.prefix, op.limit, timeout) for op, timeout in store.asked] == [
        (None, "p", 7, 3),
        ("a.1", "p", 7, 3),
        ("a.2", "p", 7, 3),
    ]
    assert all(op.wait >= 1 for op, _ in store.asked), "else an idle watcher would ask all the time"


def test_nothing_is_asked_before_the_first_page_is_taken_nor_after_the_last():
    store = Scripted(page("a.1", complete=True))
    watching = SharedCounter(store).watch()
    assert store.asked == []
    next(watching)
    watching.close()
    assert (len(store.asked), list(watching)) == (1, [])


def test_it_is_told_from_another_thread(counters):
    watching = counters.watch("wanted")
    next(watching)
    thread = threading.Thread(target=lambda: counters.increment("wanted"))
    thread.start()
    assert told(next(watching))[0] == {"wanted": 1}
    thread.join()


# -- a store that is away


def test_who_was_never_answered_is_told_at_once(monkeypatch):
    clock = Clock(monkeypatch)
    with pytest.raises(StoreUnavailable, match="away"):
        next(SharedCounter(Scripted(StoreUnavailable("away"))).watch())
    assert clock.slept == []


def test_a_store_that_comes_back_is_gone_on_with(monkeypatch):
    clock = Clock(monkeypatch)
    away = [StoreUnavailable("away")] * 10
    store = Scripted(page("a.1", complete=True), *away, page("b.1", complete=True))
    watching = SharedCounter(store).watch()
    assert [next(watching).version for _ in range(2)] == ["a.1", "b.1"]
    assert len(clock.slept) == 10
    assert {op.since for op, _ in store.asked[1:]} == {"a.1"}


def test_a_store_that_stays_away_is_given_up_and_not_asked_without_pause(monkeypatch):
    clock = Clock(monkeypatch)
    store = Scripted(page("a.1", complete=True), *[StoreUnavailable("away")] * 1000)
    watching = SharedCounter(store).watch(wait=5)
    next(watching)
    with pytest.raises(StoreUnavailable, match="away"):
        next(watching)
    assert counter.watch.AWAY_SECONDS <= sum(clock.slept) <= counter.watch.AWAY_SECONDS + 5
    assert len(store.asked) < 100
    assert list(watching) == []


def test_each_absence_is_waited_for_anew(monkeypatch):
    Clock(monkeypatch)
    away = [StoreUnavailable("away")] * 50  # each of them most of the time there is
    store = Scripted(page("1", complete=True), *away, page("2", gone=["x"]), *away, page("3", gone=["y"]))
    watching = SharedCounter(store).watch()
    assert [next(watching).version for _ in range(3)] == ["1", "2", "3"]


def test_another_error_ends_it():
    store = Scripted(page("a.1", complete=True), NotFound("odd"))
    watching = SharedCounter(store).watch()
    next(watching)
    with pytest.raises(NotFound):
        next(watching)


# -- real processes


@pytest.mark.process
def test_it_goes_on_through_a_manager_that_is_stopped_and_one_that_is_killed(tmp_path):
    """Whoever starts again is told all there is; what was deleted meanwhile is not in it."""
    home = tmp_path / "home"
    counters = counter.connect(f"counter://{home}")
    with start_manager(home, durability="everysec") as manager:
        counters.update({"a": 1, "b": 1})
        watching = counters.watch()
        assert next(watching).complete
        assert manager.stop() == 0
    pages = []
    thread = threading.Thread(target=lambda: pages.append(next(watching)))
    thread.start()
    with start_manager(home, durability="everysec") as manager:
        thread.join(EVER)
        assert (told(pages[0]), pages[0].complete) == (({"a": 1, "b": 1}, []), True)
        counters.increment("a")
        assert told(next(watching))[0] == {"a": 2}
        thread = threading.Thread(target=lambda: pages.append(next(watching)))
        thread.start()
        manager.process.stop(signal.SIGKILL)
    with start_manager(home, durability="everysec"):
        thread.join(EVER)
        assert (told(pages[1]), pages[1].complete) == (({"a": 2, "b": 1}, []), True)
        del counters["b"]
        assert told(next(watching)) == ({}, ["b"])
    counters.close()


@pytest.mark.process
@pytest.mark.parametrize("scheme", ["counter", "memory"])
def test_ctrl_c_ends_it_at_once(manager, scheme):
    url = f"counter://{manager.home}" if scheme == "counter" else "memory://"
    code = (
        "import counter, sys\n"
        f"for page in counter.connect({url!r}).watch():\n"
        "    print('watching', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environ()
    )
    with process:
        assert process.stdout.readline() == b"watching\n"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.stderr.read().endswith(b"KeyboardInterrupt\n")
        process.wait(EVER)
        assert time.monotonic() - began < 5


@pytest.mark.process
def test_an_idle_watcher_asks_for_nothing(manager):
    store = manager.store()
    watching = SharedCounter(store).watch("idle:")
    next(watching)
    thread = threading.Thread(target=lambda: next(watching))
    thread.start()
    with manager.connect() as client:
        before = client.request(counter.Info()).only().manager.requests
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + 1)
        assert client.request(counter.Info()).only().manager.requests - before <= 2
    SharedCounter(store).increment("idle:no more")
    thread.join(EVER)
    store.close()
