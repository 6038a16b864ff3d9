"""The limit on what is in flight, and the end that loses nothing, on a real waitress in this process."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
from support import wait_until

from counter import waitress_server
from counter.waitress_channel import Channel
from counter.waitress_server import WaitressServer

pytestmark = pytest.mark.process  # real sockets and threads

THREADS = 2
LARGE = 20_000_000


class Gate:
    """An app whose requests for /wait are answered when it is opened."""

    def __init__(self):
        self.opened = threading.Event()
        self.inside = threading.Semaphore(0)
        self.seen = []

    def __call__(self, environ, start_response):
        self.seen.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/wait":
            self.inside.release()
            assert self.opened.wait(20)
        if environ["PATH_INFO"] == "/raises":
            raise ValueError("as it is told to")
        size = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"{len(size)}\n".encode()
        if environ["PATH_INFO"] == "/large":
            body = bytes(LARGE)
        if environ["PATH_INFO"] == "/slow":
            body = b"abcd"
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return self.in_halves(body) if environ["PATH_INFO"] == "/slow" else [body]

    def in_halves(self, body):
        yield body[:2]
        assert self.opened.wait(20)
        yield body[2:]


class Served:
    """A server in a thread, its app, and clients for it."""

    def __init__(self, stack, grace=10.0, **settings):
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._stack = stack
        self.app = Gate()
        self.address = listener.getsockname()
        self.server = WaitressServer(self.app, listener, THREADS, **settings)
        self.thread = threading.Thread(target=self.server.run, args=[grace])
        self.thread.start()
        stack.callback(self.end)

    def end(self):
        self.app.opened.set()
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def client(self):
        client = http.client.HTTPConnection(*self.address, timeout=20)
        self._stack.callback(client.close)
        return client

    def ask(self, path, client=None):
        """A client that has sent a request for *path*."""
        client = client or self.client()
        client.request("GET", path)
        return client

    def raw(self):
        client = self._stack.enter_context(socket.create_connection(self.address, timeout=20))
        client.settimeout(20)
        return client

    def fill(self, queued=THREADS):
        """Clients that keep each thread busy, and *queued* more: by default, all that is admitted at once."""
        clients = [self.ask("/wait") for _ in range(THREADS)]
        for _ in clients:
            assert self.app.inside.acquire(timeout=20)
        clients += [self.ask("/wait") for _ in range(queued)]
        in_flight = self.server._dispatcher._in_flight
        wait_until(lambda: len(in_flight) == THREADS + queued)
        return clients


@pytest.fixture
def served():
    with contextlib.ExitStack() as stack:
        yield Served(stack)


def answer(client):
    response = client.getresponse()
    return response.status, response.read()


def test_requests_up_to_twice_the_threads_wait_and_are_served(served):
    clients = served.fill()
    served.app.opened.set()
    assert [answer(client)[0] for client in clients] == [200] * len(clients)


def test_one_more_is_answered_503_at_once_while_every_thread_is_busy(served):
    served.fill()
    response = served.ask("/more").getresponse()
    problem = json.loads(response.read())
    assert response.status == problem["status"] == 503
    assert problem["code"] == "overloaded"
    assert problem["type"] == "/problems/overloaded"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Retry-After"] == "1"
    assert "/more" not in served.app.seen


def test_a_request_with_a_body_is_turned_away_as_well(served):
    served.fill()
    client = served.client()
    client.request("POST", "/more", body=b"x" * 100_000)
    assert answer(client)[0] == 503


def test_what_is_no_request_waits_for_no_thread(served):
    served.fill(queued=0)
    client = served.client()
    client.putrequest("POST", "/more")
    client.putheader("Content-Length", str(2**40))
    client.endheaders()
    assert answer(client)[0] == 413
    assert len(served.server._dispatcher._in_flight) == THREADS  # nobody has left meanwhile


def test_who_was_turned_away_is_served_when_there_is_room_again(served):
    clients = served.fill()
    assert answer(served.ask("/more"))[0] == 503
    served.app.opened.set()
    for client in clients:
        assert answer(client)[0] == 200
    assert answer(served.ask("/more"))[0] == 200


def test_as_many_clients_as_are_admitted_are_never_turned_away_however_fast_they_are(served):
    """A client that has its answer sends again before the thread that answered is free."""
    statuses = []

    def hammer(client):
        for _ in range(300):
            served.ask("/", client)
            statuses.append(answer(client)[0])

    threads = [threading.Thread(target=hammer, args=[served.client()]) for _ in range(2 * THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [200] * (300 * len(threads))


def test_pipelined_requests_of_one_client_are_all_served_in_order(served):
    client = served.raw()
    client.sendall(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    data = b"".join(iter(lambda: client.recv(4096), b""))
    assert data.count(b"200 OK") == 2
    assert served.app.seen == ["/1", "/2"]


def test_many_pipelined_requests_are_all_served(served):
    """More than are read ahead: the loop is told when there is room again."""
    client = served.raw()
    for number in range(1, 7):
        client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    data = b""
    while data.count(b"200 OK") < 6:
        data += client.recv(4096)
    assert served.app.seen == [f"/{number}" for number in range(1, 7)]


def test_a_short_answer_is_sent_at_once_and_wakes_nobody_else(served, monkeypatch):
    """One packet wakes the client up once; and the loop, which waits for the next request, sleeps on."""
    sent, woken = [], []
    send, wake = Channel.send, served.server._server.trigger.pull_trigger
    monkeypatch.setattr(Channel, "send", lambda *args, **named: sent.append(args[1]) or send(*args, **named))
    monkeypatch.setattr(served.server._server.trigger, "pull_trigger", lambda: woken.append(True) or wake())
    client = served.client()
    for _ in range(3):
        assert answer(served.ask("/", client)) == (200, b"0\n")
        (channel,) = served.server._server.active_channels.values()
        wait_until(
            lambda channel=channel: not channel.requests
        )  # else the next one is read ahead, which the loop has to know
    assert [data.count(b"200 OK") for data in sent] == [1, 1, 1]
    assert all(data.endswith(b"\r\n\r\n0\n") for data in sent)
    assert woken == []


def test_a_long_answer_goes_on_when_the_client_reads_on(served):
    """What does not fit into the socket is left to the loop, which has to know."""
    client = served.ask("/large")
    response = client.getresponse()
    assert len(response.read()) == LARGE
    assert answer(served.ask("/", client)) == (200, b"0\n")


def test_stopping_finishes_what_runs_is_queued_or_half_read(served):
    half = served.raw()
    half.sendall(b"POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    wait_until(lambda: any(channel.request for channel in served.server._server.active_channels.values()))
    clients = served.fill(queued=1)
    served.server.stop()
    wait_until(lambda: not served.server._server.accepting)
    half.sendall(b"cd")
    served.app.opened.set()
    for client in clients:
        response = client.getresponse()
        assert (response.status, response.read()) == (200, b"0\n")
        assert response.headers["Connection"] == "close"
    data = b"".join(iter(lambda: half.recv(4096), b""))
    assert data.startswith(b"HTTP/1.1 200 OK")
    assert data.endswith(b"\r\n\r\n4\n")
    served.thread.join(20)
    assert not served.thread.is_alive()


def test_a_client_that_sends_just_when_the_server_stops_is_answered_and_told_to_close(served):
    client = served.ask("/")
    assert answer(client)[0] == 200
    served.server.stop()
    wait_until(lambda: not served.server._server.accepting)
    response = served.ask("/again", client).getresponse()
    assert (response.status, response.headers["Connection"]) == (200, "close")


def test_an_answer_that_had_begun_before_does_not_hold_up_the_end(monkeypatch):
    """Its header could not say that the connection is closed; it is, as soon as all of it was sent."""
    monkeypatch.setattr(waitress_server, "IDLE_SECONDS", 0.0)
    with contextlib.ExitStack() as stack:
        served = Served(stack, grace=100.0)
        response = served.ask("/slow").getresponse()
        assert response.headers["Connection"] is None
        served.server.stop()
        wait_until(lambda: not served.server._server.accepting)
        served.app.opened.set()
        assert response.read() == b"abcd"
        served.end()


def test_idle_connections_do_not_hold_up_the_end(served):
    client = served.ask("/")
    assert answer(client)[0] == 200
    served.raw()
    served.server.stop()
    served.thread.join(5)
    assert not served.thread.is_alive()


def test_after_the_grace_a_request_that_hangs_is_left(caplog):
    with contextlib.ExitStack() as stack:
        served = Served(stack, grace=0.1)
        served.ask("/wait")
        assert served.app.inside.acquire(timeout=20)
        began = time.monotonic()
        served.server.stop()
        served.thread.join(20)
        assert not served.thread.is_alive()
        assert time.monotonic() - began < 10
        served.app.opened.set()
        wait_until(lambda: not served.server._dispatcher.threads)


def test_large_headers_are_refused(served):
    client = served.client()
    client.request("GET", "/", headers={"X-Large": "x" * 40_000})
    assert answer(client)[0] == 431


def test_a_body_above_the_cap_is_refused_by_waitress():
    with contextlib.ExitStack() as stack:
        served = Served(stack, max_request_body_size=1000)
        client = served.client()
        client.request("POST", "/", body=b"x" * 1001)
        assert answer(client)[0] == 413


def answers(client, times):
    """The bodies of that many answers."""
    stream = client.makefile("rb")
    for _ in range(times):
        length = 0
        while (line := stream.readline()) != b"\r\n":
            assert line
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        yield stream.read(length)


def test_a_client_that_reads_nothing_is_asked_to_read_before_it_is_answered_on(served):
    """Else many requests at once, and nobody who reads, fill the memory and then hold every thread."""
    client = served.raw()
    client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
    wait_until(lambda: served.app.seen)
    (channel,) = served.server._server.active_channels.values()
    wait_until(lambda: channel._later)
    assert answer(served.ask("/")) == (200, b"0\n")
    assert served.app.seen == ["/large", "/"]
    assert [len(body) for body in answers(client, 3)] == [LARGE] * 3
    assert served.app.seen == ["/large", "/", "/large", "/large"]


def test_requests_that_wait_for_their_reader_are_no_more_than_a_few(served):
    """The connection ends with the answer that nobody reads."""
    client = served.raw()
    client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    wait_until(
        lambda: [one for one in served.server._server.active_channels.values() if one.close_when_flushed]
    )
    data = sum(map(len, iter(lambda: client.recv(1 << 20), b"")))
    assert LARGE < data < LARGE + 1000
    assert served.app.seen == ["/large"]


def test_idle_connections_make_room_for_others_and_busy_ones_do_not():
    with contextlib.ExitStack() as stack:
        served = Served(stack, connection_limit=20)
        busy = served.ask("/wait")
        assert served.app.inside.acquire(timeout=20)
        crowd = [served.raw() for _ in range(50)]
        crowd[0].sendall(b"GET /half HTTP/1.1\r\n")
        assert answer(served.ask("/")) == (200, b"0\n")
        assert len(served.server._server.active_channels) < 20
        served.app.opened.set()
        assert answer(busy) == (200, b"0\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"0" * 100_000,
        b"1;x=" + b"y" * 100_000,
        b"0\r\n" + b"x: y\r\n" * 10_000,
    ],
    ids=["size", "extension", "trailer"],
)
def test_a_chunk_has_no_endless_line(served, sent):
    client = served.raw()
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):  # it is refused before all is sent
        client.sendall(sent)
    assert client.recv(12) == b"HTTP/1.1 400"
    assert not served.app.seen


@pytest.mark.parametrize(
    "head",
    [
        "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_body_with_two_ends_is_refused_and_what_follows_is_no_request(served, head):
    """Else a server in front of us, which sees the other end, passes on a request that it never looked at."""
    client = served.raw()
    client.sendall(f"{head}\r\nHost: a\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    data = b"".join(iter(lambda: client.recv(4096), b""))
    assert data.split(b" ")[1] == b"400"
    assert not served.app.seen


def test_a_chunked_body_is_read(served):
    client = served.client()
    client.request("POST", "/", body=iter([b"ab", b"cde"]))
    assert answer(client) == (200, b"5\n")
