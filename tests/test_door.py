"""Who gets in: how many strangers and for how long, and which key opens while it is being replaced."""

import logging
import os
import resource
import socket
import time

import pytest

from counter import door as door_module
from counter.connection import Connection
from counter.door import (
    HANDSHAKE_SECONDS,
    KEY_GRACE_SECONDS,
    MAX_CONNECTIONS,
    MAX_STRANGERS,
    Door,
    Keys,
)
from counter.handshake import ClientHandshake, HandshakeFailed, ServerHandshake

NEW_KEY, NEWER_KEY = b"n" * 32, b"m" * 32


class Sockets:
    """A listener that hands out as many sockets as are asked for."""

    def __init__(self, number):
        self.left = number

    def accept(self):
        if not self.left:
            raise BlockingIOError
        self.left -= 1
        return FakeSocket(), ""

    def fileno(self):
        return -1


class FakeSocket:
    closed = False

    def setblocking(self, flag):
        assert flag is False

    def getsockopt(self, *_what):
        return b"\1\0\0\0" + os.geteuid().to_bytes(4, "little") + b"\0\0\0\0"

    def close(self):
        self.closed = True


@pytest.fixture
def door(home, monkeypatch):
    monkeypatch.setattr(door_module, "_connection_limit", lambda: MAX_CONNECTIONS)
    return Door(home, Sockets(0), shared=False)


def let_in(door, number, ticks):
    """*number* strangers, as the loop would: a batch, then those who have to go."""
    door.listener = Sockets(number)
    came, gone = [], []
    while door.listener.left:
        came += door.accept(ticks)
        for connection in door.unwelcome(ticks):
            door.leave(connection)
            gone.append(connection)
    return came, gone


# Strangers


def test_a_stranger_has_five_seconds_in_all(door):
    (early,), _ = let_in(door, 1, 0.0)
    (late,), _ = let_in(door, 1, 2.0)
    assert door.next_deadline() == HANDSHAKE_SECONDS
    assert door.unwelcome(HANDSHAKE_SECONDS - 0.01) == []
    assert door.unwelcome(HANDSHAKE_SECONDS) == [early]
    door.leave(early)
    assert door.next_deadline() == HANDSHAKE_SECONDS + 2.0
    assert door.unwelcome(HANDSHAKE_SECONDS + 2.0) == [late]


def test_what_a_stranger_says_buys_no_time(door):
    (stranger,), _ = let_in(door, 1, 0.0)
    stranger.frames.feed(b"\0\0\0\x10drip")
    assert door.unwelcome(HANDSHAKE_SECONDS) == [stranger]


def test_who_has_proved_to_hold_the_key_may_stay(door):
    (guest,), _ = let_in(door, 1, 0.0)
    door.admit(guest, 1.0)
    assert door.next_deadline() is None
    assert door.unwelcome(1_000_000.0) == []
    assert list(door) == [guest]
    assert guest.since == 1.0


def test_of_too_many_strangers_the_oldest_go_first(door):
    came, gone = let_in(door, MAX_STRANGERS, 0.0)
    assert gone == []
    newer, gone = let_in(door, 100, 1.0)
    assert gone == came[:100]
    assert len(door) == MAX_STRANGERS
    assert set(newer) <= set(door)


def test_a_flood_of_strangers_never_takes_more_than_its_share(door):
    members, _ = let_in(door, 10, 0.0)
    for connection in members:
        door.admit(connection, 0.0)
    came, gone = let_in(door, 5_000, 1.0)
    assert len(door) == MAX_STRANGERS + 10
    assert set(members) <= set(door)
    assert gone == came[: 5_000 - MAX_STRANGERS]


