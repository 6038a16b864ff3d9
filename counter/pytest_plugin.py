"""Fixtures for tests of programs that count: `memory_counter` and `counter_manager`.

Each points COUNTER_URL to counters of its own, empty ones, until the end of the test. pytest loads this in
every run where the package is installed, so it imports nothing that is not needed.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from .shared_counter import SharedCounter, connect

START_SECONDS = 30.0
STOP_SECONDS = 10.0

_numbers = itertools.count(1)


@pytest.fixture
def memory_counter(monkeypatch: pytest.MonkeyPatch) -> SharedCounter:
    """Empty counters in this process, at `memory://…`, which is COUNTER_URL until the test ends."""
    return _at(f"memory://test-{next(_numbers)}", monkeypatch)


@pytest.fixture
def counter_manager(_counter_home: Path, monkeypatch: pytest.MonkeyPatch) -> SharedCounter:
    """Empty counters of a real manager, for any number of processes, at COUNTER_URL until the test ends.

    The manager is started once in a run. Tests do not see each other's counters, as each has a prefix of its
    own; but they share idempotency keys.
    """
    home = quote(str(_counter_home))
    monkeypatch.setenv("COUNTER_HOME", str(_counter_home))  # for who asks for `counter://` by name
    return _at(f"counter://{home}?prefix=test-{next(_numbers)}%3A", monkeypatch)


def _at(url: str, monkeypatch: pytest.MonkeyPatch) -> SharedCounter:
    monkeypatch.setenv("COUNTER_URL", url)
    return connect(url)


@pytest.fixture(scope="session")
def _counter_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a manager that runs until the run of tests ends, however that ends."""
    folder = tmp_path_factory.mktemp("counter")
    home, log = folder / "home", folder / "log"
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, log.open("wb") as written:
            process = _start_manager(home, theirs, written.fileno())
        try:
            if not _is_ready(ours):
                pytest.fail(f"the manager did not start:\n{log.read_text(errors='replace')}", pytrace=False)
            yield home
        finally:
            _stop(process)


def _start_manager(home: Path, link: socket.socket, log: int) -> subprocess.Popen[bytes]:
    """A manager that says over *link* when it is ready, and ends when the other end of it is closed."""
    command = [sys.executable, "-m", "counter", "manager", "--home", str(home), "--durability", "memory"]
    return subprocess.Popen(  # noqa: S603  # nosec B603  # our own command, and no shell
        [*command, "--link", str(link.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=Path(__file__).resolve().parent.parent,  # so that it is this package that runs
        env={name: value for name, value in os.environ.items() if not name.startswith("COUNTER_")},
        pass_fds=[link.fileno()],
        process_group=0,  # Ctrl-C is for the tests, which end it after those that still ask it
    )


def _is_ready(link: socket.socket) -> bool:
    link.settimeout(START_SECONDS)
    try:
        return bool(link.recv(64))  # nothing: the process has ended
    except TimeoutError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
