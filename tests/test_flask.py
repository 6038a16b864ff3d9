"""`FlaskCounter`: the counters of whichever app is current, and what a visitor gets when they are away."""

import json
import pickle
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import flask
import pytest
from http_load import CLIENTS, count_together, running
from support import COMMAND, ROOT, start_process

import counter
from counter.errors import (
    CounterError,
    JournalFull,
    OutcomeUnknown,
    OutOfBounds,
    StoreUnavailable,
)
from counter.flask import AppStore, FlaskCounter
from counter.results import Problem, Reply
from counter.store import Store
from counter.stores.memory import MemoryStore
from counter.web import api_blueprint, create_app

FAILURES = [
    (StoreUnavailable("no manager is running in /srv/shop"), 503),
    (JournalFull("/srv/shop is full"), 503),
    (OutcomeUnknown("sent to /srv/shop, but no answer came"), 504),
]


@pytest.fixture
def url():
    return f"memory://test_flask-{uuid.uuid4().hex}"


@pytest.fixture
def hits():
    return FlaskCounter()


@pytest.fixture
def app(hits, url):
    return shop(hits, url)


def shop(hits, url=None, name="shop"):
    """An app that counts its visitors."""
    app = flask.Flask(name)
    app.config["COUNTER_URL"] = url
    hits.init_app(app)

    @app.post("/hit")
    def hit():
        return {"hits": hits.increment("page")}

    return app


def visit(app):
    answer = app.test_client().post("/hit")
    assert answer.status_code == 200, answer.text
    return answer.json["hits"]


class Failing(Store):
    """Raises, or answers with, *error*, and remembers the timeouts it was given."""

    def __init__(self, error, replies=False):
        self.error = error
        self.replies = replies
        self.timeouts = []

    def execute(self, request, timeout=None):
        self.timeouts.append(timeout)
        if self.replies:
            return Reply([], Problem.of(self.error))
        raise self.error

    def close(self):
        self.timeouts.append("closed")


def failing(hits, error, replies=False):
    """The app, on counters that fail."""
    app = flask.Flask("shop")
    app.extensions["counter"] = AppStore(app.config, Failing(error, replies))

    @app.route("/hit", methods=["GET", "POST"])
    def hit():
        return {"hits": hits.increment("page")}

    return app


# What it counts in.


def test_a_view_counts_in_the_counters_of_the_apps_url(app, url):
    assert [visit(app) for _ in range(3)] == [1, 2, 3]
    assert counter.connect(url)["page"] == 3


def test_it_has_every_verb(app, hits):
    with app.app_context():
        hits["page"] += 2
        hits.update(["a", "b", "a"])
        assert dict(hits.items()) == {"a": 2, "b": 1, "page": 2}
        assert (len(hits), "a" in hits, "x" in hits, hits.most_common(1)) == (3, True, False, [("a", 2)])
        assert hits.set("seats", 2, max=2) == 2
        with pytest.raises(OutOfBounds):
            hits.increment("seats")
        del hits["a"]
        assert list(hits) == ["b", "page", "seats"]
        with hits:
            assert hits.store.capabilities == {"list", "info"}


def test_a_view_of_it_made_at_import_counts_for_the_current_app_too(hits):
    likes = hits.view("likes:")
    first, second = (shop(hits, f"memory://test_flask-{uuid.uuid4().hex}", name) for name in "ab")
    with first.app_context():
        assert likes.increment("cats") == 1
        likes["cats"] += 1
        assert (hits["likes:cats"], len(likes)) == (2, 1)
    with second.app_context():
        assert (likes.increment("cats"), list(hits)) == (1, ["likes:cats"])


def test_two_apps_do_not_mix(hits):
    first, second = (shop(hits, f"memory://test_flask-{uuid.uuid4().hex}", name) for name in "ab")
    assert [visit(first), visit(first), visit(second)] == [1, 2, 1]
    with first.app_context():
        assert hits["page"] == 2
        with second.app_context():
            assert hits["page"] == 1
        assert hits["page"] == 2


def test_two_apps_do_not_mix_in_threads_either(hits):
    apps = [shop(hits, f"memory://test_flask-{uuid.uuid4().hex}", name) for name in "ab"]
    start = threading.Barrier(4)

    def visits(app):
        start.wait(10)
        return [visit(app) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(visits, apps * 2))
    for one, other in (told[0] + told[2], told[1] + told[3]), (told[1] + told[3], told[0] + told[2]):
        assert sorted(one) == sorted(other) == list(range(1, 101))


