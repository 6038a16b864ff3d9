"""What tests of several modules need: waiting without sleeping blindly, processes whose output is kept."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The clone."""
COMMAND = (sys.executable, "-m", "counter")
"""The `counter` command, in this interpreter."""


def wait_until(condition, timeout=20.0):
    """What *condition* returned when it first was true; fail if it is not within *timeout* seconds."""
    end = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < end, f"not true within {timeout} s: {condition}"
        time.sleep(0.01)
    return result


def free_port():
    """A TCP port of the loopback interface that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environ(**extra):
    """This process's environment without its `COUNTER_…` settings, with this clone's package, and *extra*."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COUNTER_")}
    path = os.pathsep.join(filter(None, (str(ROOT), environ.get("PYTHONPATH"))))
    return environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | extra


class Running:
    """A process that was started, with all that it wrote."""

    def __init__(self, popen, folder):
        self._popen = popen
        self._folder = folder

    @property
    def pid(self):
        return self._popen.pid

    @property
    def exit_code(self):
        """None while it runs."""
        return self._popen.poll()

    @property
    def stdout(self):
        return (self._folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self):
        return (self._folder / "stderr").read_text(errors="replace")

    def describe(self):
        """All about it, for whoever reads why a test failed."""
        output = f"-- stdout\n{self.stdout}\n-- stderr\n{self.stderr}"
        return f"{self._popen.args}: exit code {self.exit_code}\n{output}"

    def line(self, beginning, timeout=20.0):
        """The first whole line on stdout that starts with *beginning*; fail at once if the process ends."""

        def find():
            exited = self.exit_code is not None  # looked at first, so that its last words are not missed
            lines = self.stdout.splitlines(keepends=True)
            found = [line for line in lines if line.startswith(beginning) and line.endswith("\n")]
            if exited and not found:
                raise AssertionError(f"it ended before it said {beginning!r}: {self.describe()}")
            return found

        try:
            return wait_until(find, timeout)[0].rstrip("\n")
        except AssertionError:
            raise AssertionError(f"it did not say {beginning!r}: {self.describe()}") from None

    def send(self, number):
        """Send the signal *number* to the process alone."""
        self._popen.send_signal(number)

    def wait(self, timeout=20.0):
        """Its exit code, once it has ended."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout} s: {self.describe()}") from None

    def stop(self, number=signal.SIGTERM, timeout=20.0):
        """Send it the signal *number* and return its exit code."""
        self.send(number)
        return self.wait(timeout)


@contextlib.contextmanager
def start_process(args, environ=None, cwd=None):
    """*args* running in a process group of its own; what is left of it at the end of the block is killed.

    What it wrote is printed then, and so shown if the test fails. *environ* is added to this process's own
    without its `COUNTER_…` settings.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            popen = subprocess.Popen(
                [str(arg) for arg in args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=clean_environ(**(environ or {})),
                start_new_session=True,
            )
        running = Running(popen, folder)
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
            print(running.describe())


def others_ran(call, calls):
    """Whether another thread, which always wants to run, could do so within *call*, made up to *calls* times.

    It could if *call*, which returns None, gives up Python's lock.
    """
    ran, stop, interval = 0, threading.Event(), sys.getswitchinterval()

    def run():
        nonlocal ran
        while not stop.is_set():
            ran += 1
            time.sleep(0)  # gives the lock up

    other = threading.Thread(target=run)
    sys.setswitchinterval(60)  # so nobody is asked for the lock
    try:
        other.start()
        while not ran:
            time.sleep(0.001)
        before = ran
        return any(call() or ran != before for _ in range(calls))
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        other.join()
