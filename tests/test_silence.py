"""Silence does not hurt: peers that say nothing, or little, or never listen, cost the others nothing."""

import contextlib
import os
import resource
import select
import signal
import statistics
import time

import pytest
from manager_process import PATIENCE, start_manager
from support import wait_until

from counter import Get, Increment, Info, List, Request, Set
from counter.connections import STALLED_SECONDS, Connections
from counter.door import HANDSHAKE_SECONDS, MAX_STRANGERS, Door
from counter.fields import MAX_OPS
from counter.handshake import ClientHandshake
from counter.home import Home
from counter.wire import MAX_REPLY, encode_request, frame

pytestmark = pytest.mark.process

SLACK = 5.0
"""Seconds that a slow machine may take longer than promised."""


@pytest.fixture
def manager(tmp_path):
    with start_manager(tmp_path / "home") as manager:
        yield manager


@pytest.fixture(autouse=True)
def many_descriptors():
    """Enough of them in this process for every peer that a test plays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"only {hard} descriptors are to be had")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections that only wait until they are closed."""

    def __init__(self, manager, size):
        self._stack = contextlib.ExitStack()
        self._poll = select.poll()
        self.clients = [self._stack.enter_context(manager.dial()) for _ in range(size)]
        self._left = {client.sock.fileno(): index for index, client in enumerate(self.clients)}
        for file in self._left:
            self._poll.register(file, select.POLLIN)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._stack.close()

    @property
    def left(self):
        """Which of them are still connected, by their order."""
        return sorted(self._left.values())

    def look(self, timeout=0.0):
        """Read what has come within *timeout* seconds; whether nobody is left."""
        for file, _ in self._poll.poll(timeout * 1000):
            client = self.clients[self._left[file]]
            try:
                ended = not client.sock.recv(65536)
            except ConnectionResetError:
                ended = True
            if ended:
                self._poll.unregister(file)
                del self._left[file]
        return not self._left


def percentiles(seconds):
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"p50 {statistics.median(ordered) * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms of {len(ordered)}", p99


def timed(call):
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def test_a_thousand_silent_or_wrong_strangers_are_shown_out_and_nobody_waits_for_them(manager):
    with manager.connect() as friend, contextlib.ExitStack() as stack:
        old, new = [], []
        before = manager.descriptors, manager.threads

        def honest_calls():
            old.append(timed(lambda: friend.request(Increment("a")).unwrap()))
            new.append(timed(lambda: manager.connect().close()))

        honest_calls()
        begun = time.monotonic()
        silent = stack.enter_context(Crowd(manager, 500))
        wrong = stack.enter_context(Crowd(manager, 500))
        for client in wrong.clients:
            client.send_frame(b"{sha256}" + bytes(32))
            if not len(old) % 10:
                honest_calls()
        while not wrong.look(0.005):
            honest_calls()
        wrong_gone = time.monotonic() - begun
        while not silent.look(0.005):
            honest_calls()
            assert time.monotonic() < begun + HANDSHAKE_SECONDS + SLACK, f"{len(silent.left)} are left"
        silent_gone = time.monotonic() - begun
        wait_until(lambda: manager.descriptors <= before[0])
        assert manager.threads == before[1]
        told, old_p99 = percentiles(old)
        print(f"wrong ones gone in {wrong_gone:.2f} s, silent ones in {silent_gone:.2f} s; existing: {told}")
        told, new_p99 = percentiles(new)
        print(f"new connections: {told}")
        assert wrong_gone < HANDSHAKE_SECONDS + SLACK
        assert max(old_p99, new_p99) < 1.0
        assert len(old) > 100


def test_a_drip_is_cut_at_the_deadline_of_the_whole_handshake(manager):
    """Two bytes a second, before the proof of the key and behind it: being busy does not prolong it."""
    with manager.dial() as stranger, manager.dial() as half_way:
        begun = time.monotonic()
        assert stranger.receive().startswith(b"#CHALLENGE#")
        for answer in ClientHandshake(manager.authkey).receive(half_way.receive()):
            half_way.send_frame(answer)
        assert half_way.receive() == b"#WELCOME#"
        says = {stranger: frame(b"{sha256}" + bytes(32)), half_way: frame(b"#CHALLENGE#{sha256}" + bytes(40))}
        lasted = []
        while says:
            for client, data in says.items():
                client.send(data[:1])
                says[client] = data[1:]
            ended = select.select([client.sock for client in says], [], [], 0.5)[0]
            for client in [client for client in says if client.sock in ended]:
                assert client.receive() is None
                lasted.append(time.monotonic() - begun)
                del says[client]
            assert time.monotonic() < begun + HANDSHAKE_SECONDS + SLACK, lasted
        print("cut after", ", ".join(f"{seconds:.2f} s" for seconds in lasted))
        assert min(lasted) > HANDSHAKE_SECONDS - 0.5


