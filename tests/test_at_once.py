"""Sending that keeps Python's lock: what it sends, what it refuses, and that no other thread comes in."""

import socket

import pytest
from support import others_ran

from counter import at_once
from counter.at_once import MOST_BYTES, send_at_once


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture(params=["C", "Python"])
def either_way(request, monkeypatch):
    if request.param == "Python":
        monkeypatch.setattr(at_once, "_send", None)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("data", [b"x", b"\0zero\0", b"long" * MOST_BYTES, bytearray(b"array"), b""])
def test_it_sends_what_the_kernel_takes(pair, data):
    one, other = pair
    other.settimeout(10)
    sent, read = send_at_once(one, data), b""
    while len(read) < sent:
        read += other.recv(65536)
    assert read == data[:sent]
    assert sent == len(data) or len(data) > MOST_BYTES


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("blocks", [True, False])
def test_it_does_not_wait_for_room(pair, blocks):
    one, _ = pair
    one.setblocking(blocks)
    sent = 0
    with pytest.raises(BlockingIOError):
        while sent < 100_000_000:
            sent += send_at_once(one, bytes(1000))
    assert sent


@pytest.mark.usefixtures("either_way")
def test_it_tells_what_is_wrong(pair):
    one, other = pair
    other.close()
    with pytest.raises(BrokenPipeError):
        send_at_once(one, b"to nobody")
    one.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        send_at_once(one, b"from nobody")


@pytest.mark.skipif(at_once._send is None, reason="this platform has no send() in its C library")
def test_no_other_thread_runs_meanwhile(pair):
    one, other = pair

    def at_once():
        send_at_once(one, b"x")

    def plainly():
        one.send(b"x")
        other.recv(1)

    assert not others_ran(at_once, 100)
    assert other.recv(65536) == b"x" * 100
    assert others_ran(plainly, 100_000)