def test_strangers_make_room_for_members_not_the_other_way_round(door):
    for _ in range(MAX_CONNECTIONS // 128 - 1):
        for connection in let_in(door, 128, 0.0)[0]:
            door.admit(connection, 0.0)
    came, gone = let_in(door, 130, 1.0)
    assert gone == came[:2]
    assert len(door) == MAX_CONNECTIONS


def test_over_the_cap_of_members_who_comes_is_shown_out_at_once(door):
    for _ in range(MAX_CONNECTIONS // 128):
        for connection in let_in(door, 128, 0.0)[0]:
            door.admit(connection, 0.0)
    sockets = []
    listener = Sockets(3)
    accept = listener.accept
    listener.accept = lambda: sockets.append(accept()) or sockets[-1]
    door.listener = listener
    assert door.accept(1.0) == []
    assert [sock.closed for sock, _ in sockets] == [True] * 3
    assert len(door) == MAX_CONNECTIONS


def test_as_many_are_taken_in_at_once_as_a_turn_bears(door):
    door.listener = Sockets(1_000)
    assert len(door.accept(0.0)) == 128


def test_leaving_twice_is_harmless(door):
    (stranger,), _ = let_in(door, 1, 0.0)
    door.leave(stranger)
    door.leave(stranger)
    assert len(door) == 0


def test_a_process_of_another_user_is_refused_and_with_a_group_the_mode_decides(home, monkeypatch):
    monkeypatch.setattr(door_module, "_connection_limit", lambda: 10)
    for uid, shared, allowed in (
        (os.geteuid(), False, 1),
        (0, False, 1),
        (None, False, 1),  # a system that cannot tell
        (65_534, False, 0),
        (65_534, True, 1),
    ):
        monkeypatch.setattr(door_module, "peer_uid", lambda sock, uid=uid: uid)
        assert len(Door(home, Sockets(1), shared).accept(0.0)) == allowed


def test_one_who_hung_up_before_being_let_in_ends_nothing(door):
    class Aborted(Sockets):
        def accept(self):
            raise ConnectionAbortedError

    door.listener = Aborted(1)
    assert door.accept(0.0) == []
    assert door.opens_at == 0.0


def test_out_of_descriptors_it_closes_for_a_moment(door, caplog):
    class Failing(Sockets):
        def accept(self):
            if self.left == 1:
                raise OSError(24, "Too many open files")
            return super().accept()

    door.listener = Failing(3)
    with caplog.at_level(logging.WARNING):
        assert len(door.accept(5.0)) == 2  # those before it are let in
    assert door.opens_at == 5.1
    assert "Too many open files" in caplog.text


# The limit of open files


ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to", "most"),
    [
        (32, 64, 64, 32),
        (256, 1024, 1024, 992),
        (1024, 4096, 1056, 1024),
        (256, ENDLESS, 1056, 1024),
        (4096, 4096, None, 1024),
        (ENDLESS, ENDLESS, None, 1024),
        (20, 20, None, 1),
    ],
)
def test_the_limit_of_open_files_is_raised_and_some_are_kept(monkeypatch, soft, hard, raised_to, most):
    limits = []
    monkeypatch.setattr(door_module.resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(door_module.resource, "setrlimit", lambda which, both: limits.append(both))
    assert door_module._connection_limit() == most
    assert limits == ([] if raised_to is None else [(raised_to, hard)])


# Keys


def opens(keys, key, ticks):
    """Whether a client with *key* gets in, its answer proved with the same key."""
    server, client = ServerHandshake(keys.accepted(ticks)), ClientHandshake(key)
    to_client = [server.start()]
    try:
        while to_client:
            to_client = [
                answer
                for said in to_client
                for reply in client.receive(said)
                for answer in server.receive(reply)
            ]
    except HandshakeFailed:
        return False
    return server.done and client.done


def replace_key(home, key, mode=0o600):
    temporary = home.path / "new"
    temporary.write_bytes(key)
    temporary.chmod(mode)
    temporary.rename(home.key_path)


def test_a_new_key_is_in_force_at_the_next_handshake(home):
    keys = Keys(home)
    old = home.read_key()
    assert opens(keys, old, 0.0)
    assert not opens(keys, NEW_KEY, 0.0)
    replace_key(home, NEW_KEY)
    assert opens(keys, NEW_KEY, 1.0)


def test_the_key_before_opens_for_60_seconds_from_when_the_new_one_was_seen(home):
    keys, old = Keys(home), home.read_key()
    replace_key(home, NEW_KEY)
    assert keys.accepted(100.0) == [NEW_KEY, old]
    assert opens(keys, old, 100.0 + KEY_GRACE_SECONDS - 0.1)
    assert not opens(keys, old, 100.0 + KEY_GRACE_SECONDS)
    assert opens(keys, NEW_KEY, 100.0 + KEY_GRACE_SECONDS)


def test_after_two_replacements_only_the_last_two_open(home):
    keys, old = Keys(home), home.read_key()
    replace_key(home, NEW_KEY)
    keys.accepted(0.0)
    replace_key(home, NEWER_KEY)
    assert keys.accepted(1.0) == [NEWER_KEY, NEW_KEY]
    assert not opens(keys, old, 1.0)


def test_a_key_written_over_the_old_one_in_place_is_seen_too(home):
    keys = Keys(home)
    home.key_path.write_bytes(NEW_KEY)
    assert keys.accepted(0.0)[0] == NEW_KEY


@pytest.mark.parametrize("damage", ["short", "open", "gone", "link"])
def test_an_unreadable_new_key_leaves_the_old_one_in_force(home, damage, caplog):
    keys, old = Keys(home), home.read_key()
    if damage == "short":
        replace_key(home, b"short")
    elif damage == "open":
        replace_key(home, NEW_KEY, 0o644)
    else:
        home.key_path.unlink()
        if damage == "link":
            home.key_path.symlink_to("/dev/zero")
    with caplog.at_level(logging.WARNING):
        for ticks in (0.0, 10.0, 1_000_000.0):
            assert keys.accepted(ticks) == [old]
    assert caplog.text.count("the key before stays in force") == 1  # told once, not at each handshake
    assert NEW_KEY.decode() not in caplog.text
    home.key_path.unlink(missing_ok=True)
    replace_key(home, NEW_KEY)
    assert keys.accepted(2_000_000.0) == [NEW_KEY, old]


def test_touching_the_key_replaces_nothing(home):
    keys, old = Keys(home), home.read_key()
    os.utime(home.key_path, (1, 1))
    assert keys.accepted(0.0) == [old]


def test_a_door_asks_for_the_key_at_each_handshake(home, monkeypatch):
    monkeypatch.setattr(door_module, "_connection_limit", lambda: 10)
    door = Door(home, home.bind(), shared=False)
    for key in (home.read_key(), NEW_KEY):
        replace_key(home, key)
        client = ClientHandshake(key)
        sock = home.connect(time.monotonic() + 10)
        (connection,) = door.accept(0.0)
        assert isinstance(connection, Connection)
        (proof,) = client.receive(connection.handshake.start())
        assert connection.handshake.receive(proof) == [b"#WELCOME#"]
        connection.sock.close()
        sock.close()
    assert isinstance(door.listener, socket.socket)
    door.listener.close()
