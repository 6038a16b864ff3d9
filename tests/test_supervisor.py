"""The parts of the supervisor that need no family; `test_processes.py` has real ones."""

import os
import signal
import socket

import pytest

from counter.supervisor import LONGEST_PAUSE, Place, Signals, pause


def test_the_pause_doubles_up_to_half_a_minute():
    assert [pause(failures) for failures in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert pause(9) == 25.6
    assert pause(10) == pause(10_000) == LONGEST_PAUSE == 30.0


def test_a_place_whose_starts_come_to_nothing_waits_ever_longer():
    place = Place("worker")
    waited = []
    for _ in range(3):
        place.wait_longer(now=100.0)
        waited.append(round(place.due - 100.0, 6))
    assert waited == [0.1, 0.2, 0.4]
    assert place.mode is None


def test_signals_are_read_as_data_and_interrupt_nothing():
    before = signal.getsignal(signal.SIGHUP)
    with Signals(signal.SIGHUP, signal.SIGTERM) as signals:
        assert signals.wait([], timeout=0) == set()
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.wait([], timeout=20) == {signal.SIGHUP}
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.wait([], timeout=20) | signals.wait([], timeout=0) == {signal.SIGHUP, signal.SIGTERM}
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_wait_for_signals_ends_when_a_child_speaks():
    ours, theirs = socket.socketpair()
    with ours, theirs, Signals(signal.SIGHUP) as signals:
        theirs.sendall(b"memory\n")
        assert signals.wait([ours], timeout=20) == set()


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt])
def test_handlers_are_put_back_whatever_happens(ending):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ending), Signals(signal.SIGTERM):
        raise ending
    assert signal.getsignal(signal.SIGTERM) is before
