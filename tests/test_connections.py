"""What a connection costs at the most: one frame at a time, one answer unread, and for how long."""

import contextlib
import errno
import os
import signal
import socket
import struct
import threading
import time

import pytest

from counter import connections as connections_module
from counter import door as door_module
from counter.connection import Connection, ConnectionLost
from counter.connections import MOST_SKIPPED, STALLED_SECONDS, Connections
from counter.door import HANDSHAKE_SECONDS, Door
from counter.handshake import ServerHandshake
from counter.home import Home
from counter.wire import MAX_REPLY, Frames, frame

KEY = b"a key of the test"
BIG = b"x" * 2_000_000  # more than a socket holds


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Impatient:
    """A poller that only notes how long it is told to wait."""

    def __init__(self, poller, waits):
        self._poller, self._waits = poller, waits

    def poll(self, timeout):
        self._waits.append(timeout)
        return []

    def __getattr__(self, name):
        return getattr(self._poller, name)


class Peer:
    """The other end: it reads when it is told to."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(10)
        self.frames = Frames(2**31)

    def send(self, *payloads):
        self.sock.sendall(b"".join(map(frame, payloads)))

    def read(self, size):
        """Take *size* bytes and look at them no further."""
        while size > 0:
            size -= len(self.sock.recv(min(size, 65536)))

    def read_what_is_there(self):
        self.sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while self.sock.recv(65536):
                pass
        self.sock.settimeout(10)

    def receive(self):
        while (payload := self.frames.next()) is None:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.frames.feed(data)
        return payload

    @property
    def hung_up_on(self):
        """Whether the manager's end is closed, once everything sent is read."""
        self.sock.settimeout(0)
        try:
            while self.sock.recv(65536):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            self.sock.settimeout(10)
        return True


# One connection


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    connection = Connection(ours, ServerHandshake([KEY]), 0.0)
    yield connection, Peer(theirs)
    ours.close()
    theirs.close()


def test_a_short_answer_leaves_at_once(pair):
    connection, peer = pair
    connection.send(b"hello", 1.0)
    assert peer.receive() == b"hello"
    assert (connection.unsent, connection.blocked) == (0, False)


def test_while_an_answer_is_unread_the_connection_is_blocked(pair):
    connection, peer = pair
    connection.send(BIG, 5.0)
    assert 0 < connection.unsent < len(BIG)
    assert connection.blocked
    left = len(BIG) + 4
    while connection.unsent:
        before = len(BIG) + 4 - connection.unsent
        peer.read(before - (len(BIG) + 4 - left))
        left = connection.unsent
        connection.flush(6.0)
    assert not connection.blocked
    peer.read(left)


def test_each_step_of_its_output_is_progress_and_waiting_is_none(pair):
    connection, peer = pair
    connection.send(BIG, 5.0)
    assert connection.since == 5.0
    connection.flush(7.0)  # nobody has read: nothing moves
    assert connection.since == 5.0
    peer.read(200_000)
    connection.flush(9.0)
    assert connection.since == 9.0


def test_two_short_answers_to_one_who_does_not_read_wait_behind_each_other(pair):
    connection, peer = pair
    connection.send(BIG, 0.0)
    connection.send(b"second", 0.0)
    found = []

    def read():
        found.extend([peer.receive(), peer.receive()])

    reader = threading.Thread(target=read)
    reader.start()
    while connection.unsent:
        connection.flush(0.0)
    reader.join(10)
    assert found == [BIG, b"second"]


def test_more_unread_than_one_answer_is_the_end(pair):
    connection, _peer = pair
    connection.send(b"x" * MAX_REPLY, 0.0)
    with pytest.raises(ConnectionLost):
        connection.send(b"x" * MAX_REPLY, 0.0)


@pytest.mark.parametrize("act", [Connection.receive, lambda c: c.send(b"x", 0.0)], ids=["receive", "send"])
def test_a_peer_that_has_gone_is_lost(pair, act):
    connection, peer = pair
    peer.sock.close()
    with pytest.raises(ConnectionLost):
        act(connection)


def test_a_peer_that_goes_in_mid_answer_is_lost(pair):
    connection, peer = pair
    connection.send(BIG, 0.0)
    peer.sock.close()
    with pytest.raises(ConnectionLost):
        connection.flush(0.0)


def test_nothing_to_read_is_no_error(pair):
    connection, _peer = pair
    connection.receive()
    assert connection.frames.next() is None


# Everybody