def test_of_too_many_strangers_the_oldest_goes_and_the_newest_is_served(manager):
    extra = 88
    with manager.connect() as friend, Crowd(manager, MAX_STRANGERS) as first:
        begun = time.monotonic()
        wait_until(lambda: friend.request(Info()).only().manager.connections == MAX_STRANGERS + 1)
        with Crowd(manager, extra) as later:
            wait_until(lambda: first.look() or len(first.left) <= MAX_STRANGERS - extra)
            assert first.left == list(range(extra, MAX_STRANGERS))
            with manager.connect() as newest:
                assert newest.request(Increment("a")).only().value == 1
            later.look()
            assert len(later.left) == extra
            if time.monotonic() - begun < HANDSHAKE_SECONDS:  # else their time is up as well
                first.look()
                assert first.left == list(range(extra + 1, MAX_STRANGERS))
        assert friend.request(Increment("a")).only().value == 2


# Out of descriptors


def calls_for_a_second(friend):
    """Honest calls for about a second, one in a while; how long they took."""
    took, end = [], time.monotonic() + 1.0
    while time.monotonic() < end:
        took.append(timed(lambda: friend.request(Increment("a")).unwrap()))
        select.select([], [], [], 0.05)
    return took


def test_without_descriptors_it_does_not_spin_and_serves_whom_it_has(tmp_path):
    with start_manager(tmp_path / "home", open_files=64) as manager, contextlib.ExitStack() as stack:
        friends = [stack.enter_context(manager.connect()) for _ in range(25)]
        os.kill(manager.pid, signal.SIGSTOP)  # so that it finds them all at once
        crowd = stack.enter_context(Crowd(manager, 120))
        os.kill(manager.pid, signal.SIGCONT)
        wait_until(lambda: crowd.look() or "accepting no connection" in manager.stderr)
        used = manager.cpu_seconds
        took = calls_for_a_second(friends[0])
        crowd.look()
        used = manager.cpu_seconds - used
        print(f"{used:.2f} s of CPU in 1 s, {len(crowd.left)} of 120 left, slowest call {max(took):.4f} s")
        assert used < 0.5
        for friend in friends:
            friend.request(Increment("a")).unwrap()
        for client in crowd.clients:
            client.close()
        for _ in range(32 - len(friends)):  # half of what there is; the rest is the manager's
            friends.append(stack.enter_context(manager.connect()))
        with pytest.raises(EOFError):
            manager.connect()
        friends.pop().close()
        assert wait_until(lambda: served_anew(manager)) == 1
        assert friends[0].request(Get("b")).only().value == 1


def served_anew(manager):
    """The value after a call on a new connection, None if none is to be had yet."""
    with contextlib.suppress(EOFError), manager.connect() as client:
        return client.request(Increment("b")).only().value


