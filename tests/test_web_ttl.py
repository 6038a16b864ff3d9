"""Counters that end, over HTTP: on the instant, for everyone, swept or not; by a clock that is never set."""

import contextlib
import os
from datetime import UTC, datetime, timedelta

import pytest
from faults.launcher import launched
from support import ROOT, start_process
from web_client import Api

from counter import run as run_module
from counter.run import Run
from counter.stores.manager import ManagerStore
from counter.stores.memory import MemoryStore

A = "/v1/counters/a"


class Clock(Run):
    """A run whose monotonic clock we set."""

    seconds = 1000.0

    def ticks(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def api(clock):
    return Api(MemoryStore(run=clock))


def end_of(answer):
    return datetime.fromisoformat(answer.json["expires_at"])


# -- the end


def made(api, clock):
    """A counter with bounds of 5 that ends in 10 seconds, of which 9.999999 have passed: the answer."""
    answer = api.ask("PUT", A, {"value": 5, "min": 5, "max": 5, "ttl": 10})
    assert end_of(answer) - datetime.fromisoformat(answer.json["created_at"]) == timedelta(seconds=10)
    clock.seconds += 9.999999
    return answer


THERE = [
    ("GET", A, b"", 200),
    ("HEAD", A, b"", 200),
    ("GET", "/v1/counters", b"", 200),
    ("PATCH", A, {"max": 6}, 200),
    ("DELETE", A, b"", 200),
    ("POST", f"{A}/increment", b"", 409),
    ("POST", f"{A}/reset", {"value": 5}, 200),
    ("POST", "/v1/batch", {"ops": [{"op": "get", "name": "a"}]}, 200),
]
GONE = [
    ("GET", A, b""),
    ("HEAD", A, b""),
    ("PATCH", A, {"max": 6}),
    ("PATCH", A, {"ttl": None}),
    ("DELETE", A, b""),
    ("POST", f"{A}/reset", b""),
    ("POST", "/v1/batch", {"ops": [{"op": "get", "name": "a"}]}),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), THERE)
def test_a_microsecond_before_its_end_a_counter_is_there(api, clock, method, path, body, status):
    made(api, clock)
    answer = api.ask(method, path, body)
    assert answer.status == status, answer
    assert method == "HEAD" or '"name":"a"' in answer.body.decode()


@pytest.mark.parametrize(("method", "path", "body"), GONE)
def test_at_its_end_a_counter_is_gone(api, clock, method, path, body):
    tag = made(api, clock).etag
    clock.seconds += 0.000001
    for headers in ({}, {"Accept": "text/plain"}, {"If-None-Match": tag}):
        if method in ("GET", "HEAD") or not headers:
            api.refuse(404, "not-found", method, path, body, headers)


def test_at_its_end_no_listing_has_it_and_none_counts_it(api, clock):
    api.put("b", 1)
    made(api, clock)
    paths = [f"/v1/counters?sort={sort}" for sort in ("name", "-value", "-updated")]
    for seconds, names in ((0.0, ["a", "b"]), (0.000001, ["b"]), (3600.0, ["b"])):
        clock.seconds += seconds
        for path in (*paths, *(f"{path}&prefix=a" for path in paths)):
            listed = {entry["name"] for entry in api.ask("GET", path).json["counters"]}
            assert listed == {name for name in names if name == "a" or path in paths}
        assert api.ask("GET", "/v1/info").json["counters"] == len(names)


def test_after_its_end_a_name_is_new(api, clock):
    """It counts from 0, with nothing of what was set before, and its version is none that was."""
    tag = made(api, clock).etag
    clock.seconds += 0.000001
    for method, path, body in (("PUT", A, {"value": 1}), ("POST", f"{A}/increment", b"")):
        problem = api.refuse(412, "version-mismatch", method, path, body, {"If-Match": tag}).json
        assert problem["current"] is None
    answer = api.ask("POST", f"{A}/increment", headers={"If-None-Match": "*"})
    assert (answer.status, answer.value, answer.json["previous"], answer.json["created"]) == (200, 1, 0, True)
    settings = ("min", "max", "on_bound", "ttl", "ttl_mode", "expires_at")
    assert {answer.json[name] for name in settings} == {None}
    assert answer.json["created_at"] == answer.json["updated_at"]
    assert answer.etag != tag


