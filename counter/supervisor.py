"""The family: a manager and N workers, started, watched, replaced and ended by one process.

The loop sleeps until a signal arrives, a child speaks over its link or ends, or something is due; then it
looks at everyone. A *place* is a role in the family that is always to be filled; a *child* is one process.

A child that ends is followed by another at once if it had been ready, after a growing pause if it had not.
One that says its configuration is wrong (exit code 2 or 3) before it was ready ends the family, unless
another worker is serving: a broken app on disk takes nothing away that works.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator

from .family import Child, Family, Role, ready_line
from .notify import Notifier

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
WRONG_CONFIGURATION = (2, 3)

logger = logging.getLogger("counter.supervisor")


def pause(failures: int) -> float:
    """Seconds to wait after so many starts in a row that came to nothing; doubling, at most 30."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (min(failures, 20) - 1))


class Place:
    """A role in the family, who fills it, and when it may be filled next."""

    def __init__(self, role: Role) -> None:
        self.role: Role = role
        self.child: Child | None = None
        self.failures = 0
        self.due = 0.0

    @property
    def mode(self) -> str | None:
        """The mode that its child found; None if nobody is ready here."""
        return self.child.mode if self.child else None

    def wait_longer(self, now: float) -> None:
        """Another start came to nothing: the next is a while from *now*."""
        self.failures += 1
        self.due = now + pause(self.failures)


