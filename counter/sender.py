"""A thread that sends what `buffered.py` counts, one request a flush, and makes each of them count once.

Theory of operation
-------------------
Whoever counts appends to `queue` and then compares its length with `room[0]`, which this thread alone sets:
as many as may still come before somebody has to wait, and 0 while the thread sleeps, so that the next count
wakes it. `room` lies in a page that the kernel wipes in the child of every fork (also of a server that forks
in C, where no at-fork hook runs), so there the first count finds none, and a sender of its own is made.

A flush takes what is in the queue, adds it up by name and sends it. The request may take an hour: for so long
the store repeats it, through restarts of the manager, and it is applied once. Where nothing was applied, the
sums wait and grow, and are sent with the next flush. What is refused is dropped, and told.

Others speak to the thread through `_inbox` alone. A SimpleQueue can be used in a signal's handler while the
same thread is in one of its methods; a lock, an Event or a Thread's `start` cannot.
"""

from __future__ import annotations

import _thread
import atexit
import collections
import contextlib
import itertools
import mmap
import os
import queue
import sys
import time
import weakref
from array import array
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .errors import CounterError, OutcomeUnknown, StoreUnavailable
from .fields import INT64_MAX, INT64_MIN, MAX_OPS
from .ops import AnyOp, Increment, Request
from .results import Problem
from .settings import SETTINGS, number
from .store import Store

if TYPE_CHECKING:
    import logging

Count = str | tuple[str, int]
"""A name that gets 1, or a name and what it gets."""
PATIENCE = SETTINGS["timeout"].most
"""Seconds that a request may take; only if it takes longer its outcome is unknown, and its counts dropped."""
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux 4.14, for which mmap has no name
_START_SECONDS = 1.0


class Outbox:
    """Where counts are put: into *queue*, if it is not longer than *room[0]* then."""

    __slots__ = ("queue", "room")

    def __init__(self, counts: deque[Count], room: memoryview[int]) -> None:
        self.queue = counts
        self.room = room


NOBODY = Outbox(deque(maxlen=0), memoryview(array("q", [-1])))
"""Of a process in which nobody sends yet: it keeps nothing and has no room."""


class _Asked(NamedTuple):
    """Who waits for an *answer*: that everything is sent, or only that there is room."""

    everything: bool
    answer: queue.SimpleQueue[Exception | None]


_WAKE, _END = object(), object()