class Party:
    """`Connections` in a home, a clock that stands still, and the peers."""

    def __init__(self, path):
        self.home = Home(path)
        self.home.prepare()
        self.home.ensure_key()
        self.clock = Clock()
        self.left = []
        self.door = Door(self.home, self.home.bind(), shared=False)
        self.connections = Connections(self.door, self.clock, self.left.append)
        self._peers = []

    def dial(self):
        """A stranger: its peer and the manager's end."""
        before = set(self.door)
        peer = Peer(self.home.connect(time.monotonic() + 10))
        self._peers.append(peer)
        self.wait()
        (connection,) = set(self.door) - before
        assert peer.receive().startswith(b"#CHALLENGE#")
        return peer, connection

    def welcome(self):
        """Somebody who has proved to hold the key."""
        peer, connection = self.dial()
        connection.frames.most = 10_000_000
        self.connections.admit(connection)
        return peer, connection

    def wait(self):
        self.connections.wait(0)

    def taken(self):
        ready = self.connections.ready
        return [ready.pop(connection) for connection in list(ready)]

    def close(self):
        self.connections.close_all()
        for peer in self._peers:
            peer.sock.close()


@pytest.fixture(params=["epoll", "poll"])
def party(request, tmp_path, monkeypatch):
    if request.param == "poll":
        monkeypatch.setattr(connections_module.select, "epoll", None)
    monkeypatch.setattr(door_module, "_connection_limit", lambda: 1024)
    party = Party(tmp_path / "home")
    yield party
    party.close()


def test_who_comes_is_sent_a_challenge_and_counted(party):
    assert len(party.connections) == 0
    party.dial()
    party.dial()
    assert len(party.connections) == 2


def test_frames_are_given_one_at_a_time_and_in_order(party):
    peer, connection = party.welcome()
    peer.send(b"one", b"two", b"three")
    party.wait()
    assert party.taken() == [b"one"]
    assert party.taken() == []
    party.connections.send(connection, b"answer one")
    assert party.taken() == [b"two"]
    party.connections.send(connection, b"answer two")
    assert party.taken() == [b"three"]
    party.connections.send(connection, b"answer three")
    assert [peer.receive() for _ in range(3)] == [b"answer one", b"answer two", b"answer three"]


def test_a_frame_that_is_ready_is_not_lost_to_the_next_one(party):
    peer, connection = party.welcome()
    peer.send(b"one", b"two")
    party.wait()
    party.connections.go_on(connection)
    assert party.taken() == [b"one"]
    party.connections.go_on(connection)
    party.connections.go_on(connection)
    assert party.taken() == [b"two"]


def test_a_frame_that_is_not_whole_yet_is_not_ready(party):
    peer, _ = party.welcome()
    whole = frame(b"payload")
    for byte in whole[:-1]:
        peer.sock.sendall(bytes([byte]))
        party.wait()
        assert not party.connections.ready
    peer.sock.sendall(whole[-1:])
    party.wait()
    assert party.taken() == [b"payload"]


def test_each_connection_has_its_turn(party):
    """One that says much at once keeps nobody from being heard."""
    greedy, _ = party.welcome()
    modest, _ = party.welcome()
    greedy.send(*[b"greedy"] * 50)
    modest.send(b"modest")
    party.wait()
    assert sorted(party.taken()) == [b"greedy", b"modest"]


def test_what_is_not_taken_stays(party):
    for _ in range(3):
        party.welcome()[0].send(b"payload")
    party.wait()
    party.connections.ready.popitem()
    assert len(party.connections.ready) == 2
    assert len(party.taken()) == 2


def test_nothing_more_is_read_from_who_has_not_read_its_answer(party):
    peer, connection = party.welcome()
    peer.send(b"ask")
    party.wait()
    party.taken()
    party.connections.send(connection, BIG)
    assert connection.unsent
    peer.send(*[b"y" * 1000] * 50)
    for _ in range(5):
        party.wait()
    assert not party.connections.ready
    assert len(connection.frames.begun) == 0
    assert party.connections.unsent

    def read():
        assert peer.receive() == BIG

    reader = threading.Thread(target=read)
    reader.start()
    while connection.unsent:
        party.connections.wait(0.01)
    reader.join(10)
    assert not party.connections.unsent
    party.wait()
    assert party.taken() == [b"y" * 1000]


