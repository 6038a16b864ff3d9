"""`Idempotency-Key` at a real service: once, whatever is killed meanwhile, and one answer for all of them."""

import contextlib
import os
import queue
import random
import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from http_load import ask, running
from support import COMMAND, start_process, wait_until
from test_http_exact import SHORT_AND_LONG, Asker

from counter.home import Home

pytestmark = pytest.mark.process

CLIENTS = 16
WORKERS = 3


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def serving(process, asker):
    """The pids of the workers, once all of them are there and serve."""

    def found():
        children = {child.pid for child in psutil.Process(process.pid).children()}
        told = asker.insist("GET", "/v1/info").json["workers"]
        workers = {worker["pid"] for worker in told if worker["role"] == "worker"}
        return sorted(workers) if len(workers) == WORKERS and workers < children else None

    return wait_until(found, 60)


def requests_of(url):
    """How many each worker has served."""
    return {worker["pid"]: worker["requests"] for worker in ask(f"{url}/v1/info")["workers"]}


def told(answer):
    """What a replay has in common with the first answer: all but the mark, when it was sent, and its id."""
    own = ("idempotent-replayed", "date", "x-request-id")
    headers = {k: v for k, v in answer.headers.items() if k not in own}
    return answer.status, answer.body, headers


def is_replay(answer):
    return answer.headers.get("idempotent-replayed") == "true"


def keep_sending(url, sends, answers):
    """Send what comes out of *sends* until that is None; how often the connection broke."""
    with Asker(url) as asker:
        while (key := sends.get()) is not None:
            path = "/v1/counters/paid/increment"
            answers.append((key, asker.insist("POST", path, headers={"Idempotency-Key": key})))
        return asker.broken


@pytest.mark.parametrize("is_long", SHORT_AND_LONG)
def test_each_of_many_keys_counts_once_while_workers_are_killed(home, is_long):
    """500 increments, each sent 1 to 5 times, in any order and several at once, over three workers."""
    number, kills = (500, 20) if is_long else (100, 4)
    chance = random.Random(7)
    keys = [f"evt_{at}" for at in range(number) for _ in range(chance.randint(1, 5))]
    chance.shuffle(keys)
    sends, answers = queue.Queue(), []
    part = len(keys) // kills
    with (
        running("--workers", str(WORKERS), home=home.path) as (process, url),
        ThreadPoolExecutor(CLIENTS) as pool,
        Asker(url) as asker,
    ):
        jobs = [pool.submit(keep_sending, url, sends, answers) for _ in range(CLIENTS)]
        try:
            for at in range(kills):
                victim = chance.choice(serving(process, asker))
                before = len(answers)
                for key in keys[at * part : (at + 1) * part if at < kills - 1 else None]:
                    sends.put(key)
                wait_until(lambda before=before: len(answers) > before + part // 4)
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda victim=victim: not psutil.pid_exists(victim))
        finally:
            for _ in jobs:
                sends.put(None)
        broken = sum(job.result(60) for job in jobs)
        assert ask(f"{url}/v1/counters/paid")["value"] == number
        of_key = {}
        for key, answer in answers:
            of_key.setdefault(key, []).append(answer)
        assert len(answers) == len(keys)
        assert sorted(each[0].json["value"] for each in of_key.values()) == list(range(1, number + 1))
        for each in of_key.values():
            assert {answer.status for answer in each} == {200}
            assert len({answer.body for answer in each}) == 1, "a replay differs"
            assert sum(not is_replay(answer) for answer in each) <= 1, (
                "two were told that they were the first"
            )
        lost = sum(all(map(is_replay, each)) for each in of_key.values())
        print(f"{len(keys)} sent, {broken} connections broken, {lost} first answers lost with a worker")
        assert broken


OUTCOMES = [
    ("POST", "/v1/counters/new/increment", None, 200),
    ("PUT", "/v1/counters/newer", {"value": 1}, 201),
    ("PATCH", "/v1/counters/a", {"min": 0}, 200),
    ("POST", "/v1/counters/a/reset", {"value": 2}, 200),
    ("DELETE", "/v1/counters/old", None, 200),
    ("POST", "/v1/counters/full/increment", None, 409),
    ("POST", "/v1/counters/none/reset", None, 404),
    ("PATCH", "/v1/counters/a", {"min": 5, "max": None, "if_version": "absent"}, 412),
    ("POST", "/v1/batch", {"ops": [{"op": "increment", "name": "new"}, {"op": "get", "name": "none"}]}, 404),
    ("POST", "/v1/batch", {"atomic": False, "ops": [{"op": "get", "name": "none"}]}, 200),
]


