"""The id of an HTTP request is in the manager's log where that tells of the request, and nowhere else."""

import contextlib
import json
import logging
import os
import sys
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import msgspec
import pytest
from support import ROOT, start_process, wait_until

from counter import jobs, logs, table
from counter.errors import InvalidRequest
from counter.keys import Asked
from counter.ops import Get, Increment, Request
from counter.wire import decode_request, encode_request

ODD = "odd"


def fail_on_odd(_text):
    """For `faults.launcher`: a manager that fails on one counter, and on every list."""
    real = table.Turn.execute

    def execute(turn, request, ticks, seal):
        if request.ops[0].name == ODD:
            raise RuntimeError("planted")
        return real(turn, request, ticks, seal)

    def page(*_):
        raise RuntimeError("planted")
        yield

    table.Turn.execute = execute
    sys.modules["counter.server"].page = page


def test_a_request_without_one_is_as_long_as_before():
    plain = Request([Get("a")])
    assert b"request_id" not in encode_request(plain)
    assert decode_request(encode_request(plain)).request_id == ""
    assert jobs.request_id_of(encode_request(plain)) == ""


def test_it_is_told_by_the_frame_and_what_is_no_request_has_none():
    assert jobs.request_id_of(encode_request(Request([Get("a")], request_id="mine-1"))) == "mine-1"
    for payload in (b"", b"\x80\x04N.", b"\xc1", encode_request(Request([Get("a")]))[:-1]):
        assert jobs.request_id_of(payload) == ""


@pytest.mark.parametrize("wrong", ["x" * 129, "a b", "a\n", "\n", "é", "a\x00", "a\x7f", 7, None])
def test_one_that_could_forge_a_line_is_refused(wrong):
    payload = msgspec.msgpack.encode({"ops": [{"op": "get", "name": "a"}], "request_id": wrong})
    with pytest.raises(InvalidRequest, match=r"request_id|a request's id"):
        decode_request(payload)


def test_the_longest_is_taken():
    assert decode_request(encode_request(Request([Get("a")], request_id="~" * 128))).request_id == "~" * 128


def test_a_key_means_the_same_whatever_the_id():
    first, again = (Request([Increment("a")], idempotency_key="k", request_id=each) for each in ("a", "b"))
    assert Asked.by(first) == Asked.by(again)


@pytest.mark.parametrize(("request_id", "end"), [("mine-1", " (request mine-1)"), ("", "")])
def test_the_line_has_it_and_in_json_a_field_of_its_own(caplog, request_id, end):
    class Crowd:
        def close(self, connection):
            assert connection == "connection"

    what = jobs.Jobs(Crowd(), None, None, None)
    with caplog.at_level(logging.ERROR):
        what.give_up("connection", request_id)
    (record,) = caplog.records
    assert record.getMessage() == "closing a connection after an internal error" + end
    fields = json.loads(logs.JsonLines("manager").format(record))
    assert fields.get("request_id", "") == request_id
    assert ("request_id" in fields) == bool(request_id)


@pytest.mark.process
def test_the_manager_tells_of_the_request_that_it_failed_on(tmp_path):
    """On a change and on a list, which is answered between the turns; the id is the client's own, or made."""
    arguments = ["run", "--home", tmp_path / "home", "--port", "0", "--workers", "1", "--timeout", "1"]
    command = [sys.executable, "-m", "faults.launcher", "test_request_ids:fail_on_odd", "--", *arguments]
    environ = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with start_process([*command, "--log-format", "json"], environ) as process:
        url = process.line("ready", timeout=60).split()[1]

        def failed(method, path, **headers):
            with contextlib.closing(
                refused(HttpRequest(url + path, method=method, headers=headers))
            ) as answer:
                return answer.headers["X-Request-Id"]

        made = failed("POST", f"/v1/counters/{ODD}/increment")
        assert failed("GET", "/v1/counters", **{"X-Request-Id": "list-8"}) == "list-8"

        def told():
            """What the manager tells, each as often as the client of the worker repeated it."""
            lines = [
                json.loads(line) for line in process.stderr.splitlines(keepends=True) if line[-1] == "\n"
            ]
            lines = [line for line in lines if line["process"] == "manager" and "request_id" in line]
            return list(dict.fromkeys(line["request_id"] for line in lines))

        wait_until(lambda: told() == [made, "list-8"])
        assert process.stop() == 0


def refused(request):
    """The answer to *request*, which is no good one."""
    try:
        with urlopen(request, timeout=30) as answer:
            raise AssertionError(f"{answer.status}, and the manager was to fail")
    except OSError as error:
        assert error.code in (503, 504)
        return error
