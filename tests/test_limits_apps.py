"""Rate limits of real processes: exact over all of them, and what happens while the manager is away."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from limits import RateLimitItemPerSecond
from limits.strategies import FixedWindowRateLimiter
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support import COMMAND, clean_environ, start_process, wait_until

import counter
from counter.limits import CounterStorage

pytestmark = pytest.mark.process

HITTER = """
import json, sys
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES
import counter.limits

url, strategy, limit, times = sys.argv[1:]
limiter = STRATEGIES[strategy](storage_from_string(url))
print("ready", flush=True)
sys.stdin.readline()
if strategy == "fixed-window":
    key = parse(limit).key_for("raw")
    print(json.dumps([limiter.storage.incr(key, 3600) for _ in range(int(times))]))
print(json.dumps([limiter.hit(parse(limit), "page") for _ in range(int(times))]))
"""
PROCESSES, TIMES = 4, 250


def hit_together(url, strategy, limit):
    """What each of some processes printed that hit *limit* at the same time."""
    command = [sys.executable, "-c", HITTER, url, strategy, limit, str(TIMES)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    hitters = [subprocess.Popen(command, env=clean_environ(), **pipes) for _ in range(PROCESSES)]
    try:
        for hitter in hitters:
            assert hitter.stdout.readline() == "ready\n"
        for hitter in hitters:
            hitter.stdin.write("go\n")
            hitter.stdin.flush()
        return [
            [json.loads(line) for line in hitter.communicate(timeout=60)[0].splitlines()]
            for hitter in hitters
        ]
    finally:
        for hitter in hitters:
            hitter.kill()
            hitter.communicate()


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window-counter"])
def test_concurrent_hits_of_processes_get_through_exactly_as_often_as_the_limit_says(manager, strategy):
    told = hit_together(f"counter://{manager.home}", strategy, "100/12 month")
    allowed = [sum(printed[-1]) for printed in told]
    assert sum(allowed) == 100, allowed
    if strategy == "fixed-window":
        numbers = sorted(number for printed in told for number in printed[0])
        assert numbers == list(range(1, PROCESSES * TIMES + 1)), "two hits were told the same number"


def test_against_a_real_manager_a_window_ends(manager):
    """With the manager's own clock."""
    storage = CounterStorage(f"counter://{manager.home}")
    limiter, item = FixedWindowRateLimiter(storage), RateLimitItemPerSecond(1)
    assert limiter.hit(item)
    began = time.monotonic()
    assert storage.get_expiry(item.key_for()) == pytest.approx(time.time() + 1, abs=0.9)
    while not limiter.test(item):
        assert time.monotonic() - began < 10
        time.sleep(0.01)
    assert time.monotonic() - began > 0.5
    assert limiter.hit(item)


def test_reset_of_a_real_manager_counts_what_it_forgets(manager):
    others = counter.connect(f"counter://{manager.home}")
    storage = CounterStorage(f"counter://{manager.home}")
    storage.reset()
    for start in range(0, 10_500, 500):
        others.update({f"LIMITS:fixed:{start + number}": 1 for number in range(500)})
    others.set("kept", 7)
    assert storage.reset() == 10_500
    assert others["kept"] == 7
    assert storage.check()


# -- Flask-Limiter

APP = """
import os

import counter.limits
from flask import Flask
from flask_limiter import Limiter

app = Flask(__name__)
app.config.from_prefixed_env("TEST")
limiter = Limiter(lambda: "everybody", app=app, storage_uri="counter://?timeout=1")


@app.after_request
def tell_worker(response):
    response.headers["X-Worker"] = os.getpid()
    return response


@app.get("/")
@limiter.limit(app.config["LIMIT"])
def page():
    return "fine"
"""


