"""Clients that want to hurt, on a real service: the honest ones are served all the same.

Each attack goes on for 5 s, or as many as COUNTER_TEST_HOSTILE_SECONDS says, such as 60. Meanwhile somebody
counts, one request after the other: 99 % are fine, no number is wrong, no process grows by more than 16 MiB,
and a second after the end all is as before.
"""

import contextlib
import http.client
import json
import os
import re
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psutil
import pytest
from faults import images
from http_load import running

pytestmark = [pytest.mark.process, pytest.mark.long]

SECONDS = float(os.environ.get("COUNTER_TEST_HOSTILE_SECONDS", "5"))
WORKERS = 2
FINE_SECONDS = 1.0
"""An answer that takes longer is none that is fine."""
GROWTH_MIB = 16
GIB = 1024**3
DESCRIPTORS = 2_500
JOURNAL_BYTES = 256 * 1024**2

HONEST = "/v1/counters/honest/increment"
HOST = b"Host: localhost\r\n"
LONG_PAGE = b"GET /v1/counters?limit=1000 HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/counters/hidden/increment HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


class Client:
    """One hostile connection: sends *first* and then *more* of it, again and again."""

    def __init__(self, address, crowd):
        self._left = memoryview(crowd.first)
        self._crowd = crowd
        self.sock = socket.socket()
        if crowd.buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, crowd.buffer)
        self.sock.setblocking(False)
        self.sock.connect_ex(address)

    def play(self):
        """Send what fits, read what came; whether the connection is still there."""
        try:
            if not self._left:
                self._left = memoryview(self._crowd.more)
            if self._left:
                sent = self.sock.send(self._left)
                self._left = self._left[sent:]
                self._crowd.sent += sent
        except BlockingIOError:
            pass
        except OSError:
            return False
        try:
            return not self._crowd.reads or self.sock.recv(65536) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


class Crowd:
    """*size* connections of one kind; one that was closed is replaced. At most *rush* are made at a time."""

    def __init__(self, size, first=b"", more=b"", reads=True, pace=0.1, buffer=0, rush=10_000):
        self.size = size
        self.rush = rush
        self.first = first
        self.more = more
        self.reads = reads
        self.pace = pace
        self.buffer = buffer
        self.sent = 0

    def play(self, address, over):
        """Until *over* is set."""
        clients = []
        while not over.wait(self.pace):
            for _ in range(min(self.size - len(clients), self.rush)):
                clients.append(Client(address, self))
            gone = [client for client in clients if not client.play()]
            for client in gone:
                client.sock.close()
            clients = [client for client in clients if client not in gone]
        for client in clients:
            client.sock.close()


