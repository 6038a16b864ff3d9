"""The examples do what they say: each is run by the commands of its docstring, in a copy of the folder and an
empty home directory, by three workers, and then put under load by clients that look at every answer.
"""

import ast
import contextlib
import itertools
import json
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import HTTPConnection
from http.cookiejar import CookieJar
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import pytest
from support import ROOT, clean_environ, wait_until
from test_docs import Block, Place, commands_of

import counter
from counter import Info
from counter import Request as Ops

pytestmark = pytest.mark.process

EXAMPLES = ROOT / "examples"
FILES = {path.stem: path for path in EXAMPLES.glob("*.py")}
WORKERS = 3
CLIENTS = 8
"""As many as a worker has threads, so that none is ever told that it is overloaded."""


class Running(NamedTuple):
    """An example that is served."""

    url: str
    counters: counter.SharedCounter
    place: Place


def told(name):
    """The commands in the docstring of an example, each with what it is said to print."""
    paragraphs = ast.get_docstring(ast.parse(FILES[name].read_text())).split("\n\n")
    consoles = [
        re.sub("^    ", "", text, flags=re.MULTILINE) for text in paragraphs if text.startswith("    $ ")
    ]
    return [command for console in consoles for command in commands_of(console)]


@contextlib.contextmanager
def example(name, tmp_path, home=None):
    """An example that was started, and asked, as its docstring says; then its counters are emptied.

    With a *home* the manager is there, as it would be with `--home`, instead of in its usual place.
    """
    if not shutil.which("curl"):
        assert not os.environ.get("CI"), "curl is missing"
        pytest.skip("curl is missing")
    place = Place(tmp_path)
    shutil.copytree(EXAMPLES, place.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with place.servers:
        for line, expected in told(name):
            if line.startswith("export "):
                variable = re.match(r"export (\w+)=", line)[1]
                place.environ[variable] = output_of(f"{line}; printenv {variable}", place)
            elif line.startswith("counter run "):
                assert line.endswith(f" --workers {WORKERS}"), line
                place.serve(
                    f"{line} --home {home}" if home else line, f"ready … {line.split()[2]} x {WORKERS} …"
                )
            else:
                if name == "global_before":  # what it tells is an instance of what may come
                    expected = re.sub(r"\d+", "…", expected)
                place.console(Block(f"examples/{name}.py", 1, "console", f"$ {line}\n{expected}", ""))
        with counter.connect(f"counter://{home or place.home}") as counters:
            counters.clear()
            yield Running(f"http://127.0.0.1:{place.port}", counters, place)
            wait_until(lambda: served_by(counters) == WORKERS)
        place.leave_section()


def output_of(line, place):
    environ = clean_environ(**place.environ)
    run = subprocess.run(
        ["sh", "-c", line], check=True, capture_output=True, text=True, env=environ, timeout=60
    )
    return run.stdout.strip()


def served_by(counters):
    """How many workers have answered requests."""
    workers = counters.store.execute(Ops([Info()])).only().workers
    return sum(worker.requests > 0 for worker in workers if worker.role == "worker")


def post(url, body=None):
    """Status and JSON of the answer to a POST, on a connection of its own."""
    data, headers = b"", {}
    if body is not None:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    try:
        with urlopen(Request(url, data, headers, method="POST"), timeout=30) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def at_once(do, *arguments):
    """What *do* returned for each of the arguments, when `CLIENTS` threads do it."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(do, *arguments))


def hit(url):
    status, answer = post(f"{url}/hit")
    assert status == 200
    return answer["hits"]


# -- one by one


def test_global_before_gives_numbers_twice(tmp_path):
    with example("global_before", tmp_path) as running:
        numbers = at_once(hit, [running.url] * 300)
        assert len(set(numbers)) < 300
        assert max(numbers) < 300, "one worker counted them all"


def test_global_after_gives_each_number_once(tmp_path):
    with example("global_after", tmp_path) as running:
        assert sorted(at_once(hit, [running.url] * 300)) == list(range(1, 301))


class Visitor:
    """A browser: it keeps its cookies, and follows redirects."""

    def __init__(self, url):
        self._url = url
        self.cookies = CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self.cookies))

    def press(self, path):
        """The number that is shown after a button was pressed; with "/" that of the page, as it is."""
        data = None if path == "/" else b""
        with self._opener.open(self._url + path, data, timeout=30) as response:
            assert urlsplit(response.url).path == "/", response.url
            return int(re.search(r"Your number is (-?\d+)<", response.read().decode())[1])


def asked(url, method, path, **headers):
    """Status and headers of one request, without following a redirect."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers


def test_visitors_each_have_a_number_of_their_own(tmp_path):
    with example("visitors", tmp_path) as running:
        visitors = [Visitor(running.url) for _ in range(200)]
        assert at_once(lambda visitor: visitor.press("/"), visitors) == [0] * 200
        assert len(running.counters) == 0  # a GET changes nothing
        for number in (1, 2):
            random.shuffle(visitors)
            assert at_once(lambda visitor: visitor.press("/inc"), visitors) == [number] * 200
        assert list(running.counters.values()) == [2] * 200
        check_one_visitor(running, visitors[0])
        check_strangers(running)


def check_one_visitor(running, visitor):
    (cookie,) = visitor.cookies
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    header = {"Cookie": f"{cookie.name}={cookie.value}"}
    before = list(running.counters.entries())
    for path in ("/inc", "/dec", "/reset"):
        status, headers = asked(running.url, "GET", path, **header)
        assert status == 405
        assert "POST" in headers["Allow"]
    assert list(running.counters.entries()) == before
    presses = ["/inc", "/dec", "/dec", "/dec", "/dec", "/reset", "/dec", "/"]
    assert [visitor.press(path) for path in presses] == [3, 2, 1, 0, -1, 0, -1, -1]
    for entry in before:
        assert entry.name.startswith("visitor:")
        assert (entry.ttl_mode, entry.ttl) == ("sliding", timedelta(days=30).total_seconds())
        assert entry.updated_at > entry.created_at
        assert entry.expires_at - entry.updated_at == timedelta(days=30)  # from the last change on


def check_strangers(running):
    """No cookie, as from a form on another site, or a forged one: nothing is counted, and no id is given."""
    before = list(running.counters.entries())
    for path, headers in itertools.product(("/inc", "/dec", "/reset"), ({}, {"Cookie": "session=e30.x.x"})):
        status, told_headers = asked(running.url, "POST", path, **headers)
        assert (status, told_headers["Location"]) == (303, "/")
        assert told_headers["Set-Cookie"] is None
    assert list(running.counters.entries()) == before


def test_visitors_does_not_start_without_a_key(monkeypatch):
    create_app = runpy.run_path(str(FILES["visitors"]))["create_app"]
    monkeypatch.delenv("SECRET_KEY", raising=False)
    with pytest.raises(RuntimeError, match="set SECRET_KEY in the environment"):
        create_app()


def test_rate_limited_lets_exactly_ten_through(tmp_path):
    def status(_):
        return asked(running.url, "GET", "/")[0]

    with example("rate_limited", tmp_path, home=tmp_path / "elsewhere") as running:
        assert Counter(at_once(status, range(60))) == {200: 10, 429: 50}
        assert all(name.startswith("LIMITS:") for name in running.counters)


def test_seats_are_never_oversold(tmp_path):
    def book(_=None):
        return post(f"{running.url}/book")

    def cancel(ticket):
        return ticket, *post(f"{running.url}/cancel/{ticket}")

    with example("seats", tmp_path) as running:
        answers = at_once(book, range(250))
        booked = [answer for status, answer in answers if status == 201]
        assert sorted(answer["ticket"] for answer in booked) == list(range(1, 101))
        assert sorted(answer["left"] for answer in booked) == list(range(100))
        assert [answer for answer in answers if answer[0] != 201] == [(409, {"error": "sold out"})] * 150

        # 40 tickets are cancelled, each three times, while others try to book
        moves = [(cancel, ticket) for ticket in range(1, 41) for _ in range(3)] + [(book, None)] * 120
        random.shuffle(moves)
        answers = at_once(lambda move: (move[0], move[0](move[1])), moves)
        cancelled = [answer for do, answer in answers if do is cancel]
        assert sorted(ticket for ticket, status, _ in cancelled if status == 200) == list(range(1, 41))
        assert Counter(status for _, status, _ in cancelled) == {200: 40, 409: 80}
        rebooked = [answer["ticket"] for do, (status, answer, *_) in answers if do is book and status == 201]
        assert sorted(rebooked) == list(range(101, 101 + len(rebooked)))
        assert running.counters["hall:sold"] == 60 + len(rebooked) <= 100

        # all others twice: nothing is left, and it does not go below
        rest = [*range(41, 101), *rebooked]
        answers = at_once(cancel, rest * 2)
        assert sorted(answer["left"] for _, status, answer in answers if status == 200)[-1] == 100
        assert Counter(ticket for ticket, status, _ in answers if status == 200) == Counter(rest)
        assert running.counters["hall:sold"] == 0
        assert [cancel(ticket)[1] for ticket in (0, 101 + len(rebooked))] == [404, 404]
        assert book() == (201, {"ticket": 101 + len(rebooked), "left": 99})


def test_webhook_counts_each_event_once(tmp_path):
    def deliver(event):
        return event, *post(f"{running.url}/webhook", event)

    with example("webhook", tmp_path) as running:
        events = [{"id": f"evt_load_{number}", "type": "paid"} for number in range(100)]
        at_the_same_time = [event for event in events for _ in range(4)]
        numbers = defaultdict(set)
        for event, status, answer in at_once(deliver, at_the_same_time + random.sample(events, len(events))):
            assert status == 200
            numbers[event["id"]].add(answer["paid"])
        assert all(len(answers) == 1 for answers in numbers.values()), numbers
        assert sorted(number for answers in numbers.values() for number in answers) == list(range(1, 101))
        assert running.counters.copy() == {"paid": 100}
        for wrong in ({}, {"id": 1}, [], "evt", {"id": "a b"}, {"id": "x" * 300}):
            _, status, answer = deliver(wrong)
            assert (status, list(answer)) == (400, ["error"])
        assert running.counters.copy() == {"paid": 100}


def test_cron_job_and_web_app_share_one_number(tmp_path):
    def sell(_):
        status, answer = post(f"{running.url}/invoices")
        assert status == 201
        return [answer["invoice"]]

    def job(number):
        customers = " ".join(f"customer{number}.{each}" for each in range(100))
        lines = output_of(f"cd '{running.place.folder}' && python3 cron_job.py {customers}", running.place)
        numbers = [int(found) for found in re.findall(r"^invoice (\d+) for customer", lines, re.MULTILINE)]
        assert len(numbers) == 100
        assert numbers == sorted(numbers)
        return numbers

    with example("cron_job", tmp_path) as running:
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(job, number) for number in range(3)]
            wait_until(lambda: running.counters["invoice"] > 0)  # they have begun
            sold = at_once(sell, range(200))
            mailed = [done.result(60) for done in jobs]
        assert sorted(itertools.chain(*sold, *mailed)) == list(range(1, 501))


