"""The app around the API: config, stores that fail, probes, pages, and being a part of another app."""

import base64
import hashlib
import html
import re
import shlex
import subprocess
import sys
import time

import flask
import pytest
from web_client import Api, Client

from counter.errors import (
    HTTP_PROBLEMS,
    STORE_ERRORS,
    InvalidRequest,
    JournalFull,
    LimitExceeded,
    OutcomeUnknown,
    StoreUnavailable,
    Unsupported,
)
from counter.ops import Info
from counter.results import Problem, Reply
from counter.store import Store, open_store
from counter.stores.memory import MemoryStore
from counter.web import api_blueprint, create_app


class Failing(Store):
    """Raises, or answers with, what it is given."""

    def __init__(self, error, replies=False):
        self.error = error
        self.replies = replies
        self.asked = []

    def execute(self, request, timeout=None):
        self.asked.append((request, timeout))
        if self.replies:
            return Reply([], Problem.of(self.error))
        raise self.error

    def close(self):
        pass


def failing(error, replies=False):
    api = Api(Failing(error, replies))
    api.seen = dict
    return api


READS = [("GET", "/v1/counters"), ("GET", "/v1/counters/a"), ("GET", "/v1/info"), ("HEAD", "/v1/counters/a")]
CHANGES = [
    ("POST", "/v1/counters/a/increment", b""),
    ("POST", "/v1/counters/a/decrement", b""),
    ("POST", "/v1/counters/a/reset", b""),
    ("PUT", "/v1/counters/a", {"value": 1}),
    ("PATCH", "/v1/counters/a", {"max": 1}),
    ("DELETE", "/v1/counters/a", b""),
    ("POST", "/v1/batch", {"ops": [{"op": "increment", "name": "a"}]}),
    ("POST", "/v1/batch", {"atomic": False, "ops": [{"op": "increment", "name": "a"}]}),
]
ALL = [(*read, b"") for read in READS] + CHANGES


@pytest.mark.parametrize("replies", [False, True])
@pytest.mark.parametrize(
    "error", [StoreUnavailable("no manager is running in /srv"), JournalFull("/srv is full")]
)
def test_503_says_that_nothing_was_applied_and_when_to_repeat(error, replies, caplog):
    for method, path, body in ALL:
        caplog.clear()
        answer = failing(error, replies).refuse(503, error.code, method, path, body)
        assert answer.headers["retry-after"] == "1"
        assert method == "HEAD" or "nothing was changed" in answer.json["detail"]
        assert b"/srv" not in answer.body  # a folder of this host is for the log
        assert error.detail in caplog.text
        assert not answer.body or "index" not in answer.json


@pytest.mark.parametrize("replies", [False, True])
def test_504_says_that_the_answer_is_lost_and_what_to_do(replies):
    error = OutcomeUnknown("no answer within 10 s")
    for method, path, body in ALL:
        answer = failing(error, replies).refuse(504, "outcome-unknown", method, path, body)
        if method in ("GET", "HEAD"):
            assert method == "HEAD" or "ask again" in answer.json["detail"]
        else:
            assert "lost" in answer.json["detail"] and "If-Match" in answer.json["detail"]
            assert "index" not in answer.json


@pytest.mark.parametrize("error", [LimitExceeded("full"), Unsupported("cannot")])
def test_other_answers_of_a_store(error):
    for method, path, body in ALL:
        answer = failing(error, replies=True).refuse(error.status, error.code, method, path, body)
        if path == "/v1/batch":
            assert answer.json["index"] == 0


def test_500_shows_nothing_of_the_inside_and_is_logged(caplog):
    for method, path, body in ALL:
        caplog.clear()
        answer = failing(RuntimeError("secret-detail")).refuse(500, "internal", method, path, body)
        assert b"secret" not in answer.body and b"Traceback" not in answer.body
        (record,) = caplog.records
        assert record.levelname == "ERROR" and method in record.getMessage()
        assert answer.headers["x-request-id"] in record.getMessage()
        assert "RuntimeError" in caplog.text and "in execute" in caplog.text


def test_a_log_shows_names_and_messages_of_mistakes_only_if_it_is_told_to(caplog):
    for names in (False, True):
        caplog.clear()
        Api(Failing(RuntimeError("secret-detail")), COUNTER_LOG_NAMES=names).ask(
            "GET", "/v1/counters/patient"
        )
        assert ("secret-detail" in caplog.text) == ("patient" in caplog.text) == names