class Service:
    """A service, how large its processes were at the most, and somebody who counts."""

    def __init__(self, process, url):
        self.address = (urlsplit(url).hostname, urlsplit(url).port)
        self.family = psutil.Process(process.pid).children(recursive=True)

    def sizes(self):
        return {process.pid: process.memory_info().rss for process in self.family}

    def connect(self):
        return contextlib.closing(http.client.HTTPConnection(*self.address, timeout=5))

    def ask(self, method, path, body=None):
        """The status of a request on a connection of its own."""
        with self.connect() as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            response.read()
            return response.status

    def count(self, until):
        """Count until then: how often it was fine, what else it was, and the most memory that was seen."""
        fine, others, last = 0, [], 0
        most = self.sizes()
        while time.monotonic() < until:
            with self.connect() as connection:
                for _ in range(10):
                    began = time.monotonic()
                    try:
                        connection.request("POST", HONEST)
                        response = connection.getresponse()
                        body = response.read()
                    except (OSError, http.client.HTTPException) as error:
                        others.append(repr(error))
                        break
                    seconds = time.monotonic() - began
                    if response.status != 200 or seconds > FINE_SECONDS:
                        others.append((response.status, round(seconds, 2)))
                        break
                    number = json.loads(body)["value"]
                    assert number > last
                    fine, last = fine + 1, number
                    time.sleep(0.005)
            now = self.sizes()
            most = {pid: max(most[pid], now[pid]) for pid in most}
        return fine, others, most


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home whose journal is in memory, where that can be had.

    Where another program keeps the disk busy, the manager waits for it and the threads for the manager:
    others are told Overloaded then, as they should be, and it is no attack that does it.
    """
    home = tmp_path_factory.mktemp("hostile") / "home"
    home.mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        if images.not_allowed() is None:
            stack.enter_context(images.tmpfs(home / "journal", JOURNAL_BYTES))
        yield home


@pytest.fixture(scope="module")
def service(home):
    """A service with a thousand counters of long names, that has been in use."""
    with running("--workers", str(WORKERS), home=home) as (process, url):
        service = Service(process, url)
        for _ in range(20):
            ops = [{"op": "set", "name": f"{number:0250}", "value": number} for number in range(1000)]
            assert service.ask("POST", "/v1/batch", json.dumps({"ops": ops})) == 200
            assert service.ask("GET", "/v1/counters?limit=1000") == 200
        with ThreadPoolExecutor(16) as pool:  # each thread of the workers has been as busy as it can be
            list(pool.map(lambda _: service.ask("GET", "/v1/counters?limit=1000"), range(200)))
        service.count(time.monotonic() + 1)
        yield service


@pytest.fixture(autouse=True)
def descriptors():
    """As many as the largest crowd needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        assert hard >= DESCRIPTORS or hard == resource.RLIM_INFINITY, (
            "too few descriptors for 2,000 connections"
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


ATTACKS = {
    "a flood of connections": [Crowd(1800), Crowd(200, b"GET /livez HT")],
    "header bombs": [
        Crowd(20, b"GET / HTTP/1.1\r\n" + HOST + b"X-Long: " + b"x" * 2**20),
        Crowd(20, b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 10_000 + b"\r\n"),
        Crowd(20, b"GET /" + b"x" * 2**20),
        Crowd(100, b"GET / HTTP/1.1\r\n" + HOST + b"X-Long: " + b"x" * 31_000),
    ],
    "a gibibyte": [
        Crowd(20, POST + b"Content-Length: %d\r\n\r\n" % GIB, bytes(2**20), pace=0.01),
        Crowd(4, POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % GIB, bytes(2**20), pace=0.01),
    ],
    "chunked bombs": [
        Crowd(5, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
        Crowd(5, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 65536),
        Crowd(5, POST + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"y" * 65536),
        Crowd(5, POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 10_000),
        Crowd(5, POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 4000 + b"\r\n", b"x" * 65536),
    ],
    "slow writers": [
        Crowd(100, b"GET / HTTP/1.1\r\n" + HOST + b"X-Slow: ", b"x"),
        Crowd(100, POST + b"Content-Length: 60000\r\n\r\n", b" "),
        Crowd(100, POST + b"Content-Length: 600000\r\n\r\n" + bytes(500_000), b" "),
        Crowd(100, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    "slow readers": [
        Crowd(40, LONG_PAGE * 100, reads=False, buffer=4096, rush=1),
        Crowd(40, LONG_PAGE * 10, buffer=1, rush=1),
    ],
}


@pytest.mark.parametrize("crowds", ATTACKS.values(), ids=list(ATTACKS))
def test_honest_clients_are_served_meanwhile(service, crowds):
    before = service.sizes()
    over = threading.Event()
    threads = [threading.Thread(target=crowd.play, args=[service.address, over]) for crowd in crowds]
    for thread in threads:
        thread.start()
    try:
        fine, others, most = service.count(time.monotonic() + SECONDS)
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
    began = time.monotonic()
    after = [service.ask("POST", HONEST) for _ in range(4)]
    took = time.monotonic() - began
    grown = {pid: (most[pid] - before[pid]) / 2**20 for pid in most}
    print(f"{fine} fine, {len(others)} not: {others[:5]}; grown by MiB: {grown}; fine after {took:.2f} s")
    assert all(crowd.sent >= len(crowd.first) * crowd.size // 2 for crowd in crowds), (
        "an attack that was none"
    )
    assert after == [200] * 4 and took < 1
    assert fine >= 99 * len(others), (fine, others)
    assert max(grown.values()) <= GROWTH_MIB, grown


HIDDEN = b"POST /v1/counters/hidden/increment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 5\r\n"
END = b"0\r\n\r\n"


def shapes():
    """Requests of which two servers could see different ends, by what is odd about them."""
    heads = {
        "both, the length first": LENGTH + CHUNKED,
        "both, the length last": CHUNKED + LENGTH,
        "a length of 0 and chunks": b"Content-Length: 0\r\n" + CHUNKED,
        "chunked twice": CHUNKED + CHUNKED,
        "chunked, chunked": b"Transfer-Encoding: chunked, chunked\r\n",
        "chunked, identity": b"Transfer-Encoding: chunked, identity\r\n",
        "identity, chunked": b"Transfer-Encoding: identity, chunked\r\n",
        "identity": b"Transfer-Encoding: identity\r\n",
        "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n",
        "xchunked": b"Transfer-Encoding: xchunked\r\n",
        "chunkedx": b"Transfer-Encoding: chunkedx\r\n",
        "in quotes": b'Transfer-Encoding: "chunked"\r\n',
        "with a parameter": b"Transfer-Encoding: chunked;q=1\r\n",
        "a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
        "a form feed": b"Transfer-Encoding: chunked\x0c\r\n",
        "x85": b"Transfer-Encoding: \x85chunked\r\n",
        "no coding": b"Transfer-Encoding: \r\n",
        "a comma": b"Transfer-Encoding: ,\r\n",
        "a space before the colon": b"Transfer-Encoding : chunked\r\n",
        "a tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
        "a space before the name": b"X: y\r\n Transfer-Encoding: chunked\r\n",
        "folded": b"Transfer-Encoding:\r\n chunked\r\n",
        "a bare line feed": b"X: y\nTransfer-Encoding: chunked\r\n",
        "a bare carriage return": b"X: y\rTransfer-Encoding: chunked\r\n",
        "a NUL in a name": b"Transfer-Encoding\x00: chunked\r\n",
        "a NUL in a value": b"Transfer-Encoding: chunked\x00\r\n",
        "no colon": b"Transfer-Encoding\r\n",
        "no name": b": chunked\r\n",
        "two lengths": LENGTH + b"Content-Length: 6\r\n",
        "one length twice": LENGTH + LENGTH,
        "a list of lengths": b"Content-Length: 5, 5\r\n",
        "a plus": b"Content-Length: +5\r\n",
        "a minus": b"Content-Length: -5\r\n",
        "hexadecimal": b"Content-Length: 0x5\r\n",
        "an underscore": b"Content-Length: 0_5\r\n",
        "a decimal": b"Content-Length: 5.0\r\n",
        "no length": b"Content-Length: \r\n",
        "letters": b"Content-Length: five\r\n",
        "a long length": b"Content-Length: " + b"9" * 5000 + b"\r\n",
        "a space before the colon of a length": b"Content-Length : 5\r\n",
        "a folded length": b"Content-Length:\r\n 5\r\n",
    }
    for name, head in heads.items():
        yield name, POST + head + b"\r\n" + END + HIDDEN
    bodies = {
        "a size with 0x": b"0x2\r\n{}\r\n" + END,
        "a size with a plus": b"+2\r\n{}\r\n" + END,
        "a size with a minus": b"-2\r\n{}\r\n" + END,
        "a size with an underscore": b"0_2\r\n{}\r\n" + END,
        "a size with a space": b" 2\r\n{}\r\n" + END,
        "a size and a space": b"2 \r\n{}\r\n" + END,
        "a size that ends in a line feed": b"2\n{}\r\n" + END,
        "a line feed in an extension": b"2;a\nb\r\n{}\r\n" + END,
        "a return in an extension": b"2;a\rb\r\n{}\r\n" + END,
        "a chunk longer than it says": b"2\r\n{}}\r\n" + END,
        "a chunk that ends in a line feed": b"2\r\n{}\n" + END,
        "a chunk that does not end": b"2\r\n{}" + END,
        "a size that wraps around": b"10000000000000002\r\n{}\r\n" + END,
    }
    for name, body in bodies.items():
        yield name, POST + CHUNKED + b"\r\n" + body + HIDDEN
    old = POST.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n"
    yield "chunks in HTTP/1.0", old + CHUNKED + b"\r\n" + END + HIDDEN
    yield "chunks and a length in HTTP/1.0", old + LENGTH + CHUNKED + b"\r\n" + END + HIDDEN
    yield "HTTP/2.0", POST.replace(b"1.1", b"2.0") + LENGTH + b"\r\n" + END + HIDDEN
    yield "HTTP/0.9", b"POST /v1/counters/hidden/increment\r\n" + LENGTH + b"\r\n" + END + HIDDEN
    yield "a line that is none", b"POST\r\n\r\n" + HIDDEN
    yield "spaces in the line", POST.replace(b" HTTP", b" x HTTP") + LENGTH + b"\r\n" + END + HIDDEN


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in shapes()])
def test_where_a_request_ends_is_plain(service, sent):
    """It is refused, and the connection ends: what follows is never a request, nor is it one itself."""
    with socket.create_connection(service.address, timeout=5) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # it did not read all that was sent
            while more := client.recv(65536):
                answer += more
    assert re.findall(rb"HTTP/1\.. (\d+)", answer) in ([b"400"], [b"501"], [b"421"], []), answer
    assert service.ask("GET", "/v1/counters/hidden") == 404
