"""The client: one deadline a call, one request in flight a connection, and never another call's answer."""

import collections
import contextlib
import gc
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from manager_process import start_manager
from msgspec.structs import replace
from support import clean_environ, wait_until

from counter import SharedCounter, open_store
from counter.errors import InvalidRequest, LimitExceeded, OutcomeUnknown, StoreUnavailable
from counter.handshake import ServerHandshake
from counter.home import Home
from counter.information import Limits
from counter.ops import Delete, Get, Hello, Increment, Info, List, Request, Set
from counter.results import Change, Reply
from counter.store import StoreUrl
from counter.stores import manager as manager_module
from counter.stores import pool as pool_module
from counter.stores.manager import ManagerStore
from counter.wire import Frames, decode_request, encode_reply, frame

pytestmark = pytest.mark.process  # managers and peers on real sockets

A = Request([Increment("a")])
READ = Request([Get("a")])


def pool_of(home, size):
    """A pool of connections to the manager in *home*."""
    return pool_module.Pool(lambda: manager_module._Slot(home, "client"), size)


@contextlib.contextmanager
def opened(home, timeout=10.0, **options):
    store = ManagerStore(home.path if isinstance(home, Home) else home, timeout, **options)
    with contextlib.closing(store):
        yield store


def takes(call, error):
    """How long *call* takes to raise *error*, and the error."""
    started = time.monotonic()
    with pytest.raises(error) as caught:
        call()
    return time.monotonic() - started, caught.value


# A manager that does as it is told


class Actor:
    """A thread in a manager's place: it welcomes who comes, then plays one scene a connection.

    A scene is a function of the conversation; `heard` keeps all frames that came after the Hello.
    """

    def __init__(self, home, *scenes):
        self.heard = []
        self.met = 0
        self.most = itertools.repeat(1024 * 1024)  # bytes of a frame, told to each who comes
        self._key = home.read_key()
        self._listener = home.bind()
        self._listener.setblocking(True)
        self._scenes = scenes
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def _play(self):
        for scene in self._scenes:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.met += 1
            with sock, contextlib.suppress(OSError, EOFError):
                sock.settimeout(10)
                self._welcome(sock)
                scene(self, sock)

    def _welcome(self, sock):
        self._frames = Frames(2**31)
        handshake = ServerHandshake([self._key])
        sock.sendall(frame(handshake.start()))
        while not handshake.done:
            for answer in handshake.receive(self.read(sock)):
                sock.sendall(frame(answer))
        assert isinstance(decode_request(self.read(sock)).ops[0], Hello)
        sock.sendall(frame(encode_reply(Reply([Limits(1_000_000, next(self.most))]))))

    def read(self, sock):
        while (payload := self._frames.next()) is None:
            data = sock.recv(65536)
            if not data:
                raise EOFError
            self._frames.feed(data)
        return payload

    def listen(self, sock):
        self.heard.append(self.read(sock))
        return decode_request(self.heard[-1])

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


def change(value):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    return Change("a", value, "r.1", now, now, previous=value - 1, delta=1)


def answers(value=1):
    def scene(actor, sock):
        while True:
            actor.listen(sock)
            sock.sendall(frame(encode_reply(Reply([change(value)]))))

    return scene


def hangs_up(actor, sock):
    actor.listen(sock)


def hangs_up_unheard(actor, sock):
    """Before anything was asked."""


def says(data):
    def scene(actor, sock):
        actor.listen(sock)
        sock.sendall(data)
        with contextlib.suppress(OSError):
            sock.recv(1)

    return scene


@pytest.fixture
def acting(home):
    actors = []

    def act(*scenes):
        actors.append(Actor(home, *scenes))
        return actors[-1]

    yield act
    for actor in actors:
        actor.close()


# Once


def test_what_breaks_off_is_repeated_byte_for_byte(home, acting):
    actor = acting(hangs_up, hangs_up, answers(5))
    with opened(home) as store:
        assert store.execute(A).only().value == 5
    assert len(actor.heard) == 3
    assert len(set(actor.heard)) == 1
    request = decode_request(actor.heard[0])
    assert len(request.caller) == 16
    assert request.deadline > time.monotonic()


