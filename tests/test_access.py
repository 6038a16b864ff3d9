"""The access log: a line for each request, which holds up nobody and shows no name that it is not told to."""

import contextlib
import json
import os
import re
import threading
import time

import pytest
from support import wait_until
from test_waitress_server import Served as Server
from test_waitress_server import answer

from counter import InvalidRequest
from counter.access import MOST, AccessLog, Served, json_line, text_line
from counter.request_ids import choose
from counter.worker import access_log

ONE = Served(
    1893456000.1239,
    "POST",
    "/v1/counters/{name}/increment",
    "/v1/counters/né\n/increment",
    200,
    0.01234,
    256,
    "abc",
    "",
)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for file in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(file)


def read_all(reading, writing):
    os.close(writing)
    with open(reading, "rb", closefd=False) as file:
        return file.read().decode()


# -- a line


def test_a_line_of_text_says_who_what_and_how_long_without_the_name():
    line = text_line("worker", names=False)(ONE)
    who = f"worker[{os.getpid()}]"
    assert (
        line
        == f"2030-01-01T00:00:00.123Z {who} POST /v1/counters/{{name}}/increment 200 12.3 ms 256 bytes id=abc"
    )
    assert text_line("worker", names=False)(ONE._replace(token="ci")).endswith(" id=abc token=ci")


def test_a_line_of_json_has_the_same_and_what_all_lines_have():
    fields = json.loads(json_line("worker", names=False)(ONE._replace(token="ci")))
    assert fields == {
        "time": "2030-01-01T00:00:00.123Z",
        "level": "info",
        "process": "worker",
        "pid": os.getpid(),
        "logger": "counter.access",
        "message": "POST /v1/counters/{name}/increment 200",
        "method": "POST",
        "route": "/v1/counters/{name}/increment",
        "status": 200,
        "ms": 12.3,
        "bytes": 256,
        "request_id": "abc",
        "token": "ci",
    }


@pytest.mark.parametrize("line", [text_line, json_line])
def test_names_are_shown_if_asked_for_and_forge_no_line(line):
    assert "né" not in json.dumps(line("worker", False)(ONE), ensure_ascii=False)
    told = line("worker", True)(ONE)
    assert "\n" not in told
    assert "né" in told or "n\\u00e9" in told


def test_a_path_forges_no_field():
    forged = ONE._replace(path="/v1/x 200 1.0 ms 5 bytes id=a token=admin")
    assert " token=admin" not in text_line("worker", True)(forged)


@pytest.mark.parametrize("given", ["a", "0af7651916cd43dd8448eb211c80319c", "a-b_c.d~e:f/g+h=i@j", "x" * 128])
def test_an_id_of_safe_characters_is_taken(given):
    assert choose(given) == given


@pytest.mark.parametrize(
    "given", [None, "", "x" * 129, "a b", "a,b", 'a"b', "a\nb", "a\x00", "é", "<a>", "a\u2028"]
)
def test_any_other_id_is_replaced(given):
    made = choose(given)
    assert re.fullmatch(r"[0-9a-f]{16}", made)
    assert made != choose(given)


def test_it_is_off_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("COUNTER_ACCESS_LOG", raising=False)
    assert access_log() is None
    monkeypatch.setenv("COUNTER_ACCESS_LOG", "maybe")
    with pytest.raises(InvalidRequest, match="COUNTER_ACCESS_LOG is 1 or 0"):
        access_log()


# -- how it is written


def test_all_lines_are_written_whole_and_the_last_ones_at_the_end(pipe):
    log = AccessLog(lambda served: f"{served.status} {'x' * (served.status % 300)}", pipe[1])
    for number in range(150):
        log.add(ONE._replace(status=number))
    log.close()
    lines = read_all(*pipe).splitlines()
    assert lines == [f"{number} {'x' * number}" for number in range(150)]


def test_no_piece_is_larger_than_what_a_pipe_takes_in_one(monkeypatch, pipe):
    """Several workers write to the same one."""
    written = []
    monkeypatch.setattr(os, "write", lambda _file, piece: written.append(bytes(piece)) or len(piece))
    log = AccessLog(lambda served: "x" * served.status, pipe[1])
    for number in [*range(1, 300), 9000]:
        log.add(ONE._replace(status=number))
    log.close()
    assert all(piece.endswith(b"\n") for piece in written)
    assert [piece for piece in written if len(piece) > 4096] == [b"x" * 9000 + b"\n"]
    assert b"".join(written).count(b"\n") == 300


