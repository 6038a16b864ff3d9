"""Counts that need no answer: nothing is lost or counted twice, and whoever counts is held up by nobody."""

import _thread
import gc
import itertools
import logging
import os
import queue
import signal
import threading
import weakref
from enum import StrEnum

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from support import wait_until

import counter
from counter import InvalidRequest, LimitExceeded, OutcomeUnknown, OutOfBounds, StoreUnavailable, Unsupported
from counter.fields import INT64_MAX, INT64_MIN, MAX_OPS
from counter.flask import FlaskCounter
from counter.sender import Sender, _steps
from counter.store import Store
from counter.stores.memory import MemoryStore

LATER = 3600.0
"""So seldom that nothing is sent but by a flush."""
_numbers = itertools.count()


class Scripted(Store):
    """A store in memory that fails as told: *failures* are taken one a request, None lets it through.

    What is put into *gate*, if there is one, lets one request each pass.
    """

    url = "memory://scripted"

    def __init__(self, *failures, gate=None, most=MAX_OPS):
        self.inner = MemoryStore()
        self.hits = counter.SharedCounter(self.inner)
        self.failures = list(failures)
        self.gate = gate
        self.most = most
        self.requests = []

    def execute(self, request, timeout=None):
        self.requests.append(request)
        if self.gate is not None:
            self.gate.get(timeout=20)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if len(request.ops) > self.most:
            raise LimitExceeded("a frame too large")
        return self.inner.execute(request)

    def close(self):
        pass


def buffered(store, flush_every=LATER, max_pending=10_000):
    return counter.SharedCounter(store).buffered(flush_every, max_pending)


@pytest.fixture
def hits():
    return counter.connect(f"memory://buffered-{next(_numbers)}")


def increment(counts, times, name="a"):
    for _ in range(times):
        counts.increment(name)


def in_thread(work):
    """The thread that does *work*, and the list that gets what it returned or raised."""
    results = []

    def run():
        try:
            results.append(work())
        except counter.CounterError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


# Adding up


def test_counts_are_added_up_and_sent_in_one_request():
    store = Scripted()
    with buffered(store) as counts:
        assert [counts.increment("a"), counts.increment("a", 5), counts.decrement("b", 2)] == [None] * 3
        counts.update("abca", d=4)
        counts.update({"a": -1})
        assert not store.requests
    assert dict(store.hits.items()) == {"a": 7, "b": -1, "c": 1, "d": 4}
    assert [len(request.ops) for request in store.requests] == [4]
    assert not store.requests[0].atomic


def test_they_are_sent_by_themselves_in_a_moment(hits):
    counts = hits.buffered(flush_every=0.01)
    for number in range(1, 4):  # it falls asleep in between
        counts.increment("page")
        wait_until(lambda expected=number: hits["page"] == expected)


def test_what_sums_up_to_nothing_is_a_count_all_the_same(hits):
    with hits.buffered(LATER) as counts:
        counts.update(["a"])
        counts.decrement("a")
    assert "a" in hits


def test_names_of_a_view_get_their_prefix(hits):
    with hits.view("shop:").buffered(LATER) as counts:
        counts.increment("cart")
    assert hits["shop:cart"] == 1


def test_names_and_numbers_that_inherit_are_taken_as_what_they_are(hits):
    class Name(StrEnum):
        PAGE = "page"

    with hits.buffered(LATER) as counts:
        for _ in range(2):  # the second is known
            counts.increment(Name.PAGE)
            counts.increment("page")
    assert dict(hits.items()) == {"page": 4}


@pytest.mark.parametrize("name", [5, None, b"page", "", "x" * 251, "a\nb", [], {}, True])
def test_what_is_no_name_is_refused_at_once(hits, name):
    with hits.buffered(LATER) as counts, pytest.raises(InvalidRequest, match="name"):
        counts.increment(name)
    assert not hits