def test_debug_and_testing_do_not_change_an_answer(caplog):
    for mode in ({"TESTING": True}, {"DEBUG": True}, {"PROPAGATE_EXCEPTIONS": True}):
        api = Api(Failing(RuntimeError("x")), **mode)
        assert api.ask("GET", "/v1/counters/a").status == 500
        assert api.ask("X", "/nope").status == 404


def test_livez_never_asks_the_store():
    api = failing(RuntimeError("asked"))
    answer = api.ask("GET", "/livez?x=1")
    assert (answer.status, answer.json) == (200, {"status": "alive"})
    assert api.store.asked == []


def test_readyz_asks_the_store_and_not_for_long():
    answer = Api().ask("GET", "/readyz?verbose")
    assert (answer.status, answer.json) == (200, {"status": "ready"})
    for error in (StoreUnavailable("away"), OutcomeUnknown("slow"), JournalFull("full"), Unsupported("x")):
        api = failing(error)
        answer = api.refuse(503, "store-unavailable", "GET", "/readyz")
        assert "nothing was changed" in answer.json["detail"]
        ((request, timeout),) = api.store.asked
        assert (request.mutates, timeout) == (False, 1.0)


def test_info(monkeypatch):
    reported = []
    monkeypatch.setenv("COUNTER_THREADS", "3")
    api = Api(COUNTER_MAX_BODY=1000)
    api.put("a", 1)
    answer = api.ask("GET", "/v1/info", **{"counter.report": lambda: reported.append(len(reported))})
    info = answer.json
    expected = {
        "version",
        "store",
        "durability",
        "journal",
        "run",
        "counters",
        "limits",
        "manager",
        "workers",
        "operations",
        "http",
    }
    assert (answer.status, set(info), reported) == (200, expected, [0])
    assert (info["store"], info["counters"], info["manager"], info["workers"]) == ("memory", 1, None, [])
    assert (
        info["limits"].items() >= {"max_body": 1000, "threads": 3, "timeout": 10.0, "max_ops": 10_000}.items()
    )
    assert (
        info["limits"].items()
        >= {"max_counters": 1_000_000, "max_frame": 1024 * 1024, "max_name": 250}.items()
    )
    assert api.ask("GET", "/v1/info").json["counters"] == 1


def test_info_reports_before_it_asks():
    order = []

    class Watched(MemoryStore):
        def execute(self, request, timeout=None):
            order.append(type(request.ops[0]))
            return super().execute(request, timeout)

    Api(Watched()).ask("GET", "/v1/info", **{"counter.report": lambda: order.append("report")})
    assert order == ["report", Info]


# Config.
def test_the_timeout_goes_to_the_store_if_the_app_has_one(monkeypatch):
    for config, expected in (({}, None), ({"COUNTER_TIMEOUT": 2.5}, 2.5), ({"COUNTER_TIMEOUT": "3"}, 3.0)):
        for method, path, body in ALL:
            store = Failing(StoreUnavailable("x"))
            Api(store, **config).ask(method, path, body)
            assert {timeout for _, timeout in store.asked} == {expected}


def test_max_body_is_config_then_flask_then_environment(monkeypatch):
    def cap(**config):
        app = create_app(MemoryStore(), **config)
        return Api(app=app).ask("GET", "/v1/info").json["limits"]["max_body"]

    assert cap() == 64 * 1024
    monkeypatch.setenv("COUNTER_MAX_BODY", "1001")
    assert cap() == 1001
    monkeypatch.setenv("FLASK_COUNTER_MAX_BODY", "1002")
    assert cap() == 1002
    assert cap(COUNTER_MAX_BODY=1003) == 1003
    api = Api(COUNTER_MAX_BODY=100)
    api.refuse(413, "too-large", "POST", "/v1/counters/a/increment", b'{"delta": 5}' + b" " * 89)
    assert api.ask("POST", "/v1/counters/a/increment", b'{"delta": 5}' + b" " * 88).status == 200
    assert (
        api.ask("POST", "/v1/batch", b'{"ops": [{"op": "increment", "name": "a"}]}' + b" " * 1000).status
        == 200
    )


