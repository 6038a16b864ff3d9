"""N x M increments return exactly 1 to N x M, from threads and processes however they were started.

Looked at are the returned values, not only the total: a number given twice and one left out would be a total
that is right.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import struct
import threading

import pytest
from support import wait_until

import counter

pytestmark = pytest.mark.process

PROCESSES, THREADS = 8, 4
FEW_PROCESSES, FEW_THREADS, FEW_TIMES = 4, 2, 250


@pytest.fixture
def url(manager):
    """One of its own for each test, so that each has its own client; with fewer connections than threads."""
    url = f"counter://{manager.home}?timeout=60&pool={next(_pools)}"
    yield url
    counter.open_store(url).close()


_pools = iter(range(3, 1000))


def incremented(counters, name, times):
    return [counters.increment(name) for _ in range(times)]


def in_threads(work, threads):
    """What *work* returned in each of *threads*, all in one list."""
    results = []

    def run():
        results.append(work())

    crowd = [threading.Thread(target=run) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(100)
    assert len(results) == threads
    return [value for result in results for value in result]


@contextlib.contextmanager
def forked(work):
    """A bare fork that sends what *work* returns through a pipe; yields the function that waits for it.

    The child ends without a word to anybody, as the children of servers do.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)
        with contextlib.suppress(BaseException):
            os.close(reader)
            data = pickle.dumps(work())
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(struct.pack("!Q", len(data)) + data)
        os._exit(0)
    os.close(writer)

    def result():
        with os.fdopen(os.dup(reader), "rb") as pipe:
            header = pipe.read(8)
            assert header, "the child failed"
            return pickle.loads(pipe.read(struct.unpack("!Q", header)[0]))

    try:
        yield result
    finally:
        os.close(reader)
        os.waitpid(pid, 0)


def in_forks(work, processes):
    with contextlib.ExitStack() as stack:
        results = [stack.enter_context(forked(work)) for _ in range(processes)]
        return [value for result in results for value in result()]


def test_eight_processes_with_four_threads_are_told_each_number_once(url):
    def child():
        counters = counter.connect(url)
        return in_threads(lambda: incremented(counters, "exact", 500), THREADS)

    values = in_forks(child, PROCESSES)
    assert sorted(values) == list(range(1, PROCESSES * THREADS * 500 + 1))


def test_a_client_made_before_the_fork_is_used_by_parent_and_children(url):
    """Its connections are open and warm in the parent, by several threads, and used on by it meanwhile."""
    counters = counter.connect(url)
    values = in_threads(lambda: incremented(counters, "forked", 50), 3)
    with contextlib.ExitStack() as stack:
        results = [
            stack.enter_context(
                forked(lambda: in_threads(lambda: incremented(counters, "forked", FEW_TIMES), FEW_THREADS))
            )
            for _ in range(FEW_PROCESSES)
        ]
        values += in_threads(lambda: incremented(counters, "forked", FEW_TIMES), FEW_THREADS)
        for result in results:
            values += result()
    values += incremented(counters, "forked", 50)
    assert sorted(values) == list(range(1, 200 + (FEW_PROCESSES + 1) * FEW_THREADS * FEW_TIMES + 1))
    assert values[-50:] == list(range(len(values) - 49, len(values) + 1))


def test_a_fork_that_runs_no_hooks_is_safe_too(url, monkeypatch):
    """A server that forks in C runs none: the pid alone tells that this is another process."""
    monkeypatch.setattr("counter.stores.manager._after_fork", lambda: None)
    counters = counter.connect(url)
    counters.store.forget_others = lambda: None  # the registered hook calls it
    values = incremented(counters, "in C", 20)
    with forked(lambda: in_threads(lambda: incremented(counters, "in C", 100), 2)) as result:
        values += incremented(counters, "in C", 200)
        values += result()
    assert sorted(values) == list(range(1, 421))