def test_whoever_reads_too_slowly_misses_lines_and_is_told_so_and_nobody_waits(pipe):
    log = AccessLog(lambda served: f"{served.route} {'x' * 100}", pipe[1])
    began = time.monotonic()
    for _ in range(2 * MOST):  # the pipe takes some hundreds
        log.add(ONE)
    assert time.monotonic() - began < 1
    assert len(log._waiting) <= MOST
    reader = threading.Thread(target=lambda: lines.extend(read_lines(pipe[0])), daemon=True)
    lines = []
    reader.start()
    wait_until(lambda: not log._waiting)
    log.add(ONE)
    log.close()
    os.close(pipe[1])
    reader.join(20)
    (told,) = (line for line in lines if "left out" in line)
    left_out = int(re.search(r"\((\d+) requests left out", told)[1])
    assert len(lines) - 1 + left_out == 2 * MOST + 1
    assert all(line.endswith("x" * 100) for line in lines)


def read_lines(file):
    with open(file, "rb", closefd=False) as opened:
        return opened.read().decode().splitlines()


def test_the_end_does_not_wait_for_a_reader_that_has_stopped(pipe):
    log = AccessLog(lambda _served: "x" * 1000, pipe[1])
    for _ in range(MOST):
        log.add(ONE)
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < 5


def test_a_reader_that_has_gone_hurts_nobody(pipe):
    os.close(pipe[0])
    log = AccessLog(lambda _served: "x", pipe[1])
    log.add(ONE)
    log.close()
    assert not log._thread.is_alive()


# -- what a server says


class Kept:
    def __init__(self):
        self.lines = []

    def add(self, served):
        self.lines.append(served)


@pytest.mark.process
def test_a_server_tells_of_every_request_also_of_those_that_the_app_never_saw():
    with contextlib.ExitStack() as stack:
        log = Kept()
        server = Server(stack, access_log=log)
        client = server.client()
        client.request("POST", "/a?secret=1", body=b"abc", headers={"X-Request-Id": "mine"})
        assert answer(client) == (200, b"3\n")
        client.request("GET", "/b")
        assert answer(client) == (200, b"0\n")
        wait_until(lambda: len(log.lines) == 2)
        first, second = log.lines
        assert (first.method, first.path, first.status, first.size, first.request_id) == (
            "POST",
            "/a",
            200,
            2,
            "mine",
        )
        assert (second.method, second.size, first.route) == ("GET", 2, "other")
        assert 0 <= first.seconds < 10 and abs(first.at - time.time()) < 60
        raw = server.raw()
        raw.sendall(b"\x00\r\n\r\n")
        assert raw.recv(4096).split(b" ")[1] == b"400"
        wait_until(lambda: len(log.lines) == 3)
        assert log.lines[2].status == 400
        server.fill()
        assert answer(server.ask("/more"))[0] == 503
        wait_until(lambda: len(log.lines) == 4)
        assert (log.lines[3].status, log.lines[3].path) == (503, "/more")


@pytest.mark.process
@pytest.mark.parametrize("logged", [True, False])
def test_an_app_that_raises_is_answered_500_and_its_connection_ends(logged):
    with contextlib.ExitStack() as stack:
        log = Kept() if logged else None
        server = Server(stack, access_log=log)
        raw = server.raw()
        raw.sendall(b"GET /raises HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while more := raw.recv(65536):  # to its end
            said += more
        assert said.split(b" ")[1] == b"500"
        if logged:
            wait_until(lambda: log.lines)
            assert [(line.status, line.path) for line in log.lines] == [(500, "/raises")]


@pytest.mark.process
def test_the_time_of_a_request_includes_what_it_waited_for_a_thread():
    with contextlib.ExitStack() as stack:
        log = Kept()
        server = Server(stack, access_log=log)
        clients = server.fill()
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 0.2)
        server.app.opened.set()
        assert {answer(client)[0] for client in clients} == {200}
        wait_until(lambda: len(log.lines) == len(clients))
        assert min(line.seconds for line in log.lines) >= 0.2
