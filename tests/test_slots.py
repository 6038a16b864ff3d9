"""Streams and long polls on a real service: they never take all of it, and whoever vanishes is forgotten."""

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import struct
import threading
import time
from urllib.parse import urlsplit

import psutil
import pytest
from http_load import running
from support import wait_until

pytestmark = pytest.mark.process
ROUNDS = int(os.environ.get("COUNTER_TEST_SLOT_ROUNDS", "15"))

WORKERS = 3
SLOTS = WORKERS * 4  # of 8 threads each
FREED_SECONDS = 20
RESET = struct.pack("ii", 1, 0)


class Service:
    """A service of several workers, and what is asked of it."""

    def __init__(self, process, url):
        self.process = process
        self.address = (urlsplit(url).hostname, urlsplit(url).port)

    def ask(self, method, path):
        """Status and JSON of the answer."""
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=30)) as client:
            client.request(method, path)
            response = client.getresponse()
            return response.status, json.loads(response.read())

    def increment(self, name):
        """Repeated where a burst of others was in the way: with a 503 nothing was applied."""
        status, body = wait_until(lambda: self._tried("POST", f"/v1/counters/{name}/increment"))
        assert status == 200, body
        return body["value"]

    def _tried(self, method, path):
        status, body = self.ask(method, path)
        return status != 503 and (status, body)

    def newest(self):
        page = wait_until(lambda: self._tried("GET", "/v1/changes?limit=1000"))[1]
        assert not page["more"]
        return page["version"]

    def send(self, path, headers="", method="GET"):
        """A socket on which *path* was asked for."""
        client = socket.create_connection(self.address, timeout=30)
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        return client

    def workers(self):
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if child.status() != psutil.STATUS_ZOMBIE and "counter.worker" in child.cmdline()
        ]

    def worker_of(self, client):
        """The worker that has the other end of *client*."""
        port = client.getsockname()[1]

        def find():
            for worker in self.workers():
                for each in worker.net_connections("tcp4"):
                    if each.raddr and each.raddr.port == port:
                        return worker
            return None

        return wait_until(find)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    home = tmp_path_factory.mktemp("slots") / "home"
    with running("--workers", str(WORKERS), "--durability", "memory", home=home) as (process, url):
        yield Service(process, url)


class Stream:
    """A stream that was let in; one that was not is told by `status`."""

    def __init__(self, service, path="/v1/events", last=None):
        self.client = http.client.HTTPConnection(*service.address, timeout=30)
        self.client.request("GET", path, headers={"Last-Event-ID": last} if last else {})
        self.response = self.client.getresponse()
        self.socket = self.response.fp.raw._sock
        self.status = self.response.status

    def message(self):
        """The next message's body; None where the stream has ended."""
        last = None
        while line := self.response.readline():
            if line.startswith(b"id: "):
                last = line[4:-1].decode()
            if line.startswith(b"data: "):
                assert self.response.readline() == b"\n"
                page = json.loads(line[6:])
                assert page["version"] == last
                return page
        return None

    def close(self):
        self.response.close()
        self.client.close()


def status_of(client):
    """The status of the answer on a socket, which has begun."""
    data = client.recv(65536)
    assert data.startswith(b"HTTP/1.1 "), data
    return int(data.split()[1])


class Load:
    """Increments, one after the other, until the end of the block; how long each answered one took."""

    def __init__(self, service, name):
        self.service, self.name = service, name
        self.values, self.seconds, self.refused = [], [], 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._done.is_set():
            begun = time.monotonic()
            status, body = self.service.ask("POST", f"/v1/counters/{self.name}/increment")
            assert (status, body.get("code")) in ((200, None), (503, "overloaded")), (status, body)
            if status == 200:
                self.seconds.append(time.monotonic() - begun)
                self.values.append(body["value"])
            else:
                self.refused += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def p99(seconds):
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1000


def answered(clients, seconds):
    """Of the sockets *clients*, those on which something came within *seconds*."""
    end, got = time.monotonic() + seconds, set()
    while (left := end - time.monotonic()) > 0 and len(got) < len(clients):
        poller = select.poll()
        for client in clients - got:
            poller.register(client, select.POLLIN)
        by_file = {client.fileno(): client for client in clients - got}
        got |= {by_file[file] for file, _ in poller.poll(left * 1000)}
    return got


def test_a_hundred_polls_and_a_hundred_streams_leave_room_for_others(service):
    with Load(service, "alone") as alone:
        wait_until(lambda: len(alone.values) >= 300)
    since = service.newest()
    with contextlib.ExitStack() as stack, Load(service, "beside") as load:
        begun = time.monotonic()
        polls, streams = set(), set()
        poll, stream = (polls, "changes?wait=55&"), (streams, "events?")
        for kind, path in [poll] * WORKERS + [stream, poll] * (100 - WORKERS) + [stream] * WORKERS:
            client = service.send(f"/v1/{path}since={since}&prefix=w:")
            kind.add(stack.enter_context(client))
        told = answered(streams, 20) | answered(polls, 1)
        seconds = time.monotonic() - begun
        statuses = {client: status_of(client) for client in told}
        assert {*statuses.values()} <= {200, 503}
        held = {client for client in polls if client not in told}
        let_in = {client for client in streams if statuses[client] == 200}
        refused = sum(statuses[client] == 503 for client in polls - held)
        assert streams <= told and 0 < len(held) + len(let_in) <= SLOTS
        seen = len(load.values)
        wait_until(lambda: len(load.values) >= seen + 1000, 60)
        begun = time.monotonic()
        service.increment("w:x")
        assert answered(held, 20) == held
        woken = time.monotonic() - begun
        assert {status_of(client) for client in held} <= {200}
    assert load.values == [*range(1, len(load.values) + 1)]
    print(
        f"200 at once: {len(let_in)} streams and {len(held)} polls kept, {100 - len(let_in)} streams and "
        f"{refused} polls answered 503, {100 - len(held) - refused} polls at once, all in {seconds:.2f} s; "
        f"{load.refused} increments refused in the burst; p99 of {len(load.seconds)} others "
        f"{p99(load.seconds):.1f} ms (alone {p99(alone.seconds):.1f} ms); "
        f"polls woken in {woken * 1000:.0f} ms"
    )


