"""The manager: a BaseManager, and its process from the start to the exit code."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable
from multiprocessing.managers import BaseManager
from typing import NoReturn

from . import stock
from .errors import StoreUnavailable, Unsupported
from .home import Home
from .journal import MAY_PASS, Journal, NoJournal, is_journal
from .log import JournalFailed
from .server import ManagerServer
from .settings import ManagerOptions
from .state import State

DISK_FAILED = 5
"""Exit code: the disk failed, or had no room for a start. The next start may do better."""

logger = logging.getLogger("counter.manager")


class CounterManager(BaseManager):
    """The manager of shared counters; run it in a process of its own, as `counter manager` does."""

    def __init__(
        self,
        options: ManagerOptions,
        journal: Journal | NoJournal | None = None,
        state: State[bytes] | None = None,
    ) -> None:
        self._options, self._home = options, Home(options.home)
        self._journal, self._found = journal or NoJournal(), state or State()
        super().__init__(address=str(self._home.socket_path), authkey=self._home.read_key())

    def get_server(self) -> ManagerServer:
        """The server, listening; `serve_forever` runs it."""
        return ManagerServer(self._options, self._home, self._journal, self._found)

    def start(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: a manager that is some worker's child would go with that worker."""
        raise Unsupported("run the manager as a process of its own: `counter run` or `counter manager`")


CounterManager.register(stock.IDENT)


def serve(
    options: ManagerOptions, ready: Callable[[], None], stopping: Callable[[], None] = lambda: None
) -> int:
    """Run a manager in this process until SIGTERM, SIGINT or SIGHUP, and return its exit code.

    Args:
        options: how; the home is made if it is missing.
        ready: called once it listens.
        stopping: called once it no longer does, before what it was told is synced.

    Raises:
        AlreadyRunning: another manager has the home.
        StoreUnavailable: the home or the journal is refused; the sentence says what to do.
        InvalidRequest: there is no such group.
    """
    # No full collections: one holds the loop for 0.3 s at 1,000,000 counters that end. Cycles here die young.
    gc.set_threshold(*gc.get_threshold()[:2], 2**31 - 1)
    try:
        _serve(options, ready, stopping)
    except JournalFailed as error:
        logger.critical("%s: ending, so that the next start recovers what is there", error)
        return DISK_FAILED
    except StoreUnavailable as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in MAY_PASS:
            raise
        logger.critical("%s; it may pass", error.detail)
        return DISK_FAILED
    return 0


def _serve(options: ManagerOptions, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
    home = Home(options.home)
    home.prepare(options.group)
    with home.lock():
        home.ensure_key()
        journal, state = _open_journal(home, options.durability)
        server = CounterManager(options, journal, state).get_server()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, server.stop)
        # Python runs a handler between two of its own instructions: without this, a signal that comes on the
        # way into the loop's wait would be heard at the next event.
        before = signal.set_wakeup_fd(server.wake_file, warn_on_full_buffer=False)
        try:
            ready()
            gc.freeze()  # what was restored stays; to go through it takes 70 ms at 1,000,000 counters
            server.serve_forever()
            stopping()
        finally:
            signal.set_wakeup_fd(before)
        journal.close()


def _open_journal(home: Home, durability: str) -> tuple[Journal | NoJournal, State[bytes]]:
    if durability != "memory":
        return Journal.open(home.journal_path, always=durability == "always")
    if is_journal(home.journal_path):
        raise StoreUnavailable(
            f"{home.path} has a journal, which --durability memory would neither read nor write: leave that "
            "out, or choose another --home"
        )
    return NoJournal(), State()
