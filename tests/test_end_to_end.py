"""What a new user does, with real processes: two commands, an app of their own, numbers that are right."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest
from http_load import CLIENTS, ask, count_together, running
from support import COMMAND, free_port, start_process, wait_until

from counter import Increment, Request, open_store
from counter.home import Home

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]


@pytest.fixture
def app_folder(tmp_path):
    """A folder with the `app.py` of the README."""
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- test: file app\.py -->\n+```python\n(.*?)```", readme, re.DOTALL)
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(block[1])
    return folder


def test_http_is_exact(tmp_path):
    """8 client processes, 4,000 increments through 3 workers: {1..4000}, and every worker served some."""
    with running("--workers", "3", home=tmp_path / "home") as (_process, url):
        numbers = count_together(f"{url}/v1/counters/page/increment", "value", 4000 // CLIENTS)
        assert sorted(numbers) == list(range(1, 4001))
        workers = ask(f"{url}/v1/info")["workers"]
        assert len(workers) == 3
        assert all(worker["requests"] > 0 for worker in workers), workers
        # every request so far was served by one of them, and is reported within a second or so
        wait_until(lambda: sum(w["requests"] for w in ask(f"{url}/v1/info")["workers"]) >= 4001)


def test_an_app_of_ones_own_is_exact(tmp_path, app_folder):
    """The README's app under `counter run app:app --workers 4`: 2,000 POSTs from 8 clients get {1..2000}."""
    with running("app:app", "--workers", "4", home=tmp_path / "home", cwd=app_folder) as (_process, url):
        numbers = count_together(f"{url}/hit", "hits", 2000 // CLIENTS)
        assert sorted(numbers) == list(range(1, 2001))


def test_an_app_under_gunicorn_is_exact(tmp_path, app_folder):
    """The same file under `gunicorn -w 4`, with `counter run --workers 0` beside it."""
    home, port = tmp_path / "home", free_port()
    gunicorn = [sys.executable, "-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "app:app"]
    environ = {"COUNTER_URL": f"counter://{home}"}
    with (
        running("--workers", "0", home=home) as (_process, url),
        start_process(gunicorn, environ, cwd=app_folder) as server,
    ):
        assert url is None
        wait_until(lambda: len(psutil.Process(server.pid).children()) == 4)
        wait_until(lambda: "Listening at" in server.stderr)
        numbers = count_together(f"http://127.0.0.1:{port}/hit", "hits", 2000 // CLIENTS)
        assert sorted(numbers) == list(range(1, 2001))
        assert server.stop() == 0


def test_a_manager_killed_twenty_times_costs_no_call_and_no_request(tmp_path):
    """Under `counter run`, with threads of the library and HTTP clients in mid-call each time."""
    home = Home(tmp_path / "home")
    done = threading.Event()
    told = []  # of each call, the life of the manager that it met, and the number

    def call(store):
        change = store.execute(Request([Increment("page")])).only()
        return change.version.rpartition(".")[0], change.value

    def request(connection):
        connection.request("POST", "/v1/counters/page/increment")
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        change = json.loads(body)
        return change["version"].rpartition(".")[0], change["value"]

    def repeat(ask, of):
        calls = 0
        while not done.is_set():
            told.append(ask(of))
            calls += 1
        return calls

    with running("--workers", "2", home=home.path) as (_process, url), ThreadPoolExecutor(8) as pool:
        store = open_store(f"counter://{home.path}")
        address = urlsplit(url).netloc
        jobs = [pool.submit(repeat, call, store) for _ in range(4)]
        connections = [HTTPConnection(address, timeout=60) for _ in range(4)]
        jobs += [pool.submit(repeat, request, connection) for connection in connections]
        try:
            for _ in range(20):
                met = len(told)
                wait_until(lambda met=met: len(told) > met + 50 or any(job.done() for job in jobs))
                killed = home.holder()
                os.kill(killed, signal.SIGKILL)
                wait_until(lambda killed=killed: home.holder() not in (killed, None))
        finally:
            done.set()
        calls = [job.result(60) for job in jobs]
        for opened in (store, *connections):
            opened.close()
    lives = {life for life, _ in told}
    assert len(lives) == 21
    assert sorted(number for _, number in told) == list(range(1, len(told) + 1))
    assert all(calls)
    print(f"{sum(calls)} calls in {len(lives)} lives")


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "counter stop"])
def test_two_commands(tmp_path, end):
    """`scripts/start` prints the ready line, /readyz is 200 from then on, all ends with exit code 0."""
    home = tmp_path / "home"
    port = free_port()
    start = [ROOT / "scripts/start", "--port", str(port), "--home", home, "--workers", "2"]
    with start_process(start, {"HOME": str(tmp_path / "empty")}) as process:
        line = process.line("ready", timeout=110)
        assert line == f"ready http://127.0.0.1:{port}  api x 2  counters in {home} (everysec)"
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as response:
            assert response.status == 200
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) == 4
        if end == "counter stop":
            stop = subprocess.run([*COMMAND, "stop", "--home", home], timeout=60)
            assert stop.returncode == 0
            assert process.wait() == 0
        else:
            assert process.stop(signal.Signals[end]) == 0
        wait_until(lambda: not any(member.is_running() for member in family))
        assert process.stdout == line + "\n"
