"""A real browser with a hostile page in it changes nothing here, and reads nothing.

The page (hostile_page.html) is at another port of this host, at another name, and at a name that is rebound
to the service after the page was loaded. What it tries harms a sloppy app, which has none of our rules.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import threading
from collections import Counter
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Flask, abort
from support import start_process, wait_until

from counter.ops import List, Request, Set
from counter.stores.memory import MemoryStore
from counter.waitress_server import WaitressServer
from counter.web import create_app

pytestmark = pytest.mark.process

PAGE = Path(__file__).with_name("hostile_page.html")
SECRET = 7_654_321
PLACES = ("same-site", "cross-site", "rebound")
"""Where the page is, as the target sees it: at another port, at another name, at a name that is now ours."""
COUNTERS = dict.fromkeys(["secret", *(f"cors-delete.{place}" for place in PLACES)], SECRET)
"""What is there before."""
READING = ["no-cors-read", "cors-read", "cors-list", "events", "frame"]
"""Attempts that show the secret to a page of the same origin, as one is after rebinding."""
WRITING = [
    "img",
    "form-urlencoded",
    "form-text",
    "no-cors-empty",
    "no-cors-text",
    "no-cors-json",
    "cors-simple",
]
WRITING += ["beacon", "prefetch"]
"""Attempts that change a sloppy app from any page."""
THERE = ["prefetch", "object"]
"""Ways to see whether a counter exists from any page."""


class Target:
    """An app on a port, what it was asked and what it answered, and the counters behind it."""

    def __init__(self, stack, app, counters):
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.counters = counters
        self.seen = []
        self._app = app
        server = WaitressServer(self._record, listener, 32)  # so that nothing is refused for want of one
        thread = threading.Thread(target=server.run, args=[5])
        thread.start()
        stack.callback(thread.join, 20)
        stack.callback(server.stop)

    def missing(self):
        """What it was not asked for yet, though the page is to try it."""
        paths = {path for _, path, _ in list(self.seen)}
        wanted = {f"/v1/counters/{name}.{place}/increment" for name in WRITING for place in PLACES}
        return wanted - paths

    def _record(self, environ, start_response):
        def start(status, *others):
            rebound = environ["HTTP_HOST"].startswith("rebound")
            place = "rebound" if rebound else environ.get("HTTP_SEC_FETCH_SITE")
            self.seen.append((place, environ["PATH_INFO"], int(status[:3])))
            return start_response(status, *others)

        return self._app(environ, start)


def ours(stack):
    store = MemoryStore()
    store.execute(Request([Set(name, value) for name, value in COUNTERS.items()]))

    def counters():
        return {entry.name: entry.value for entry in store.execute(Request([List()])).only().counters}

    return Target(stack, create_app(store), counters)


def sloppy(stack):
    """Counters as they are often written."""
    app = Flask("sloppy")
    counters = Counter(COUNTERS)

    @app.route("/v1/counters/<name>/increment", methods=["GET", "POST"])
    def increment(name):
        counters[name] += 1
        return {"value": counters[name]}

    @app.get("/v1/counters/<name>")
    def show(name):
        return {"value": counters[name]} if name in counters else abort(404)

    @app.put("/v1/counters/<name>")
    def put(name):
        counters[name] = 1
        return {"value": 1}

    @app.delete("/v1/counters/<name>")
    def delete(name):
        return {"value": counters.pop(name)}

    @app.get("/v1/counters")
    def every():
        return dict(counters)

    @app.get("/v1/events")
    def events():
        return f"data: {counters['secret']}\n\n", {"Content-Type": "text/event-stream"}

    return Target(stack, app, lambda: dict(counters))


class HostileServer(ThreadingHTTPServer):
    """Serves the page, hears its reports, and is what its names stand for before they are rebound."""

    daemon_threads = True

    def __init__(self, targets):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        self.rebound = {f"rebound-{kind}.test": target for kind, target in targets.items()}
        self.frames = {}
        self.reports = {}
        for kind, target in targets.items():
            rebound = f"http://rebound-{kind}.test:{self.port}"
            self.add(kind, "same-site", f"http://127.0.0.1:{self.port}", f"http://{target.address}")
            self.add(kind, "cross-site", f"http://evil.test:{self.port}", f"http://{target.address}")
            self.add(kind, "rebound", rebound, rebound)

    def add(self, kind, place, origin, target):
        self.frames[kind, place] = f"{origin}/page?target={target}&place={place}"

    def handle_error(self, request, client_address):
        """A browser may hang up whenever it likes."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = urlsplit(self.path).path
        host = self.headers["Host"].partition(":")[0]
        if path == "/page":
            self.answer(PAGE.read_bytes())
        elif path == "/report":
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.reports[told["page"]] = told["told"]
            self.answer(b"")
        elif host in self.server.rebound:
            self.hand_on(self.server.rebound[host])
        else:
            frames = "".join(
                f'<iframe src="{address}"></iframe>' for address in map(escape, self.server.frames.values())
            )
            self.answer(f"<!doctype html>{frames}".encode())

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET  # noqa: N815  (the names that the base class looks for)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hand_on(self, target):
        """As if the name had the address of *target* now."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(target.address, timeout=20)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def browser(profile, address):
    """The command line of a browser that knows no other host than this one."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        assert not os.environ.get("CI"), "chromium is missing"
        pytest.skip("no chromium on PATH")
    rules = "MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-breakpad"]
    return [program, *flags, f"--user-data-dir={profile}", f"--host-resolver-rules={rules}", address]