def test_each_request_of_a_slot_has_a_higher_seq_and_each_slot_is_another_caller(home, acting):
    actor = acting(answers(), answers())
    with opened(home) as one, opened(home) as two:
        for _ in range(3):
            one.execute(A)
        one.close()
        two.execute(A)
    requests = [decode_request(payload) for payload in actor.heard]
    assert [request.seq for request in requests] == [1, 2, 3, 1]
    assert len({request.caller for request in requests[:3]}) == 1
    assert requests[3].caller != requests[0].caller


def test_the_caller_stays_when_the_connection_is_another(home, acting):
    actor = acting(hangs_up, answers(), answers())
    with opened(home) as store:
        store.execute(A)
        store.close()
        store.execute(A)
    first, again, second = map(decode_request, actor.heard)
    assert first == again
    assert (second.caller, second.seq) == (first.caller, first.seq + 1)


def test_what_only_reads_is_not_signed(home, acting):
    actor = acting(hangs_up, answers(3))
    with opened(home) as store:
        assert store.execute(READ).only().value == 3
    assert {decode_request(payload).caller for payload in actor.heard} == {None}


def test_the_request_of_the_user_is_left_as_it_is(home, acting):
    acting(answers())
    with opened(home) as store:
        store.execute(A)
    assert (A.caller, A.seq, A.deadline) == (None, 0, 0.0)


# One deadline


@pytest.mark.parametrize(("request_", "error"), [(A, OutcomeUnknown), (READ, StoreUnavailable)])
def test_who_never_answers_costs_no_more_than_the_deadline(home, acting, request_, error):
    acting(says(b""), says(b""))
    with opened(home, 0.15) as store:
        took, raised = takes(lambda: store.execute(request_), error)
        assert type(raised) is error
        assert 0.1 < took < 5
        took, _ = takes(lambda: store.execute(request_, timeout=0.1), error)
        assert took < 5


def test_repeating_ends_with_the_deadline_too(home, acting):
    acting(*[hangs_up] * 1000)
    with opened(home, 0.15) as store:
        took, _ = takes(lambda: store.execute(A), OutcomeUnknown)
        assert 0.05 < took < 5
        took, _ = takes(lambda: store.execute(READ), StoreUnavailable)
        assert took < 5


def test_what_was_never_sent_is_known_not_to_be_applied(home, acting):
    acting(*[hangs_up_unheard] * 1000)
    with opened(home, 0.15) as store, contextlib.suppress(OutcomeUnknown):
        # the end of the connection may come just after the request has left: then it is unknown
        takes(lambda: store.execute(A), StoreUnavailable)


def test_one_who_does_not_even_shake_hands_costs_no_more_either(home):
    listener = home.bind()
    with contextlib.closing(listener), opened(home, 0.15) as store:
        for request in (A, READ):
            took, raised = takes(lambda request=request: store.execute(request), StoreUnavailable)
            assert type(raised) is StoreUnavailable
            assert 0.1 < took < 5


