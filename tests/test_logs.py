"""Log lines: one an event, and no value can forge one."""

import json
import logging
import re

import pytest

from counter import logs


@pytest.fixture
def as_before():
    """Logging is for the whole process: put back what this test changes."""
    root, waitress = logging.getLogger(), logging.getLogger("waitress")
    handlers, level, filters, waitress_level = (
        root.handlers[:],
        root.level,
        waitress.filters[:],
        waitress.level,
    )
    yield
    root.handlers[:], root.level, waitress.filters[:] = handlers, level, filters
    waitress.setLevel(waitress_level)
    logging.getLogger("waitress.queue").setLevel(logging.NOTSET)


@pytest.fixture(params=logs.LOG_FORMATS)
def log_format(request):
    return request.param


def lines(capfd):
    return capfd.readouterr().err.splitlines()


def test_a_text_line_says_when_who_how_bad_and_what(as_before, capfd):
    logs.configure("worker")
    logging.getLogger("counter.worker").warning("waiting for %s", "the manager")
    (line,) = lines(capfd)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z worker\[\d+\] WARNING waiting for the manager", line
    )


def test_a_json_line_is_an_object(as_before, capfd):
    logs.configure("worker", "json")
    logging.getLogger("counter.worker").warning("waiting for %s", "the manager")
    entry = json.loads(capfd.readouterr().err)
    assert entry["level"] == "warning"
    assert entry["process"] == "worker"
    assert entry["logger"] == "counter.worker"
    assert entry["message"] == "waiting for the manager"
    assert set(entry) == {"time", "level", "process", "pid", "logger", "message"}


def test_a_value_cannot_forge_a_line_or_speak_to_the_terminal(as_before, capfd, log_format):
    logs.configure("worker", log_format)
    logging.getLogger("any").error("no counter %s", "a\n2026 manager[1] ERROR b\r\x1b[31m\u2028\x85")
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said


def test_an_exception_is_told_with_where_it_happened(as_before, capfd, log_format):
    logs.configure("worker", log_format)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("any").exception("it failed")
    said = lines(capfd)
    if log_format == "json":
        assert "ValueError: first\nsecond" in json.loads(said[0])["exception"]
    else:
        assert said[0].endswith("it failed")
        assert all(line.startswith("    ") for line in said[1:])
        assert "    ValueError: first" in said


def test_of_waitress_only_what_matters_is_logged(as_before, capfd):
    logs.configure("worker")
    logging.getLogger("waitress.queue").warning("Task queue depth is %d", 5)
    logging.getLogger("waitress").info("Client disconnected while serving /")
    logging.getLogger("waitress").error("Socket error")
    assert lines(capfd) == []
    logging.getLogger("waitress").error("Exception while serving /")
    assert len(lines(capfd)) == 1