def test_every_outcome_is_replayed_byte_for_byte_by_every_worker_and_the_next_manager(home):
    """Refusals too, when what they were refused for is long over; another body under the key is 422."""
    with running("--workers", str(WORKERS), home=home.path) as (process, url), Asker(url) as asker:
        for name, settings in (("a", {}), ("old", {}), ("full", {"max": 0})):
            assert asker.ask("PUT", f"/v1/counters/{name}", {"value": 0} | settings).status == 201
        first = {}
        for at, (method, path, body, status) in enumerate(OUTCOMES):
            first[at] = asker.ask(method, path, body, {"Idempotency-Key": f"k{at}"})
            assert (first[at].status, is_replay(first[at])) == (status, False), first[at]
        # what was refused would be done now, and what was done refused
        assert asker.ask("PATCH", "/v1/counters/full", {"max": 9}).status == 200
        assert asker.ask("PUT", "/v1/counters/none", {"value": 0}).status == 201
        assert asker.ask("PATCH", "/v1/counters/new", {"max": 1}).status == 200
        before = ask(f"{url}/v1/counters?limit=1000")
        for life in range(2):
            serving(process, asker)
            begun = served = requests_of(url)
            while any(served[worker] < begun[worker] + 20 for worker in begun):  # each has replayed some
                for at, (method, path, body, _) in enumerate(OUTCOMES):
                    key = {"Idempotency-Key": f"k{at}"}
                    again = asker.ask(method, path, body, key)
                    assert (told(again), is_replay(again)) == (told(first[at]), True)
                    other = asker.ask("POST", "/v1/counters/a/increment?delta=7", None, key)
                    assert (other.status, other.json["code"], is_replay(other)) == (422, "key-reused", False)
                served = requests_of(url)
            if life == 0:
                killed = home.holder()
                os.kill(killed, signal.SIGKILL)
                wait_until(lambda killed=killed: home.holder() not in (killed, None))
        after = ask(f"{url}/v1/counters?limit=1000")
        assert [{**entry, "version": ""} for entry in after["counters"]] == [
            {**entry, "version": ""} for entry in before["counters"]
        ], "a replay changed something"
        fresh = asker.ask("POST", "/v1/counters/full/increment", headers={"Idempotency-Key": "fresh"})
        assert (fresh.status, fresh.json["value"], is_replay(fresh)) == (200, 1, False)


@contextlib.contextmanager
def manager(home):
    with start_process([*COMMAND, "manager", "--home", home.path]) as process:
        process.line("ready")
        yield process


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_503_has_not_used_the_key(home, end):
    """Without a manager nothing is applied and nothing kept; with the next one the same key is done once."""
    path, keys = "/v1/counters/a/increment", [f"evt_{at}" for at in range(3)]
    command = [*COMMAND, "workers", "--home", home.path, "--workers", str(WORKERS), "--port", "0"]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(manager(home))
        workers = stack.enter_context(start_process(command, {"COUNTER_TIMEOUT": "0.2"}))
        asker = stack.enter_context(Asker(workers.line("ready", 60).split()[1]))
        assert asker.ask("POST", path, None, {"Idempotency-Key": keys[0]}).json["value"] == 1
        first.stop(end)
        for key in keys:
            for _ in range(2):
                answer = asker.once("POST", path, None, {"Idempotency-Key": key})
                assert (answer.status, answer.json["code"]) == (503, "store-unavailable")
                assert (answer.headers["retry-after"], is_replay(answer)) == ("1", False)
        second = stack.enter_context(manager(home))
        for value, key in enumerate(keys, 1):
            answers = [asker.ask("POST", path, None, {"Idempotency-Key": key}) for _ in range(2)]
            assert [(answer.status, answer.json["value"]) for answer in answers] == [(200, value)] * 2
            assert [is_replay(answer) for answer in answers] == [value == 1, True]
        assert workers.stop() == 0
        assert second.stop() == 0
