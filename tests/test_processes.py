"""The commands that start and stop processes, with real ones: how they end, die and are replaced."""

import collections
import contextlib
import fcntl
import http.client
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from support import COMMAND, clean_environ, free_port, start_process, wait_until

import counter

pytestmark = pytest.mark.process

REPOSITORY = Path(counter.__file__).parent.parent
APP = """
import os, threading, time
import counter

hits = counter.connect()
hold = threading.Event()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        hits.increment("begun")
        time.sleep(1)
    if path == "/pid":
        number = 0
    else:
        number = hits.increment("hits")
    body = f"{os.getpid()} {number}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Place:
    """A folder with an app in it, and a home."""

    def __init__(self, folder):
        self.folder = folder
        self.home = folder / "home"
        self.write(APP)

    def write(self, text):
        (self.folder / "app.py").write_text(text)

    @contextlib.contextmanager
    def start(self, command, *args, ready=True, environ=None, program=COMMAND):
        """`counter COMMAND ARGS` in this folder; its `Running`."""
        environ = {"PYTHONPATH": str(REPOSITORY)} | (environ or {})
        with start_process([*program, command, *args, "--home", self.home], environ, self.folder) as process:
            try:
                if ready:
                    process.line("ready")
                yield process
            finally:
                children = family(process)
                if process.exit_code is None:
                    process.stop(timeout=40)
                wait_until(lambda: not alive(children))

    def run(self, *args, workers=2, **options):
        return self.start("run", "app:app", "--port", "0", "--workers", str(workers), *args, **options)

    def stop(self):
        """`counter stop`, completed."""
        environ = clean_environ(PYTHONPATH=str(REPOSITORY))
        command = [*COMMAND, "stop", "--home", str(self.home)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)

    @property
    def counters(self):
        return counter.connect(f"counter://{self.home}")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def family(process):
    """Its children, living or not yet waited for."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(process):
    return {child.pid for child in family(process) if "counter.worker" in cmdline(child)}


def manager_of(process):
    """The manager's pid; None between two of them."""
    return next((child.pid for child in family(process) if "manager" in cmdline(child)), None)


def wait_until_gone(pid):
    """It has ended, and its parent has taken note."""
    wait_until(lambda: not psutil.pid_exists(pid))


def cmdline(child):
    try:
        return child.cmdline()
    except psutil.Error:
        return []


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def address(process):
    return process.line("ready").split()[1].removeprefix("http://")


def get(where, path="/"):
    """The body of a 200, asked for on a connection of its own."""
    client = http.client.HTTPConnection(where, timeout=30)
    try:
        client.request("GET", path)
        response = client.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        return body
    finally:
        client.close()


def serving(process, count):
    """The pids of *count* workers that are all ready, by the log."""

    def find():
        ready = {int(line.split()[-3]) for line in process.stderr.splitlines() if line.endswith(" is ready")}
        found = workers(process) & ready
        return found if len(found) == count else None

    return wait_until(find)


class Load:
    """Clients that ask without pause, each request on a new connection or all on one that is kept."""

    def __init__(self, where, clients=4, keep=False, path="/"):
        self.where, self.path, self.keep = where, path, keep
        self.bodies = []
        self.failures = collections.Counter()
        self.asking = True
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.more(1)
        return self

    def __exit__(self, *exc_info):
        self.stop()

    def stop(self):
        """Ask no more, and wait for the last answers."""
        self.asking = False
        for thread in self._threads:
            thread.join(40)
        assert not any(thread.is_alive() for thread in self._threads)

    def more(self, count=20):
        """Wait until so many more were answered."""
        before = len(self.bodies)
        wait_until(lambda: len(self.bodies) >= before + count, timeout=40)

    def _ask_on(self):
        client = http.client.HTTPConnection(self.where, timeout=30)
        while self.asking:
            try:
                client.request("GET", self.path)
                response = client.getresponse()
                body = response.read().decode()
                if response.status == 200:
                    self.bodies.append(body)
                else:
                    self.failures[response.status] += 1
            except (OSError, http.client.HTTPException) as exc:
                self.failures[type(exc).__name__] += 1
                client.close()
            if not self.keep:
                client.close()
        client.close()

    @property
    def numbers(self):
        return [int(body.split()[1]) for body in self.bodies]


