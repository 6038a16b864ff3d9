"""Log lines: one an event, on stderr, as text or as JSON. Those of requests are in `access`."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")
VARIABLE = "COUNTER_LOG_FORMAT"
"""Tells a child how to log; a person may set it as well."""


def configure(process: str, log_format: str = "text") -> None:
    """Send everything logged in this process to stderr, as lines of *process*; waitress' chatter left out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if log_format == "json" else TextLines(process))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("waitress").setLevel(logging.WARNING)
    logging.getLogger("waitress").addFilter(_not_a_lost_client)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def printable(text: str) -> str:
    """*text* on one line: what is not printable is written as an escape, so no value can forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Withheld(Exception):
    """Stands in a log for an error whose message may hold a counter's name; where it was raised is kept."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}, whose message is shown with --log-names alone")
        self.__traceback__ = error.__traceback__


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00Z worker[123] WARNING what happened`; a traceback follows, indented."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line for *record*."""
        who = f"{self._process}[{record.process}]"
        line = f"{utc(record.created)} {who} {record.levelname} {printable(record.getMessage())}"
        trace = _traceback(self, record)
        return "\n    ".join([line, *map(printable, trace.splitlines())])


class JsonLines(logging.Formatter):
    """One object a line: time, level, process, pid, logger, message, and request_id and exception if any."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line for *record*."""
        fields = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            fields["request_id"] = request_id
        if trace := _traceback(self, record):
            fields["exception"] = trace
        return json.dumps(fields)


def utc(at: float) -> str:
    """*at*, seconds since the epoch, as every line begins."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info is None or record.exc_info[0] is None:
        return ""
    return formatter.formatException(record.exc_info)


def _not_a_lost_client(record: logging.LogRecord) -> bool:
    # A client that went away is no event. Its `log_socket_errors` cannot say so: without it, waitress also
    # keeps silent about an OSError of the app, and sends no answer.
    return record.msg != "Socket error"