@pytest.fixture(scope="module")
def attack(tmp_path_factory):
    """What was there to be attacked and what the pages told, by target and where the page was."""
    with contextlib.ExitStack() as stack:
        targets = {"ours": ours(stack), "sloppy": sloppy(stack)}
        hostile = stack.enter_context(HostileServer(targets))
        thread = threading.Thread(target=hostile.serve_forever)
        thread.start()
        stack.callback(thread.join, 20)
        stack.callback(hostile.shutdown)
        command = browser(tmp_path_factory.mktemp("browser"), f"http://127.0.0.1:{hostile.port}/")
        with start_process(command):
            wait_until(lambda: len(hostile.reports) == len(hostile.frames), timeout=60)
            for target in targets.values():
                wait_until(lambda target=target: not target.missing())
        yield targets, {key: hostile.reports[address] for key, address in hostile.frames.items()}


def test_every_attempt_was_refused_and_nothing_changed(attack):
    targets, reports = attack
    target = targets["ours"]
    assert target.counters() == COUNTERS
    refused = {("same-site", 403), ("cross-site", 403), ("rebound", 421)}
    assert {(place, status) for place, _, status in target.seen if place} == refused
    assert not [status for _, _, status in target.seen if status < 400]  # a WebSocket does not say its place
    assert not [told for told in reports.values() if "late" in told.values()]


def test_nothing_was_read_nor_whether_it_is_there(attack):
    _, reports = attack
    for place in PLACES:
        told = reports["ours", place]
        assert str(SECRET) not in json.dumps(told)
        for how in THERE:
            assert told[f"{how}-there"] == told[f"{how}-not-there"] == "error"


def test_a_sloppy_app_is_changed_and_read(attack):
    """So the page does what it says, and the browser lets it."""
    targets, reports = attack
    counters = targets["sloppy"].counters()
    for name in WRITING:
        for place in PLACES:
            assert counters[f"{name}.{place}"], (name, place)
    assert counters["cors-json.rebound"] and counters["cors-put.rebound"]
    assert "cors-delete.rebound" not in counters
    for name in READING:
        assert str(SECRET) in reports["sloppy", "rebound"][name], name
    for place in PLACES:
        told = reports["sloppy", place]
        assert [(told[f"{how}-there"], told[f"{how}-not-there"]) for how in THERE] == [("load", "error")] * 2
