"""The limit on what is in flight, and the end that loses nothing, on a real waitress in this process."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
from support import wait_until

from counter.waitress_server import WaitressServer

pytestmark = pytest.mark.process  # real sockets and threads

THREADS = 2


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
        size = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"{len(size)}\n".encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]


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
