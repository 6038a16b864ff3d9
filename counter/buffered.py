"""Counts that need no answer: added up in this process, and sent by a thread of its own.

A count is put into a deque, which is one step for every thread, signal's handler and greenlet; nobody takes a
lock. `sender.py` empties it. All rare cases (nobody sends yet, the sender sleeps, too much is pending, this
is the child of a fork) look alike from here: there is no room, and `_attend` finds out why.
"""

from __future__ import annotations

import collections
import os
import weakref
from collections.abc import Iterable, Mapping
from typing import Self

from .errors import InvalidRequest, StoreUnavailable, Unsupported
from .fields import check_int, check_name
from .multiset import Multiset, plain
from .sender import NOBODY, Count, Outbox, Sender
from .settings import SETTINGS, number
from .store import Store, StoreUrl

FLUSH_EVERY = 0.1
"""Seconds between two requests, at the least."""
MAX_PENDING = 10_000
_LONGEST_PAUSE = 3600.0
_MOST_KNOWN = 10_000  # names that need not be looked at again: with long ones, a few megabytes
_ONE = 1


class BufferedCounter:
    """Counts for *store* that nobody waits for: `SharedCounter.buffered` makes one.

    Safe to use from any number of threads, from signal handlers, and across forks: what is pending stays with
    the process that counted it, and a child begins with nothing. Its thread begins with the first count.

    Args:
        store: where the counts go; one that was opened by a URL.
        flush_every: seconds that a count waits at most before it is sent.
        max_pending: most increments that may be pending, those on their way included.

    Raises:
        InvalidRequest: *flush_every* or *max_pending* make no sense.
        Unsupported: the store has no URL, as that of a `FlaskCounter`.
    """

    def __init__(
        self, store: Store, flush_every: float = FLUSH_EVERY, max_pending: int = MAX_PENDING
    ) -> None:
        self._senders: dict[int, Sender] = {}  # by pid: at most one, but for a moment after a fork
        if type(flush_every) not in (int, float) or not 0 < flush_every <= _LONGEST_PAUSE:
            raise InvalidRequest(
                f"flush_every is more than 0 and at most {_LONGEST_PAUSE:.0f} seconds, not {flush_every!r}"
            )
        check_int("max_pending", max_pending, least=1)
        if not store.url:
            raise Unsupported(
                "what is buffered is sent later, to a store that has a URL: take "
                "counter.connect(url).buffered(), also for a FlaskCounter, whose app is not current then"
            )
        self._store = store
        self._prefix = store.prefix
        given = StoreUrl.parse(store.url).options.get("timeout", number("timeout"))
        self._timeout = SETTINGS["timeout"].parse(given, "timeout")
        self._limits = flush_every, max_pending
        self._known: set[str] = set()
        self._sender: Outbox = NOBODY
        _buffers.add(self)

    def increment(self, name: str, delta: int = 1) -> None:
        """Add *delta* to the counter *name*, within *flush_every* seconds.

        Waits only if *max_pending* increments are pending, until they are sent, and at most as long as any
        call to the store may take.

        Args:
            name: 1-250 bytes of UTF-8, no control characters.
            delta: signed 64-bit step.

        Raises:
            InvalidRequest: a bad name or number.
            StoreUnavailable: too much is pending, and the store does not take it. This one was not counted.
        """
        # 130 ns measured: hence nothing is called but `append`, and `_ONE` and `_known` are looked at first.
        try:
            count: Count = name if delta is _ONE and name in self._known else self._checked(name, delta)
        except TypeError:
            count = self._checked(name, delta)  # unhashable, so no name: says so
        sender = self._sender
        queue = sender.queue
        queue.append(count)
        # After it is there: a sender takes the room away first, and then looks whether it may sleep.
        if len(queue) > sender.room[0]:
            self._attend(count, sender)

    def decrement(self, name: str, delta: int = 1) -> None:
        """Subtract *delta*; as `increment` with ``-delta``."""
        delta = plain(delta)
        check_int("delta", delta)
        self.increment(name, -delta)

    def update(self, counts: Iterable[str] | Mapping[str, int] | None = None, /, **deltas: int) -> None:
        """Add counts: of the elements of an iterable, or a mapping's values; each for itself.

        Raises:
            InvalidRequest: a bad name or number; nothing was counted.
            StoreUnavailable: as for `increment`; those before it were counted.
        """
        if isinstance(counts, Multiset):  # in pages: a Counter would ask for each name by itself
            counts = counts.copy()
        pairs = (*collections.Counter(counts).items(), *deltas.items())
        for name, delta in pairs:
            self._checked(name, delta)
        for name, delta in pairs:
            self.increment(name, delta)

    def flush(self, timeout: float | None = None) -> None:
        """Send what this process has counted so far, and wait until it is applied.

        What is not applied when it fails is not lost but sent later, and counts once all the same: all errors
        but `StoreUnavailable` and a *timeout* that is over tell of counts that were dropped, since the last
        time that one was told.

        Args:
            timeout: seconds; the store's own if None.

        Raises:
            StoreUnavailable: the store does not take them now.
            OutcomeUnknown: no answer in time; or the store was gone for an hour, and nobody will know.
            CounterError: a count was refused, such as by a counter's bounds, for which it is `OutOfBounds`.
        """
        seconds = self._timeout if timeout is None else SETTINGS["timeout"].parse(timeout, "timeout")
        sender = self._senders.get(os.getpid())
        if sender is not None and (error := sender.flush(seconds)) is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    def __del__(self) -> None:
        if (sender := self._senders.get(os.getpid())) is not None:
            sender.end()

    def _checked(self, name: str, delta: int) -> Count:
        """What stands for them in a queue, once they are known to be good."""
        name, delta = plain(name), plain(delta)
        if type(name) is not str or name not in self._known:
            check_name(name)
            if self._prefix:
                check_name(self._prefix + name)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known.add(name)
        check_int("delta", delta)
        return name if delta == 1 else (name, delta)

    def _attend(self, count: Count, used: Outbox) -> None:
        """*count* was put into *used*, where there is no room for it."""
        pid = os.getpid()
        sender = self._senders.get(pid)
        if sender is None:
            for other in [other for other in self._senders if other != pid]:
                self._senders.pop(other, None)  # a parent's; what it has pending is its own
            fresh = Sender(self._store, *self._limits)
            sender = self._senders.setdefault(pid, fresh)  # atomic: two threads get the same one
        self._sender = sender
        if used is not sender:  # nobody's, or a parent's
            sender.queue.append(count)
        error = sender.make_room(self._timeout)
        if error is None:
            return
        try:
            sender.queue.remove(count)  # or one that is equal, which is as good
        except ValueError:
            return  # it was taken in the meantime, so it counts
        raise StoreUnavailable(f"too many counts are pending, and this one was not counted: {error}")


_buffers: weakref.WeakSet[BufferedCounter] = weakref.WeakSet()


def _after_fork() -> None:
    for buffer in list(_buffers):
        buffer._senders.clear()
        buffer._sender = NOBODY


os.register_at_fork(after_in_child=_after_fork)
