"""Buffered counts across processes: forks, ends of every kind, kills, and restarts of the manager."""

import contextlib
import itertools
import os
import signal
import sys
import textwrap
import time

import pytest
from manager_process import start_manager
from support import start_process, wait_until

import counter

pytestmark = pytest.mark.process

_numbers = itertools.count()


@pytest.fixture
def hits(manager):
    """Empty counters of a real manager."""
    hits = counter.connect(f"counter://{manager.home}?prefix=test{next(_numbers)}:")
    yield hits
    hits.close()


@contextlib.contextmanager
def script(hits, text):
    """A process that runs *text*, in which `hits` are the same counters and `counts` is a buffer of them."""
    head = f"import counter, os, signal, sys\nhits = counter.connect({hits.store.url!r})\n"
    head += "counts = hits.buffered(flush_every=3600)  # nothing is sent but what has to be\n"
    with start_process([sys.executable, "-X", "dev", "-c", head + textwrap.dedent(text)]) as process:
        yield process


def run(hits, text):
    """The exit code of such a process, and what it wrote to stderr."""
    with script(hits, text) as process:
        return process.wait(60), process.stderr


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("sys.exit(3)", 3), ("raise KeyboardInterrupt", -signal.SIGINT), ("1 / 0", 1)],
)
def test_the_end_of_a_process_sends_what_is_pending(hits, end, code):
    found, said = run(hits, f"for _ in range(500): counts.increment('page')\n{end}")
    assert (found, hits["page"]) == (code, 500), said
    assert code or not said


def test_what_is_counted_by_handlers_of_the_end_and_by_threads_that_outlive_main_is_sent(hits):
    code, said = run(
        hits,
        """
        import atexit, threading
        atexit.register(counts.increment, "atexit")
        def work():
            threading.main_thread().join()
            counts.increment("thread")
        threading.Thread(target=work).start()
        """,
    )
    assert (code, said) == (0, "")
    assert hits.copy() == {"atexit": 1, "thread": 1}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_sends_its_own_at_its_end(hits, method, tmp_path):
    (tmp_path / "job.py").write_text(
        textwrap.dedent(
            f"""
            import counter, multiprocessing
            counts = counter.connect({hits.store.url!r}).buffered(flush_every=3600)

            def work():
                for _ in range(10):
                    counts.increment("child")

            if __name__ == "__main__":
                counts.increment("parent")
                context = multiprocessing.get_context({method!r})
                children = [context.Process(target=work) for _ in range(3)]
                for child in children:
                    child.start()
                for child in children:
                    child.join()
                    assert child.exitcode == 0
            """
        )
    )
    with start_process([sys.executable, tmp_path / "job.py"]) as process:
        assert process.wait(60) == 0, process.describe()
    assert hits.copy() == {"child": 30, "parent": 1}


FORKS = {"with the hooks of Python": "os.fork()", "in C": "ctypes.PyDLL(None).fork()"}


@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS)
def test_what_is_pending_at_a_fork_is_sent_by_the_parent_alone(hits, fork):
    code, said = run(
        hits,
        f"""
        import ctypes, time
        for _ in range(7): counts.increment("page")
        # A fork in C while another thread is about to run is the end of any Python: let it come to rest.
        while not (counts._sender.room[0] and counts._sender._inbox.empty()): time.sleep(0.001)
        for _ in range(3):
            pid = {fork}
            if not pid:
                for _ in range(100): counts.increment("page")
                counts.flush()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        assert hits["page"] == 300, hits["page"]
        counts.increment("page")
        """,
    )
    assert (code, said, hits["page"]) == (0, "", 308)


def test_forks_in_the_midst_of_flushes_count_each_once(hits):
    code, said = run(
        hits,
        """
        counts = hits.buffered(flush_every=0.0005, max_pending=50)
        pids = []
        for _ in range(20):
            for _ in range(200): counts.increment("parent")
            pid = os.fork()
            if not pid:
                for _ in range(200): counts.increment("child")
                counts.flush()
                os._exit(0)
            pids.append(pid)
        assert not any(os.waitpid(pid, 0)[1] for pid in pids)
        """,
    )
    assert (code, said) == (0, "")
    assert hits.copy() == {"parent": 4000, "child": 4000}


def test_a_killed_process_loses_no_more_than_max_pending(hits):
    code, _ = run(
        hits,
        """
        counts = hits.buffered(flush_every=3600, max_pending=100)
        for _ in range(1050): counts.increment("page")
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert code == -signal.SIGKILL
    assert 950 <= hits["page"] <= 1050


def test_a_killed_process_loses_no_more_than_what_is_young(hits):
    with script(
        hits,
        """
        counts = hits.buffered(flush_every=0.05)
        for _ in range(1000): counts.increment("page")
        signal.pause()
        """,
    ) as process:
        wait_until(lambda: hits["page"] == 1000)
        assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    assert hits["page"] == 1000


def test_nobody_to_send_to_is_told_at_the_end(tmp_path):
    away = counter.connect(f"counter://{tmp_path}/nobody")
    code, said = run(away, "for _ in range(5): counts.increment('page')")
    assert code == 0
    assert "5 counts pending: no manager is running" in said


def test_kills_of_the_manager_lose_nothing_and_count_nothing_twice(tmp_path):
    home = tmp_path / "home"
    hits = counter.connect(f"counter://{home}")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        manager = running.enter_context(start_manager(home))
        processes = [
            stack.enter_context(
                script(
                    hits,
                    """
                    import time
                    counts = hits.buffered(flush_every=0.001, max_pending=500)
                    counted, until = 0, time.monotonic() + 4
                    while time.monotonic() < until:
                        for name in "abc": counts.increment(name)
                        counted += 1
                        if not counted % 50: time.sleep(0.0005)
                    counts.flush()
                    print("counted", counted, flush=True)
                    """,
                )
            )
            for _ in range(3)
        ]
        wait_until(lambda: "a" in hits)
        for _ in range(8):
            before = hits["a"]
            os.kill(manager.pid, signal.SIGKILL)
            manager.process.wait()
            running.close()
            time.sleep(0.05)  # for so long there is none: the processes go on meanwhile
            manager = running.enter_context(start_manager(home))
            wait_until(lambda before=before: hits["a"] > before)
        counted = sum(int(process.line("counted", 60).split()[1]) for process in processes)
        assert hits.copy() == dict.fromkeys("abc", counted)


def test_a_manager_that_hangs_longer_than_a_call_may_take_costs_no_count(tmp_path):
    with start_manager(tmp_path / "home") as manager:
        hits = counter.connect(f"counter://{manager.home}?timeout=0.2")
        counts = hits.buffered(flush_every=3600)
        counts.increment("page")
        counts.flush()
        os.kill(manager.pid, signal.SIGSTOP)
        for _ in range(3):
            counts.increment("page")
            with pytest.raises(counter.OutcomeUnknown):
                counts.flush()
        os.kill(manager.pid, signal.SIGCONT)
        counts.flush(20)
        assert hits["page"] == 4
        hits.close()
