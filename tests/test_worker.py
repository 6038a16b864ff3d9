"""What a worker serves, and when it is ready; `test_processes.py` runs real ones."""

import socket
import sys
import threading

import pytest

from counter import InvalidRequest, StoreUnavailable
from counter.information import Information, Limits
from counter.ops import Report
from counter.results import Reply
from counter.worker import Worker, load_app, parse_app

APPS = """
class Plain:
    def __call__(self, environ, start_response):
        return []

def function(environ, start_response):
    return []

def factory():
    return function

def choosy(config=None, testing=False):
    return function

def needs(config):
    return function

def broken():
    raise KeyError("no such setting")

def leaving():
    raise SystemExit(7)

class Shop:
    app = Plain()

app = Plain()
number = 5
"""


@pytest.fixture
def apps(tmp_path, monkeypatch):
    """A module of this name with apps of every shape."""
    (tmp_path / "shapes.py").write_text(APPS)
    (tmp_path / "failing.py").write_text("1 / 0\n")
    (tmp_path / "unwritten.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "shapes"
    for name in ("shapes", "failing"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "spec", ["", "app", "app.py", "app.py:", ":app", "a:b:c", "a:b(1)", "a b:c", "a/b:c"]
)
def test_another_form_of_app_is_refused_in_a_sentence(spec):
    with pytest.raises(InvalidRequest, match="APP is MODULE:NAME"):
        parse_app(spec)


@pytest.mark.parametrize("spec", ["shapes:app", "shapes:Plain", "shapes:Plain()", "shapes:Shop.app"])
def test_an_app_is_an_object_that_takes_a_request_or_what_makes_one(apps, spec):
    assert type(load_app(spec)).__name__ == "Plain"


@pytest.mark.parametrize(
    "spec", ["shapes:function", "shapes:factory", "shapes:factory()", "shapes:choosy", "shapes:choosy()"]
)
def test_a_factory_is_called_with_or_without_brackets_and_an_app_is_not(apps, spec):
    assert load_app(spec).__name__ == "function"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("nowhere_to_be_found:app", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("shapes:missing", "AttributeError"),
        ("shapes:number", "it is an int, not a WSGI app"),
        ("shapes:needs()", "TypeError"),
        ("shapes:broken", "KeyError: 'no such setting'"),
        ("shapes:leaving", "SystemExit: 7"),
        ("failing:app", "ZeroDivisionError"),
        ("unwritten:app", "SyntaxError"),
    ],
)
def test_an_app_that_cannot_be_had_says_which_and_why(apps, spec, why):
    with pytest.raises(InvalidRequest) as caught:
        load_app(spec)
    assert str(caught.value).startswith(f"cannot load the app {spec}: {why}")


class FakeStore:
    """A manager that answers what it is told to answer, in turn; then as it should."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def execute(self, request, timeout=None):
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        (op,) = request.ops
        if isinstance(op, Report):
            return Reply([None])
        return Reply([Information("0", "manager", "memory", "run", 0, Limits(1, 1))])

    def close(self):
        pass


def ok(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


def test_a_worker_is_ready_when_the_manager_answered_and_not_before(monkeypatch):
    store = FakeStore(StoreUnavailable("no manager is running"))
    modes, ready = [], threading.Event()
    monkeypatch.setattr("counter.worker.REPORT_SECONDS", 0.01)

    def say(mode):
        modes.append(mode)
        ready.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = Worker(ok, store, listener)
        thread = threading.Thread(target=worker.run, args=[say])
        thread.start()
        try:
            assert ready.wait(10)
        finally:
            worker.server.stop()
            thread.join(10)
    assert not thread.is_alive()
    assert modes == ["memory"]
    assert not store.answers