def test_a_lasting_lack_of_descriptors_is_waited_out(manager):
    """Not one of them is free, for a second and more: callers wait in the kernel until somebody leaves."""
    with contextlib.ExitStack() as stack:
        friends = [stack.enter_context(manager.connect()) for _ in range(20)]
        _soft, hard = resource.prlimit(manager.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(manager.pid, resource.RLIMIT_NOFILE, (manager.descriptors, hard))
        crowd = stack.enter_context(Crowd(manager, 120))
        wait_until(lambda: "accepting no connection" in manager.stderr)
        used = manager.cpu_seconds
        took = calls_for_a_second(friends[0])
        used = manager.cpu_seconds - used
        assert not crowd.look() and len(crowd.left) == 120
        print(f"{used:.2f} s of CPU in 1 s, slowest call {max(took) * 1000:.1f} ms")
        assert used < 0.5
        for client in [*crowd.clients, *friends[10:]]:
            client.close()
        with manager.connect() as client:
            assert client.request(Increment("b")).only().value == 1
        assert friends[0].request(Get("b")).only().value == 1


# Those who ask and do not listen


def fill(client):
    """Create as many counters as one request can hold, and return their names."""
    names = [f"n{number:04}" * 4 for number in range(MAX_OPS)]
    client.request(*[Set(name, value=2**62) for name in names]).unwrap()
    return names


@pytest.mark.parametrize("size", ["large", "small"])
def test_whoever_does_not_read_is_not_read_from(manager, size):
    """Whether few of the questions have arrived or all of them."""
    with manager.connect() as friend, manager.connect() as deaf:
        names = fill(friend)
        ops, times = ([Get(name) for name in names], 20) if size == "large" else ([List(limit=1000)], 200)
        payload = encode_request(Request(ops))
        answer = friend.ask(payload)
        assert len(answer) * times > MAX_REPLY
        before = manager.peak_memory
        deaf.sock.setblocking(False)
        data, sent, took = frame(payload) * times, 0, []
        while len(took) < 50:  # as much as goes, while the others go on
            with contextlib.suppress(BlockingIOError):
                sent += deaf.sock.send(data[sent:]) if sent < len(data) else 0
            took.append(timed(lambda: friend.request(Get(names[0])).unwrap()))
        grown = manager.peak_memory - before
        print(
            f"it took {sent / 2**20:.1f} of {len(data) / 2**20:.1f} MiB, and grew by {grown / 2**20:.1f} MiB"
        )
        print(f"the others' calls: {percentiles(took)[0]}")
        assert sent < len(data) / 2 or size == "small"
        assert grown < 16 * 1024 * 1024
        deaf.sock.settimeout(PATIENCE)
        for _ in range(sent // len(frame(payload))):  # as soon as it listens, all is answered
            assert deaf.receive() == answer


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connections(tmp_path, clock):
    """All that a manager does with connections, in this process, with a clock that is set."""
    home = Home(tmp_path / "home")
    home.prepare()
    home.ensure_key()
    closed = []
    connections = Connections(Door(home, home.bind(), shared=False), clock, closed.append)
    connections.home, connections.closed_ones = home, closed
    yield connections
    home.unlink_socket()
    connections.close_all()


@pytest.fixture
def deaf(connections, clock):
    """The client's socket and the manager's end of a connection with 2 MiB that the client has not read."""
    sock = connections.home.connect(time.monotonic() + PATIENCE)
    (connection,) = wait_until(lambda: (connections.wait(0.01), list(connections._door))[1])
    connections.admit(connection)
    connections.send(connection, bytes(2 * 1024 * 1024))
    assert connection.unsent > 1024 * 1024
    with sock:
        yield sock, connection


def after(connections, clock, seconds):
    """What happens when *seconds* have passed."""
    clock.now += seconds
    connections.wait(0)
    connections.tidy()


def test_whoever_reads_nothing_for_thirty_seconds_is_shown_out(connections, clock, deaf):
    _, connection = deaf
    after(connections, clock, STALLED_SECONDS - 0.1)
    assert not connection.closed
    assert connections._patience(None) == pytest.approx(0.1), "it wakes by itself when the time has come"
    after(connections, clock, 0.2)
    assert connection.closed and connections.closed_ones == [connection]
    assert not len(connections) and not connections.unsent


def test_whoever_reads_slowly_may_take_all_the_time_it_needs(connections, clock, deaf):
    sock, connection = deaf
    got, rounds = 0, 0
    while connection.unsent:
        got += len(sock.recv(400_000))
        after(connections, clock, STALLED_SECONDS - 1)
        rounds += 1
        assert not connection.closed
    assert rounds > 3
    after(connections, clock, 2 * STALLED_SECONDS)
    assert not connection.closed, "nothing is unsent: it may be silent as long as it likes"


def test_nothing_is_read_while_something_is_unsent(connections, clock, deaf):
    sock, connection = deaf
    sock.sendall(frame(b"next"))
    after(connections, clock, 1)
    assert connections.ready == {} and len(connection.frames.begun) == 0
    while connection.unsent:
        sock.recv(400_000)
        connections.wait(0)
    connections.wait(0)
    assert list(connections.ready.values()) == [b"next"]


def test_more_than_one_answer_that_is_not_read_ends_the_connection(connections, deaf):
    _, connection = deaf
    connections.send(connection, bytes(MAX_REPLY))
    assert connection.closed