@pytest.mark.parametrize("delta", [True, 1.0, "1", None, INT64_MAX + 1, INT64_MIN - 1])
def test_what_is_no_delta_is_refused_at_once(hits, delta):
    with hits.buffered(LATER) as counts:
        counts.increment("known", 0)
        with pytest.raises(InvalidRequest, match="delta"):
            counts.increment("known", delta)
        with pytest.raises(InvalidRequest, match="delta"):
            counts.update({"other": 1, "known": delta})
    assert hits.copy() == {"known": 0}


def test_a_name_too_long_with_its_prefix_is_refused_at_once(hits):
    counts = hits.view("p" * 100).buffered(LATER)
    with pytest.raises(InvalidRequest, match="250"):
        counts.increment("x" * 151)


def test_more_names_than_it_remembers_are_as_good(hits, monkeypatch):
    monkeypatch.setattr("counter.buffered._MOST_KNOWN", 3)
    with hits.buffered(LATER) as counts:
        for number in [*range(10), *range(10)]:
            counts.increment(f"name {number}")
    assert hits.copy() == {f"name {number}": 2 for number in range(10)}


@given(st.integers(-(2**70), 2**70))
def test_a_sum_goes_in_steps_that_64_bits_hold(total):
    steps = [*_steps(total)]
    assert sum(steps) == total
    assert all(INT64_MIN <= step <= INT64_MAX for step in steps)


def test_a_sum_beyond_64_bits_counts_in_full(hits):
    hits.set("a", INT64_MIN)
    with hits.buffered(LATER) as counts:
        counts.increment("a", INT64_MAX)
        counts.increment("a", INT64_MAX)
    assert hits["a"] == INT64_MIN + 2 * INT64_MAX


@pytest.mark.parametrize(
    "options", [{"flush_every": 0}, {"flush_every": True}, {"flush_every": float("nan")}, {"max_pending": 0}]
)
def test_options_that_make_no_sense_are_refused(hits, options):
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        hits.buffered(**options)


def test_the_counters_of_whichever_app_is_current_are_refused():
    hits = FlaskCounter(app := Flask(__name__))
    with app.app_context(), pytest.raises(Unsupported, match=r"counter\.connect\(url\)\.buffered"):
        hits.buffered()
    with pytest.raises(Unsupported):
        hits.view("shop:").buffered()


# What is refused


def test_a_refused_sum_is_told_and_stops_no_other(hits, caplog):
    hits.set("seats", 0, max=2)
    counts = hits.buffered(LATER)
    counts.update(seats=3, page=1)
    with pytest.raises(OutOfBounds, match="seats"):
        counts.flush()
    assert hits.copy() == {"seats": 0, "page": 1}
    assert "1 sums of counts dropped" in caplog.text
    counts.flush()  # told once


def test_what_was_refused_in_the_background_is_told_by_the_next_flush(hits, caplog):
    hits.set("seats", 0, max=2)
    counts = hits.buffered(0.01)
    counts.increment("seats", 3)
    wait_until(lambda: "dropped" in caplog.text)
    with pytest.raises(OutOfBounds):
        counts.flush()


def test_the_end_of_the_block_raises_what_was_refused(hits):
    hits.set("seats", 0, max=2)
    with pytest.raises(OutOfBounds), hits.buffered(LATER) as counts:
        counts.increment("seats", 3)


def test_what_is_too_large_goes_in_parts():
    store = Scripted(most=3)
    with buffered(store) as counts:
        counts.update({f"name {number}": number for number in range(20)})
    assert store.hits.copy() == {f"name {number}": number for number in range(20)}


def test_more_names_than_a_request_holds_go_in_several(hits):
    names = [f"name {number}" for number in range(MAX_OPS + 5)]
    with hits.buffered(LATER, 2 * MAX_OPS) as counts:
        counts.update(names)
    assert len(hits) == len(names)


# A store that fails


