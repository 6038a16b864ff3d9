"""The rows over HTTP run, count right and notice who does not; how fast anything is, no test says."""

import contextlib
import os
import socket
import sys
from array import array
from types import SimpleNamespace

import psutil
import pytest
from servers import lives
from support import wait_until

from benchmarks.report import FIGURES, judge
from benchmarks.row import OURS, Options, WrongTotal
from benchmarks.rows import http, http_api, http_server
from benchmarks.web import load, turns, view
from benchmarks.web.servers import server


def answers(*told):
    """What a client heard: each a name and a value."""
    bodies = [b'{"name":"%s","value":%d,"more":null}\n' % (name.encode(), value) for name, value in told]
    return [load.Answers(array("d"), bodies, len(bodies), 0.0)]


def site(total):
    return turns.Site("a store", SimpleNamespace(port=0), "/hit", total=lambda: total)


# Totals


def test_what_was_answered_adds_up():
    seen = set()
    turns.check(site(12), answers(("a", 1), ("b", 1)), seen, before=10)
    turns.check(site(13), answers(("a", 2)), seen, before=10)
    assert len(seen) == 3


@pytest.mark.parametrize("total", [11, 13])
def test_an_increment_that_was_lost_or_made_up_is_noticed(total):
    with pytest.raises(WrongTotal, match="a store counted"):
        turns.check(site(total), answers(("a", 1), ("b", 1)), set(), before=10)


def test_a_number_that_was_given_twice_is_noticed_in_a_later_turn_too():
    seen = set()
    turns.check(site(1), answers(("a", 1)), seen, before=0)
    with pytest.raises(WrongTotal, match="different numbers"):
        turns.check(site(2), answers(("a", 1)), seen, before=0)


def test_who_only_pretends_to_count_need_not_add_up():
    turns.check(turns.Site("nothing", SimpleNamespace(port=0), "/hit"), answers(("a", 1), ("a", 1)), set(), 0)


# The client


@pytest.fixture
def line():
    """A client's connection, and the server's end of it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(load._Line(listener.getsockname()[1], b"POST /hit\r\n\r\n"))
        yield client, stack.enter_context(listener.accept()[0])


def test_an_answer_in_pieces_is_one_answer(line):
    client, end = line
    client.send()
    assert end.recv(100) == b"POST /hit\r\n\r\n"
    for piece in (b"HTTP/1.1 200 OK\r\ncontent-", b"length: 5\r\n\r\n", b"ab"):
        end.sendall(piece)
        assert client.receive() is None
    end.sendall(b"cde")
    assert client.receive() == b"abcde"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
    ],
)
def test_only_a_complete_200_is_an_answer(line, answer):
    client, end = line
    end.sendall(answer)
    with pytest.raises(RuntimeError, match="answered b'HTTP"):
        client.receive()


def test_a_connection_that_breaks_off_is_no_answer(line):
    client, end = line
    end.close()
    with pytest.raises(RuntimeError, match="closed the connection"):
        client.receive()


# Servers


@pytest.mark.long
def test_a_server_that_does_not_come_up_says_why(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such app')"]
    with pytest.raises(RuntimeError, match="no such app"), server(lambda _: command, "/ready", tmp_path):
        raise AssertionError("it is not there")


@pytest.mark.long
def test_of_a_server_that_would_not_end_nothing_is_left(tmp_path):
    """A child that ignores SIGTERM, too."""
    code = (
        "import http.server, os, signal, sys\n"
        "if not os.fork(): signal.signal(15, signal.SIG_IGN); signal.pause()\n"
        "class Ready(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Ready).serve_forever()"
    )
    with server(lambda port: [sys.executable, "-c", code, str(port)], "/", tmp_path, patience=0.5) as up:
        family = [psutil.Process(pid) for pid in up.pids]
        assert len(family) == 2
    wait_until(lambda: not any(map(lives, family)))


# The rows


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "subjects"),
    [
        (http.ROW, {OURS, view.NO_STORE, "redis-py", "pymemcache", "stock manager"}),
        (http_api.ROW, {OURS, http_api.BARE}),
        (http_server.ROW, {OURS, http_server.GRANIAN, *http_server.OTHERS}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_row_measures_all_its_subjects_and_their_totals_are_right(row, subjects, tmp_path):
    found = row.measure(Options(rounds=2, seconds=0.1, counters=10, folder=tmp_path))
    missing = len(found.notes)
    assert missing == 0 or not os.environ.get("CI"), found.notes
    cases = {case.subject: case.figures for case in found.cases}
    assert cases.keys() <= subjects and len(cases) == len(subjects) - missing
    for figures in cases.values():
        assert set(figures) == {"rate", "p50", "p99", "client_cpu", "server_cpu", "cpu"} <= set(FIGURES)
        assert all(len(values) == 2 and min(values) > 0 for values in figures.values())
    assert missing or all(judge(aim, found.cases).spread for aim in row.aims)


@pytest.mark.long
def test_a_store_that_forgets_ends_the_row(tmp_path, monkeypatch):
    """The check is made in every turn, of what the store says and not of what it answered."""
    monkeypatch.setattr(http, "STARTS", ())
    monkeypatch.setattr(
        http, "_total", lambda client, exact=http._total: exact(client) - 1 if exact(client) else 0
    )
    with pytest.raises(WrongTotal, match="counter counted"):
        http.measure(Options(rounds=1, seconds=0.1, counters=10, folder=tmp_path))
