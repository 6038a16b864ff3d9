"""HTTP is exact when many ask at once, judged by what each was answered: compare-and-set, bounds, windows.

`counter run` with three workers; the clients are threads of several processes, each with a connection of its
own that it renews now and then, so that every worker serves some.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import time
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import pytest
from http_load import running
from support import wait_until

from counter.home import Home

pytestmark = pytest.mark.process

SHORT_AND_LONG = [pytest.param(False, id="short"), pytest.param(True, id="long", marks=pytest.mark.long)]
PROCESSES = 5
"""Of clients, at the most."""
PATIENCE = 60.0
"""Seconds until a client must have done what it was started for."""


class Answer:
    """What came back."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body!r}"

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def etag(self):
        return self.headers["etag"]


class Asker:
    """One client at *url*: a connection, renewed after every 20 requests. For one thread."""

    def __init__(self, url):
        self._address = urlsplit(url).netloc
        self._end = time.monotonic() + PATIENCE
        self._asked = 0
        self._connection = HTTPConnection(self._address, timeout=PATIENCE)
        self.broken = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._connection.close()

    def once(self, method, path, body=None, headers=None):
        """The answer to one request; a 503 too."""
        assert time.monotonic() < self._end, "this client takes too long"
        self._asked += 1
        if self._asked % 20 == 0:
            self._connection.close()
        headers = dict(headers or {})
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        try:
            self._connection.request(method, path, body, headers)
            return Answer(self._connection.getresponse())
        except BaseException:
            self._connection.close()
            raise

    def ask(self, method, path, body=None, headers=None):
        """The same, repeated as long as a worker has too much to do: then nothing was applied."""
        while (answer := self.once(method, path, body, headers)).status == 503:
            assert answer.json["code"] == "overloaded", answer
            time.sleep(0.01)
        return answer

    def insist(self, method, path, body=None, headers=None):
        """The same, repeated when the connection breaks too: for what may be asked twice."""
        while True:
            try:
                return self.ask(method, path, body, headers)
            except (OSError, HTTPException):
                self.broken += 1


def _in_threads(client, url, arguments, number, gather):
    def run(asker):
        gather(asker)
        return client(asker, *arguments)

    with ThreadPoolExecutor(number) as pool, contextlib.ExitStack() as stack:
        return list(pool.map(run, [stack.enter_context(Asker(url)) for _ in range(number)]))


def _gather(name, number, asker):
    """Wait until *number* clients do: nobody may be done before the last one has begun."""
    arrived = asker.ask("POST", f"/v1/counters/{name}/increment").json["value"]
    while arrived < number:
        arrived = asker.ask("GET", f"/v1/counters/{name}").json["value"]