def fill(service, since):
    """Sockets that have all slots, some by polls; fail if that takes too long."""
    clients, begun = [], time.monotonic()
    while len(clients) < SLOTS:
        assert time.monotonic() - begun < FREED_SECONDS, f"{len(clients)} of {SLOTS} slots are free"
        is_poll = len(clients) < WORKERS
        path = "changes?wait=55&" if is_poll else "events?"
        client = service.send(f"/v1/{path}since={since}&prefix=none:")
        came = answered({client}, 0.3 if is_poll else 30)
        if not came if is_poll else came and status_of(client) == 200:
            clients.append(client)
        else:
            client.close()
            time.sleep(0.02)
    return clients, time.monotonic() - begun


def vanish(clients):
    """Some with a reset, some by closing."""
    for at, client in enumerate(clients):
        if at % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()


def fill_and_vanish(service, rounds):
    since, taken = service.newest(), []
    for _ in range(rounds):
        clients, seconds = fill(service, since)
        taken.append(seconds)
        client = service.send("/v1/events")
        assert status_of(client) == 503
        client.close()
        assert service.ask("GET", "/livez")[0] == 200
        vanish(clients)
    print(
        f"{rounds} times all {SLOTS} slots were taken and left; the longest until again: {max(taken):.2f} s"
    )


def test_the_slots_of_those_who_vanish_are_free_again(service):
    fill_and_vanish(service, 5)


def test_who_had_sent_another_request_and_vanished_is_noticed_too(service):
    """waitress reads no further behind a second request, and so does not see the end."""
    since = service.newest()
    clients, _ = fill(service, since)
    for client in clients:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    vanish(clients)
    clients, seconds = fill(service, since)
    assert seconds < FREED_SECONDS
    vanish(clients)


@pytest.mark.long
def test_the_slots_of_those_who_vanish_are_free_again_and_again(service):
    fill_and_vanish(service, ROUNDS)


def test_a_stream_goes_on_elsewhere_after_its_worker_was_killed(service):
    name = "resumed"
    service.increment(name)
    last, seen, pids = None, [], set()
    for _ in range(3):
        events = admitted(service, last)
        page = events.message()
        assert page["complete"] is (last is None)
        worker = service.worker_of(events.socket)
        worker.send_signal(signal.SIGKILL)
        pids.add(worker.pid)
        expected = [service.increment(name) for _ in range(3)][-1]
        while page is not None:  # what was told before it was killed
            last = page["version"]
            seen += [entry["value"] for entry in page["counters"] if entry["name"] == name]
            with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
                page = events.message()
                continue
            page = None
        events.close()
        assert seen[-1] < expected
    assert len(pids) == 3
    assert seen == [1, 4, 7]
    wait_until(lambda: len(service.workers()) == WORKERS)


def admitted(service, last=None):
    """A stream, where the first ones that are tried may find their worker full."""

    def try_one():
        with contextlib.suppress(ConnectionError, http.client.RemoteDisconnected):  # of a killed worker
            events = Stream(service, last=last)
            if events.status == 200:
                return events
            events.close()
        return None

    return wait_until(try_one)


def test_a_worker_that_ends_closes_its_streams_in_order(service):
    client = service.send("/v1/events")
    assert status_of(client) == 200
    worker = service.worker_of(client)
    begun = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    data = b""
    while more := client.recv(65536):
        data += more
    assert data.endswith(b"0\r\n\r\n")  # the last chunk
    assert time.monotonic() - begun < 5
    client.close()
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    wait_until(lambda: len(service.workers()) == WORKERS)


def test_head_is_answered_with_headers_and_nothing_more(service):
    with service.send("/v1/events", method="HEAD") as client:
        data = b""
        while more := client.recv(65536):
            data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    assert (rest, head.split(b"\r\n")[0]) == (b"", b"HTTP/1.1 200 OK")
    assert b"text/event-stream" in head and not re.search(rb"(?i)content-length", head)


def test_who_reads_late_is_told_how_it_is_then(service):
    ops = [{"op": "set", "name": f"late:{number:05}", "value": 0} for number in range(9000)]
    with contextlib.closing(http.client.HTTPConnection(*service.address, timeout=60)) as client:
        for at in range(0, len(ops), 3000):
            body = json.dumps({"ops": ops[at : at + 3000]})
            client.request("POST", "/v1/batch", body, {"Content-Type": "application/json"})
            assert client.getresponse().read().startswith(b'{"results"')
    events = admitted(service)
    known = {}
    for _ in range(5):
        service.increment("late:08999")
    while known.get("late:08999") != 5:
        page = events.message()
        known |= {entry["name"]: entry["value"] for entry in page["counters"]}
    assert len([name for name in known if name.startswith("late:")]) == 9000
    events.close()