def test_nothing_more_is_read_while_an_answer_is_worked_on(party):
    peer, connection = party.welcome()
    peer.send(b"list", b"next")
    party.wait()
    party.taken()
    connection.working = True
    party.connections.go_on(connection)
    peer.send(b"more")
    party.wait()
    assert not party.connections.ready
    connection.working = False
    party.connections.send(connection, b"the list")
    assert party.taken() == [b"next"]
    party.connections.send(connection, b"")
    party.wait()
    assert party.taken() == [b"more"]


def test_who_makes_no_progress_for_30_seconds_is_shown_out(party):
    peer, connection = party.welcome()
    party.connections.send(connection, BIG)
    party.clock.now += STALLED_SECONDS - 0.1
    party.connections.tidy()
    assert not connection.closed
    peer.read_what_is_there()  # progress
    party.wait()
    party.clock.now += STALLED_SECONDS - 0.1
    party.connections.tidy()
    assert not connection.closed
    party.clock.now += 0.2
    party.connections.tidy()
    assert connection.closed
    assert not party.connections.unsent
    assert peer.hung_up_on
    assert party.left == [connection]


def test_who_only_listens_is_never_shown_out(party):
    _, connection = party.welcome()
    party.clock.now += 1_000_000
    party.connections.tidy()
    assert not connection.closed


def test_the_wait_ends_in_time_for_whoever_has_to_go(party, monkeypatch):
    """The poller is told how long to wait; the clock stands still, so it is the exact time."""
    waits = []
    monkeypatch.setattr(party.connections, "_poller", Impatient(party.connections._poller, waits))

    def patience(most=None):
        party.connections.wait(most)
        return waits.pop()

    assert patience() is None
    assert patience(1.0) == 1.0
    monkeypatch.undo()
    monkeypatch.setattr(door_module, "_connection_limit", lambda: 1024)
    peer, stranger = party.dial()
    monkeypatch.setattr(party.connections, "_poller", Impatient(party.connections._poller, waits))
    party.clock.now += 1.0
    assert patience() == HANDSHAKE_SECONDS - 1
    assert patience(0.5) == 0.5
    assert patience(0) == 0
    party.connections.admit(stranger)
    assert patience() is None
    party.connections.send(stranger, BIG)
    party.clock.now += 2.0
    assert patience() == STALLED_SECONDS - 2
    party.clock.now += 100.0
    assert patience() == 0
    peer.sock.close()


def test_a_frame_over_the_cap_closes_the_connection(party):
    peer, connection = party.welcome()
    other, _ = party.welcome()
    peer.sock.sendall(struct.pack("!I", 10_000_001))
    other.send(b"still here")
    party.wait()
    assert connection.closed
    assert peer.hung_up_on
    assert party.taken() == [b"still here"]


def test_a_stranger_may_say_256_bytes_at_a_time(party):
    for size, refused in ((256, False), (257, True)):
        peer, connection = party.dial()
        peer.sock.sendall(struct.pack("!I", size))
        party.wait()
        assert connection.closed is refused


def test_what_was_said_before_hanging_up_is_still_heard(party):
    peer, connection = party.welcome()
    peer.send(b"last words")
    peer.sock.shutdown(socket.SHUT_WR)
    party.wait()
    assert party.taken() == [b"last words"]
    party.connections.send(connection, b"heard")
    assert peer.receive() == b"heard"
    party.wait()
    assert connection.closed


def test_a_closed_connection_is_forgotten_everywhere(party):
    peer, connection = party.welcome()
    peer.send(b"ask")
    party.wait()
    party.connections.close(connection)
    party.connections.close(connection)
    assert party.left == [connection]
    assert party.taken() == []
    assert len(party.connections) == 0
    party.connections.send(connection, b"too late")
    party.connections.go_on(connection)
    party.wait()


def test_a_connection_that_was_closed_never_asks_again(party):
    """Its peer reads no more, but had sent another frame: that one has nobody to answer."""
    peer, connection = party.welcome()
    peer.send(b"one", b"two")
    peer.sock.shutdown(socket.SHUT_RD)
    party.wait()
    assert party.taken() == [b"one"]
    party.connections.send(connection, b"answer")
    assert connection.closed
    party.connections.go_on(connection)  # as the handshake does after its last answer
    assert party.taken() == []


def test_a_farewell_is_read_before_the_connection_is_closed(party):
    peer, connection = party.dial()
    connection.closing = True
    party.connections.send(connection, b"#FAILURE#")
    assert connection.closed
    assert peer.receive() == b"#FAILURE#"
    assert peer.receive() is None