def test_run_says_one_line_when_everyone_is_ready_and_serves(place):
    with place.run() as process:
        where = address(process)
        line = process.line("ready")
        assert line == f"ready http://{where}  app:app x 2  counters in {place.home} (everysec)"
        assert get(where).endswith(" 1")
        assert place.counters["hits"] == 1
        assert process.stop() == 0
        assert process.stdout == line + "\n"


def test_without_app_the_http_api_is_served(place):
    with place.start("run", "--port", "0", "--workers", "1") as process:
        assert " api x 1 " in process.line("ready")
        assert get(address(process), "/readyz")
        assert json.loads(get(address(process), "/v1/info"))["durability"] == "everysec"


def test_a_file_of_our_name_in_the_current_folder_is_not_in_the_way(place):
    """Who tries counters out may well call a file `counter.py`; the installed command does not meet it."""
    program = [sys.executable, "-P", "-c", "from counter.cli import main; main()"]
    (place.folder / "counter.py").write_text("raise SystemExit('the wrong one')\n")
    place.write(APP + "\ndef create():\n    return app\n")
    with place.start("run", "app:create()", "--port", "0", "--workers", "1", program=program) as process:
        assert get(address(process)).endswith(" 1")


def test_the_manager_alone_is_supervised_with_no_workers(place):
    with place.start("run", "--workers", "0") as process:
        assert process.line("ready") == f"ready  counters in {place.home} (everysec)"
        first = manager_of(process)
        assert place.counters.increment("a") == 1
        os.kill(first, signal.SIGKILL)
        assert place.counters.increment("a") == 2
        assert manager_of(process) != first
        assert process.stop() == 0


def test_manager_and_workers_run_apart(place):
    with place.start("manager") as manager:
        assert manager.line("ready") == f"ready  counters in {place.home} (everysec)"
        with place.start("workers", "app:app", "--port", "0", "--workers", "1") as process:
            assert process.line("ready").endswith(f"  app:app x 1  counters in {place.home} (everysec)")
            assert get(address(process)).endswith(" 1")
            assert process.stop() == 0
        assert manager.stop() == 0


def test_workers_wait_for_a_manager_that_comes_later(place):
    with place.start("workers", "app:app", "--port", "0", "--workers", "1", ready=False) as process:
        wait_until(lambda: "waiting for the manager: no manager is running in" in process.stderr)
        assert process.stdout == ""
        with place.start("manager"):
            process.line("ready")
            assert process.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process_with_exit_code_0_and_finishes_what_runs(place, number):
    with place.run() as process:
        where = address(process)
        children = family(process)
        assert len(children) == 3
        with Load(where, clients=1, path="/slow", keep=True) as load:
            wait_until(lambda: place.counters["begun"] > len(load.bodies))
            process.send(number)
            load.asking = False
        assert load.bodies
        assert not load.failures
        assert process.wait() == 0
        wait_until(lambda: not alive(children))
        assert "Traceback" not in process.stderr
        assert "exit code" not in process.stderr


def test_stop_ends_a_family_and_waits_for_it(place):
    with place.run() as process:
        children = family(process)
        done = place.stop()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not alive(children)
        assert process.wait() == 0


def test_stop_ends_a_manager_that_runs_alone(place):
    with place.start("manager") as process:
        assert place.stop().returncode == 0
        assert process.wait() == 0


def test_stop_says_that_nothing_runs(place):
    done = place.stop()
    assert done.returncode == 3
    assert done.stderr == f"counter: nothing is running in {place.home}\n"