class Sender(Outbox):
    """The thread of this process that sends to *store*; it is started by the first count.

    Args:
        store: where to.
        flush_every: seconds that a count waits at most.
        max_pending: most counts that are in the queue and on their way.
    """

    def __init__(self, store: Store, flush_every: float, max_pending: int) -> None:
        super().__init__(deque(), _wiped_on_fork())
        self._store = store
        self._every, self._most = flush_every, max_pending
        self._pid = os.getpid()
        # Looked up now: a preloaded app is imported before gevent patches the module.
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._unstarted = [None]
        self._ending = False
        self._sums: dict[str, int] = {}  # taken from the queue and not yet applied
        self._calls = 0  # that they are of
        self._waits = False  # what is in them was tried in vain
        self._dropped: list[Exception] = []  # why, of sums of this flush
        self._untold: Exception | None = None  # the first of them that nobody was told yet
        _senders.add(self)

    @property
    def pending(self) -> int:
        """How many counts are in the queue and on their way."""
        return len(self.queue) + self._calls

    def make_room(self, seconds: float) -> Exception | None:
        """Wake the thread, and wait for it if too much is pending; why that did not help, else None."""
        if (error := self._start()) is not None:
            return error
        if self.pending > self._most:
            return self._ask(False, seconds)
        if not self.room[0] and self._inbox.empty():  # it sleeps
            self._inbox.put(_WAKE)
        return None

    def flush(self, seconds: float) -> Exception | None:
        """Have everything sent and wait for it; why it could not be, or was not applied, else None."""
        return self._start() or self._ask(True, seconds)

    def end(self) -> None:
        """Nobody counts here any more: the thread ends when everything is sent."""
        self._inbox.put(_END)

    def at_exit(self) -> None:
        """Send what is pending before the process ends; say so if that fails."""
        if self._pid != os.getpid() or not self.pending:
            return
        error = self.flush(float(number("timeout")))
        if error is not None:
            _log().error("at the end of the process, %d counts pending: %s", self.pending, error)
        self._store.close()  # which may have closed its connections before

    def _ask(self, everything: bool, seconds: float) -> Exception | None:
        asked = _Asked(everything, queue.SimpleQueue())
        self._inbox.put(asked)
        try:
            return asked.answer.get(timeout=seconds)
        except queue.Empty:
            return OutcomeUnknown(
                f"after {seconds:g} s the store has not said that it has what is pending, which is kept, and "
                "sent once, for as long as this process lives"
            )

    def _start(self) -> StoreUnavailable | None:
        if self._unstarted:
            _at_exit_of_child()
            running: queue.SimpleQueue[None] = queue.SimpleQueue()
            try:
                # The thread takes the token itself, so nothing comes in between: of two, one ends at once.
                _thread.start_new_thread(self._run, (running,))
            except RuntimeError as error:
                return StoreUnavailable(f"no thread can be started that sends them: {error}")
            with contextlib.suppress(queue.Empty):  # else the next counts would start more of them
                running.get(timeout=_START_SECONDS)
        return None

    def _run(self, running: queue.SimpleQueue[None]) -> None:
        try:
            self._unstarted.pop()
        except IndexError:
            return
        finally:
            running.put(None)
        while self.pending or not self._ending:
            asked = self._wait()
            everything = any(each.everything for each in asked)
            # Who asked for room needs no flush where the one before has made it.
            due = everything or not asked or len(self.queue) > self.room[0]
            error = self._send(everything) if due else None
            for each in asked:
                each.answer.put(error or (self._tell() if each.everything else None))

    def _wait(self) -> list[_Asked]:
        """Sleep until there are counts, and then until it is time to send them; who asked for that."""
        messages = []
        if not self.pending and not self._ending:
            self.room[0] = 0
            if not self.pending:
                messages.append(self._inbox.get())
        self._open()
        until = time.monotonic() + self._every
        while all(each is _WAKE for each in messages):
            try:
                messages.append(self._inbox.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        while not self._inbox.empty():
            messages.append(self._inbox.get())
        self._ending = self._ending or _END in messages
        return [each for each in messages if isinstance(each, _Asked)]

    def _open(self) -> None:
        self.room[0] = self._most - self._calls

    def _send(self, everything: bool) -> StoreUnavailable | None:
        """Send as much as may be pending, or *everything* that is there; why that was not applied, if so."""
        left = len(self.queue) if everything else 0
        while True:
            left -= self._take()
            error = self._send_sums()
            if error is not None or left <= 0:
                return error

    def _take(self) -> int:
        """Add up what is in the queue, and tell how many counts that were."""
        calls = min(len(self.queue), self._most - self._calls)
        self._calls += calls  # first, or there would seem to be room for more
        self._open()
        found: collections.Counter[Count] = collections.Counter()
        with contextlib.suppress(IndexError):  # somebody in whose way there was no room took a count back
            # All of it in C: 44 ns a count were measured, and 73 with a loop, which others interrupt.
            found.update(itertools.starmap(self.queue.popleft, itertools.repeat((), calls)))
        for count, times in found.items():
            name, delta = count if isinstance(count, tuple) else (count, 1)
            self._sums[name] = self._sums.get(name, 0) + delta * times
        return calls

    def _send_sums(self) -> StoreUnavailable | None:
        names = list(self._sums)
        try:
            for at in range(0, len(names), MAX_OPS):
                self._send_part(names[at : at + MAX_OPS])
        except StoreUnavailable as error:
            if not self._waits:
                _log().warning("%d counts wait for the store: %s", self._calls, error)
            self._waits = True
            return error
        finally:
            if self._dropped:
                _log().error("%d sums of counts dropped, the first: %s", len(self._dropped), self._dropped[0])
                self._untold = self._untold or self._dropped[0]
                self._dropped.clear()
        self._calls, self._waits = 0, False
        self._open()
        return None

    def _send_part(self, names: list[str]) -> None:
        """Send the sums of *names*, and forget them, whether they are applied or dropped.

        Raises:
            StoreUnavailable: nothing of them was applied; they are kept.
        """
        ops: list[AnyOp] = [Increment(name, step) for name in names for step in _steps(self._sums[name])]
        try:
            results = self._store.execute(Request(ops, atomic=False), PATIENCE).unwrap()
            self._dropped += [result.error() for result in results if isinstance(result, Problem)]
        except StoreUnavailable:
            raise
        except CounterError as error:
            # Refused as a whole: it is too large for a frame, or one of them is to blame.
            if len(names) > 1 and not isinstance(error, OutcomeUnknown):
                half = len(names) // 2
                self._send_part(names[:half])
                self._send_part(names[half:])
                return
            self._dropped.append(error)
        except Exception as error:  # noqa: BLE001  a mistake in a store must not end this thread
            _log().exception("counts could not be sent")
            self._dropped.append(error)
        for name in names:
            del self._sums[name]

    def _tell(self) -> Exception | None:
        untold, self._untold = self._untold, None
        return untold


def _log() -> logging.Logger:
    import logging  # not before there is something to say: whoever imports the package would wait for it

    return logging.getLogger(__name__)


def _steps(total: int) -> Iterator[int]:
    """*total* in steps that 64 bits hold."""
    while not INT64_MIN <= total <= INT64_MAX:
        step = INT64_MAX if total > 0 else INT64_MIN
        yield step
        total -= step
    yield total


def _wiped_on_fork() -> memoryview[int]:
    """One number, 0 here and in the child of every fork.

    Looking at the process id for each count would be right too, but is a system call: 260 ns a count were
    measured with it, and 130 with this.
    """
    if sys.platform == "linux":
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # an older kernel: at-fork hooks alone, which Python's forks run
            page.madvise(_WIPE_ON_FORK)
        return memoryview(page).cast("q")
    return memoryview(array("q", [0]))


_senders: weakref.WeakSet[Sender] = weakref.WeakSet()
_told_multiprocessing: set[int] = set()


def _at_exit() -> None:
    for sender in list(_senders):
        sender.at_exit()


def _at_exit_of_child() -> None:
    """A child of multiprocessing ends by os._exit and runs what was left with that module alone."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and os.getpid() not in _told_multiprocessing:
        _told_multiprocessing.add(os.getpid())
        util.Finalize(None, _at_exit, exitpriority=0)


atexit.register(_at_exit)
