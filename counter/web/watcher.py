"""One watcher a process: it learns that something changed in a store, and wakes those who wait for that.

It says that and no more. Whoever is woken asks the store for what it has not seen itself, so that nobody's
view hangs on what was kept for others.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque

from flask import current_app

from ..errors import CounterError
from ..fields import MAX_PAGE
from ..ops import Changes, Request
from ..results import ChangesPage
from ..store import Store
from .config import Api

PACE_SECONDS = 0.2
"""Between two times that those who wait are woken, and two bodies of a stream."""
_ASK_SECONDS = 5.0
_IDLE_SECONDS = 5.0  # nobody has waited for so long: it ends, and the next one who waits starts it again
_PAUSE_SECONDS = 1.0  # after the store failed
_NO_NAME = "\U0010ffff"  # no text begins with it, so the store goes over what it skips and tells none of it
_EXTENSION = "counter_watch"


class Slot:
    """The right to keep a thread waiting; freed once, or with its last reference.

    The latter where an app's own `after_request` fails and drops an answer that nobody has closed.
    """

    def __init__(self, free: deque[None]) -> None:
        self._free = free
        self._held: list[None] = [None]

    def free(self) -> None:
        """Give it back; again does nothing."""
        with contextlib.suppress(IndexError):  # no lock: a collection of garbage can call it anywhere
            self._free.append(self._held.pop())

    __del__ = free


class Slots:
    """*count* slots, which streams and long polls share."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free: deque[None] = deque([None] * count)

    @property
    def used(self) -> int:
        """How many are taken."""
        return self.count - len(self._free)

    def take(self) -> Slot | None:
        """One, if any is free."""
        try:
            self._free.pop()
        except IndexError:
            return None
        return Slot(self._free)


class Watcher:
    """The one thread of this process that asks *store* for changes, while anybody waits for some.

    Attributes:
        slots: how many may wait.
        moment: rises when something may have changed. Note it, then look, then `wait` for a later one.
    """

    def __init__(self, store: Store, slots: int) -> None:
        self.slots = Slots(slots)
        self.moment = 0
        self._store = store
        self._changed = threading.Condition()
        self._waiting = 0
        self._wanted_until = 0.0
        self._thread: threading.Thread | None = None

    def wait(self, moment: int, version: str, seconds: float) -> bool:
        """Wait until something may have changed since *moment*, *seconds* at the most; whether it may have.

        *version* is how far whoever waits has seen.
        """
        with self._changed:
            self._waiting += 1
            try:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._follow, args=[version], name="watcher", daemon=True
                    )
                    self._thread.start()
                return self._changed.wait_for(lambda: self.moment != moment, seconds)
            finally:
                self._waiting -= 1
                self._wanted_until = time.monotonic() + _IDLE_SECONDS

    def _follow(self, since: str) -> None:
        begun = True  # somebody may have looked before *since*, so all look once more
        while self._is_wanted():
            try:
                page = self._ask(Changes(since, wait=0 if begun else _ASK_SECONDS, limit=1))
                changed = page.tells
                if page.more:
                    page = self._ask(Changes(page.version, _NO_NAME, limit=MAX_PAGE))
            except CounterError:  # those who wait ask the store too, and say what it says
                time.sleep(_PAUSE_SECONDS)
                continue
            since = page.version
            if changed or begun:
                begun = False
                with self._changed:
                    self.moment += 1
                    self._changed.notify_all()
                time.sleep(PACE_SECONDS)

    def _ask(self, op: Changes) -> ChangesPage:
        page: ChangesPage = self._store.execute(Request([op])).only()
        return page

    def _is_wanted(self) -> bool:
        with self._changed:
            if self._waiting or time.monotonic() < self._wanted_until:
                return True
            self._thread = None
            return False


class Watch:
    """The watcher of whichever process it is asked in; a fork has its own, with all of its slots free."""

    def __init__(self, store: Store, slots: int) -> None:
        self._store = store
        self._slots = slots
        self._watchers: dict[int, Watcher] = {}  # by pid: at most one, but for a moment after a fork

    def here(self) -> Watcher:
        """The one of this process; its thread runs only while somebody waits."""
        pid = os.getpid()  # looked at each time: a server that forks in C runs no at-fork hooks
        watcher = self._watchers.get(pid)
        if watcher is None:
            for other in [other for other in self._watchers if other != pid]:
                self._watchers.pop(other, None)
            watcher = self._watchers.setdefault(pid, Watcher(self._store, self._slots))
        return watcher


def watcher_of(api: Api) -> Watcher:
    """The watcher of the current app, with half of the threads as slots."""
    if _EXTENSION not in current_app.extensions:
        slots = max(1, api.config.threads // 2)
        current_app.extensions.setdefault(_EXTENSION, Watch(api.store, slots))
    watch: Watch = current_app.extensions[_EXTENSION]
    return watch.here()