@pytest.mark.parametrize(
    "config",
    [{"COUNTER_MAX_BODY": value} for value in ("x", "", 1, 10**9, 1.5, [], True)]
    + [
        {"COUNTER_TIMEOUT": "soon"},
        {"COUNTER_TIMEOUT": 0},
        {"COUNTER_TIMEOUT": "nan"},
        {"COUNTER_THREADS": 0},
    ],
)
def test_a_bad_setting_stops_the_start(config):
    (name,) = config
    with pytest.raises(InvalidRequest, match=name):
        create_app(**config)


def test_the_store_is_that_of_the_url():
    url = "memory://test_web_app-url"
    api = Client(app=create_app(COUNTER_URL=url))
    api.ask("POST", "/v1/counters/a/increment")
    api.store = open_store(url)
    assert api.seen()["a"].value == 1


def test_the_url_comes_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("COUNTER_URL", "memory://test_web_app-environ")
    api = Client(app=create_app())
    assert api.ask("POST", "/v1/counters/a/increment").value == 1
    monkeypatch.setenv("FLASK_COUNTER_URL", "memory://test_web_app-flask")
    api = Client(app=create_app())
    assert api.ask("POST", "/v1/counters/a/increment").value == 1


def test_a_url_of_no_store_is_the_servers_mistake(caplog):
    api = Client(app=create_app(COUNTER_URL="nope://"))
    assert api.ask("GET", "/livez").status == 200
    assert api.ask("GET", "/v1/counters/a").status == 500
    assert "COUNTER_URL" in caplog.text


