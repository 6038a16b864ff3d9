"""The service under test: `counter run` in a home of its own, and what it says."""

import contextlib
import re
import signal
import sys
import time
from pathlib import Path

import psutil
from support import wait_until

import counter
from counter import Info, Request
from faults.launcher import launched
from faults.processes import started

PATIENCE = 30.0
"""Seconds until the service, or a part of it that was killed, must be back."""


class Service:
    """A running one; *process* is its supervisor.

    Attributes:
        home: the manager's folder.
        url: of its HTTP API, None without workers.
    """

    def __init__(self, process, home):
        self.process = process
        self.home = home
        self.url = None

    def wait_ready(self):
        """Wait for the ready line."""

        def ready():
            assert self.process.exit_code is None, self.process.last_words()
            text = self.process.stdout.read_text()
            return text if text.endswith("\n") else None

        found = re.search(r"http://\S+", wait_until(ready, PATIENCE))
        self.url = found and found[0]

    @property
    def counters_url(self):
        return f"counter://{self.home}"

    def information(self):
        """What the manager says of itself; waits for one that is being restarted."""
        store = counter.open_store(self.counters_url)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return store.execute(Request([Info()])).only()
            except counter.StoreUnavailable:
                assert time.monotonic() < end, f"no manager is back: {self.process.last_words()}"
                time.sleep(0.02)

    def manager(self):
        """The pid of the manager that answers now; waits for one that is being restarted."""
        return self.information().manager.pid

    def locked_by(self):
        """The pid in the manager's lock: a new manager writes it there before it serves."""
        text = (Path(self.home) / "lock").read_text().strip()
        return int(text) if text else None

    def wait_followed(self, pid):
        """Wait until another manager than *pid* is starting; when that was seen."""
        wait_until(lambda: self.locked_by() not in (None, pid), PATIENCE)
        return time.monotonic_ns()

    def wait_workers(self, number):
        """The pids of the workers, once there are *number* and the manager knows them all."""

        def workers():
            children = {child.pid for child in psutil.Process(self.process.pid).children()}
            information = self.information()
            children.discard(information.manager.pid)
            known = {worker.pid for worker in information.workers if worker.role == "worker"}
            return sorted(children) if len(children) == number and children <= known else None

        return wait_until(workers, PATIENCE)

    def values(self):
        """The value of each counter, by name."""
        counters = counter.connect(self.counters_url)
        return dict(counters.items())

    def stop(self):
        """End it in order."""
        self.process.send(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        assert code == 0, f"it ended with exit code {code}: {self.process.last_words()}"


@contextlib.contextmanager
def service(trial, workers=0, faults=(), arguments=(), home=None):
    """A `Service` with *trial*'s durability until the end of the block.

    Args:
        trial: it is in a folder of this trial's.
        workers: how many serve the HTTP API.
        faults: for the manager, as `launcher` takes them.
        arguments: further ones of `counter run`.
        home: the manager's folder; a new one if left out.
    """
    home = trial.folder / "home" if home is None else home
    command = ["run", "--home", home, "--durability", trial.durability]
    command += ["--workers", workers, "--port", 0, *arguments]
    ordinary = [sys.executable, "-m", "counter", *command]
    faults = [*trial.planted, *faults]
    command = launched(faults, command) if faults else ordinary
    with started(command, trial.folder, "service") as process:
        running = Service(process, home)
        running.wait_ready()
        yield running
        if process.exit_code is None:
            running.stop()
