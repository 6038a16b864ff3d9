"""What goes wrong with a manager's disk, or with itself around it: faults for the `launcher`.

Each function takes one text, and replaces methods in this process before the manager begins. The process that
makes a snapshot is another one, without faults.
"""

import errno
import os
import signal
import time

from counter import journal, keeper, log, server, table
from counter.cli import processes
from counter.connections import Connections
from counter.disk import Disk, DiskFile
from faults.plan import Plan

POINTS = {
    "received": 60,
    "executed": 60,
    "half-written": 30,
    "written": 30,
    "before-sync": 10,
    "after-sync": 10,
    "before-reply": 60,
    "after-reply": 60,
    "prepared": 2,
    "switched": 2,
    "child-started": 2,
    "child-ended": 2,
    "renamed": 2,
    "names-synced": 2,
    "log-removed": 2,
    "repaired": 1,
    "made-safe": 1,
    "log-begun": 1,
}
"""Where a manager can be killed, and the latest time (of so many) at which it is."""
IN_A_START = ("repaired", "made-safe", "log-begun")
"""Those of them that come before a manager serves."""


def frequent_snapshots(text):
    """As soon as there are so many bytes of logs, or so many logs: *text* is the two numbers and a comma."""
    keeper.SNAPSHOT_BYTES, keeper.SNAPSHOT_LOGS = map(int, text.split(","))
    keeper.FIRST_PAUSE = keeper.POLL_SECONDS


def sync_seconds(text):
    """Sync each *text* seconds, and look as often at a snapshot."""
    keeper.SYNC_SECONDS = float(text)
    keeper.POLL_SECONDS = min(keeper.POLL_SECONDS, keeper.SYNC_SECONDS)


def another_boot(_):
    """As after a restart of the host."""
    journal.boot_id = lambda: b"a boot after the"


def no_sync(_):
    """Say of every file that it is on the disk, and do nothing: a mistake that a power cut must show."""
    DiskFile.sync = lambda file: None


def slow_sync(text):
    """Let each sync of a running manager take longer: *text* is milliseconds, `:` and a plan's folder."""
    milliseconds, _, folder = text.partition(":")
    plan, running = Plan(folder), []
    after(journal.Journal, "start", lambda *_: running.append(True))
    sync = DiskFile.sync

    def slowly(file):
        if running:
            time.sleep(int(milliseconds) / 1000)
            plan.tell("synced")
        sync(file)

    DiskFile.sync = slowly


def sync_error(folder):
    """Let the n-th sync of a running manager fail, n being its line in the plan; tell of all."""
    plan = Plan(folder)
    words = plan.take()
    left = int(words[0]) if words else 0
    running = failed = False
    sync = DiskFile.sync

    def begin(*_):
        nonlocal running
        running = True
        plan.tell("running")

    def sync_or_fail(file):
        nonlocal left, failed
        plan.tell("sync", *file.origin)
        left -= running
        if running and left == 0:
            failed = True
            plan.tell("failed")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)

    def remember(how):
        def origin(file, _disk, name):
            file.origin = how, name

        return origin

    after(journal.Journal, "start", begin)
    after(Disk, "create", remember("created"))
    after(Disk, "open", remember("opened"))
    after(Connections, "send", lambda *_: plan.tell("answered") if failed else None)
    after(processes, "serve", lambda code, *_: plan.tell("exit", code))
    DiskFile.sync = sync_or_fail


def killed_at(folder):
    """Kill the manager where its line in the plan says: at one of `POINTS`, and which time it comes there."""
    death = Death(Plan(folder))
    running, always = death.while_running, death.always
    after(journal.Journal, "start", death.arm)
    after(server, "decode_request", lambda request, *_: request.mutates and running("received"))
    after(table.Turn, "execute", lambda _, turn, request, *rest: request.mutates and running("executed"))
    before(Connections, "send", lambda _, to, *rest: to.handshake.done and running("before-reply"))
    after(Connections, "send", lambda _, crowd, to, *rest: to.handshake.done and running("after-reply"))
    before(DiskFile, "sync", lambda *_: running("before-sync"))
    after(DiskFile, "sync", lambda *_: running("after-sync"))
    after(log.Log, "prepare", lambda *_: running("prepared"))
    after(log.Log, "switch", lambda *_: running("switched"))
    after(log.Log, "_begin", lambda *_: always("log-begun"))
    after(keeper.Keeper, "_start_child", lambda *_: running("child-started"))
    after(keeper.Child, "exit_code", lambda code, *_: code is not None and running("child-ended"))
    after(Disk, "remove", lambda _, disk, name: name.endswith(".log") and running("log-removed"))
    after(journal, "repair", lambda *_: always("repaired"))
    after(journal, "_make_safe", lambda *_: always("made-safe"))
    _kill_in_rename(death)
    _kill_in_write(death)


class Death:
    """How and when this process is to end by itself."""

    def __init__(self, plan):
        self._plan = plan
        self._point, self._left = "", 0
        if words := plan.take():
            self._point, self._left = words[0], int(words[1])
        self._armed = False
        plan.tell("started", time.monotonic_ns())

    def arm(self, *_):
        """From here on the manager runs."""
        self._armed = True

    def while_running(self, point):
        """The manager is at *point*; in its start this does not count."""
        if self._armed:
            self.always(point)

    def always(self, point):
        """The manager is at *point*."""
        if self.is_due(point):
            self.die()

    def is_due(self, point):
        """Whether it is to end at *point* now; it does not do so yet."""
        if point != self._point:
            return False
        self._left -= 1
        return self._left == 0

    def die(self):
        self._plan.tell("killed", self._point, time.monotonic_ns())
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_in_rename(death):
    renamed = False

    def note(_, disk, old, new):
        nonlocal renamed
        renamed = new.endswith(".snapshot")
        if renamed:
            death.while_running("renamed")

    after(Disk, "rename", note)
    after(Disk, "sync", lambda *_: renamed and death.while_running("names-synced"))


def _kill_in_write(death):
    write = DiskFile.write

    def write_or_die(file, data, at):
        if at and death.is_due("half-written"):
            write(file, data[: len(data) // 2], at)
            death.die()
        write(file, data, at)
        if at:  # else it is a header
            death.always("written")

    DiskFile.write = write_or_die


def before(owner, name, call):
    """Let *call* be called with the arguments of the function *name* of *owner*, before it."""
    function = getattr(owner, name)

    def replacement(*arguments):
        call(*arguments)
        return function(*arguments)

    setattr(owner, name, replacement)


def after(owner, name, call):
    """Let *call* be called with the result and the arguments of the function *name* of *owner*, after it."""
    function = getattr(owner, name)

    def replacement(*arguments):
        result = function(*arguments)
        call(result, *arguments)
        return result

    setattr(owner, name, replacement)