def test_what_was_not_applied_is_sent_again_with_what_came_since(caplog):
    store = Scripted(*[StoreUnavailable("away")] * 3)
    counts = buffered(store)
    for _ in range(3):
        counts.increment("a")
        with pytest.raises(StoreUnavailable, match="away"):
            counts.flush()
    counts.increment("b")
    counts.flush()
    assert store.hits.copy() == {"a": 3, "b": 1}
    assert caplog.text.count("counts wait for the store") == 1


def test_it_is_tried_again_without_being_asked():
    store = Scripted(*[StoreUnavailable("away")] * 3)
    counts = buffered(store, 0.01)
    counts.increment("a")
    wait_until(lambda: store.hits["a"] == 1)
    assert len(store.requests) == 4


def test_only_a_part_that_was_not_applied_is_sent_again():
    store = Scripted(None, None, StoreUnavailable("away"), most=1)  # whole, first half, second half
    counts = buffered(store)
    counts.update("ab")
    with pytest.raises(StoreUnavailable):
        counts.flush()
    counts.flush()
    assert store.hits.copy() == {"a": 1, "b": 1}


def test_an_increment_beyond_max_pending_raises_and_is_not_counted():
    store = Scripted(*[StoreUnavailable("away")] * 1000)
    counts = buffered(store, max_pending=10)
    counted = 0
    for _ in range(30):
        try:
            counts.increment("a")
            counted += 1
        except StoreUnavailable as error:
            assert "this one was not counted: away" in str(error)
    assert counted == 10
    store.failures.clear()
    counts.flush()
    assert store.hits["a"] == counted


def test_a_flush_sends_also_what_is_more_than_may_be_pending():
    """So much there can be for a moment: of calls that wait for room."""
    store = Scripted()
    sender = Sender(store, LATER, 3)
    sender.queue.extend("aaaaaaa")
    assert sender._send(everything=True) is None
    assert store.hits["a"] == 7


def test_an_unknown_outcome_is_never_sent_again(caplog):
    store = Scripted(OutcomeUnknown("no answer"))
    counts = buffered(store)
    counts.update({"a": 5, "b": 5})
    with pytest.raises(OutcomeUnknown, match="no answer"):
        counts.flush()
    counts.increment("a")
    counts.flush()
    assert store.hits.copy() == {"a": 1}
    assert "dropped" in caplog.text


def test_a_request_may_take_so_long_that_the_store_can_repeat_it_itself():
    seen = []

    class Asked(Scripted):
        def execute(self, request, timeout=None):
            seen.append(timeout)
            return super().execute(request, timeout)

    with buffered(Asked()) as counts:
        counts.increment("a")
    assert seen == [3600.0]


def test_a_mistake_in_a_store_does_not_end_the_thread(caplog):
    store = Scripted(ZeroDivisionError("a mistake"))
    counts = buffered(store)
    counts.increment("a")
    with pytest.raises(ZeroDivisionError):
        counts.flush()
    counts.increment("b")
    counts.flush()
    assert store.hits.copy() == {"b": 1}
    assert "Traceback" in caplog.text


def test_a_store_that_hangs_holds_up_whoever_passes_max_pending_until_the_timeout():
    gate = queue.SimpleQueue()
    store = Scripted(gate=gate)
    store.url = "counter:///nowhere?timeout=0.05"
    counts = buffered(store, max_pending=3)
    increment(counts, 3)
    with pytest.raises(OutcomeUnknown, match="sent once"):
        counts.flush()
    with pytest.raises(StoreUnavailable, match="this one was not counted"):
        counts.increment("a")
    for _ in range(10):
        gate.put(None)
    counts.flush(20)
    assert store.hits["a"] == 3