def test_a_full_backlog_is_waited_for_until_the_deadline(home):
    """Then connect() is refused with EAGAIN at once, whatever its timeout."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(home.socket_path))
        listener.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(home.socket_path))
            except BlockingIOError:
                break
        store = stack.enter_context(opened(home, 0.15))
        took, raised = takes(lambda: store.execute(A), StoreUnavailable)
        assert 0.1 < took < 5
        assert "nothing answered" in str(raised)


def test_a_home_without_a_socket_fails_at_once_with_what_to_do(tmp_path):
    with opened(tmp_path / "nowhere", 30.0) as store:
        took, raised = takes(lambda: store.execute(A), StoreUnavailable)
    assert took < 5
    assert str(raised) == (
        f"no manager is running in {tmp_path / 'nowhere'}; start one: `counter run`; "
        "elsewhere? set COUNTER_URL; in tests: COUNTER_URL=memory://"
    )


# Answers that are none


@pytest.mark.parametrize(
    "data",
    [
        frame(b"\xc1"),
        frame(b"#WELCOME#"),
        frame(encode_reply(Reply([change(1), change(2)]))),
        frame(encode_reply(Reply([]))),
        b"\xff\xff\xff\xff",
    ],
)
def test_an_answer_that_cannot_be_read_is_an_unknown_outcome_at_once(home, acting, data):
    acting(says(data), answers(2))
    with opened(home, 30.0) as store:
        took, _ = takes(lambda: store.execute(A), OutcomeUnknown)
        assert took < 5
        assert store.execute(A).only().value == 2  # on a new connection


@pytest.mark.parametrize("data", [frame(b"\xc1"), b"\xff\xff\xff\xff"])
def test_of_a_read_nothing_is_ever_unknown(home, acting, data):
    acting(says(data))
    with opened(home, 30.0) as store:
        took, _ = takes(lambda: store.execute(READ), StoreUnavailable)
        assert took < 5


def test_too_large_for_the_next_manager_is_unknown_if_this_one_may_have_done_it(home, acting):
    """Told that it is refused, whoever asked would send it in parts, and count twice."""
    actor = acting(hangs_up, answers())
    with opened(home) as store:
        actor.most = iter([1024 * 1024, 10])
        with pytest.raises(OutcomeUnknown, match="sent, and the manager that is there now"):
            store.execute(A).unwrap()
        assert (actor.met, len(actor.heard)) == (2, 1)


def test_more_than_was_asked_for_closes_the_connection(home, acting):
    """What is left over would be taken for the next call's answer."""
    one = frame(encode_reply(Reply([change(1)])))
    acting(says(one + frame(encode_reply(Reply([change(99)])))), answers(2))
    with opened(home) as store:
        assert store.execute(A).only().value == 2
        assert store.execute(A).only().value == 2


