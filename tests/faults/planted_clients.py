"""Mistakes that the library could make in a client's process."""

import os
import sys
import threading

from msgspec.structs import replace

from counter import SharedCounter
from counter.stores.manager import ManagerStore, _Slot
from counter.wire import decode_request, encode_request


def _take_over(store, pid):
    """The pools of the parent *pid*, which are ours from now on; the fork may have found their locks held."""
    pools = store._pools[os.getpid()] = store._pools.pop(pid)
    for pool in pools:
        pool._lock = threading.RLock()
        pool._waiting.clear()
    return pools


def share_callers_after_a_fork(_text):
    """A child makes connections of its own, but goes on as the callers that its parent had."""

    def forget_others(store):
        for pid in [pid for pid in store._pools if pid != os.getpid()]:
            for pool in _take_over(store, pid):
                pool.abandon()

    ManagerStore.forget_others = forget_others


def share_connections_after_a_fork(_text):
    """A child goes on with the connections of its parent."""

    def forget_others(store):
        for pid in [pid for pid in store._pools if pid != os.getpid()]:
            _take_over(store, pid)

    ManagerStore.forget_others = forget_others


def keep_interrupted_connections(_text):
    """A call that was given up leaves its connection to the next one, with the answer that comes late."""
    ask, close = _Slot.ask, _Slot.close

    def close_unless_late(slot):
        if sys.exc_info()[0] is not TimeoutError:
            close(slot)

    def ask_and_trust(slot, request, deadline):
        slot._answered = True
        return ask(slot, request, deadline)

    _Slot.close, _Slot.ask = close_unless_late, ask_and_trust


def repeat_as_another_request(_text):
    """What broke off is sent again under a new number."""
    connect, send, connected = _Slot._connect, _Slot._send, set()

    def connect_and_note(slot, deadline):
        sock = connect(slot, deadline)
        connected.add(slot)
        return sock

    def send_as_another(slot, sock, payload, deadline):
        if slot in connected:
            connected.remove(slot)
            slot._seq += 1
            payload = encode_request(replace(decode_request(payload), seq=slot._seq))
        send(slot, sock, payload, deadline)

    _Slot._connect, _Slot._send = connect_and_note, send_as_another


def read_in_a_second_step(_text):
    """A call adds, and then asks what is there."""
    real = SharedCounter.increment

    def increment(counters, name, *arguments, **options):
        real(counters, name, *arguments, **options)
        return counters.get(name)

    SharedCounter.increment = increment
