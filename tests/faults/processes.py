"""Processes that a trial starts: each ends with the block that started it, at the latest."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

from support import ROOT, clean_environ

TESTS = ROOT / "tests"


class Process:
    """A process that was started, and the files with what it said.

    Its stdin is a pipe that nothing is written to: a process that reads it learns when it is to end, also
    when this one is killed.
    """

    def __init__(self, arguments, folder, name, environ=None):
        self.stdout, self.stderr = folder / f"{name}.out", folder / f"{name}.err"
        path = os.pathsep.join([str(ROOT), str(TESTS)])
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self._popen = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env=clean_environ(**(environ or {})) | {"PYTHONPATH": path},
            )
        self.pid = self._popen.pid

    @property
    def exit_code(self):
        """None while it runs."""
        return self._popen.poll()

    def send(self, number):
        self._popen.send_signal(number)

    def close_stdin(self):
        self._popen.stdin.close()

    def wait(self, seconds):
        """Its exit code, once it has ended."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds} s: {self.last_words()}") from None

    def last_words(self):
        """What is to be known of it when something went wrong."""
        tail = self.stderr.read_text(errors="replace")[-2000:]
        return f"{self._popen.args}, exit code {self.exit_code}, said at the end:\n{tail}"

    def kill(self):
        """End it now, if it has not ended."""
        with contextlib.suppress(BrokenPipeError):
            self.close_stdin()
        if self.exit_code is None:
            self._popen.kill()
        self._popen.wait()


@contextlib.contextmanager
def started(arguments, folder, name, environ=None):
    """A `Process` until the end of the block; if that is an error, its last words are on stderr."""
    process = Process(arguments, folder, name, environ)
    try:
        yield process
    except BaseException:
        print(process.last_words(), file=sys.stderr)
        raise
    finally:
        process.kill()


class Kill:
    """A kill -9 of the process *pid*, and when it was: nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, pid):
        file = os.pidfd_open(pid)
        try:
            self.at = time.monotonic_ns()
            signal.pidfd_send_signal(file, signal.SIGKILL)
            gone, _, _ = select.select([file], [], [], 20)
            self.gone_at = time.monotonic_ns()
        finally:
            os.close(file)
        assert gone, f"process {pid} did not end within 20 s of its kill -9"


def freeze(pid):
    """SIGSTOP the process *pid*; it has stopped when this returns, at once."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 20
    while state_of(pid) != "T":  # without a pause: what happens from here on is to be known exactly
        assert time.monotonic() < end, f"process {pid} does not stop"


def state_of(pid):
    """The letter that the kernel gives for the state of *pid*."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