def test_callers_are_not_inherited(url):
    """Else parent and child would sign different requests alike, and one be told the other's answer."""
    counters = counter.connect(url)
    counters.increment("callers")

    def callers():
        counters.increment("callers")
        return [slot._caller for slot in counters.store._pools_of_process().usual._idle]

    with forked(callers) as one, forked(callers) as two:
        found = [*callers(), *one(), *two()]
    assert len(set(found)) == len(found) == 3


def test_a_fork_in_another_threads_mid_call_disturbs_neither(url):
    """Twenty forks while four threads call all the time; child and parent both go on."""
    counters = counter.connect(url)
    stop, values = threading.Event(), []

    def child():
        return in_threads(lambda: incremented(counters, "mid-call", 5), 2)

    def work():
        while not stop.is_set():
            values.append(counters.increment("mid-call"))

    crowd = [threading.Thread(target=work) for _ in range(4)]
    for thread in crowd:
        thread.start()
    try:
        for _ in range(20):
            last = len(values)
            with forked(child) as result:
                told = result()
            assert len(told) == 10
            values.extend(told)
            wait_until(lambda last=last: len(values) > last + 20)
    finally:
        stop.set()
        for thread in crowd:
            thread.join(60)
    assert sorted(values) == list(range(1, len(values) + 1))


def test_a_child_that_never_calls_keeps_none_of_its_parents_connections_open(url, manager):
    counters = counter.connect(url)
    with contextlib.closing(manager.store(60.0)) as watcher:

        def connections():
            return watcher.execute(counter.Request([counter.Info()])).only().manager.connections

        before = connections()
        in_threads(lambda: incremented(counters, "idle", 20), 3)
        assert connections() > before
        reader, writer = os.pipe()
        with forked(lambda: os.read(reader, 1)) as result:
            counters.store.close()
            wait_until(lambda: connections() == before)
            os.write(writer, b"!")  # only now does the child end
            assert result() == b"!"
        os.close(reader)
        os.close(writer)


def test_a_fork_of_a_fork_counts_on(url):
    counters = counter.connect(url)

    def grandchild():
        return incremented(counters, "family", 100)

    def child():
        mine = incremented(counters, "family", 50)
        with forked(grandchild) as result:
            mine += incremented(counters, "family", 50)
            return mine + result()

    values = incremented(counters, "family", 10)
    with forked(child) as result:
        values += incremented(counters, "family", 90)
        values += result()
    assert sorted(values) == list(range(1, 301))


def worker(counters_or_url, name, queue):
    """What a child of multiprocessing does: with the inherited client, or, where none is, one of its own."""
    counters = counter.connect(counters_or_url) if isinstance(counters_or_url, str) else counters_or_url
    queue.put(in_threads(lambda: incremented(counters, name, FEW_TIMES), FEW_THREADS))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_children_of_multiprocessing_are_told_each_number_once(url, method):
    counters = counter.connect(url)
    values = incremented(counters, method, 10)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    given = counters if method == "fork" else url
    children = [context.Process(target=worker, args=(given, method, queue)) for _ in range(FEW_PROCESSES)]
    for child in children:
        child.start()
    values += incremented(counters, method, FEW_TIMES)
    for _ in children:
        values += queue.get(timeout=100)
    for child in children:
        child.join(100)
        assert child.exitcode == 0
        child.close()
    queue.close()
    queue.join_thread()
    assert sorted(values) == list(range(1, 10 + FEW_TIMES + FEW_PROCESSES * FEW_THREADS * FEW_TIMES + 1))


def test_adding_in_place_loses_nothing(url):
    def child():
        counters = counter.connect(url)

        def work():
            for _ in range(100):
                counters["x"] += 1
            return [True]

        return in_threads(work, THREADS)

    assert len(in_forks(child, PROCESSES)) == PROCESSES * THREADS
    assert counter.connect(url)["x"] == PROCESSES * THREADS * 100


def test_what_was_read_from_one_counter_and_assigned_to_another_is_a_plain_number(url):
    counters = counter.connect(url)
    counters["a"], counters["b"] = 5, 100
    x = counters["a"]
    x += 1
    counters["b"] = x
    assert (counters["a"], counters["b"]) == (5, 6)