def test_cron_job_without_a_manager_says_so_and_fails(tmp_path):
    run = subprocess.run(
        [sys.executable, FILES["cron_job"], "Ada"],
        env=clean_environ(COUNTER_HOME=str(tmp_path / "nothing")),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert re.fullmatch(r"cron_job: no manager is running in .*\n", run.stderr)


# -- all together


def test_every_example_is_listed_and_tested():
    page = (EXAMPLES / "README.md").read_text()
    listed = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \| \S.* \|$", page, re.MULTILINE)
    assert sorted(listed) == sorted(FILES)
    tested = re.findall(r'with example\("(\w+)"', Path(__file__).read_text())
    assert sorted(tested) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_an_example_stands_alone_and_is_short(name):
    tree = ast.parse(FILES[name].read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert packages <= {"counter", "flask", "flask_limiter", "werkzeug"}
    code = FILES[name].read_text().splitlines()[tree.body[0].end_lineno :]
    assert len([line for line in code if line.strip()]) <= 60
    (line,) = (line for line, _ in told(name) if line.startswith("counter run "))
    assert line.split()[2].partition(":")[0] == name


def test_nothing_imports_an_example():
    imports = re.compile(rf"^\s*(?:import|from)\s+(?:examples\b|(?:{'|'.join(FILES)})\b)", re.MULTILINE)
    folders = ("counter", "benchmarks", "examples", "tests")
    files = [*ROOT.glob("*.py"), *(path for name in folders for path in (ROOT / name).rglob("*.py"))]
    assert [path for path in files if imports.search(path.read_text())] == []
