"""The gateway between granian and an app, and real workers under both servers."""

import contextlib
import http.client
import io
import json
import signal
import sys
import threading

import psutil
import pytest
from support import COMMAND, start_process, wait_until

from counter import InvalidRequest
from counter.gateway import Gateway
from counter.worker import load_server


class Protocol:
    """granian's end of one request: keeps what is answered."""

    def response_bytes(self, status, headers, body):
        self.status, self.headers, self.body = status, dict(headers), body

    def response_iter(self, status, headers, pieces):
        self.status, self.headers, self.body = status, dict(headers), []
        try:
            while True:
                self.body.append(pieces.__next__())
        except StopIteration:
            pieces.close()


def ask(gateway, body=b"", protocol=None, **environ):
    protocol = protocol or Protocol()
    head = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    head["CONTENT_LENGTH"] = str(len(body))
    gateway(protocol, head | {"wsgi.input": io.BytesIO(body)} | environ)
    return protocol


def gateway(app, threads=1, log=None, most=100, ending=False):
    return Gateway(app, threads, ["/livez"], log, most, lambda: ending)


def echo(environ, start_response):
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def never(environ, start_response):
    raise AssertionError("the app was asked")


@pytest.mark.parametrize(
    ("status", "body", "environ"),
    [
        (411, b"x", {"HTTP_TRANSFER_ENCODING": "chunked"}),
        (413, b"x" * 101, {}),
        (400, b"x", {"CONTENT_LENGTH": "2"}),
        (431, b"", {"HTTP_X": "x" * 40_000}),
    ],
)
def test_what_is_no_whole_request_never_reaches_the_app(status, body, environ):
    answer = ask(gateway(never), body, **environ)
    assert (answer.status, answer.headers["Connection"]) == (status, "close")
    assert answer.headers["X-Request-Id"]


def test_an_app_finds_the_whole_body_and_what_waitress_would_tell_it():
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        return echo(environ, start_response)

    answer = ask(gateway(app), b"12345", HTTP_X_REQUEST_ID="order-7", SERVER_PROTOCOL="HTTP/1")
    assert answer.body == b"12345"
    assert seen["counter.arrived"] > 0
    assert (seen["counter.request_id"], seen["SERVER_PROTOCOL"]) == ("order-7", "HTTP/1.0")


def test_an_app_that_answers_as_it_goes_is_sent_piece_by_piece_and_closed_once():
    closed = []

    class Body:
        def __iter__(self):
            started("201 Created", [("X-A", "b")])
            yield from (b"", b"one", b"two")

        def close(self):
            closed.append(1)

    def app(environ, start_response):
        nonlocal started
        started = start_response
        return Body()

    started, log = None, []
    answer = ask(gateway(app, log=type("Log", (), {"add": lambda self, served: log.append(served)})()))
    assert (answer.status, answer.headers["X-A"], answer.body) == (201, "b", [b"one", b"two"])
    assert closed == [1]
    assert [(served.status, served.size) for served in log] == [(201, 6)]


def test_an_app_that_fails_is_500_and_its_place_is_free_again(caplog):
    served = gateway(lambda environ, start_response: 1 // 0)
    assert [ask(served).status for _ in range(3)] == [500, 500, 500]
    assert "ZeroDivisionError" in caplog.text


def saying(status="200 OK", *headers, body=(b"ok",), first=lambda: None):
    """An app that answers so."""

    def app(environ, start_response):
        first()
        start_response(status, list(headers))
        return body

    return app


class Failing(list):
    """A body whose end fails."""

    def close(self):
        raise OSError("the end")


def leave():
    raise SystemExit


@pytest.mark.parametrize(
    "app",
    [
        saying(first=leave),
        saying("OK"),
        saying("0 Created"),
        saying("99 OK"),
        saying("1000 OK"),
        saying("200 OK", ("X-A", 1)),
        saying("200 OK", ("X-A", "\udcff")),
        saying("200 OK", ("X-A", "€")),
        saying("302 Found", ("Location", "/a\r\nSet-Cookie: b=c")),
        lambda environ, start_response: [b"ok"],
        lambda environ, start_response: [start_response("200 OK", []), start_response("201 Created", [])],
    ],
)
def test_an_answer_that_is_none_is_500_and_its_place_is_free_again(app, caplog):
    served = gateway(app)
    for _ in range(3):
        answer = ask(served)
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert "the app failed" in caplog.text


def streaming(environ, start_response):
    start_response("200 OK", [])
    yield b"one"


@pytest.mark.parametrize("app", [echo, streaming])
def test_a_protocol_that_refuses_an_answer_takes_no_place(app):
    class Refusing(Protocol):
        def response_bytes(self, status, headers, body):
            raise TypeError

        response_iter = response_bytes

    served = gateway(app)
    for _ in range(3):
        with pytest.raises(TypeError):
            ask(served, protocol=Refusing())
        assert served._places._in_flight == 0
    assert ask(served).status == 200


def test_a_body_that_is_not_as_long_as_it_says_is_sent_in_pieces():
    """Only then does granian keep to the length; else what is more would be read as the next answer."""
    for body, length in ((b"hello world", "5"), (b"hello", "50")):
        answer = ask(gateway(saying("200 OK", ("Content-Length", length), body=[body])))
        assert answer.body == [body]
    same = ask(gateway(saying("200 OK", ("Content-Length", "5"), body=[b"hello"])))
    assert same.body == b"hello"
    head = ask(gateway(saying("200 OK", ("Content-Length", "5"), body=[])), REQUEST_METHOD="HEAD")
    assert head.body == b""


def test_an_error_at_the_end_of_an_answer_is_logged_and_the_answer_stays(caplog):
    answer = ask(gateway(saying(body=Failing([b"ok"]))))
    assert (answer.status, answer.body) == (200, b"ok")
    assert "OSError: the end" in caplog.text


def test_an_error_after_the_beginning_cannot_become_another_answer():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        try:
            raise OSError("in the middle")
        except OSError:
            start_response("500 Oh", [], sys.exc_info())
        yield b"error page"

    with pytest.raises(OSError, match="in the middle"):
        ask(gateway(app))


def test_a_header_in_utf_8_leaves_as_the_bytes_that_it_came_as():
    answer = ask(gateway(saying("200 OK", ("X-A", "caf\xc3\xa9"), ("X-B", "caf\xe9"))))
    assert (answer.headers["X-A"], answer.headers["X-B"]) == ("café", "caf\xe9")


def test_more_than_twice_the_threads_are_turned_away_and_probes_are_not():
    inside, leave = threading.Semaphore(0), threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/livez":
            inside.release()
            leave.wait(10)
        return echo(environ, start_response)

    served = gateway(app)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(served).status)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=10)
    wait_until(lambda: served._places._in_flight == 2)
    refused = ask(served)
    assert (refused.status, json.loads(refused.body)["code"]) == (503, "overloaded")
    assert ask(served, PATH_INFO="/livez").status == 200
    leave.set()
    for thread in threads:
        thread.join(10)
    assert answers == [200, 200]
    assert ask(served).status == 200