class Crowd:
    """Clients of the service at *url* in processes of their own."""

    def __init__(self, url, pool):
        self._url = url
        self._pool = pool

    def at_once(self, client, *arguments, processes, threads):
        """What *client* returned in each thread of each process, called with an `Asker` and *arguments*."""
        gather = partial(_gather, f"gathered:{uuid.uuid4().hex}", processes * threads)
        job = _in_threads, client, self._url, arguments, threads, gather
        jobs = [self._pool.submit(*job) for _ in range(processes)]
        return [told for job in jobs for told in job.result(PATIENCE)]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A service with three workers."""
    with running("--workers", "3", home=tmp_path_factory.mktemp("exact") / "home") as (_process, url):
        yield url


@pytest.fixture(scope="module")
def crowd(url):
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield Crowd(url, pool)


@pytest.fixture
def asker(url):
    with Asker(url) as asker:
        yield asker


# -- compare and set


def swap(asker, path, times):
    """Add one by reading and writing with If-Match, *times* times: what was read and written, and the losses.

    By turns a loser reads again, or goes on from the entry that it was told.
    """
    written, lost = [], []
    entry = None
    while len(written) < times:
        if entry is None:
            answer = asker.ask("GET", path)
            entry = answer.json
            assert answer.etag == f'"{entry["version"]}"'
        read = entry["value"], entry["version"]
        answer = asker.ask("PUT", path, {"value": read[0] + 1}, {"If-Match": f'"{read[1]}"'})
        assert answer.status in (200, 412), answer
        told = answer.json if answer.status == 200 else answer.json["current"]
        (written if answer.status == 200 else lost).append((*read, told["value"], told["version"]))
        entry = told if answer.status == 412 and len(written) % 2 else None
    return written, lost


@pytest.mark.parametrize("is_long", SHORT_AND_LONG)
def test_of_many_who_compare_and_set_one_wins_each_time(crowd, asker, is_long):
    """16 clients, 2,000 successes: the value is 2,000; each loser is told a later entry than it had read."""
    path, each = "/v1/counters/swapped", 125 if is_long else 15
    assert asker.ask("PUT", path, {"value": 0}).status in (200, 201)
    begun = time.monotonic()
    told = crowd.at_once(swap, path, each, processes=4, threads=4)
    assert len(told) == 16
    written = [swapped for pair in told for swapped in pair[0]]
    lost = [swapped for pair in told for swapped in pair[1]]
    assert sorted(value for _, _, value, _ in written) == list(range(1, 16 * each + 1))
    assert asker.ask("GET", path).json["value"] == 16 * each
    assert all(after == before + 1 for before, _, after, _ in written)
    assert lost, "nobody was in anybody's way"
    assert all(after > before and new != old for before, old, after, new in lost)
    versions = {value: version for _, _, value, version in written}
    assert len({*versions.values()}) == 16 * each
    entries = {(value, version) for value, version, _, _ in lost} | {swapped[2:] for swapped in lost}
    assert all(versions.get(value, version) == version for value, version in entries), (
        "an entry is what it was"
    )
    print(f"{len(written)} written, {len(lost)} lost, {time.monotonic() - begun:.1f} s")


def test_a_version_from_before_a_restart_of_the_manager_never_matches(tmp_path):
    """Not even when the value is the same; and a reader is told everything again."""
    home = Home(tmp_path / "home")
    path = "/v1/counters/a"
    changes = [
        ("PUT", path, {"value": 5}),
        ("PATCH", path, {"max": 9}),
        ("DELETE", path, None),
        ("POST", f"{path}/increment", None),
        ("POST", f"{path}/decrement", None),
        ("POST", f"{path}/reset", None),
    ]
    with running("--workers", "3", home=home.path) as (_process, url), Asker(url) as asker:
        tags = [asker.ask("PUT", path, {"value": 5}).etag]
        for _ in range(3):
            killed = home.holder()
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: home.holder() not in (killed, None))
            now = asker.ask("GET", path)
            assert (now.json["value"], now.etag in tags) == (5, False)
            for tag in (*tags, ", ".join(tags)):
                for method, where, body in changes:
                    answer = asker.ask(method, where, body, {"If-Match": tag})
                    assert (answer.status, answer.json["current"]["value"]) == (412, 5), answer
                    assert f'"{answer.json["current"]["version"]}"' == now.etag
                assert asker.ask("GET", path, headers={"If-None-Match": tag}).status == 200
            assert asker.ask("GET", path, headers={"If-None-Match": now.etag}).status == 304
            tags.append(asker.ask("PUT", path, {"value": 5}, {"If-Match": now.etag}).etag)


# -- bounds


def take(asker, path, body):
    """Take seats until there is none: the answers."""
    answers = []
    while True:
        answer = asker.ask("POST", path, body)
        answers.append((answer.status, answer.json))
        if answer.status != 200 or not answer.json["delta"]:
            return answers


def take_all(crowd, path, body=None):
    """50 clients take until there is none left: the changes that were made, and the last answers."""
    told = crowd.at_once(take, path, body, processes=PROCESSES, threads=10)
    assert len(told) == 50
    print(f"{sum(len(answers) > 1 for answers in told)} of 50 got some")
    return [change for answers in told for _, change in answers[:-1]], [answers[-1] for answers in told]


def test_a_hundred_seats_are_taken_a_hundred_times(crowd, asker):
    """50 clients: exactly 100 get 200, with the numbers 1 to 100; the others are told that it is full."""
    assert asker.ask("PUT", "/v1/counters/seats", {"value": 0, "max": 100}).status == 201
    taken, ends = take_all(crowd, "/v1/counters/seats/increment")
    assert sorted(change["value"] for change in taken) == list(range(1, 101))
    for status, problem in ends:
        assert (status, problem["code"]) == (409, "out-of-bounds")
        assert (problem["current"]["value"], problem["current"]["max"]) == (100, 100)
    assert asker.ask("GET", "/v1/counters/seats").json["value"] == 100


def test_what_is_clamped_adds_up_to_the_bound(crowd, asker):
    """In steps of 7 down from 100 to 0: fourteen whole ones, and one of 2."""
    assert asker.ask("PUT", "/v1/counters/left", {"value": 100, "min": 0, "on_bound": "clamp"}).status == 201
    taken, ends = take_all(crowd, "/v1/counters/left/decrement", {"delta": 7})
    assert sorted(change["delta"] for change in taken) == [-7] * 14 + [-2]
    assert sorted(change["value"] for change in taken) == [0, *range(2, 100, 7)]
    assert all((status, change["value"], change["delta"]) == (200, 0, 0) for status, change in ends)


# -- a window


def hammer(asker, path, body, windows):
    """Ask until so many *windows* of time were met: each change, and each window that a refusal told."""
    changes, refused = [], []
    seen = set()
    while len(seen) < windows:
        answer = asker.ask("POST", path, body)
        assert answer.status in (200, 409), answer
        told = answer.json if answer.status == 200 else answer.json["current"]
        window = told["created_at"], told["expires_at"]
        seen.add(window)
        (changes if answer.status == 200 else refused).append((*window, told["value"]))
    return changes, refused


@pytest.mark.parametrize("is_long", SHORT_AND_LONG)
def test_a_window_lets_exactly_ten_through(crowd, is_long):
    """`max` and `ttl` in one call, 16 clients: 1 to 10 in each second, and no two seconds overlap."""
    path, windows = f"/v1/counters/limited{is_long}/increment", 9 if is_long else 3
    told = crowd.at_once(hammer, path, {"max": 10, "ttl": 1}, windows, processes=4, threads=4)
    passed = {}
    for begun, end, value in (change for changes, _ in told for change in changes):
        passed.setdefault((begun, end), []).append(value)
    *whole, last = sorted(passed)
    assert len(whole) >= windows - 1
    assert all(sorted(passed[window]) == list(range(1, 11)) for window in whole)
    assert sorted(passed[last]) == list(range(1, len(passed[last]) + 1))[:10]
    assert all(end <= begun for (_, end), (begun, _) in zip(whole, [*whole[1:], last], strict=True))
    refused = [refusal for _, refusals in told for refusal in refusals]
    assert refused
    assert all(value == 10 and (begun, end) in passed for begun, end, value in refused)