@contextlib.contextmanager
def on_a_terminal(place):
    """`counter run` in the foreground of a terminal; its process and the terminal's other end."""
    near, far = pty.openpty()
    out = place.folder / "out"
    command = [*COMMAND, "run", "app:app", "--port", "0", "--workers", "1", "--home", str(place.home)]
    with out.open("wb") as stdout:
        process = subprocess.Popen(
            command,
            stdin=far,
            stdout=stdout,
            stderr=far,
            cwd=place.folder,
            env=clean_environ(PYTHONPATH=str(REPOSITORY), PYTHONUNBUFFERED=""),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(far)
    try:
        wait_until(lambda: out.read_text().startswith("ready"))
        yield process, near
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        with contextlib.suppress(OSError):
            os.close(near)


def test_ctrl_c_on_a_terminal_ends_the_family_in_order(place):
    """The terminal signals everyone in the foreground, and yet a request that runs finds its manager."""
    with on_a_terminal(place) as (process, terminal):
        children = psutil.Process(process.pid).children()
        where = (place.folder / "out").read_text().split()[1].removeprefix("http://")
        with Load(where, clients=1, path="/slow", keep=True) as load:
            wait_until(lambda: place.counters["begun"] > len(load.bodies))
            os.write(terminal, b"\x03")
            load.asking = False
        assert not load.failures
        assert process.wait(20) == 0
        assert not alive(children)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody has the other end open
            while data := os.read(terminal, 65536):
                said += data
        assert b"Traceback" not in said


def test_a_terminal_that_closes_ends_the_family(place):
    with on_a_terminal(place) as (process, terminal):
        children = psutil.Process(process.pid).children()
        os.close(terminal)
        assert process.wait(20) == 0
        assert not alive(children)


def test_killed_workers_are_replaced_and_nobody_is_refused(place):
    with place.run() as process, Load(address(process), clients=4) as load:
        for victim in serving(process, 2):
            os.kill(victim, signal.SIGKILL)
            wait_until_gone(victim)
            assert victim not in serving(process, 2)
            load.more()
        load.stop()
        # At most what each client had in flight on a worker that was killed; no number is given twice.
        assert sum(load.failures.values()) <= 2 * 4, load.failures
        assert not load.failures.keys() - {"RemoteDisconnected", "ConnectionResetError", "IncompleteRead"}
        assert len(set(load.numbers)) == len(load.numbers)
        assert len(load.numbers) <= place.counters["hits"] <= len(load.numbers) + 2 * 4


@pytest.mark.parametrize("keep", [False, True], ids=["new-connections", "kept-connections"])
def test_sighup_replaces_the_workers_and_no_request_fails(place, keep):
    with place.run() as process, Load(address(process), clients=3, keep=keep) as load:
        before, manager = serving(process, 2), manager_of(process)
        place.write(APP.replace("{number}", "{number} new"))
        process.send(signal.SIGHUP)
        after = wait_until(lambda: (now := workers(process)).isdisjoint(before) and len(now) == 2 and now)
        load.more()
        assert load.bodies[-1].endswith(" new")
        assert int(load.bodies[-1].split()[0]) in after
        assert manager_of(process) == manager
        load.stop()
        assert not load.failures
        assert sorted(load.numbers) == list(range(1, len(load.numbers) + 1))


def test_a_broken_app_on_sighup_leaves_the_old_workers_serving(place):
    with place.run() as process:
        before = serving(process, 2)
        place.write("1 / 0\n")
        process.send(signal.SIGHUP)
        wait_until(lambda: "those from before go on" in process.stderr)
        wait_until(lambda: workers(process) == before)
        assert get(address(process))
        place.write(APP)
        process.send(signal.SIGHUP)
        wait_until(lambda: "reloaded" in process.stderr)
        assert serving(process, 2).isdisjoint(before)
        assert process.stop() == 0


def test_a_broken_app_on_disk_ends_nothing_as_long_as_another_worker_serves(place):
    with place.run() as process:
        victim, survivor = serving(process, 2)
        place.write("1 / 0\n")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: "before it was ready" in process.stderr)
        assert get(address(process), "/pid").split()[0] == str(survivor)
        place.write(APP)
        assert survivor in serving(process, 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "ModuleNotFoundError"), ("1 / 0\n", "ZeroDivisionError"), ("app = 5\n", "not a WSGI app")],
)
def test_an_app_that_cannot_be_loaded_ends_the_start(place, text, why):
    (place.folder / "app.py").unlink() if text is None else place.write(text)
    with place.run(ready=False, workers=2) as process:
        assert process.wait() == 3
        assert f"cannot load the app app:app: {why}" in process.stderr or why in process.stderr
        assert process.stderr.count("is started") <= 3  # the manager and each worker, once
        assert process.stdout == ""