def test_who_is_answered_at_the_end_is_told_to_close():
    assert ask(gateway(echo, ending=True)).headers["Connection"] == "close"
    assert "Connection" not in ask(gateway(echo)).headers


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "granian", None)
    monkeypatch.delitem(sys.modules, "counter.granian_server", raising=False)
    with pytest.raises(InvalidRequest, match=r"--server: .*counterd\[granian\]"):
        load_server("granian", "--server")


def test_another_server_is_refused_by_the_name_it_came_under():
    with pytest.raises(InvalidRequest, match="COUNTER_SERVER is waitress or granian, not 'apache'"):
        load_server("apache")


class Client(threading.Thread):
    """Increments over one connection, as long as the server keeps it, until it is told to stop."""

    def __init__(self, port, times=10**6):
        super().__init__(daemon=True)
        self.port, self.times = port, times
        self.values, self.broken = [], []
        self.stopped = threading.Event()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        for _ in range(self.times):
            if self.stopped.is_set():
                break
            try:
                connection.request("POST", "/v1/counters/page/increment")
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(error)
                connection.close()
            else:
                assert answer.status == 200, told
                self.values.append(told["value"])
        connection.close()


def probe(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
    connection.close()
    return status


def workers(process):
    found = set()
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, and nobody took note yet
            found |= {child} if "counter.worker" in child.cmdline() else set()
    return found


def is_replaced(process, victim, said):
    """Whether *victim* is gone, and another is ready in its place."""
    return victim not in workers(process) and process.stderr.count(" is ready") > said


def count(clients):
    for client in clients:
        client.start()


@pytest.mark.process
@pytest.mark.parametrize("server", ["waitress", "granian"])
def test_workers_count_exactly_and_are_replaced_and_end_without_loss(tmp_path, server):
    home = tmp_path / "home"
    command = [*COMMAND, "run", "--home", home, "--workers", "2", "--port", "0", "--server", server]
    with start_process(command) as process:
        port = int(process.line("ready").split()[1].rpartition(":")[2])
        first = [Client(port, 100) for _ in range(4)]
        count(first)
        for client in first:
            client.join(20)
        values = sorted(value for client in first for value in client.values)
        assert values == list(range(1, 401))

        said, victim = process.stderr.count(" is ready"), min(workers(process), key=lambda one: one.pid)
        victim.kill()
        wait_until(lambda: is_replaced(process, victim, said))
        assert probe(port) == 200

        others = [Client(port) for _ in range(4)]
        count(others)
        for victim in workers(process):  # one after the other, under load
            said = process.stderr.count(" is ready")
            victim.send_signal(signal.SIGTERM)
            wait_until(lambda v=victim, s=said: is_replaced(process, v, s))
        for client in others:
            client.stopped.set()
            client.join(20)
        assert [client.broken for client in others] == [[]] * 4
        values += sorted(value for client in others for value in client.values)
        assert values == list(range(1, len(values) + 1))

        with start_process([*COMMAND, "stop", "--home", home]) as stop:
            assert stop.wait() == 0
        assert process.wait() == 0