def test_it_can_be_given_its_app_at_once(url):
    app = flask.Flask("shop")
    app.config["COUNTER_URL"] = url
    hits = FlaskCounter(app)
    with app.app_context():
        assert hits.increment("a") == 1


def test_several_in_one_app_count_together(app, hits):
    other = FlaskCounter(app)
    other.init_app(app)
    with app.app_context():
        assert [hits.increment("a"), other.increment("a")] == [1, 2]


def test_the_url_is_read_at_each_call(app, hits, url, monkeypatch):
    assert visit(app) == 1
    app.config["COUNTER_URL"] = url + "-late"  # as a test does after `create_app()`
    assert visit(app) == 1
    app.config["COUNTER_URL"] = ""
    monkeypatch.setenv("COUNTER_URL", url + "-environment")
    assert visit(app) == 1
    del app.config["COUNTER_URL"]
    assert visit(app) == 2
    app.config["COUNTER_URL"] = url  # the config goes before the environment
    assert visit(app) == 2


def test_a_prefix_in_the_url_holds(hits, url):
    app = shop(hits, url + "?prefix=shop:")
    assert visit(app) == 1
    counters = counter.connect(url)
    counters.increment("other")
    assert list(counters) == ["other", "shop:page"]
    with app.app_context():
        assert (list(hits), len(hits)) == (["page"], 1)


def test_the_timeout_is_that_of_the_call_then_of_the_config(hits):
    app = failing(hits, StoreUnavailable("x"))
    store = app.extensions["counter"]._store
    hits.init_app(app)
    with app.app_context():
        for config, given, expected in (
            (None, None, None),
            (2, None, 2.0),
            ("3", None, 3.0),
            (3, 4.5, 4.5),
        ):
            app.config["COUNTER_TIMEOUT"] = config
            with pytest.raises(StoreUnavailable):
                hits.increment("a", timeout=given)
            assert store.timeouts.pop() == expected
        hits.close()
        assert store.timeouts == ["closed"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("COUNTER_URL", "nope://"), ("COUNTER_URL", "memory://a?b=c"), ("COUNTER_TIMEOUT", "soon")],
)
def test_config_that_cannot_be_used_is_the_apps_mistake(app, hits, name, value):
    """No `InvalidRequest`, which is a ValueError, and would look like a bad name from a visitor."""
    app.config[name] = value
    with app.app_context(), pytest.raises(RuntimeError, match=name) as told:
        hits.increment("a")
    assert not isinstance(told.value, ValueError)


# Where there is no app.


@pytest.mark.parametrize(
    "call",
    [
        lambda hits: hits.increment("a"),
        lambda hits: hits["a"],
        lambda hits: list(hits),
        lambda hits: len(hits),
        lambda hits: hits.close(),
        lambda hits: hits.view("a:").increment("b"),
    ],
)
def test_without_an_app_a_sentence_says_what_to_do(hits, call):
    with pytest.raises(RuntimeError, match=r"`with app\.app_context\(\):`.*counter\.connect\(\)"):
        call(hits)
    bare = flask.Flask("bare")
    with (
        bare.app_context(),
        pytest.raises(RuntimeError, match=r"'bare' has no FlaskCounter.*init_app\(app\)"),
    ):
        call(hits)


def test_it_can_be_shown_and_not_pickled_without_an_app(hits):
    assert repr(hits) == "FlaskCounter(of the current app)"
    assert "of the current app" in repr(hits.view("likes:"))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(hits)