def test_what_dies_before_it_is_ready_is_started_again_ever_later(place):
    place.write("import os\nos._exit(9)\n")
    with place.run(workers=1, ready=False) as process:
        wait_until(lambda: "the next worker is started in 0.4 s" in process.stderr)
        assert "worker is started in 0.1 s" in process.stderr
        assert "worker is started in 0.2 s" in process.stderr
        place.write(APP)
        assert get(address(process))
        assert process.stop() == 0


@pytest.mark.parametrize("text", ["import time\ntime.sleep(600)\n", "import os\nos._exit(9)\n"])
def test_a_family_that_never_became_ready_can_be_ended(place, text):
    place.write(text)
    with place.run(ready=False) as process:
        wait_until(lambda: "worker" in process.stderr)
        assert process.stop() == 0
        assert process.stdout == ""


def test_nobody_outlives_a_killed_supervisor_by_two_seconds(place):
    with place.run() as process:
        children = family(process)
        assert len(children) == 3
        process.send(signal.SIGKILL)
        process.wait()
        end = time.monotonic() + 2
        wait_until(lambda: not alive(children))
        assert time.monotonic() < end


def test_killing_the_manager_costs_no_request(place):
    with place.run() as process, Load(address(process), clients=3) as load:
        for _ in range(3):
            victim = wait_until(lambda: manager_of(process))
            os.kill(victim, signal.SIGKILL)
            wait_until_gone(victim)
            load.more(50)
        load.stop()
    assert not load.failures


