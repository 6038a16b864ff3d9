"""The journal's upkeep, in a thread of its own: a sync each second, and a snapshot when the logs have grown.

A snapshot goes through stages: a new log is prepared, the loop's thread switches to it, a child process makes
the snapshot of the files that are closed by that, and the snapshot takes their place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .disk import Disk
from .log import JournalFailed, Log, Prepared
from .recovery import LOG, SNAPSHOT, UNFINISHED, file_name, numbered
from .snapshot import adopt

SYNC_SECONDS = 1.0
SNAPSHOT_BYTES = 64 * 1024 * 1024
"""Logs of so much, and of as much as the last snapshot, are worth a snapshot."""
SNAPSHOT_LOGS = 32
"""So many logs are worth one, too."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds until a snapshot that failed is tried again, doubling."""
POLL_SECONDS = 0.1

logger = logging.getLogger("counter.manager")


def outgrown(names: dict[str, int]) -> float:
    """How far the logs have grown, by the files' *names* and sizes; from 1 on a snapshot is worth it."""
    logs = [names[name] for name in numbered(names, LOG).values()]
    last = sum(names[name] for name in numbered(names, SNAPSHOT).values())
    return max(sum(logs) / max(SNAPSHOT_BYTES, last), len(logs) / SNAPSHOT_LOGS)


class Keeper:
    """Syncs *log* if *syncs*, and makes snapshots; *wake* lets the loop's thread call `tend`."""

    def __init__(self, disk: Disk, log: Log, syncs: bool, wake: Callable[[], None]) -> None:
        self._disk = disk
        self._log = log
        self._syncs = syncs
        self._wake = wake
        self._prepared: Prepared | None = None
        self._snapshot: tuple[int, str] | None = None  # it replaces what is before this sequence; its file
        self._child: Child | None = None
        self._pause = FIRST_PAUSE
        self._due = 0.0
        self._failure: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and give up a snapshot under way."""
        self._stopping.set()
        self._thread.join()
        if self._child is not None:
            self._child.kill()

    def tend(self) -> None:
        """Switch to a new log if one is ready; for the loop's thread, between two turns.

        Raises:
            JournalFailed: the disk failed under a sync, or the thread has ended: nobody would sync any more.
        """
        if self._failure is not None:
            raise JournalFailed(str(self._failure)) from self._failure
        if self._prepared is None:
            return
        try:
            self._log.switch(self._prepared)
        except OSError as error:
            self._give_up(error)
        else:
            self._snapshot = self._log.first, f"{self._log.first}{SNAPSHOT}{UNFINISHED}"
        self._prepared = None  # last: until then the journal's thread waits

    def _run(self) -> None:
        due = 0.0
        try:
            while not self._stopping.wait(self._patience(due)):
                if time.monotonic() >= due:
                    due = time.monotonic() + SYNC_SECONDS
                    if self._syncs and self._log.behind:
                        self._log.sync()
                self._look_at_folder()
                self.step()
        except Exception as error:  # noqa: BLE001  whatever it is, `tend` raises it where it ends the process
            self._failure = error
            self._wake()

    def _look_at_folder(self) -> None:
        """See that the log is still there: without a name, what is synced is nowhere to be found."""
        first = self._log.first  # looked at first: a newer one may not be in the listing
        try:
            names = self._disk.sizes()
        except FileNotFoundError:
            names = {}  # the whole folder is gone
        except OSError:
            return  # no descriptor is free: that passes
        if first and file_name(first, LOG) not in names:
            raise JournalFailed(f"somebody has removed {file_name(first, LOG)}")

    def _patience(self, due: float) -> float:
        left = max(0.0, due - time.monotonic())
        return min(left, POLL_SECONDS) if self._child else left

    def step(self) -> None:
        """Go a stage further with a snapshot, if one is under way or worth it."""
        try:
            if self._prepared is not None:
                return
            if self._child is not None:
                self._look_at_child(self._child)
            elif self._snapshot is not None:
                self._child = self._start_child(*self._snapshot)
            elif time.monotonic() >= self._due and outgrown(self._disk.sizes()) >= 1:
                self._prepared = self._log.prepare()
                self._wake()
        except OSError as error:
            self._give_up(error)

    def _start_child(self, before: int, name: str) -> Child:
        return Child(self._disk.folder, before, name)

    def _look_at_child(self, child: Child) -> None:
        code = child.exit_code()
        if code is None or self._snapshot is None:
            return
        if code:
            self._give_up(f"its process ended with {code}")
            return
        before, name = self._snapshot
        adopt(self._disk, name, before, self._log.sync_names)
        self._child = self._snapshot = None
        self._pause = FIRST_PAUSE
        logger.info("a snapshot takes the place of the logs before %s", before)

    def _give_up(self, why: object) -> None:
        """The logs stay, and all is as good as before; later it is tried again."""
        logger.warning("no snapshot could be made, and the journal grows: %s", why)
        if self._snapshot is not None:
            with contextlib.suppress(OSError):
                self._disk.remove(self._snapshot[1])
        self._child = self._snapshot = None
        self._due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class Child:
    """The process that makes a snapshot; it ends with this one."""

    def __init__(self, folder: Path, before: int, name: str) -> None:
        self._link, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "counter.snapshot",
            str(theirs.fileno()),
            str(folder),
            str(before),
            name,
        ]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  # nosec B603  # our own command, and no shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    cwd=Path(__file__).parent.parent,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C on a terminal is not for it
                )
        except OSError:
            self._link.close()
            raise

    def exit_code(self) -> int | None:
        """None while it works."""
        code = self._process.poll()
        if code is not None:
            self._link.close()
        return code

    def kill(self) -> None:
        """End it now, without anything left of it but a file that the next start removes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, 9)
        self._process.wait()
        self._link.close()