@pytest.mark.process
def test_importing_and_init_app_open_start_and_change_nothing():
    code = """
import socket, sys, threading
def fail(*args): raise AssertionError("connects")
socket.socket.connect = fail
import flask
from counter.flask import FlaskCounter
import counter.store
hits = FlaskCounter()
likes = hits.view("likes:")
app = flask.Flask("shop")
app.config["COUNTER_URL"] = "counter:///nowhere/at/all"
before = dict(app.config)
hits.init_app(app)
FlaskCounter(app)
assert counter.store._open == {} and threading.active_count() == 1 and dict(app.config) == before
assert "counter.web" not in sys.modules and list(app.extensions) == ["counter"]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


# What a visitor gets.


@pytest.mark.parametrize("mode", [{}, {"TESTING": True}, {"DEBUG": True}, {"PROPAGATE_EXCEPTIONS": True}])
@pytest.mark.parametrize("replies", [False, True])
@pytest.mark.parametrize(("error", "status"), FAILURES, ids=lambda value: getattr(value, "code", ""))
def test_a_failure_is_a_problem_that_tells_strangers_nothing(hits, error, status, replies, mode, caplog):
    app = failing(hits, error, replies)
    app.config |= mode
    hits.init_app(app)
    answer = app.test_client().post("/hit")
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
    assert answer.text.endswith("}\n") and "/srv" not in answer.text
    assert answer.json.items() >= {"code": error.code, "title": error.title, "status": status}.items()
    assert answer.json["type"] == "about:blank"
    assert ("Retry-After" if status == 503 else "may be counted") in answer.json["detail"]
    assert error.detail in caplog.text and "POST" in caplog.text
    head = app.test_client().head("/hit")
    assert (head.status_code, head.data) == (status, b"")


def test_other_errors_are_the_apps_own_business(hits, url):
    app = shop(hits, url)
    with app.app_context():
        hits.set("page", 5, max=5)
    assert app.test_client().post("/hit").status_code == 500
    app = shop(hits, url)
    app.register_error_handler(ValueError, lambda error: (f"sold out at {error.current.value}", 409))
    answer = app.test_client().post("/hit")
    assert (answer.status_code, answer.text) == (409, "sold out at 5")


@pytest.mark.parametrize("when", ["before", "after", "blueprint"])
@pytest.mark.parametrize(("error", "status"), FAILURES, ids=lambda value: getattr(value, "code", ""))
def test_a_handler_of_the_app_goes_before_ours(hits, error, status, when):
    app = failing(hits, error)
    own = flask.Blueprint("own", "own")
    own.add_url_rule("/own", view_func=lambda: {"hits": hits.increment("page")})
    place = own if when == "blueprint" else app
    kind = StoreUnavailable if status == 503 else OutcomeUnknown
    if when == "after":
        hits.init_app(app)
    place.register_error_handler(kind, lambda error: (f"ours: {error.code}", 418))
    app.register_blueprint(own)
    hits.init_app(app)
    FlaskCounter(app)
    answer = app.test_client().get("/own" if when == "blueprint" else "/hit")
    assert (answer.status_code, answer.text) == (418, f"ours: {error.code}")


def test_a_handler_for_one_of_them_leaves_the_others_to_us(hits):
    for error, status in FAILURES:
        app = failing(hits, error)
        app.register_error_handler(JournalFull, lambda error: ("theirs", 418))
        hits.init_app(app)
        expected = 418 if isinstance(error, JournalFull) else status
        assert app.test_client().get("/hit").status_code == expected


@pytest.mark.parametrize("kind", [CounterError, OSError])
def test_a_handler_for_what_both_failures_are_goes_before_ours(hits, kind):
    for error, _status in FAILURES:
        app = failing(hits, error)
        app.register_error_handler(kind, lambda error: ("theirs", 418))
        hits.init_app(app)
        assert app.test_client().get("/hit").status_code == 418


def test_a_handler_for_everything_leaves_the_failures_to_us(hits):
    for error, status in FAILURES:
        app = failing(hits, error)
        app.register_error_handler(Exception, lambda error: ("theirs", 418))
        hits.init_app(app)
        assert app.test_client().get("/hit").status_code == status


def test_other_errors_of_ours_are_the_apps_own_business(hits, url):
    app = shop(hits, url)
    app.register_error_handler(CounterError, lambda error: (error.code, error.status))
    app.add_url_rule("/gone", view_func=lambda: {"last": hits.delete("nothing")})
    assert app.test_client().get("/gone").status_code == 404


# With the API.


@pytest.mark.parametrize("order", ["extension first", "api first"])
def test_the_api_in_the_same_app_shares_the_counters(hits, url, order):
    app = flask.Flask("shop")
    app.config["COUNTER_URL"] = url
    steps = [
        lambda: hits.init_app(app),
        lambda: app.register_blueprint(api_blueprint(), url_prefix="/counts"),
    ]
    for step in steps if order == "extension first" else reversed(steps):
        step()
    client = app.test_client()

    def count_over_http():
        return client.post("/counts/v1/counters/page/increment").json["value"]

    with app.app_context():
        assert [hits.increment("page"), count_over_http(), hits.increment("page")] == [1, 2, 3]
        app.config["COUNTER_URL"] = url + "-late"
        assert [count_over_http(), hits.increment("page")] == [1, 2]


def test_the_api_without_init_app_is_no_app_to_count_for(hits, url):
    """Whether a call works does not depend on whether somebody has asked the API before."""
    app = flask.Flask("shop")
    app.config["COUNTER_URL"] = url
    app.register_blueprint(api_blueprint())
    assert app.test_client().post("/v1/counters/page/increment").status_code == 200
    with app.app_context(), pytest.raises(RuntimeError, match="init_app"):
        hits.increment("page")


def test_the_api_on_a_store_of_its_own_shares_it(hits):
    store = MemoryStore()
    app = create_app(store)
    hits.init_app(app)
    with app.app_context():
        assert hits.increment("page") == 1
    assert counter.SharedCounter(store)["page"] == 1
    assert app.test_client().post("/v1/counters/page/increment").json["value"] == 2


def test_the_apis_own_errors_stay_its_own(hits):
    app = failing(hits, StoreUnavailable("no manager is running in /srv/shop"))
    app.register_blueprint(api_blueprint(), url_prefix="/counts")
    hits.init_app(app)
    answer = app.test_client().post("/counts/v1/counters/page/increment")
    assert (answer.status_code, answer.json["type"]) == (503, "/counts/problems/store-unavailable")
    assert "nothing was changed" in answer.json["detail"]


# With real processes, and for who checks types.

MODULE = """
from flask import Flask
from counter.flask import FlaskCounter