def test_put_on_an_ended_counter_creates_one(api, clock):
    made(api, clock)
    clock.seconds += 0.000001
    answer = api.ask("PUT", A, {"value": 9})
    assert (answer.status, answer.json["created"], answer.headers["location"]) == (201, True, A)


# -- which writes move it


WRITES = [
    ("POST", f"{A}/increment", b""),
    ("POST", f"{A}/increment?delta=0", b""),
    ("POST", f"{A}/increment", {"ttl": 99}),
    ("POST", f"{A}/increment", {"ttl": 99, "ttl_mode": "sliding"}),
    ("POST", f"{A}/decrement", b""),
    ("POST", f"{A}/reset", b""),
    ("PATCH", A, {"max": 100}),
    ("PATCH", A, {}),
    ("POST", "/v1/batch", {"ops": [{"op": "increment", "name": "a"}]}),
    ("POST", "/v1/batch", {"ops": [{"op": "set", "name": "a", "value": 3}]}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
@pytest.mark.parametrize("mode", ["fixed", "sliding"])
def test_a_write_moves_a_sliding_end_and_no_fixed_one(api, clock, mode, method, path, body):
    end = end_of(api.ask("PUT", A, {"value": 5, "ttl": 10, "ttl_mode": mode}))
    clock.seconds += 4
    assert api.ask(method, path, body).status == 200
    moved = timedelta(seconds=4 if mode == "sliding" else 0)
    answer = api.ask("GET", A)
    assert (end_of(answer) - end, answer.json["ttl"], answer.json["ttl_mode"]) == (moved, 10, mode)


def test_what_only_reads_or_is_refused_moves_no_end(api, clock):
    answer = api.ask("PUT", A, {"value": 5, "max": 5, "ttl": 10, "ttl_mode": "sliding"})
    before = api.seen()
    clock.seconds += 4
    for method, path, headers in (
        ("GET", A, {}),
        ("HEAD", A, {}),
        ("GET", A, {"If-None-Match": answer.etag}),
        ("GET", A, {"Accept": "text/plain"}),
        ("GET", "/v1/counters", {}),
        ("POST", f"{A}/increment", {}),
        ("DELETE", A, {"If-Match": '"x"'}),
        ("GET", f"{A}/increment", {}),
    ):
        api.ask(method, path, headers=headers)
    api.ask("POST", "/v1/batch", {"ops": [{"op": "get", "name": "a"}]})
    assert api.seen() == before
    clock.seconds += 6
    assert api.seen() == {}


SETTINGS = [
    ("PATCH", {"ttl": 20}, 24, 20, "fixed"),
    ("PATCH", {"ttl": 20, "ttl_mode": "sliding"}, 24, 20, "sliding"),
    ("PATCH", {"ttl": 1}, 5, 1, "fixed"),
    ("PATCH", {"ttl_mode": "sliding"}, 14, 10, "sliding"),
    ("PATCH", {"ttl_mode": None}, 10, 10, "fixed"),
    ("PATCH", {"ttl": None}, None, None, None),
    ("PATCH", {"ttl": None, "ttl_mode": None}, None, None, None),
    ("PUT", {"value": 5}, None, None, None),
    ("PUT", {"value": 5, "ttl": 10}, 14, 10, "fixed"),
]


@pytest.mark.parametrize(("method", "body", "seconds", "ttl", "mode"), SETTINGS)
def test_a_ttl_that_is_given_runs_from_then(api, clock, method, body, seconds, ttl, mode):
    """The counter was made with a ttl of 10, 4 seconds ago; its end is so many *seconds* after its making."""
    begun = datetime.fromisoformat(api.ask("PUT", A, {"value": 5, "ttl": 10}).json["created_at"])
    clock.seconds += 4
    assert api.ask(method, A, body).status == 200
    answer = api.ask("GET", A)
    assert (answer.json["ttl"], answer.json["ttl_mode"]) == (ttl, mode)
    if seconds is None:
        assert answer.json["expires_at"] is None
    else:
        assert end_of(answer) - begun == timedelta(seconds=seconds)


def test_a_rate_limit_in_one_call(api, clock):
    """Ten in a window that begins with the first of them, and the refusal tells when it ends."""
    path, body = "/v1/counters/ip:192.0.2.7/increment", {"max": 10, "ttl": 60}
    for _ in range(3):
        passed = [api.ask("POST", path, body) for _ in range(10)]
        assert [answer.value for answer in passed] == list(range(1, 11))
        clock.seconds += 59.999999
        problem = api.refuse(409, "out-of-bounds", "POST", path, body).json
        assert problem["current"]["expires_at"] == passed[0].json["expires_at"]
        clock.seconds += 0.000001


# -- the clock


class Wall:
    """A wall clock that we set."""

    at = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def now(self, zone):
        return self.at.astimezone(zone)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_is_set_meanwhile_moves_no_end(monkeypatch, hours):
    wall = Wall()
    monkeypatch.setattr(run_module, "datetime", wall)
    clock = Clock()
    api = Api(MemoryStore(run=clock))
    first = api.ask("PUT", A, {"value": 5, "ttl": 60, "ttl_mode": "sliding"}).json
    clock.seconds += 30
    wall.at += timedelta(hours=hours)
    answer = api.ask("POST", f"{A}/increment")
    assert (answer.status, answer.value) == (200, 6)
    updated = datetime.fromisoformat(answer.json["updated_at"])
    assert updated - datetime.fromisoformat(first["updated_at"]) == timedelta(seconds=30)
    clock.seconds += 59.999999
    assert api.ask("GET", A).status == 200
    clock.seconds += 0.000001
    assert api.ask("GET", A).status == 404


def set_wall_clock(text):
    """Let the wall clock of this process be wrong by so many hours: a fault for `faults.launcher`."""
    wrong = timedelta(hours=float(text))

    class Wrong(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + wrong

    run_module.datetime = Wrong


@contextlib.contextmanager
def manager(home, hours):
    """The API on a manager in *home*, whose wall clock is wrong by *hours*."""
    command = launched([f"test_web_ttl:set_wall_clock={hours}"], ["manager", "--home", str(home)])
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with start_process(command, {"PYTHONPATH": path}) as process:
        process.line("ready")
        store = ManagerStore(home, 10.0)
        yield Api(store)
        store.close()
        assert process.stop() == 0, process.describe()


@pytest.mark.process
def test_a_restart_goes_on_from_the_last_time_that_was_written_down(tmp_path):
    """A clock an hour fast, then right: nothing lives longer by it; then two hours fast: it is over."""
    with manager(tmp_path / "home", 1) as api:
        first = api.ask("PUT", A, {"value": 5, "ttl": 1800}).json
        ahead = datetime.fromisoformat(first["created_at"]) - datetime.now(UTC)
        assert timedelta(minutes=59) < ahead <= timedelta(hours=1)
    with manager(tmp_path / "home", 0) as api:
        kept = api.ask("GET", A).json
        assert {**kept, "version": ""} == {**{name: first[name] for name in kept}, "version": ""}
        later = api.ask("POST", "/v1/counters/b/increment").json
        assert later["created_at"] >= first["created_at"], "time went back"
        assert api.ask("POST", f"{A}/increment").json["expires_at"] == first["expires_at"]
    with manager(tmp_path / "home", 2) as api:
        assert api.ask("GET", A).status == 404
        assert [entry["name"] for entry in api.ask("GET", "/v1/counters").json["counters"]] == ["b"]