class Supervisor:
    """Keeps a family running until it is told to end it."""

    def __init__(self, family: Family, notifier: Notifier) -> None:
        self._family = family
        self._notifier = notifier
        self._manager = Place("manager") if family.manager else None
        self._workers = [Place("worker") for _ in range(family.workers)]
        self._coming: list[Child] = []  # workers of a reload, until all of them are ready
        self._leaving: list[Child] = []  # children without a place, until they have ended
        self._manager_was_ready = family.manager is None
        self._announced = False
        self._stopping = False
        self._exit_code = 0
        self._terminal = _has_terminal()

    def run(self) -> int:
        """Start everyone, and return the exit code when everyone has ended. In the main thread only."""
        with Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD) as signals:
            while True:
                self._fill_places(time.monotonic())
                if self._stopping and not self._children():
                    return self._exit_code
                links = [child.link for child in self._children() if not child.deaf]
                self._obey(signals.wait(links, self._next_due()))
                for child in self._children():
                    child.hear()
                self._bury(time.monotonic())
                self._look_around(time.monotonic())

    def _places(self) -> list[Place]:
        return [self._manager, *self._workers] if self._manager else self._workers

    def _children(self) -> list[Child]:
        placed = [place.child for place in self._places() if place.child]
        return [*placed, *self._coming, *self._leaving]

    def _next_due(self) -> float | None:
        """Seconds until something is to be done without a signal; None: nothing is."""
        moments = [child.kill_at for child in self._children()]
        moments += [place.due for place in self._vacant()]
        soonest = min(moments, default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _vacant(self) -> Iterator[Place]:
        """The places to be filled; those of workers wait for the manager's first word."""
        for place in () if self._stopping else self._places():
            if place.child is None and (self._manager_was_ready or place.role == "manager"):
                yield place

    def _fill_places(self, now: float) -> None:
        for place in self._vacant():
            if place.due <= now:
                place.child = self._start(place.role)
                if place.child is None:
                    place.wait_longer(now)

    def _start(self, role: Role) -> Child | None:
        try:
            child = Child(role, self._family)
        except OSError as error:  # no memory or no process is left
            logger.error("cannot start a %s: %s", role, error)
            return None
        logger.info("%s is started", child)
        return child

    def _obey(self, numbers: set[int]) -> None:
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            if self._stopping and signal.SIGINT in numbers:
                self._hurry()
            self._stop(self._exit_code)
        if signal.SIGHUP in numbers and not self._stopping:
            if self._terminal and not _has_terminal():
                logger.info("the terminal is closed")
                self._stop(0)
            else:
                self._reload()

    def _stop(self, exit_code: int) -> None:
        """Begin the end: workers now, the manager when they are gone."""
        if not self._stopping:
            logger.info("stopping")
            self._stopping, self._exit_code = True, exit_code
            self._notifier.stopping()
            if self._family.listener:
                self._family.listener.close()

    def _hurry(self) -> None:
        """Ctrl-C once more: whoever is asked to end already is not waited for."""
        for child in self._children():
            child.kill_at = 0.0 if child.leaving else child.kill_at

    def _reload(self) -> None:
        """Start new workers; when all are ready they take the places, and the old ones drain."""
        self._leaving += self._coming
        self._coming = []
        if self._manager_was_ready:
            logger.info("reloading: starting new workers")
            if self._announced:
                self._notifier.reloading()
            started = [self._start("worker") for _ in self._workers]
            self._coming = [child for child in started if child]
            if len(self._coming) < len(started):
                self._give_up_reload()
            elif not started:
                self._reloaded()

    def _bury(self, now: float) -> None:
        """Take note of every child that has ended."""
        for child in self._children():
            code = child.exit_code()
            if code is None:
                continue
            logger.log(_level(child), "%s ended%s", child, _how(child, code))
            if child in self._leaving:
                self._leaving.remove(child)
            elif child in self._coming:
                self._coming.remove(child)
                self._give_up_reload()
            else:
                self._vacate(next(place for place in self._places() if place.child is child), code, now)

    def _give_up_reload(self) -> None:
        if not self._stopping:
            logger.error("the new workers could not be started: those from before go on")
            self._reloaded()
        self._leaving += self._coming
        self._coming = []

    def _vacate(self, place: Place, code: int, now: float) -> None:
        was_ready, place.child = place.mode is not None, None
        if was_ready:
            place.failures, place.due = 0, now
        else:
            place.wait_longer(now)
        if self._stopping:
            return
        others_serve = self._announced and any(other.mode is not None for other in self._workers)
        if not was_ready and code in WRONG_CONFIGURATION and not (place.role == "worker" and others_serve):
            self._stop(3)
        elif place.failures:
            logger.warning("the next %s is started in %.1f s", place.role, pause(place.failures))

    def _look_around(self, now: float) -> None:
        """Do what the new state of the family asks for."""
        if self._manager and self._manager.mode is not None:
            self._manager_was_ready = True
        if self._coming and all(child.mode is not None for child in self._coming):
            self._hand_over()
        self._announce()
        workers = [place.child for place in self._workers if place.child]
        if self._stopping:
            for child in [*workers, *self._coming, *self._leaving] or self._children():
                child.end()
        for child in self._leaving:
            child.end()
        for child in self._children():
            child.kill_if_late(now)

    def _hand_over(self) -> None:
        for place, child in zip(self._workers, self._coming, strict=True):
            if place.child:
                self._leaving.append(place.child)
            place.child, place.failures = child, 0
        self._coming = []
        logger.info("reloaded: the old workers finish their requests and end")
        self._reloaded()

    def _reloaded(self) -> None:
        """Say that the reload is over, well or not; before we were ready, `_announce` says all there is."""
        if self._announced:
            self._notifier.ready()

    def _announce(self) -> None:
        """Say that we are ready, the first time that everyone is."""
        modes = [place.mode for place in self._places()]
        if self._announced or self._stopping or None in modes:
            return
        self._announced = True
        with contextlib.suppress(OSError):  # whoever reads it may be gone
            print(ready_line(self._family.home, modes[0] or "", self._family), flush=True)  # noqa: T201
        self._notifier.ready()


def _level(child: Child) -> int:
    return logging.INFO if child.leaving else logging.WARNING


def _how(child: Child, code: int) -> str:
    how = f" by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}" if code else ""
    return how if child.mode is not None or child.leaving else f"{how} before it was ready"


def _has_terminal() -> bool:
    """Whether a terminal controls this process: one that closes sends SIGHUP, and means the end by it."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False  # under nohup
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Signals(contextlib.AbstractContextManager["Signals"]):
    """Signals as data: while it is open, those given interrupt nothing and are read by `wait`."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Signals:
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in self._numbers}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    def wait(self, sockets: list[socket.socket], timeout: float | None) -> set[int]:
        """Sleep until a signal, something to read on *sockets*, or *timeout*; the numbers that arrived."""
        with selectors.DefaultSelector() as selector:
            for each in (self._reader, *sockets):
                selector.register(each, selectors.EVENT_READ)
            selector.select(timeout)
        try:
            return set(self._reader.recv(4096))
        except BlockingIOError:
            return set()