@pytest.fixture
def place(tmp_path):
    """A folder with the app, and the environment of its processes: a home, and Flask's settings."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def start(stack, place, *arguments, **config):
    """`counter` with *arguments*, until *stack* ends: the process, and the URL of its ready line."""
    environ = {"COUNTER_HOME": str(place / "home")}
    environ |= {f"TEST_{name}": json.dumps(value) for name, value in config.items()}
    process = stack.enter_context(start_process([*COMMAND, *arguments], environ, cwd=place))
    found = re.search(r"http://\S+", process.line("ready", timeout=60))
    return process, found and found[0]


def visit(url):
    """The status of a request, and the pid of the worker that answered."""
    try:
        with urlopen(url, timeout=30) as response:
            return response.status, response.headers["X-Worker"]
    except HTTPError as error:
        with error:
            return error.code, error.headers["X-Worker"]


def limits_in(place):
    """The counters of rate limits in the home, by name."""
    return dict(counter.connect(f"counter://{place / 'home'}").view("LIMITS:").items())


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window-counter"])
def test_flask_limiter_lets_exactly_the_limit_through_whichever_worker_answers(place, strategy):
    together = threading.Barrier(60)

    def client(url):
        together.wait()
        return visit(url)

    config = {"LIMIT": "10/minute", "RATELIMIT_STRATEGY": strategy}
    with ExitStack() as stack:
        run = ["run", "app:app", "--workers", "3", "--threads", "32", "--port", "0"]
        process, url = start(stack, place, *run, **config)
        wait_until(lambda: time.time() % 60 < 50, timeout=30)  # a new minute may let one more through
        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(client, [url] * 60))
        statuses = [status for status, _worker in answers]
        assert sorted(statuses) == [200] * 10 + [429] * 50
        assert len({worker for _status, worker in answers}) > 1, "one worker alone proves nothing"
        (name,) = limits_in(place)
        assert name.startswith(f"{strategy.partition('-')[0]}:LIMITER/everybody/")
        assert process.stop() == 0, process.describe()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_without_the_manager_flask_limiter_falls_back_and_comes_back(place, end):
    """No visitor sees an error in between."""
    config = {"LIMIT": "10000/minute", "RATELIMIT_IN_MEMORY_FALLBACK": "3/hour"}
    with ExitStack() as stack:
        manager, _ = start(stack, place, "manager")
        workers, url = start(stack, place, "workers", "app:app", "--workers", "2", "--port", "0", **config)
        known = set()

        def all_known():
            status, worker = visit(url)
            assert status == 200
            known.add(worker)
            return len(known) == 2

        wait_until(all_known)
        (before,) = limits_in(place).values()
        manager.stop(end)
        away = [visit(url) for _ in range(40)]
        assert {status for status, _worker in away} == {200, 429}
        for worker in {worker for _status, worker in away}:
            assert sum(answer == (200, worker) for answer in away) == 3
        start(stack, place, "manager")
        back, counted = set(), []

        def all_back():
            status, worker = visit(url)
            assert status in (200, 429)
            if status == 200:  # a worker that is still on its own has no more to give
                counted.append(worker)
            back.update(counted)
            return back == known

        wait_until(all_back, timeout=60)
        assert [*limits_in(place).values()] == [before + len(counted)]
        assert workers.stop() == 0, workers.describe()


# -- slowapi


def ask(app):
    """The status of one GET / to an ASGI app in this process."""
    told = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        told.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "app": app}
    asyncio.run(app(scope, receive, send))
    return told[0]["status"]


def slow_app(url):
    limiter = Limiter(lambda request: "everybody", storage_uri=url)

    @limiter.limit("5/minute")
    async def page(request):
        return PlainTextResponse("fine")

    app = Starlette(
        routes=[Route("/", page)], exception_handlers={RateLimitExceeded: _rate_limit_exceeded_handler}
    )
    app.state.limiter = limiter
    return app


def test_slowapi_takes_it_by_url(manager):
    """Two apps, as two workers have them, and one limit."""
    apps = [slow_app(f"counter://{manager.home}?prefix=slow:") for _ in range(2)]
    assert [ask(apps[number % 2]) for number in range(8)] == [200] * 5 + [429] * 3
