"""Client processes that count on a service, and the calls that they made."""

import contextlib
import sys

from support import wait_until

from faults.diary import SUFFIX, last_answer, read_diaries
from faults.processes import started

MOST_CALLS = 1_000_000
"""Of one thread, so that no load goes on for ever."""
PATIENCE = 60.0


class Load:
    """A running one."""

    def __init__(self, folder, processes, threads):
        self.folder = folder
        self._processes = processes
        self._threads = threads

    def wait_begun(self):
        """Wait until every thread has been answered."""

        def begun():
            assert all(process.exit_code in (None, 0) for process in self._processes), self._last_words()
            files = list(self.folder.glob("*" + SUFFIX))
            full = [file for file in files if b"\nI" in file.read_bytes()[:1000]]
            return len(full) == self._threads

        wait_until(begun, PATIENCE)

    def wait_answered(self, since, seconds):
        """Wait until every thread has been answered after the moment *since*, but at most *seconds*."""

        def answered():
            return all(last_answer(file) > since for file in self.folder.glob("*" + SUFFIX))

        with contextlib.suppress(AssertionError):
            wait_until(answered, seconds)

    def finish(self):
        """Let every thread finish its call; all calls that were made."""
        for process in self._processes:
            process.close_stdin()
        return self.join(PATIENCE)

    def join(self, seconds):
        """Wait until every thread has made its calls; all of them."""
        codes = [process.wait(seconds) for process in self._processes]
        assert not any(codes), self._last_words()
        return read_diaries(self.folder)

    def _last_words(self):
        return "\n".join(process.last_words() for process in self._processes)


@contextlib.contextmanager
def load(trial, url, processes=8, threads=2, calls=MOST_CALLS, pause=0.005, forks=0):
    """A `Load` on *url* until the end of the block: *calls* of each thread, with pauses as `client` says.

    With *forks* each process has so many children besides, one after the other.
    """
    folder = trial.new_folder(f"diaries.{len(list(trial.folder.glob('diaries.*')))}")
    with contextlib.ExitStack() as stack:
        crowd = []
        for number in range(processes):
            arguments = [url, folder, str(number), threads, calls, pause, trial.seed, forks]
            arguments += trial.planted_in_clients
            command = [sys.executable, "-m", "faults.client", *arguments]
            crowd.append(stack.enter_context(started(command, folder, f"client.{number}")))
        running = Load(folder, crowd, processes * (threads + forks))
        running.wait_begun()
        yield running
