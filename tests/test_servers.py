"""Any WSGI server, in any of its modes: each answer is right, and a manager that dies or hangs costs none.

The first app counts when it is imported, so where a server forks what it has imported, every worker inherits
a connection.
"""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import quote

import pytest
from http_load import CLIENTS, ask, count_together, running
from servers import REQUESTS, SERVERS, serving, table
from support import wait_until

import counter
from counter.home import Home

GEVENT = [server for server in SERVERS if "gevent" in server.name]
AT_ONCE = 24
"""Requests that wait for the manager: more than a process has connections to it."""


def each(servers, quick):
    """*servers* as parameters, of which only those in *quick* are for every run."""
    marks = {True: [pytest.mark.process], False: [pytest.mark.process, pytest.mark.long]}
    return [pytest.param(server, id=server.name, marks=marks[server.name in quick]) for server in servers]


class Place(NamedTuple):
    """Where the app of a test counts."""

    home: Home
    counters: counter.SharedCounter
    environ: dict


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """A home with a manager under `counter run --workers 0`, one for the module."""
    home = tmp_path_factory.mktemp("servers") / "home"
    with running("--workers", "0", home=home):
        yield home


@pytest.fixture
def place(request, server, tmp_path):
    """Counters that are this test's alone; says how long it took."""
    begun = time.monotonic()
    home = tmp_path / "home" if server.brings_manager else request.getfixturevalue("shared_home")
    url = f"counter://{home}" + ("" if server.brings_manager else f"?prefix={quote(request.node.name)}:")
    with counter.connect(url) as counters:
        environ = {"HOME": str(tmp_path), "COUNTER_HOME": str(home), "COUNTER_URL": url}
        yield Place(Home(home), counters, environ)
    print(f"{request.node.name}: {time.monotonic() - begun:.1f} s")


def load(url):
    """What 8 client processes were told: the numbers, the pids of who gave them, whether those ran hooks."""
    told = count_together(f"{url}/hit", "told", REQUESTS // CLIENTS)
    numbers, pids, hooked = zip(*told, strict=True)
    return sorted(numbers), set(pids), set(hooked)


def check(server, numbers, pids):
    assert numbers == list(range(1, REQUESTS + 1))
    if server.answering is None:
        assert len(pids) == REQUESTS
    else:
        assert min(server.answering, 2) <= len(pids) <= server.answering


@pytest.mark.parametrize("server", each(SERVERS, quick={"gunicorn, threads, preloaded", "uWSGI"}))
def test_a_counter_connected_and_used_at_import_is_exact(server, place):
    with serving(server, "at_import", place.environ) as url:
        numbers, pids, hooked = load(url)
        check(server, numbers, pids)
        assert place.counters["started"] == server.imports
        if server.forks_what_was_imported:
            assert hooked == {server.runs_hooks}


@pytest.mark.parametrize("server", each(SERVERS, quick={"gunicorn, threads"}))
def test_a_counter_of_a_factory_is_exact_while_the_manager_is_killed(server, place):
    with serving(server, "factory", place.environ) as url, ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load, url)
        wait_until(lambda: loaded.done() or place.counters["page"] >= REQUESTS // 4, 60)
        killed = place.home.holder()
        os.kill(killed, signal.SIGKILL)
        assert place.counters["page"] < REQUESTS  # asked of the next one, early in its life
        numbers, pids, _ = loaded.result(100)
        check(server, numbers, pids)
        assert place.home.holder() not in (killed, None)


@pytest.mark.process
@pytest.mark.parametrize("server", GEVENT, ids=lambda server: server.name)
def test_a_gevent_worker_goes_on_while_the_manager_hangs(server, place):
    """For a second, with more requests waiting than there are connections; then each gets its own number."""
    with (
        serving(server, "at_import", place.environ, workers=1) as url,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        manager = place.home.holder()
        ask(f"{url}/beat")
        os.kill(manager, signal.SIGSTOP)
        try:
            hits = [pool.submit(ask, f"{url}/hit", "POST") for _ in range(AT_ONCE)]
            wait_until(lambda: ask(f"{url}/beat")["answering"] == AT_ONCE)
            beats = ask(f"{url}/beat")["beats"]
            wait_until(lambda: ask(f"{url}/beat")["beats"] >= beats + 100)
            assert ask(f"{url}/beat")["answering"] == AT_ONCE
        finally:
            os.kill(manager, signal.SIGCONT)
        assert sorted(hit.result()["told"][0] for hit in hits) == list(range(1, AT_ONCE + 1))
        slowest = ask(f"{url}/beat")["slowest"]
        assert slowest < 0.5
    print(f"{server.name}: the longest sleep of 10 ms took {slowest * 1000:.0f} ms")


def test_the_page_shows_every_server_that_is_tried():
    assert [*table("server")] == [server.name for server in SERVERS]
