"""Every setting once: a flag, else `COUNTER_…` in the environment, else the default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import InvalidRequest

VERSION = "0.1.0"
ALLOW_HOSTS = "COUNTER_ALLOW_HOSTS"
RATE_LIMIT = "COUNTER_RATE_LIMIT"
ACCESS_LOG = "COUNTER_ACCESS_LOG"
SERVER = "COUNTER_SERVER"
SERVERS = {
    "waitress": "counter.waitress_server:WaitressServer",
    "granian": "counter.granian_server:GranianServer",
}
"""What workers can serve with, and the class of each."""
DEFAULT_SERVER = "waitress"
LOG_NAMES = "COUNTER_LOG_NAMES"
TOKENS = "COUNTER_TOKENS"
OPEN_METRICS = "COUNTER_OPEN_METRICS"
DURABILITIES = ("everysec", "always", "memory")
"""What an answer means: it is written down and synced each second; it is on the disk; it is in memory."""

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(r"([0-9]{1,15}) ?(?:/|per) ?([0-9]{1,4})? ?(second|minute|hour|day)s?")
_HOST_NAME = re.compile(r"[a-z0-9._-]+")


class Setting(NamedTuple):
    """A number that can be set; the type of its default is its type."""

    name: str
    default: int | float
    least: int | float
    most: int | float
    help: str

    @property
    def flag(self) -> str:
        """Its name on a command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its name in the environment, and in a Flask app's config."""
        return "COUNTER_" + self.name.upper()

    def parse(self, text: str | int | float, source: str = "") -> int | float:
        """The value that *text* stands for.

        Args:
            text: what was given.
            source: where, for the error; the environment variable if left out.

        Raises:
            InvalidRequest: no number, or out of range.
        """
        try:
            value = type(self.default)(text)
            exact = isinstance(text, str) or (type(text) is not bool and value == text)
        except (TypeError, ValueError, OverflowError):
            value, exact = self.least, False
        if not exact or not self.least <= value <= self.most:
            source = source or self.variable
            raise InvalidRequest(f"{source} is a number from {self.least} to {self.most}, not {text!r}")
        return value


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(
            "max_counters", 1_000_000, 1, 100_000_000, "Most counters; at the limit creating is refused."
        ),
        Setting(
            "max_frame", 1024 * 1024, 4096, 64 * 1024 * 1024, "Largest request to the manager, in bytes."
        ),
        Setting("max_body", 64 * 1024, 64, 1024 * 1024, "Largest HTTP body, in bytes (a batch: 1 MiB)."),
        Setting("timeout", 10.0, 0.05, 3600.0, "Seconds that one call may take, retries included."),
        Setting("threads", 8, 1, 256, "Threads of each worker."),
    )
}


def number(name: str, environ: Mapping[str, str] | None = None) -> int | float:
    """The setting *name*: from *environ* (the process's own if left out), else its default.

    Raises:
        InvalidRequest: the environment holds no such number.
    """
    setting = SETTINGS[name]
    text = (os.environ if environ is None else environ).get(setting.variable)
    return setting.default if text is None else setting.parse(text)


def host_names(given: str | Iterable[object], source: str = ALLOW_HOSTS) -> frozenset[str]:
    """The names in *given*, as they are compared with a `Host`.

    Args:
        given: names, or one text in which commas or white space are between them.
        source: where, for the error.

    Raises:
        InvalidRequest: one is no name.
    """
    given = re.split(r"[\s,]+", given) if isinstance(given, str) else given
    names = frozenset(str(name).lower().rstrip(".") for name in given if name)
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise InvalidRequest(
                f"{source} takes names such as counters.example.org, without port: not {name!r}"
            )
    return names


def switch(given: object, source: str) -> bool:
    """Whether *given*, a text or what a Flask config holds, says yes; None and an empty text say no.

    Args:
        given: what was given.
        source: where, for the error.

    Raises:
        InvalidRequest: it says neither.
    """
    text = "" if given is None else str(given).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("", "0", "false", "no", "off"):
        return False
    raise InvalidRequest(f"{source} is 1 or 0, not {given!r}")


class RateLimit(NamedTuple):
    """At most *most* requests in *seconds*."""

    most: int
    seconds: int

    @classmethod
    def parse(cls, text: str, source: str = RATE_LIMIT) -> RateLimit | None:
        """The limit that *text* stands for, such as `100/minute` or `5 per 10 seconds`; None if it is empty.

        Args:
            text: what was given.
            source: where, for the error.

        Raises:
            InvalidRequest: it has another form, or would let nothing through.
        """
        if not text.strip():
            return None
        match = _RATE.fullmatch(text.strip().lower())
        most, seconds = (int(match[1]), int(match[2] or 1) * _UNITS[match[3]]) if match else (0, 0)
        if not (most and seconds):
            raise InvalidRequest(f"{source} is a limit such as 100/minute or 5/10seconds, not {text[:50]!r}")
        return cls(most, seconds)


class ManagerOptions(NamedTuple):
    """How a manager is to run; sizes in bytes."""

    home: Path
    durability: str = DURABILITIES[0]
    max_counters: int = 1_000_000
    max_frame: int = 1024 * 1024
    group: str | None = None
    stock_clients: bool = True