@pytest.mark.process
def test_importing_and_making_an_app_opens_nothing():
    code = """
import socket, threading
def fail(*args): raise AssertionError("connects")
socket.socket.connect = fail
import counter.web
app = counter.web.create_app(COUNTER_URL="counter:///nowhere/at/all")
import counter.store
assert counter.store._open == {} and threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_two_apps_have_two_stores():
    first, second = (Api(store, create_app(store)) for store in (MemoryStore(), MemoryStore()))
    first.ask("POST", "/v1/counters/a/increment")
    assert second.seen() == {}
    assert second.ask("GET", "/v1/counters/a").status == 404


# A part of another app.
def test_a_websocket_is_refused_in_a_sentence_of_ours():
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    answer = Api().refuse(400, "invalid-request", "GET", "/livez", headers=headers)
    assert answer.json["detail"] == "no address here is a WebSocket; leave out the Upgrade header"


@pytest.fixture(params=["", "/api", "/deep/api/"])
def mounted(request):
    app = flask.Flask("theirs")
    app.config["COUNTER_URL"] = f"memory://test_web_app-{id(app)}"
    app.config["MAX_CONTENT_LENGTH"] = 10

    @app.route("/theirs", methods=["GET", "POST"])
    def theirs():
        return f"theirs {flask.request.get_data(as_text=True)}"

    for code in (404, 405, 412, 500):
        app.register_error_handler(code, lambda error: ("their page", error.code))
    app.register_error_handler(Exception, lambda error: ("their other page", 500))
    app.register_blueprint(api_blueprint(), url_prefix=request.param)
    client = Client(store=open_store(app.config["COUNTER_URL"]), app=app)
    client.prefix = request.param.rstrip("/")
    return client


@pytest.mark.parametrize("header", ["Location", "Content-Length"])
def test_an_app_can_change_the_headers_of_an_answer(mounted, header):
    @mounted.app.after_request
    def change(response):
        del response.headers["Content-Length"]
        if header == "Location":
            response.headers[header] = "/\N{SNOWMAN}"
        return response

    answer = Api(mounted.store, mounted.app).ask("POST", f"{mounted.prefix}/v1/counters/page/increment")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers.get("location") == ("/%E2%98%83" if header == "Location" else None)


def test_a_mounted_api_keeps_its_rules(mounted):
    api = Api(mounted.store, mounted.app)
    at = mounted.prefix
    assert api.ask("PUT", f"{at}/v1/counters//about", {"value": 5, "max": 5}).headers["location"] == (
        f"{at}/v1/counters/%2Fabout"
    )
    assert list(api.seen()) == ["/about"]
    answer = api.refuse(
        409, "out-of-bounds", "POST", f"{at}/v1/counters/%2fabout/increment", b" " * 11 + b"{}"
    )
    assert answer.json["type"] == f"{at}/problems/out-of-bounds"
    page = api.ask("GET", answer.json["type"])
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    api.refuse(404, "not-found", "GET", f"{at}/v1/counters/a")
    api.refuse(400, "invalid-request", "GET", f"{at}/v1/counters/")
    api.refuse(400, "invalid-request", "GET", f"{at}/v1/counters/%FF%FE")
    api.refuse(404, "no-such-route", "GET", f"{at}/v1/nope")
    assert api.refuse(405, "method-not-allowed", "X", f"{at}/v1/batch").headers["allow"] == "POST"
    api.refuse(412, "version-mismatch", "DELETE", f"{at}/v1/counters/%2Fabout", headers={"If-Match": '"x"'})
    api.refuse(421, "host-not-allowed", "GET", f"{at}/v1/info", headers={"Host": "evil.example"})
    api.refuse(403, "cross-site", "POST", f"{at}/v1/batch", headers={"Sec-Fetch-Site": "cross-site"})
    detail = api.refuse(405, "method-not-allowed", "GET", f"{at}/v1/counters/a/reset").json["detail"]
    assert f"'http://localhost:8000{at}/v1/counters/a/reset'" in detail
    assert api.ask("GET", f"{at}/readyz").status == 200


def test_an_app_that_mounts_the_api_keeps_its_own(mounted):
    headers = {"Host": "shop.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
    answer = mounted.ask("POST", "/theirs", b"x", headers)
    assert (answer.status, answer.body) == (200, b"theirs x")
    assert "content-security-policy" not in answer.headers
    assert mounted.ask("GET", "/nope", headers=headers).body == b"their page"
    assert mounted.ask("PUT", "/theirs", headers=headers).body == b"their page"
    assert mounted.ask("GET", "/", headers=headers).body == b"their page"
    assert mounted.ask("GET", "//theirs", headers=headers).status != 421
    if mounted.prefix:
        assert mounted.ask("GET", f"{mounted.prefix}//v1/info", headers=headers).body == b"their page"


def test_a_mounted_api_takes_the_apps_config_at_the_first_request():
    app = flask.Flask("theirs")
    app.register_blueprint(api_blueprint(), url_prefix="/api")
    app.config |= {"COUNTER_URL": "memory://test_web_app-late", "COUNTER_ALLOW_HOSTS": ["late.example"]}
    client = Client(app=app)
    assert client.ask("POST", "/api/v1/counters/a/increment", headers={"Host": "late.example"}).value == 1
    broken = flask.Flask("theirs")
    broken.config["COUNTER_MAX_BODY"] = "x"
    broken.register_blueprint(api_blueprint())
    assert Client(app=broken).ask("GET", "/livez").status == 500


def test_two_mounts_in_one_app_share_the_store():
    app = flask.Flask("theirs")
    app.config["COUNTER_URL"] = "memory://test_web_app-two"
    app.register_blueprint(api_blueprint(), url_prefix="/one", name="one")
    app.register_blueprint(api_blueprint(), url_prefix="/two", name="two")
    client = Client(app=app)
    client.ask("POST", "/one/v1/counters/a/increment")
    assert client.ask("POST", "/two/v1/counters/a/increment").value == 2
    assert client.ask("GET", "/two/v1/counters/x").json["type"].startswith("/two/")


def test_flask_lists_the_routes(capsys):
    listed = create_app().test_cli_runner().invoke(flask.cli.routes_command)
    assert (listed.exit_code, "/v1/batch" in listed.output) == (0, True)


# Pages.
def text_of(page):
    return html.unescape(page.body.decode())


def test_home_shows_the_newest_counters_first():
    api = Api()
    for index in range(22):
        api.put(f"name {index}.", index * 1000)
    page = api.ask("GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.findall(r"name (\d+)\.", text_of(page)) == [str(index) for index in range(21, 1, -1)]
    assert "21000" in text_of(page)
    head = api.ask("HEAD", "/")
    assert (head.status, head.body) == (200, b"")


def test_home_without_counters():
    assert "no counter yet" in text_of(Api().ask("GET", "/"))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "\"'><img src=x>", "{{ 7*7 }}", "&lt;", "\u202edrow"]
)
def test_names_are_shown_and_not_run(name):
    api = Api()
    api.put(name, 1)
    page = api.ask("GET", "/")
    assert f"<bdi>{name}</bdi>" in text_of(page)
    assert b"<script" not in page.body and b"<img" not in page.body


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9"])
def test_the_curl_lines_of_home_work(host):
    api = Api()
    page = api.ask("GET", "/", headers={"Host": host}, SCRIPT_NAME="/x y")
    lines = re.findall(r"^.*(curl .*?)(?:</pre>)?$", text_of(page), re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)[1:]
        url = words.pop()
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert options.keys() <= {"-X", "--json"}
        begin = f"http://{host}/x%20y"
        assert url.startswith(begin)
        method = options.get("-X") or ("POST" if "--json" in options else "GET")
        body = options.get("--json", "").encode()
        for _ in range(2):
            assert api.ask(method, url.removeprefix(begin), body, {"Host": host}).status in (200, 201)


@pytest.mark.parametrize(
    "error", [StoreUnavailable("no manager is running in <home>"), OutcomeUnknown("slow")]
)
def test_home_still_renders_when_the_store_is_away(error, caplog):
    page = failing(error).ask("GET", "/")
    assert (page.status, page.headers["retry-after"]) == (503, "1")
    assert page.headers["content-type"].startswith("text/html")
    assert error.title in text_of(page) and "curl" in text_of(page)
    assert error.detail not in text_of(page) and error.detail in caplog.text


@pytest.mark.parametrize("code", [*STORE_ERRORS, *HTTP_PROBLEMS])
def test_each_error_has_its_page(code):
    page = Api().ask("GET", f"/problems/{code}")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    error = STORE_ERRORS.get(code) or HTTP_PROBLEMS[code]
    assert (
        code in text_of(page) and error.title in text_of(page) and f"status {error.status}" in text_of(page)
    )


def test_the_style_is_the_one_that_the_policy_allows():
    for path in ("/", "/problems/not-found"):
        page = Api().ask("GET", path)
        style = re.search(r"<style>(.*?)</style>", page.body.decode(), re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in page.headers["content-security-policy"]
        assert not re.search(rb"<script|<link|style=|\son\w+=", page.body)


def test_what_flask_refuses_itself_is_a_problem_too():
    api = Api(TRUSTED_HOSTS=["localhost"])
    api.refuse(400, "invalid-request", "GET", "/v1/info", headers={"Host": "127.0.0.1"})
    api.refuse(421, "host-not-allowed", "GET", "/v1/info", headers={"Host": "evil.example"})


class Asked(Store):
    """A store that keeps how long it was given for each request."""

    def __init__(self):
        self.base = MemoryStore()
        self.timeouts = []

    def execute(self, request, timeout=None):
        self.timeouts.append(timeout)
        return self.base.execute(request, timeout)

    def close(self):
        pass


def test_the_store_gets_what_waiting_for_a_thread_has_left_of_the_timeout():
    api = Api(Asked(), COUNTER_TIMEOUT=4)
    for waited in (None, 0.0, 1.5):
        arrived = None if waited is None else time.monotonic() - waited
        assert api.ask("POST", "/v1/counters/a/increment", **{"counter.arrived": arrived}).value
    at_once, soon, late = api.store.timeouts
    assert at_once == soon == 4
    assert 2.0 < late <= 2.5


def test_a_request_whose_time_was_over_before_its_turn_is_refused_and_the_store_not_asked(caplog):
    api = Api(Asked(), COUNTER_TIMEOUT=2)
    answer = api.ask("POST", "/v1/counters/a/increment", **{"counter.arrived": time.monotonic() - 1.99})
    assert (answer.status, answer.json["code"]) == (503, "store-unavailable")
    assert answer.headers["retry-after"] == "1"
    assert api.store.timeouts == []
    assert "before a thread was free" in caplog.text
    assert api.ask("GET", "/livez", **{"counter.arrived": time.monotonic() - 100}).status == 200


def test_every_answer_has_the_id_of_its_request():
    api = Api()
    assert api.ask("GET", "/v1/counters", headers={"X-Request-Id": "mine"}).headers["x-request-id"] == "mine"
    made = [api.ask("GET", path, HTTP_X_REQUEST_ID=None).headers["x-request-id"] for path in ("/", "/nope")]
    assert len({*made, api.ask("GET", "/", headers={"X-Request-Id": "a b"}).headers["x-request-id"]}) == 3
    given = {"counter.request_id": "the-servers"}
    assert api.ask("GET", "/livez", **given).headers["x-request-id"] == "the-servers"