def test_a_port_that_is_taken_is_said(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with place.start("run", "app:app", "--port", str(port), ready=False) as process:
            assert process.wait() == 3
            assert f"counter: port {port} is in use: choose another with --port\n" in process.stderr


def test_a_second_run_in_a_home_is_refused(place):
    with place.run(workers=1) as first, place.run(ready=False) as second:
        assert second.wait() == 3
        assert f"(pid {first.pid})" in second.stderr
        assert get(address(first))


def test_a_run_in_the_home_of_another_manager_is_refused(place):
    with place.start("manager") as manager, place.run(ready=False) as process:
        assert process.wait() == 3
        assert f"(pid {manager.pid})" in process.stderr
        assert manager.exit_code is None


@pytest.mark.parametrize("command", ["run", "manager"])
def test_with_json_logs_the_last_sentence_is_json_too(place, command):
    """Or a log collector drops the one line that says why it does not start."""
    place.home.write_text("no folder")
    with place.start(command, "--log-format", "json", ready=False) as process:
        assert process.wait() == 3
        assert "not a folder" in json.loads(process.stderr.splitlines()[-1])["message"]


def test_json_logs_are_one_object_a_line_and_an_apps_output_is_on_stderr(place):
    place.write(APP + "\nprint('hello from the app')\n")
    with place.run("--log-format", "json", workers=1) as process:
        assert process.stop() == 0
        lines = process.stderr.splitlines()
        assert lines.count("hello from the app") == 1
        logged = [json.loads(line) for line in lines if line != "hello from the app"]
        assert {entry["process"] for entry in logged} == {"supervisor"}
        assert all(entry["message"] and entry["time"].endswith("Z") for entry in logged)
        assert process.stdout.count("\n") == 1


def test_workers_find_the_settings_of_the_command_line_in_their_environment(place):
    place.write(
        "import json, os\n"
        "def app(environ, start_response):\n"
        "    found = {k: v for k, v in os.environ.items() if k.startswith('COUNTER_')}\n"
        "    found |= {'folder': os.getcwd(), 'path': os.environ['PYTHONPATH'].split(os.pathsep)[-1]}\n"
        "    start_response('200 OK', [])\n"
        "    return [json.dumps(found).encode()]\n"
    )
    options = [
        "--threads",
        "3",
        "--max-body",
        "999",
        "--allow-host",
        "a.example",
        "--allow-host",
        "b.example",
    ]
    with place.run(
        *options, workers=1, environ={"PYTHONPATH": f"{REPOSITORY}:lib", "COUNTER_TIMEOUT": "7"}
    ) as process:
        found = json.loads(get(address(process)))
    assert found["COUNTER_URL"] == f"counter://{place.home}"
    assert found["COUNTER_HOME"] == str(place.home)
    assert found["COUNTER_THREADS"] == "3"
    assert found["COUNTER_MAX_BODY"] == "999"
    assert found["COUNTER_TIMEOUT"] == "7.0"
    assert found["COUNTER_ALLOW_HOSTS"] == "a.example,b.example"
    assert found["folder"] == str(place.folder)
    assert found["path"] == str(place.folder / "lib")


def test_what_an_app_makes_of_its_environment_is_its_own(place):
    place.write(APP + "\nos.environ['COUNTER_URL'] = 'memory://of-the-app'\n")
    with place.run(workers=1) as process:
        get(address(process))
        wait_until(lambda: place.counters.store.execute(counter.Request([counter.Info()])).only().workers)


def test_workers_report_what_they_served(place):
    with place.run(workers=1) as process:
        for _ in range(5):
            get(address(process))
        (pid,) = workers(process)
        store = place.counters.store

        def figures():
            return store.execute(counter.Request([counter.Info()])).only().workers

        wait_until(lambda: [(w.pid, w.role, w.requests) for w in figures()] == [(pid, "worker", 5)])


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["run", "app"], "APP is MODULE:NAME"),
        (["run", "--bind", "0.0.0.0", "--port", "0"], "--insecure"),
        (["run", "app:app", "--bind", "0.0.0.0", "--port", "0"], "--insecure"),
        (["run", "--bind", "no such host", "--port", "0"], "--bind no such host"),
        (["run", "--durability", "never"], "'everysec', 'always', 'memory'"),
        (["run", "--threads", "0"], "--threads is a number from 1"),
        (["run", "--allow-host", "a.example", "--allow-host", "b:80"], "--allow-host takes names"),
        (["run", "--max-frame", "many"], "--max-frame is a number"),
        (["run", "app:app", "--workers", "0"], "--workers"),
        (["manager", "--durability", "1"], "'everysec', 'always', 'memory'"),
        (["manager", "--group", "no-such-group"], "no group"),
        (["workers", "--workers", "0"], "--workers"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_with_exit_code_2(place, args, why):
    with place.start(*args, ready=False) as process:
        assert process.wait() == 2
        assert why in process.stderr
        assert "Traceback" not in process.stderr
        assert process.stdout == ""


def test_wrong_names_of_hosts_in_the_environment_are_told_before_anything_is_started(place):
    environ = {"COUNTER_ALLOW_HOSTS": "http://a.example/"}
    with place.start("run", "--port", "0", ready=False, environ=environ) as process:
        assert process.wait() == 2
        assert process.stderr.startswith("counter: COUNTER_ALLOW_HOSTS takes names")
        assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_what_an_app_prints_goes_nowhere_else_where_the_standard_files_are_closed(place, closed):
    """The numbers 0 to 2 would be those of the lock and of sockets."""
    place.write(
        "import os\n"
        "def app(environ, start_response):\n"
        "    print('hello', flush=True)\n"
        "    os.write(1, b'hello')\n"
        "    os.write(2, b'hello')\n"
        "    start_response('200 OK', [])\n"
        "    return [b' '.join(os.readlink(f'/proc/self/fd/{n}').encode() for n in range(3))]\n"
    )
    port = str(free_port())
    command = f'exec "$@" {closed}'
    options = ("app:app", "--port", port, "--workers", "1")
    with place.start("run", *options, program=["sh", "-c", command, "sh", *COMMAND], ready=False) as process:
        wait_until(lambda: answers(f"127.0.0.1:{port}"))
        assert get(f"127.0.0.1:{port}") == "/dev/null /dev/null /dev/null"
        assert (place.home / "supervisor").read_text().strip() == str(process.pid)
        assert place.stop().returncode == 0
        assert process.wait() == 0


def answers(where):
    with contextlib.suppress(OSError, http.client.HTTPException):
        return get(where)
    return None


def test_everyone_may_be_let_in_on_purpose(place):
    with place.run("--bind", "0.0.0.0", "--insecure", workers=1) as process:
        port = address(process).rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
            assert response.status == 200
