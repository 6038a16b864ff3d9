"""Slots that the threads of a process share: a bounded number, each used by one call at a time."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..errors import StoreUnavailable

LOST_SECONDS = 1.0
"""After its deadline a call has ended; if so much later its slot was not given back, it is lost."""


class Slot(Protocol):
    """What is shared: one connection."""

    def close(self) -> None:
        """Close the connection; the next use opens another."""


S = TypeVar("S", bound=Slot)


class _Waiter(Generic[S]):
    """Who waits for a slot until *deadline*; it is put into *given*."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        # Looked up now and not at import: a preloaded app is imported before gevent patches the module, and
        # waiting in the queue of before would hold up every greenlet of the worker.
        self.given: queue.SimpleQueue[S] = queue.SimpleQueue()


class Pool(Generic[S]):
    """The slots of one process, the last used first; who waits longest gets the next one that is free.

    A signal's handler may raise anywhere in here, and a slot be lost by that. It is replaced once the
    deadline of the call that had it is over.
    """

    def __init__(self, make: Callable[[], S], size: int) -> None:
        self._make = make
        self._size = size
        self._idle: list[S] = []
        self._busy: dict[S, float] = {}  # until when it can be in use
        self._waiting: deque[_Waiter[S]] = deque()
        self._lock = threading.RLock()  # a signal's handler may count too

    def take(self, deadline: float, held: list[S]) -> S:
        """A slot, which is put into *held* first: so whoever is interrupted can give it back."""
        with self._lock:
            idle, busy = self._idle, self._busy
            slot = idle.pop() if idle else None
            if slot is None or slot in busy:
                slot = self._free_slot()
            if slot is not None:
                held.append(slot)
                busy[slot] = deadline
                return slot
            waiter: _Waiter[S] = _Waiter(deadline)
            self._waiting.append(waiter)
        held.append(self._wait(waiter))
        return held[0]

    def give(self, slot: S, deadline: float) -> None:
        """Take *slot* back, which was taken until *deadline*."""
        try:
            with self._lock:
                if self._waiting or self._busy.get(slot) != deadline:
                    self._hand_on(slot, deadline)
                else:
                    self._idle.append(slot)
                    del self._busy[slot]
        except BaseException:
            self._hand_on(slot, deadline)
            raise

    def _hand_on(self, slot: S, deadline: float) -> None:
        """Take *slot* back, whoever waits, and also if its return was interrupted anywhere.

        One that is in use until another time than *deadline* has been taken again since, and is not ours.
        """
        with self._lock:
            until = self._busy.get(slot)
            if until is None:
                if slot not in self._idle:
                    slot.close()  # it was taken for lost, and another is in its place
            elif until != deadline:
                return
            elif self._waiting:
                self._busy[slot] = self._waiting[0].deadline
                self._waiting.popleft().given.put(slot)
            else:
                self._idle.append(slot)
                del self._busy[slot]

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            for slot in self._idle:
                slot.close()

    def abandon(self) -> None:
        """Close all, after a fork, in the child."""
        for slot in [*self._idle, *self._busy]:  # no lock: after a fork nobody may be left to release it
            slot.close()

    def _free_slot(self) -> S | None:
        while self._idle:
            if (slot := self._idle.pop()) not in self._busy:  # in both: its return was interrupted
                return slot
        if len(self._busy) >= self._size:
            now = time.monotonic()
            for lost in [slot for slot, until in self._busy.items() if until + LOST_SECONDS < now]:
                del self._busy[lost]
                lost.close()
        return self._make() if len(self._busy) < self._size else None

    def _wait(self, waiter: _Waiter[S]) -> S:
        try:
            while (left := waiter.deadline - time.monotonic()) > 0:
                try:
                    return waiter.given.get(timeout=min(left, LOST_SECONDS))
                except queue.Empty:
                    with self._lock:
                        if waiter in self._waiting and (slot := self._free_slot()) is not None:
                            self._busy[slot] = waiter.deadline
                            return slot
        finally:
            with (
                self._lock,
                contextlib.suppress(ValueError),
            ):  # or whoever hands one on could lose sight of it
                self._waiting.remove(waiter)
        with self._lock, contextlib.suppress(queue.Empty):  # locked: nobody is just about to put one in
            return waiter.given.get_nowait()
        raise StoreUnavailable(f"all {self._size} connections were busy until the deadline: nothing was sent")