def test_even_interrupted_while_it_closes_a_connection_it_takes_no_late_answer(home, acting, monkeypatch):
    go_on = threading.Event()

    def answers_late(actor, sock):
        actor.listen(sock)
        go_on.wait(10)
        sock.sendall(frame(encode_reply(Reply([change(99)]))))
        with contextlib.suppress(OSError):
            sock.recv(1)

    def interrupted(slot):
        monkeypatch.undo()
        raise KeyboardInterrupt

    acting(answers_late, answers(2))
    with opened(home, pool=1) as store:
        monkeypatch.setattr(manager_module._Slot, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.execute(A, 0.1)
        go_on.set()
        assert store.execute(A).only().value == 2


def test_whoever_is_interrupted_hangs_up_at_once(home, acting):
    """The manager need not wait for the next call to learn that nobody waits for its answer."""
    hung_up = threading.Event()

    def interrupts(actor, sock):
        actor.listen(sock)
        os.kill(os.getpid(), signal.SIGALRM)
        if not sock.recv(1):
            hung_up.set()

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        acting(interrupts)
        with opened(home) as store:
            with pytest.raises(KeyboardInterrupt):
                store.execute(A)
            assert hung_up.wait(5)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_between_repetitions_it_pauses_twice_as_long_each_time_up_to_a_limit(home, acting, monkeypatch):
    pauses, real = [], time.sleep

    def sleep(seconds):
        if threading.current_thread() is threading.main_thread():
            pauses.append(seconds)
        real(seconds)

    acting(*[hangs_up] * 7, answers(2))
    with opened(home) as store:
        monkeypatch.setattr(time, "sleep", sleep)
        assert store.execute(A).only().value == 2
    assert pauses == [0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]


def test_who_does_not_even_read_costs_no_more_than_the_deadline(home, acting):
    """Of each call its own, though the connection is one that had more time before."""
    gone = threading.Event()

    def reads_once(actor, sock):
        actor.listen(sock)
        sock.sendall(frame(encode_reply(Reply([change(1)]))))
        gone.wait(10)

    acting(reads_once)
    with opened(home, pool=1) as store:
        store.execute(A, 8.0).unwrap()
        most = Request([Set("n" * 200, number) for number in range(4000)])
        seconds, _ = takes(lambda: store.execute(most, 0.2), StoreUnavailable)
        gone.set()
    assert 0.1 < seconds < 3


def test_who_answers_byte_by_byte_costs_no_more_than_the_deadline(home, acting):
    def trickles(actor, sock):
        actor.listen(sock)
        for byte in frame(encode_reply(Reply([change(1)])))[:-1]:
            sock.sendall(bytes([byte]))
            time.sleep(0.02)

    acting(trickles)
    with opened(home) as store:
        seconds, _ = takes(lambda: store.execute(A, 0.3), OutcomeUnknown)
    assert 0.2 < seconds < 1


def test_a_child_that_never_counts_holds_no_connection_of_its_parent(home, acting):
    """Else the manager would not see that the parent hung up."""
    hung_up, (reader, writer) = threading.Event(), os.pipe()

    def waits_for_the_end(actor, sock):
        actor.listen(sock)
        sock.sendall(frame(encode_reply(Reply([change(1)]))))
        if not sock.recv(1):
            hung_up.set()

    acting(waits_for_the_end)
    with opened(home) as store:
        store.execute(A).unwrap()
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        try:
            store.close()
            assert hung_up.wait(5)
        finally:
            os.close(writer)
            os.close(reader)
            os.waitpid(child, 0)


# The pool


@pytest.mark.parametrize("done", [False, True])
def test_a_connection_whose_return_was_interrupted_is_given_back_all_the_same(home, monkeypatch, done):
    class Interrupted:
        """The pool's lock, until it is asked for, or let go."""

        def __enter__(self):
            if not done:
                self.__exit__()

        def __exit__(self, *_):
            monkeypatch.undo()
            raise KeyboardInterrupt

    pool, deadline = pool_of(home, 1), time.monotonic() + 10
    slot = pool.take(deadline, [])
    monkeypatch.setattr(pool, "_lock", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        pool.give(slot, deadline)
    assert pool.take(time.monotonic() + 0.1, []) is slot


def test_a_connection_that_is_anothers_by_now_is_not_given_back_for_him(home, monkeypatch):
    """The signal came when it had been given back, and the other thread was faster than the handler."""

    class Released:
        def __enter__(self):
            pass

        def __exit__(self, *_):
            monkeypatch.undo()
            assert pool.take(deadline + 1, []) is slot
            raise KeyboardInterrupt

    pool, deadline = pool_of(home, 1), time.monotonic() + 10
    slot = pool.take(deadline, [])
    monkeypatch.setattr(pool, "_lock", Released())
    with pytest.raises(KeyboardInterrupt):
        pool.give(slot, deadline)
    assert pool._busy == {slot: deadline + 1}
    assert not pool._idle


def test_the_last_used_connection_is_the_first_to_be_used_again(home):
    pool = pool_of(home, 3)
    soon = time.monotonic() + 10
    one, two, three = (pool.take(soon, []) for _ in range(3))
    for slot in (two, three, one):
        pool.give(slot, soon)
    assert [pool.take(soon, []) for _ in range(3)] == [one, three, two]


def test_the_pool_is_bounded_and_waits_until_the_deadline(home, monkeypatch):
    pool = pool_of(home, 2)
    later = time.monotonic() + 60
    slots = [pool.take(later, []) for _ in range(2)]
    took, raised = takes(lambda: pool.take(time.monotonic() + 0.2, []), StoreUnavailable)
    assert 0.15 < took < 5
    assert "all 2 connections were busy" in str(raised)
    monkeypatch.setattr(pool_module, "LOST_SECONDS", 60.0)  # so that only being given it helps
    threading.Timer(0.05, pool.give, [slots[0], later]).start()
    started = time.monotonic()
    assert pool.take(started + 30, []) is slots[0]
    assert time.monotonic() - started < 10


def test_who_waits_longest_is_served_first_and_before_anybody_new(home):
    pool, later = pool_of(home, 1), time.monotonic() + 60
    slot = pool.take(later, [])
    served = []

    def wait(name):
        served.append((name, pool.take(later + 1, [])))

    threads = []
    for name in ("first", "second"):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        wait_until(lambda: len(pool._waiting) == len(threads))
    pool.give(slot, later)
    with pytest.raises(StoreUnavailable):
        pool.take(time.monotonic(), [])  # it is the first one's already, whether that one has noticed or not
    wait_until(lambda: served)
    assert served == [("first", slot)]
    pool.give(slot, later + 1)
    for thread in threads:
        thread.join(20)
    assert served == [("first", slot), ("second", slot)]


def test_one_that_is_lost_is_replaced_when_its_calls_deadline_is_over(home, monkeypatch):
    """As when a signal's handler raised just before it was given back."""
    monkeypatch.setattr(pool_module, "LOST_SECONDS", 0.05)
    pool, soon, later = pool_of(home, 1), time.monotonic() + 0.2, time.monotonic() + 20
    lost = pool.take(soon, [])
    found = pool.take(later, [])
    assert found is not lost
    pool.give(lost, soon)  # late, after all: there is no room for it
    pool.give(found, later)
    assert pool._idle == [found]


def test_who_has_waited_long_enough_does_not_leave_while_one_is_handed_to_him(home, monkeypatch):
    looked, left = threading.Event(), threading.Event()

    class Watched(collections.deque):
        """Lets the first one leave while somebody looks at it, if it can."""

        def __getitem__(self, place):
            first = super().__getitem__(place)
            looked.set()
            left.wait(0.5)
            return first

        def remove(self, waiter):
            super().remove(waiter)
            left.set()

    def wait_until_over(waiter, wait=pool_module.Pool._wait):
        assert looked.wait(20)
        return wait(pool, waiter)

    pool, later, soon = pool_of(home, 1), time.monotonic() + 60, time.monotonic()
    slot, given = pool.take(later, []), []
    pool._waiting = Watched()
    monkeypatch.setattr(pool, "_wait", wait_until_over)
    waits = threading.Thread(target=lambda: given.append(pool.take(soon, [])))
    waits.start()
    wait_until(lambda: pool._waiting)
    pool.give(slot, later)
    waits.join(20)
    assert given == [slot]
    assert pool._busy == {slot: soon}


def test_a_pools_connections_are_made_when_they_are_needed(home, acting):
    actor = acting(answers(), answers())
    with opened(home) as store:
        assert actor.met == 0
        store.execute(A)
        store.execute(A)
        assert actor.met == 1


def test_closing_closes_and_the_next_call_opens_again(home, acting):
    actor = acting(answers(1), answers(2))
    store = ManagerStore(home.path, 10.0)
    store.close()
    assert store.execute(A).only().value == 1
    store.close()
    store.close()
    assert store.execute(A).only().value == 2
    assert actor.met == 2
    store.close()


def test_two_threads_that_find_a_parents_pool_do_not_trip_over_each_other(home):
    """In a child that was forked by C code no hook has run, and the first calls come at once."""
    store = ManagerStore(home.path, 10.0)
    abandoned = []

    class Pool:
        def abandon(self):
            abandoned.append(self)
            store.forget_others()  # as another thread would, just now

    store._pools = {-1: [Pool()], -2: [Pool()], -3: [Pool()]}
    store._pools_of_process()
    assert len(abandoned) == 3
    assert list(store._pools) == [os.getpid()]


# The URL


def test_the_url_is_the_whole_configuration(tmp_path):
    store = ManagerStore.from_url(StoreUrl.parse(f"counter://{tmp_path}/a%20b?timeout=2.5&pool=3&role=shop"))
    assert (str(store.home), store._timeout, store._size, store._role) == (f"{tmp_path}/a b", 2.5, 3, "shop")


def test_what_the_url_leaves_out_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTER_HOME", str(tmp_path))
    monkeypatch.setenv("COUNTER_TIMEOUT", "7")
    store = ManagerStore.from_url(StoreUrl.parse("counter://"))
    assert (store.home, store._timeout) == (tmp_path, 7.0)
    assert ManagerStore.from_url(StoreUrl.parse("counter:///x?timeout=1"))._timeout == 1.0


@pytest.mark.parametrize(
    "url",
    [
        "counter://host/srv/shop",
        "counter:///srv/shop?pool=0",
        "counter:///srv/shop?pool=1001",
        "counter:///srv/shop?pool=many",
        "counter:///srv/shop?timeout=0",
        "counter:///srv/shop?timeout=nan",
        "counter:///srv/shop?timeout=soon",
        "counter:///srv/shop?timeout=4000",
        "counter:///srv/shop?surprise=1",
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url):
    with pytest.raises(InvalidRequest):
        open_store(url)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "soon", True, 4000])
def test_a_timeout_that_is_none_is_refused_before_anything_is_sent(home, timeout):
    with opened(home) as store, pytest.raises(InvalidRequest, match="timeout"):
        store.execute(A, timeout)


# A real manager


@contextlib.contextmanager
def standing_still(manager):
    os.kill(manager.pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{manager.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    try:
        yield
    finally:
        os.kill(manager.pid, signal.SIGCONT)


def test_who_gets_a_connection_just_before_its_deadline_waits_no_longer(home):
    """The kernel has to be told of the shortest time too: on a new connection, in a thread."""
    home.prepare()
    home.ensure_key()
    with home.bind(), contextlib.closing(ManagerStore(home.path, 0.5, pool=1)) as store:  # nobody answers

        def call():
            with contextlib.suppress(StoreUnavailable):
                store.execute(A)

        threads = [threading.Thread(target=call, daemon=True) for _ in range(30)]
        for thread in threads:
            thread.start()
            time.sleep(0.002)  # so that the one whose turn is next has from nothing to some of them left
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def in_a_thread(call):
    """What *call* returns in a thread that is not the main one."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join(30)
    return found[0]


@pytest.mark.process
def test_each_call_of_a_thread_has_its_own_deadline(manager):
    """On one connection: a short one after a long one, and the other way round."""
    with contextlib.closing(manager.store(20)) as store:
        counters = SharedCounter(store)
        in_a_thread(lambda: counters.set("thread", 5))
        with standing_still(manager):
            took, _ = in_a_thread(
                lambda: takes(lambda: counters.get("thread", timeout=0.3), StoreUnavailable)
            )
            assert 0.25 < took < 5
        assert in_a_thread(lambda: counters.get("thread", timeout=0.2)) == 5
        with standing_still(manager):
            begun = time.monotonic()
            threading.Timer(0.6, os.kill, [manager.pid, signal.SIGCONT]).start()
            assert in_a_thread(lambda: counters.get("thread")) == 5
            assert time.monotonic() - begun > 0.5


@pytest.mark.process
def test_signals_that_keep_coming_do_not_put_the_deadline_off(manager):
    """As a profiler's timer does: a read that is interrupted begins anew, and its time-out with it."""
    with contextlib.closing(manager.store(0.5)) as store:
        counters = SharedCounter(store)
        counters.set("signals", 5)
        heard = []
        before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        try:
            with standing_still(manager):
                took, _ = takes(lambda: counters.get("signals"), StoreUnavailable)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert 0.4 < took < 5 and len(heard) > 5


@pytest.mark.process
def test_a_manager_that_stands_still_costs_no_more_than_the_deadline(manager):
    with contextlib.closing(manager.store(0.4)) as store:
        counters = SharedCounter(store)
        counters.set("still", 5)
        with standing_still(manager):
            took, raised = takes(lambda: counters.get("still"), StoreUnavailable)
            assert 0.3 < took < 5
            assert "nothing was changed" in str(raised)
            # that call's connection was closed: this one has to connect, and is not let in
            took, raised = takes(lambda: counters.increment("still"), StoreUnavailable)
            assert 0.3 < took < 5
        assert counters.get("still", timeout=20) == 5
        with standing_still(manager):
            took, raised = takes(lambda: counters.increment("still"), OutcomeUnknown)
            assert 0.3 < took < 5
            assert "applied, or never will be" in str(raised)
        assert counters.get("still", timeout=20) in (5, 6)


@pytest.mark.process
def test_another_key_is_told_at_once(manager, tmp_path):
    other = Home(tmp_path / "other")
    other.prepare()
    other.ensure_key()
    other.socket_path.hardlink_to(Home(manager.home).socket_path)
    with opened(other, 30.0) as store:
        took, raised = takes(lambda: store.execute(A), StoreUnavailable)
    assert took < 5
    assert str(raised) == (
        f"the manager in {other.path} was not joined: "
        "The manager rejected the key: it differs from the manager's own."
    )


@pytest.mark.process
def test_what_was_given_up_is_never_executed_after_that(manager):
    """The late frame lies in the connection, and the caller's next request comes on another."""
    with contextlib.closing(manager.store(20.0)) as store:
        counters = SharedCounter(store)
        assert counters.increment("late") == 1
        for _ in range(5):
            with standing_still(manager):
                takes(lambda: counters.increment("late", timeout=0.1), OutcomeUnknown)
            assert counters.increment("late", 0) == 1
        assert counters.increment("late") == 2


@pytest.mark.process
def test_of_many_threads_no_more_connect_than_the_pool_allows(manager):
    with contextlib.closing(manager.store(20.0)) as watcher:
        before = watcher.execute(Request([Info()])).only().manager.connections
        with contextlib.closing(manager.store(20.0, pool=3)) as store:
            most, done = [], []

            def work():
                for _ in range(30):
                    store.execute(Request([Increment("crowd")])).only()
                done.append(True)

            threads = [threading.Thread(target=work) for _ in range(12)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                most.append(watcher.execute(Request([Info()])).only().manager.connections)
            assert len(done) == 12
            assert max(most) <= before + 3
            assert watcher.execute(Request([Get("crowd")])).only().value == 360
        gone = lambda: watcher.execute(Request([Info()])).only().manager.connections == before  # noqa: E731
        wait_until(gone)


@pytest.mark.process
def test_who_waits_for_a_connection_waits_until_its_own_deadline(manager):
    with contextlib.closing(manager.store(20.0, pool=1)) as store:
        store.execute(A)
        failures = []

        def busy():
            with pytest.raises(OutcomeUnknown):
                store.execute(A, 1.0)
            failures.append(True)

        with standing_still(manager):
            thread = threading.Thread(target=busy)
            thread.start()
            wait_until(lambda: not store._pools_of_process().usual._idle)
            took, raised = takes(lambda: store.execute(A, 0.2), StoreUnavailable)
            assert 0.15 < took < 0.9
            assert "busy" in str(raised)
            thread.join(20)
        assert failures
        assert store.execute(A).problem is None


@pytest.mark.process
def test_a_request_that_waits_for_its_connection_is_past_its_deadline_or_done_never_both(manager):
    """However short the time: what was told to have failed has not been applied."""
    with contextlib.closing(manager.store(20.0)) as store:
        done = 0
        for _ in range(300):
            try:
                store.execute(Request([Increment("short")]), 0.05)
                done += 1
            except StoreUnavailable:
                pass
            except OutcomeUnknown:
                pytest.skip("the machine is too slow to tell")
        assert store.execute(Request([Get("short")])).only().value == done


class Stopped(Exception):
    """Raised by a signal's handler, wherever the program is."""


@contextlib.contextmanager
def interruptions(error):
    """`arm(seconds)`: *error* is raised then, by the handler of a timer."""

    def handle(*_):
        raise error

    before = signal.signal(signal.SIGALRM, handle)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


abandoned_sockets = pytest.mark.filterwarnings(
    # where a handler raises just as a socket is made, it is closed by the garbage collector
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


@abandoned_sockets
@pytest.mark.process
@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, SystemExit])
def test_whatever_interrupts_a_call_the_next_one_gets_its_own_answer(manager, error):
    """Interrupted at random moments; each counter has a value of its own, so a wrong answer shows."""
    names = [f"own {at}" for at in range(200)]
    chance = random.Random(7)
    with contextlib.closing(manager.store(3.0, pool=2)) as store:
        store.execute(Request([Set(name, at) for at, name in enumerate(names)])).unwrap()
        interrupted = answered = 0
        end = time.monotonic() + 60
        with interruptions(error) as arm:
            while min(interrupted, answered) < 300 and time.monotonic() < end:
                name = chance.randrange(len(names))
                try:
                    arm(10 ** chance.uniform(-5, -2))
                    value = store.execute(Request([Get(names[name])])).only().value
                    entries = store.execute(Request([List("own", limit=3)])).only().counters
                    arm(0)
                except error:
                    interrupted += 1
                    continue
                answered += 1
                assert value == name
                assert [entry.value for entry in entries] == [0, 1, 10]
        print(f"{interrupted} interrupted, {answered} answered")
        assert min(interrupted, answered) >= 300
        # the pool is whole, or whole again: two threads at once are still served
        barrier, served = threading.Barrier(2), []

        def work():
            barrier.wait(20)
            for _ in range(50):
                served.append(store.execute(Request([Get("own 7")]), 20).only().value)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert served == [7] * 100
        store._pools_of_process().usual.abandon()  # also what was lost
    gc.collect()  # and what is lost altogether, while its warnings are not heard


@abandoned_sockets
@pytest.mark.process
def test_interrupted_increments_are_applied_once_or_never(manager):
    chance = random.Random(8)
    with contextlib.closing(manager.store(20.0)) as store:
        values, tried = [], 0
        with interruptions(Stopped) as arm:
            for _ in range(1_000):
                with contextlib.suppress(Stopped):
                    tried += 1
                    arm(10 ** chance.uniform(-5, -2.3))
                    values.append(store.execute(Request([Increment("cut")])).only().value)
                    arm(0)
        total = store.execute(Request([Increment("cut", 0)])).only().value
        assert values == sorted(set(values))
        print(f"{tried} calls, {len(values)} answered, {total} applied")
        assert len(values) <= total <= tried
        store._pools_of_process().usual.abandon()
    gc.collect()


@pytest.mark.process
def test_after_a_restart_the_next_call_of_the_same_thread_works(tmp_path):
    home = tmp_path / "home"
    with opened(home) as store:
        for number, end in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
            with start_manager(home) as manager:
                assert store.execute(A).only().value == 2 * number + 1
                assert store.execute(A).only().value == 2 * number + 2
                manager.process.stop(end)


@pytest.mark.process
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_idempotency_key_outlives_the_manager_and_the_process_that_used_it(tmp_path, end):
    home = tmp_path / "home"
    keyed = Request([Increment("a")], idempotency_key="evt_1")
    refused = Request([Delete("none")], idempotency_key="evt_2")
    with start_manager(home) as manager, opened(home) as store:
        first = [store.execute(request) for request in (keyed, refused)]
        manager.process.stop(end)
    with start_manager(home), opened(home) as store:
        store.execute(Request([Set("none", 1)])).only()
        again = [store.execute(request) for request in (keyed, refused)]
        assert again == [replace(reply, replayed=True) for reply in first]
        other = Request([Increment("b")], idempotency_key="evt_1")
        assert store.execute(other).problem.code == "key-reused"
        assert store.execute(A).only().value == 2


@pytest.mark.process
def test_a_request_over_the_managers_frame_cap_is_refused_at_once(tmp_path):
    home = tmp_path / "home"
    with start_manager(home, max_frame=4096), opened(home, 3.0) as store:
        assert store.execute(A).only().value == 1
        big = Request([Set(f"{at:0200}", at) for at in range(100)])
        took, raised = takes(lambda: store.execute(big).unwrap(), LimitExceeded)
        assert took < 2
        assert "--max-frame of 4096" in str(raised)
        assert store.execute(A).only().value == 2


CLEAN_EXIT = """
import sys, threading
import counter
counters = counter.connect(sys.argv[1])
threads = [threading.Thread(target=counters.increment, args=("exit",)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert counters["exit"] >= 4
"""


@pytest.mark.process
def test_a_program_that_ends_leaves_nothing_open(manager):
    """Python's development mode says so on stderr."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", CLEAN_EXIT, f"counter://{manager.home}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environ())
    assert (done.returncode, done.stderr) == (0, "")