def test_what_comes_while_a_request_is_under_way_is_sent_with_the_next():
    gate = queue.SimpleQueue()
    store = Scripted(gate=gate)
    counts = buffered(store, max_pending=10)
    increment(counts, 3)
    first, _ = in_thread(counts.flush)
    wait_until(lambda: store.requests)
    increment(counts, 7)  # there is room for so many
    waiting, results = in_thread(lambda: counts.increment("a"))
    wait_until(lambda: sum(sender.pending for sender in counts._senders.values()) == 11)
    assert not results
    gate.put(None)
    gate.put(None)
    for thread in (first, waiting):
        thread.join(20)
    assert results == [None]
    gate.put(None)
    counts.flush()
    assert store.hits["a"] == 11


# Threads, signals, the thread's life


def test_threads_lose_nothing_and_never_pass_max_pending():
    store, most = Scripted(), 100

    class Watched(Scripted):
        def execute(self, request, timeout=None):
            assert sum(op.delta for op in request.ops) <= most
            return store.execute(request)

    counts = buffered(Watched(), 0.001, most)
    threads = [
        in_thread(lambda name=name: [counts.increment(name) for _ in range(2000)]) for name in "aabbccdd"
    ]
    for thread, _ in threads:
        thread.join(60)
    counts.flush()
    assert store.hits.copy() == dict.fromkeys("abcd", 4000)


def test_a_signals_handler_may_count_wherever_it_interrupts():
    store = Scripted()
    counts = buffered(store, 0.001, 20)
    handled = itertools.count()

    def handle(*_):
        counts.increment("signal", next(handled) and 1)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        for _ in range(5000):
            counts.increment("page")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    counts.flush()
    assert store.hits["page"] == 5000
    assert store.hits["signal"] == next(handled) - 1 > 0


def test_nothing_is_started_before_the_first_count(hits, monkeypatch):
    def fail(*_):
        raise AssertionError("a thread")

    monkeypatch.setattr("_thread.start_new_thread", fail)
    with hits.buffered():
        pass


def test_where_no_thread_can_be_started_the_count_is_refused(hits, monkeypatch):
    def fail(*_):
        raise RuntimeError("can't start new thread")

    counts = hits.buffered(LATER)
    with monkeypatch.context() as patch:
        patch.setattr("_thread.start_new_thread", fail)
        with pytest.raises(StoreUnavailable, match="no thread can be started"):
            counts.increment("a")
    counts.increment("a")
    counts.flush()
    assert hits["a"] == 1


def test_the_thread_sends_what_is_left_and_ends_when_nobody_has_the_buffer(hits):
    counts = hits.buffered(LATER)
    counts.increment("a")
    (sender,) = map(weakref.ref, counts._senders.values())
    gc.collect()
    assert sender() is not None
    del counts
    wait_until(lambda: gc.collect() is None or sender() is None)
    assert hits["a"] == 1


def test_of_two_starts_at_once_one_thread_sends():
    sender = Sender(Scripted(), LATER, 10)
    sender._unstarted.clear()
    sender._run(queue.SimpleQueue())  # the second ends at once


def test_one_thread_is_started_however_fast_the_first_counts_come(monkeypatch):
    started = []
    start = _thread.start_new_thread
    monkeypatch.setattr("_thread.start_new_thread", lambda *args: started.append(args) or start(*args))
    with buffered(Scripted()) as counts:
        increment(counts, 100)
    assert len(started) == 1


def test_the_end_of_a_process_tells_what_is_pending(caplog, monkeypatch):
    monkeypatch.setenv("COUNTER_TIMEOUT", "0.05")
    gate = queue.SimpleQueue()
    counts = buffered(Scripted(gate=gate))
    increment(counts, 3)
    (sender,) = counts._senders.values()
    with caplog.at_level(logging.ERROR):
        sender.at_exit()
    assert "3 counts pending" in caplog.text
    for _ in range(5):
        gate.put(None)
    counts.flush()


def test_it_says_where_it_counts_and_asks_for_nothing(hits):
    counts = hits.buffered()
    assert repr(counts) == f"BufferedCounter({hits.store!r})"
    assert os.getpid() not in counts._senders
