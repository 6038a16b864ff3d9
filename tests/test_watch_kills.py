"""Watchers see every last value after each kill of a worker or the manager, and none ever goes back."""

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from urllib.parse import quote, urlsplit

import pytest
from support import COMMAND, start_process, wait_until

import counter
from counter import Info, Request

NAMES = [f"name:{number}" for number in range(20)]
WORKER_KILLS = int(os.environ.get("COUNTER_TEST_KILLS", "10"))
MANAGER_KILLS = int(os.environ.get("COUNTER_TEST_MANAGER_KILLS", "2"))
PATIENCE = 40.0
"""Seconds until a watcher has caught up: a stream may have to wait for a new worker and a new manager."""


class Watcher:
    """What one watcher knows, by pages as JSON has them; it resumes from `since`, its last id."""

    def __init__(self):
        self.since = None
        self.known = {}
        self.gone = set()
        self.resumed = 0
        self.errors = []
        self._listed = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def stop(self):
        """End with the next page."""
        self._stopping.set()

    def __exit__(self, *exc_info):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self):
        try:
            while not self._stopping.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException, counter.StoreUnavailable):
                    for page in self.pages():
                        self._take(page)
                        if self._stopping.is_set():
                            return
                self.resumed += 1
                self._stopping.wait(0.05)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _take(self, page):
        if page["complete"]:
            self._listed = set()
        for entry in page["counters"]:
            name, value = entry["name"], entry["value"]
            if name in NAMES and value < self.known.get(name, 0):
                self.errors.append(f"{name} went back from {self.known[name]} to {value}")
            self.known[name] = value
            if self._listed is not None:
                self._listed.add(name)
        self.gone.update(page["gone"])
        lost = set(page["gone"])
        if self._listed is not None and not page["more"]:
            lost |= self.known.keys() - self._listed
            self._listed = None
        for name in lost:
            self.known.pop(name, None)
        self.since = page["version"]


class Library(Watcher):
    """By `watch`, which goes on by itself."""

    def __init__(self, counters):
        super().__init__()
        self._counters = counters

    def pages(self):
        for page in self._counters.watch(since=self.since, wait=1, limit=7):
            yield {
                "complete": page.complete,
                "counters": [{"name": entry.name, "value": entry.value} for entry in page.counters],
                "gone": page.gone,
                "more": page.more,
                "version": page.version,
            }


class Http(Watcher):
    """By HTTP, from whichever worker answers."""

    def __init__(self, port):
        super().__init__()
        self._port = port

    @contextlib.contextmanager
    def get(self, target, headers=None):
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        ) as connection:
            connection.request("GET", target, headers=headers or {})
            answer = connection.getresponse()
            if answer.status != 200:
                assert answer.status == 503, (answer.status, answer.read())
                raise http.client.HTTPException("not now")
            yield answer


class Polls(Http):
    """A question after the other, on connections of their own."""

    def pages(self):
        while True:
            since = "" if self.since is None else f"&since={quote(self.since)}"
            with self.get(f"/v1/changes?wait=1&limit=7{since}") as answer:
                yield json.loads(answer.read())


class Stream(Http):
    """Server-sent events, resumed by their last id."""

    def pages(self):
        headers = {} if self.since is None else {"Last-Event-ID": self.since}
        with self.get("/v1/events", headers) as answer:
            fields = {}
            while line := answer.readline():
                text = line.decode().rstrip("\n")
                if text:
                    field, _, value = text.partition(":")
                    fields[field] = value.removeprefix(" ")
                elif fields.keys() >= {"id", "data"}:
                    page = json.loads(fields["data"])
                    assert page["version"] == fields["id"]
                    yield page
                    fields = {}


def information(counters):
    return counters.store.execute(Request([Info()])).only()


def worker_pids(counters):
    return sorted(each.pid for each in information(counters).workers if each.role == "worker")


def kill(counters, manager):
    """Kill the manager or the oldest of the workers, so that in three kills it was each one's turn."""
    workers = wait_until(lambda: len(pids := worker_pids(counters)) == 3 and pids, PATIENCE)
    os.kill(information(counters).manager.pid if manager else workers[0], signal.SIGKILL)


def run(tmp_path, worker_kills, manager_kills):
    home, kills = tmp_path / "home", [False] * worker_kills + [True] * manager_kills
    random.Random(worker_kills).shuffle(kills)
    command = [*COMMAND, "run", "--workers", 3, "--port", 0, "--home", home]
    with start_process(command) as process:
        port = urlsplit(process.line("ready").split()[1]).port
        counters = counter.connect(f"counter://{home}?timeout=30")
        watchers = [Library(counters), Polls(port), Stream(port)]
        expected, slowest = {}, 0.0
        with contextlib.ExitStack() as stack:
            for watcher in watchers:
                stack.enter_context(watcher)
            stack.callback(end, watchers, counters)
            for number, manager in enumerate(kills):
                slowest = max(slowest, one_kill(counters, watchers, expected, number, manager))
        print(
            f"\n{worker_kills} workers and {manager_kills} managers killed; caught up within {slowest:.2f} s"
        )
        for watcher in watchers:
            print(f"{type(watcher).__name__} resumed {watcher.resumed} times")
        assert watchers[0].resumed == 0, "the library goes on by itself"
        assert watchers[2].resumed > 0, "no kill has met the stream, so nothing is shown of it"
        assert dict(counters) == expected | {"end": 1}
        counters.close()
        assert process.stop() == 0


def end(watchers, counters):
    for watcher in watchers:
        watcher.stop()
    counters.increment("end")  # else a stream would wait for its next page


def one_kill(counters, watchers, expected, number, manager):
    """Kill one while names change, and see that all watchers catch up; how long that took."""
    deleted, expired = f"deleted:{number}", f"expired:{number}"
    counters.increment(deleted)
    counters.increment(expired, ttl=2)
    caught_up(watchers, lambda known: deleted in known and expired in known)
    for name in NAMES[::2]:
        expected[name] = counters.increment(name)
    kill(counters, manager)
    for name in NAMES:
        expected[name] = counters.increment(name)
    counters.delete(deleted)
    began = time.monotonic()
    at_rest = {*NAMES, deleted}
    caught_up(watchers, lambda known: {n: known[n] for n in known if n in at_rest} == expected)
    took = time.monotonic() - began
    caught_up(watchers, lambda known: known == expected)  # the expiry, too
    if not manager:  # else all is listed anew, without them
        assert all({deleted, expired} <= watcher.gone for watcher in watchers)
    return took


def caught_up(watchers, condition):
    def all_have():
        assert [watcher.errors for watcher in watchers] == [[]] * len(watchers)
        return all(condition(dict(watcher.known)) for watcher in watchers)

    try:
        wait_until(all_have, PATIENCE)
    except AssertionError:
        print({type(watcher).__name__: (watcher.since, watcher.known) for watcher in watchers})
        raise


@pytest.mark.process
@pytest.mark.slow
def test_watchers_catch_up_after_every_kill(tmp_path):
    run(tmp_path, 3, 1)  # three, so that the worker with the stream is met


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_watchers_catch_up_after_many_kills(tmp_path):
    """10 and 2; as many as COUNTER_TEST_KILLS and COUNTER_TEST_MANAGER_KILLS say, such as 100 and 10."""
    run(tmp_path, WORKER_KILLS, MANAGER_KILLS)