hits = FlaskCounter()
likes = hits.view("likes:")

def create_app() -> Flask:
    app = Flask(__name__)
    hits.init_app(app)

    @app.post("/hit")
    def hit() -> dict[str, int]:
        return {"hits": hits.increment("page")}

    @app.post("/like")
    def like() -> dict[str, int]:
        likes["cats"] += 1
        return {"hits": likes.increment("dogs", 2, max=10_000, ttl=3600) // 2}

    return app
"""


@pytest.fixture
def module(tmp_path):
    """The folder of `shop.py`, a module with a factory."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "shop.py").write_text(MODULE)
    return folder


@pytest.mark.process
def test_a_factory_app_is_exact_over_http(tmp_path, module):
    """Under `counter run` with 3 workers, 2,400 POSTs of 8 client processes get {1..1200}, twice."""
    home = tmp_path / "home"
    with running("shop:create_app", "--workers", "3", home=home, cwd=module) as (_process, url):
        for path in ("hit", "like"):
            numbers = count_together(f"{url}/{path}", "hits", 1200 // CLIENTS)
            assert sorted(numbers) == list(range(1, 1201))
        counters = counter.connect(f"counter://{home}")
        assert dict(counters.items()) == {"page": 1200, "likes:cats": 1200, "likes:dogs": 2400}
        workers = counters.store.execute(counter.Request([counter.Info()])).only().workers
        assert len(workers) == 3 and all(worker.requests > 0 for worker in workers)
        counters.close()


def post(url):
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("POST", urlsplit(url).path)
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.process
def test_a_stopped_manager_is_503_and_never_500(tmp_path, module):
    home = tmp_path / "home"
    manager = [*COMMAND, "manager", "--home", home]
    workers = [*COMMAND, "workers", "shop:create_app", "--home", home, "--workers", "2", "--port", "0"]
    with start_process([*workers, "--timeout", "0.5"], cwd=module) as serving:
        with start_process(manager) as process:
            process.line("ready")
            url = serving.line("ready", timeout=60).split()[1] + "/hit"
            assert [post(url)[2]["hits"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]
            assert process.stop() == 0
        for _ in range(6):
            status, headers, body = post(url)
            assert (status, headers["Retry-After"]) == (503, "1")
            assert headers["Content-Type"] == "application/problem+json"
            assert body["code"] == "store-unavailable" and str(tmp_path) not in str(body)
        with start_process(manager) as process:
            process.line("ready")
            assert post(url)[2]["hits"] == 7
            assert process.stop() == 0
        assert serving.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_accept_what_uses_it(checker, module):
    (module / "shop.py").write_text(MODULE + "\napp = create_app()\nassert FlaskCounter(app).total() > 1\n")
    command = {
        "mypy": ["--strict", "--cache-dir", module / "cache"],
        "pyright": ["--pythonpath", sys.executable],
    }[checker]
    result = subprocess.run(
        [sys.executable, "-m", checker, *command, module / "shop.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
