"""No log of a run of tests holds a secret: what was written and captured is searched when the run ends.

Searched are all texts under the run's base folder, what pytest captured (output and log records), and what
processes told on a stderr that a test read through a pipe. Not stdout through a pipe: `counter token` tells a
token there, which is its purpose. A finding fails the run, and shows where it is but not the secret.
"""

import base64
import contextlib
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

MARKERS = (b"payment-0815-key",)
"""Idempotency keys that tests use in order to find them where they do not belong."""
ALLOWED = {}
"""Parts of a place (a test's id, a file's path) that may hold a secret, and why."""

MOST_BYTES = 16 * 1024 * 1024
_SPOOL = ".said"
_KEY_FILE = "authkey"
_KEY_BYTES = 32
_DISTINCT = 16  # bytes of a key that was drawn; one such as b"x" * 32 would be found in any text
_HEAD = b"\x1e"  # begins the line in a spool that tells the test
_DATA = {"journal", "__pycache__", ".git"}  # no logs
# With a capital letter, which each of ours has but in one of 10^9 cases, and names of functions have not.
_TOKEN = re.compile(rb"counter_(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{43}")
_HEX = re.compile(rb"[0-9a-fA-F]{64,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{43,}")
_STANDARD = bytes.maketrans(b"-_", b"+/")


class Finding(NamedTuple):
    """A secret, by what it is, where, and what stands before it in its line."""

    what: str
    place: str
    line: int
    beginning: str

    def __str__(self):
        return f"{self.place}, line {self.line}: {self.what} after {self.beginning!r}"


class Keys:
    """Contents of key files, in each form that a log could show them in."""

    def __init__(self, keys):
        keys = [key for key in set(keys) if len(key) == _KEY_BYTES and len(set(key)) >= _DISTINCT]
        self._hex = {key.hex().encode() for key in keys}
        self._base64 = {base64.b64encode(key)[:43] for key in keys}
        self._raw = [form for key in keys for form in (key, key.decode("latin-1").encode())]
        self._escaped = [repr(key)[2:-1].encode() for key in keys]

    def positions(self, data):
        """Where *data* holds one."""
        for match in _HEX.finditer(data) if self._hex else ():
            yield from _windows(match, match[0].lower(), 64, self._hex)
        for match in _BASE64.finditer(data) if self._base64 else ():
            yield from _windows(match, match[0].translate(_STANDARD), 43, self._base64)
        if not data.isascii():
            yield from (data.index(form) for form in self._raw if form in data)
        if b"\\x" in data:
            plain = data.replace(b"\\\\", b"\\")  # in JSON they are doubled
            yield from (min(plain.index(form), len(data) - 1) for form in self._escaped if form in plain)


def _windows(match, text, size, known):
    for start in range(len(text) - size + 1):
        if text[start : start + size] in known:
            yield match.start() + start


def search(data, place, keys):
    """The findings in *data*, the content of *place*."""
    found = [("a token", match.start()) for match in _TOKEN.finditer(data)]
    found += [
        ("a marked idempotency key", match.start()) for each in MARKERS for match in re.finditer(each, data)
    ]
    found += [("the key of a home", position) for position in keys.positions(data)]
    for what, position in found:
        begin = data.rfind(b"\n", 0, position) + 1
        head = data.rfind(_HEAD, 0, position)
        where, first = place, 0
        if head >= 0:
            first = data.find(b"\n", head) + 1
            where = data[head + 1 : first - 1].decode(errors="replace")
        if not any(part in where for part in ALLOWED):
            beginning = data[begin:position][:80].decode(errors="replace")
            yield Finding(what, where, data.count(b"\n", first, position) + 1, beginning)


def search_folder(base):
    """The findings in all texts under *base*; each key file there tells what to look for, too."""
    paths = []
    for folder, folders, names in os.walk(base):
        folders[:] = (each for each in folders if each not in _DATA)
        paths += (Path(folder, name) for name in names)
    keys = Keys([path.read_bytes() for path in paths if path.name == _KEY_FILE and _size(path) == _KEY_BYTES])
    found = []
    for path in paths:
        most = float("inf") if path.suffix == _SPOOL else MOST_BYTES
        if path.name == _KEY_FILE or not 0 < _size(path) <= most:
            continue
        with contextlib.suppress(OSError):  # somebody may still be tidying up
            data = path.read_bytes()
            if b"\0" not in data[:1024]:
                found += search(data, str(path), keys)
    return found


def _size(path):
    """Of a regular file; -1 of all else."""
    try:
        told = path.lstat()
    except OSError:
        return -1
    return told.st_size if stat.S_ISREG(told.st_mode) else -1


class Leaks:
    """The plugin. With xdist the workers keep what they read through pipes, and the controller searches."""

    def __init__(self, config):
        self._config = config
        self._searches = not hasattr(config, "workerinput")
        self._communicate = subprocess.Popen.communicate
        self._found = []

    def _base(self):
        return self._config._tmp_path_factory.getbasetemp()  # xdist asks for it in the same way

    def _keep(self, where, text):
        with open(self._base() / f"{os.getpid()}{_SPOOL}", "ab") as spool:
            spool.write(_HEAD + where.encode() + b"\n" + text + b"\n")

    def pytest_sessionstart(self):
        real, plugin, pid = self._communicate, self, os.getpid()

        def communicate(popen, *args, **kwargs):
            out, err = real(popen, *args, **kwargs)
            if err and os.getpid() == pid:
                where = os.environ.get("PYTEST_CURRENT_TEST", "between the tests")
                plugin._keep(where, err.encode(errors="replace") if isinstance(err, str) else err)
            return out, err

        subprocess.Popen.communicate = communicate

    def pytest_runtest_logreport(self, report):
        if self._searches and report.when == "teardown":  # it has what was captured in all of the test
            for title, said in report.sections:
                self._keep(f"{report.nodeid}, {title}", said.encode(errors="replace"))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        subprocess.Popen.communicate = self._communicate
        if self._searches:
            self._found = search_folder(self._base())
            if self._found:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self._found:
            terminalreporter.section("logs that hold a secret", red=True)
            for finding in self._found:
                terminalreporter.line(str(finding))