def test_a_long_farewell_too(party):
    peer, connection = party.welcome()
    connection.closing = True
    party.connections.send(connection, BIG)
    assert not connection.closed
    found = []
    reader = threading.Thread(target=lambda: found.append(peer.receive()))
    reader.start()
    while not connection.closed:
        party.connections.wait(0.01)
    reader.join(10)
    assert found == [BIG]


@pytest.mark.slow
def test_waking_ends_a_wait_and_costs_nothing_after_that(party):
    party.connections.wake()
    party.connections.wait(None)  # else the test would hang
    for _ in range(100_000):  # far over what the pipe holds: a handler must never block
        party.connections.wake()
    party.connections.wait(None)
    for _ in range(100):
        party.wait()
    started = time.monotonic()
    party.connections.wait(0.05)
    assert time.monotonic() - started > 0.04


def test_a_signal_wakes_the_wait(party):
    before = signal.signal(signal.SIGUSR1, lambda *_: party.connections.wake())
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        party.connections.wait(None)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_after_the_end_waking_is_harmless(party):
    party.connections.close_all()
    party.connections.wake()
    party.connections.close_all = lambda: None


# Out of descriptors


class Listener:
    """A listener whose accept fails when it is told to."""

    def __init__(self, sock):
        self._sock = sock
        self.error = None
        self.asked = 0

    def accept(self):
        self.asked += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self._sock.accept()

    def fileno(self):
        return self._sock.fileno()

    def close(self):
        self._sock.close()


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"])
def test_out_of_descriptors_it_pauses_instead_of_spinning(party, error):
    listener = Listener(party.door.listener)
    party.connections._pause_listening()
    party.door.listener = listener
    party.connections.tidy()  # listens again
    member, _ = party.welcome()
    listener.error = getattr(errno, error)
    waiting = Peer(party.home.connect(time.monotonic() + 10))
    party.wait()
    asked = listener.asked
    for _ in range(100):
        party.connections.tidy()
        party.wait()
    assert listener.asked == asked  # it is not even tried
    member.send(b"I am served")
    party.wait()
    assert party.taken() == [b"I am served"]
    listener.error = None
    party.clock.now += 0.11
    party.connections.tidy()
    party.wait()
    assert waiting.receive().startswith(b"#CHALLENGE#")
    waiting.sock.close()


def test_the_pause_ends_by_itself(party, monkeypatch):
    """The wait is no longer than the pause."""
    party.door.opens_at = party.clock.now + 0.1
    party.connections._pause_listening()
    waits = []
    monkeypatch.setattr(party.connections, "_poller", Impatient(party.connections._poller, waits))
    party.connections.wait(None)
    assert waits == [pytest.approx(0.1)]


def test_who_listens_no_more_lets_nobody_in_ever(party):
    party.connections.stop_listening()
    party.clock.now += 1_000_000
    party.connections.tidy()
    waiting = Peer(party.home.connect(time.monotonic() + 10))
    party.wait()
    assert len(party.connections) == 0
    with contextlib.closing(waiting.sock):
        pass


def test_at_the_end_everybody_is_closed(party):
    peers = [party.welcome()[0], party.dial()[0]]
    party.connections.close_all()
    assert all(peer.hung_up_on for peer in peers)
    assert len(party.left) == 2
    party.connections.close_all = lambda: None


# Before it sleeps


def test_who_asks_again_at_once_is_heard_without_a_sleep(party, monkeypatch):
    peer, _ = party.welcome()
    monkeypatch.setattr(connections_module.os, "sched_yield", lambda: peer.send(b"again"))
    assert party.connections.linger()
    assert party.taken() == [b"again"]


def test_looks_in_vain_become_rare_and_one_that_pays_brings_them_back(party, monkeypatch):
    looks = []
    monkeypatch.setattr(
        connections_module.os, "sched_yield", lambda: setattr(party.clock, "now", party.clock.now + 1)
    )
    monkeypatch.setattr(party.connections, "wait", lambda most: looks.append(most))
    pauses = []
    for _ in range(6):
        looks.clear()
        assert not party.connections.linger() and looks
        skipped, before = 0, len(looks)
        while party.connections._skips:
            assert not party.connections.linger() and len(looks) == before
            skipped += 1
        pauses.append(skipped)
    assert pauses == [1, 3, 7, 15, 31, MOST_SKIPPED]
    monkeypatch.setattr(party.connections, "wait", lambda most: True)
    assert party.connections.linger() and party.connections.linger()
