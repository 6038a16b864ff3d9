"""The routes of the API: what each answers when all is well, and what it changes."""

import msgspec
import pytest
from web_client import Api

from counter.fields import INT64_MAX, INT64_MIN
from counter.results import Change, Entry, Page

LONGEST = "é" * 125
NAMES = [
    ("a", "a"),
    ("New%20York", "New York"),
    ("New York", "New York"),
    ("/about", "/about"),
    ("%2Fabout", "/about"),
    ("%2fabout", "/about"),
    ("a//b", "a//b"),
    ("a/b%2F", "a/b/"),
    ("a/", "a/"),
    ("/", "/"),
    ("//", "//"),
    ("shop:cart", "shop:cart"),
    ("a+b", "a+b"),
    ("50%25", "50%"),
    ("a%3Fb%23c", "a?b#c"),
    ("it's", "it's"),
    ('%22%5C%22;<script>"', '"\\";<script>"'),
    ("%E2%80%AEdrow", "\u202edrow"),  # right to left
    ("%D7%A9%D7%9C%D7%95%D7%9D", "שלום"),
    ("%F0%9F%90%B8", "🐸"),
    ("%EF%BF%BD", "\ufffd"),  # a true replacement character is a name like any other
    ("%EF%BB%BFa", "\ufeffa"),
    ("%C3%A9" * 125, LONGEST),
    ("x" * 250, "x" * 250),
    ("increment", "increment"),
    ("increments/a", "increments/a"),
    ("a/incremented", "a/incremented"),
    ("...", "..."),
    ("a/../b", "a/../b"),
    ("a/.", "a/."),
    ("batch", "batch"),
]


@pytest.fixture
def api():
    return Api()


@pytest.mark.parametrize(("path", "name"), NAMES, ids=[path[:30] for path, _ in NAMES])
def test_a_name_in_the_path_is_exact(api, path, name):
    made = api.ask("PUT", f"/v1/counters/{path}", {"value": 5})
    assert (made.status, made.json["name"]) == (201, name)
    assert api.ask("GET", f"/v1/counters/{path}").json["name"] == name
    added = api.ask("POST", f"/v1/counters/{path}/increment")
    assert (added.status, added.json["name"], added.value) == (200, name, 6)
    assert list(api.seen()) == [name]
    at = made.headers["location"]
    assert at.isascii() and at.startswith("/v1/counters/") and at.count("/") == 3
    assert api.ask("GET", at).json["name"] == name
    assert api.ask("DELETE", f"/v1/counters/{path}").status == 200
    assert api.seen() == {}


def test_slash_and_its_encoding_are_the_same(api):
    api.ask("POST", "/v1/counters/a/b/increment")
    assert api.ask("POST", "/v1/counters/a%2Fb/increment").value == 2
    assert api.ask("POST", "/v1/counters/a%2Fb%2Fincrement").value == 3


def test_an_increment_answers_the_change(api):
    answer = api.ask("POST", "/v1/counters/a/increment")
    change = msgspec.json.decode(answer.body, type=Change)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert (change.name, change.value, change.previous, change.delta, change.created) == ("a", 1, 0, 1, True)
    assert answer.etag == f'"{change.version}"'
    assert set(answer.json) == set(Change.__struct_fields__)
    again = api.ask("POST", "/v1/counters/a/increment").json
    assert (again["value"], again["previous"], again["created"]) == (2, 1, False)


INCREMENTS = [
    ("increment", "", b"", 11),
    ("increment", "?delta=5", b"", 15),
    ("increment", "?delta=-5", b"", 5),
    ("increment", "?delta=0", b"", 10),
    ("increment", "?delta=-0", b"", 10),
    ("increment", "?%64elta=%35", b"", 15),
    ("increment", "", {}, 11),
    ("increment", "", {"delta": 5}, 15),
    ("increment", "", {"delta": 500, "max": 100, "on_bound": "clamp"}, 100),
    ("increment", "", {"delta": -500, "min": 1, "on_bound": "clamp"}, 1),
    ("increment", "", {"if_version": "present"}, 11),
    ("increment", "", {"if_version": None, "min": None}, 11),
    ("increment", "", {"delta": INT64_MAX - 10}, INT64_MAX),
    ("increment", "?delta=9223372036854775797", b"", INT64_MAX),
    ("increment", "", {"delta": INT64_MIN}, INT64_MIN + 10),
    ("decrement", "", b"", 9),
    ("decrement", "?delta=5", b"", 5),
    ("decrement", "?delta=-5", b"", 15),
    ("decrement", "", {"delta": 5, "min": 7, "on_bound": "clamp"}, 7),
    ("decrement", "", {"delta": INT64_MAX}, -INT64_MAX + 10),
    ("decrement", "", {"delta": -(INT64_MAX - 10)}, INT64_MAX),
    ("reset", "", b"", 0),
    ("reset", "", {}, 0),
    ("reset", "", {"value": -7}, -7),
    ("reset", "?value=7", b"", 7),
    ("reset", "", {"value": 7, "if_version": "present"}, 7),
]


@pytest.mark.parametrize(("verb", "query", "body", "value"), INCREMENTS)
def test_verbs(api, verb, query, body, value):
    api.put("a", 10)
    answer = api.ask("POST", f"/v1/counters/a/{verb}{query}", body)
    assert (answer.status, answer.value, answer.json["previous"]) == (200, value, 10)
    assert answer.json["delta"] == value - 10
    assert api.seen()["a"].value == value


def test_a_ttl_in_an_increment_is_for_the_counter_it_creates(api):
    entry = api.ask("POST", "/v1/counters/a/increment", {"ttl": 60, "ttl_mode": "sliding"}).json
    assert (entry["ttl"], entry["ttl_mode"]) == (60, "sliding")
    assert api.ask("POST", "/v1/counters/a/increment", {"ttl": 5}).json["ttl"] == 60


def test_decrement_creates_as_increment_does(api):
    answer = api.ask("POST", "/v1/counters/a/decrement").json
    assert (answer["value"], answer["created"]) == (-1, True)


def test_reset_keeps_the_settings_and_needs_a_counter(api):
    api.put("a", 10, max=100)
    answer = api.ask("POST", "/v1/counters/a/reset").json
    assert (answer["value"], answer["max"], answer["previous"]) == (0, 100, 10)
    problem = api.refuse(404, "not-found", "POST", "/v1/counters/none/reset").json
    assert "PUT" in problem["detail"]


def test_out_of_bounds_shows_the_counter_or_that_there_is_none(api):
    api.put("a", 10, max=10)
    problem = api.refuse(409, "out-of-bounds", "POST", "/v1/counters/a/increment").json
    assert problem["current"]["value"] == 10
    assert problem["current"]["max"] == 10
    problem = api.refuse(409, "out-of-bounds", "POST", "/v1/counters/b/increment", {"max": -5}).json
    assert problem["current"] is None
    api.put("b", INT64_MAX)
    api.refuse(409, "out-of-bounds", "POST", "/v1/counters/b/increment")
    api.put("b", INT64_MIN)
    api.refuse(409, "out-of-bounds", "POST", "/v1/counters/b/decrement")
    api.put("c", 5, min=1)
    problem = api.refuse(409, "out-of-bounds", "POST", "/v1/counters/c/reset").json
    assert "index" not in problem, "whoever resets knows of one op"
    api.refuse(409, "out-of-bounds", "PUT", "/v1/counters/c", {"value": 5, "max": 3})
    api.refuse(409, "out-of-bounds", "PATCH", "/v1/counters/c", {"max": 3})


def test_get_and_head(api):
    version = api.put("a", 7, max=9).version
    answer = api.ask("GET", "/v1/counters/a")
    entry = msgspec.json.decode(answer.body, type=Entry)
    assert (answer.status, entry.value, entry.max) == (200, 7, 9)
    assert set(answer.json) == set(Entry.__struct_fields__)
    assert answer.json["min"] is None
    assert answer.json["created_at"].endswith("Z")
    assert (answer.etag, answer.headers["vary"]) == (f'"{version}"', "Accept")
    head = api.ask("HEAD", "/v1/counters/a")
    assert (head.status, head.body, head.headers) == (200, b"", answer.headers)


def test_what_only_reads_changes_nothing(api):
    api.put("a", 7)
    before = api.seen()
    for path in ("/v1/counters/a", "/v1/counters", "/v1/info", "/", "/readyz", "/livez", "/v1/counters/none"):
        for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
            api.ask(method, path)
    assert api.seen() == before


ACCEPT = [
    ("text/plain", True),
    ("text/*", True),
    ("text/plain;q=0.9, application/json;q=0.1", True),
    ("text/plain, */*;q=0.1", True),
    ("application/json, text/plain", False),
    ("application/json, text/plain;q=0.5", False),
    ("text/html, application/xhtml+xml, */*;q=0.8", False),
    ("*/*", False),
    ("text/html", False),
    ("text/plain;q=0", False),
    ("text/plain;q=x", False),
    ('text/plain; x="', False),
    ("", False),
    ("\xff,text/", False),
]


@pytest.mark.parametrize(("accept", "is_text"), ACCEPT)
def test_accept_chooses_between_json_and_the_number(api, accept, is_text):
    api.put("a", -7)
    answer = api.ask("GET", "/v1/counters/a", headers={"Accept": accept})
    assert (answer.status, answer.headers["vary"]) == (200, "Accept")
    if is_text:
        assert answer.body == b"-7\n"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert api.ask("HEAD", "/v1/counters/a", headers={"Accept": accept}).headers == answer.headers
    else:
        assert answer.value == -7


def test_errors_are_json_whatever_is_accepted(api):
    api.refuse(404, "not-found", "GET", "/v1/counters/a", headers={"Accept": "text/plain"})


def test_put_gives_the_whole_counter(api):
    settings = {"min": 0, "max": 9, "on_bound": "clamp", "ttl": 60, "ttl_mode": "sliding"}
    answer = api.ask("PUT", "/v1/counters/a", {"value": 5} | settings)
    assert answer.status == 201
    assert answer.json.items() >= settings.items()
    assert answer.etag == f'"{api.seen()["a"].version}"'
    answer = api.ask("PUT", "/v1/counters/a", {"value": 6})
    assert (answer.status, answer.value, answer.json["previous"]) == (200, 6, 5)
    assert "location" not in answer.headers
    for name in settings:
        assert answer.json[name] is None


def test_location_has_the_path_that_the_app_is_mounted_at(api):
    answer = api.ask("PUT", "/v1/counters/a b", {"value": 1}, SCRIPT_NAME="/caf\xc3\xa9")
    assert answer.headers["location"] == "/caf%C3%A9/v1/counters/a%20b"
    answer = api.ask("GET", "/v1/counters/none", SCRIPT_NAME="/x")
    assert answer.json["type"] == "/x/problems/not-found"


@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
def test_patch_changes_what_it_names(api, content_type):
    api.put("a", 5, min=0, max=9)
    answer = api.ask("PATCH", "/v1/counters/a", {"max": 20, "min": None}, {"Content-Type": content_type})
    assert (answer.status, answer.value, answer.json["max"], answer.json["min"]) == (200, 5, 20, None)
    assert answer.etag == f'"{api.seen()["a"].version}"'


def test_patch_never_creates(api):
    api.refuse(404, "not-found", "PATCH", "/v1/counters/none", {"max": 20})


def test_delete_answers_the_last_value(api):
    api.put("a", 5)
    answer = api.ask("DELETE", "/v1/counters/a")
    assert (answer.status, answer.value, answer.json["delta"]) == (200, 5, 0)
    assert "etag" not in answer.headers
    api.refuse(404, "not-found", "DELETE", "/v1/counters/a")


def test_list(api):
    for name, value in (("b", 1), ("a", 3), ("c", 2), ("x:a", 0)):
        api.put(name, value)

    def names(query=""):
        page = msgspec.json.decode(api.ask("GET", f"/v1/counters{query}").body, type=Page)
        return [entry.name for entry in page.counters], page.next

    assert names() == (["a", "b", "c", "x:a"], None)
    assert names("?prefix=x%3A") == (["x:a"], None)
    assert names("?prefix=") == names()
    assert names("?sort=-value") == (["a", "c", "b", "x:a"], None)
    assert names("?sort=-updated")[0][0] == "x:a"
    first, cursor = names("?limit=3")
    assert first == ["a", "b", "c"]
    assert names(f"?limit=3&cursor={cursor}") == (["x:a"], None)
    assert api.ask("HEAD", "/v1/counters").status == 200


def test_a_prefix_is_utf8_encoded_or_raw(api):
    api.put("é1", 1)
    for query in ("%C3%A9", "\xc3\xa9"):
        assert len(api.ask("GET", f"/v1/counters?prefix={query}").json["counters"]) == 1
    assert api.ask("GET", "/v1/counters?prefix=a+b").json["counters"] == []


def test_batch(api):
    api.put("x", 1)
    ops = [
        {"op": "increment", "name": "a"},
        {"op": "set", "name": "b", "value": 5, "max": 9},
        {"op": "get", "name": "b"},
        {"op": "delete", "name": "x"},
    ]
    answer = api.ask("POST", "/v1/batch", {"ops": ops})
    results = answer.json["results"]
    assert (answer.status, list(answer.json)) == (200, ["results"])
    assert [result["value"] for result in results] == [1, 5, 5, 1]
    assert "previous" in results[1] and "previous" not in results[2]
    assert list(api.seen()) == ["a", "b"]


@pytest.mark.parametrize(
    "name", [".", "..", "a/increment", "a/decrement", "a/reset", "/increment", "a/reset/reset"]
)
def test_names_that_no_path_can_hold_go_through_a_batch(api, name):
    answer = api.ask("POST", "/v1/batch", {"ops": [{"op": "increment", "name": name}]})
    assert (answer.status, list(api.seen())) == (200, [name])


def test_an_atomic_batch_is_all_or_nothing(api):
    api.put("a", 9, max=9)
    ops = [{"op": "increment", "name": "b"}, {"op": "increment", "name": "a"}, {"op": "get", "name": "none"}]
    problem = api.refuse(409, "out-of-bounds", "POST", "/v1/batch", {"ops": ops, "atomic": True}).json
    assert (problem["index"], problem["current"]["value"]) == (1, 9)
    problem = api.refuse(404, "not-found", "POST", "/v1/batch", {"ops": ops[2:]}).json
    assert problem["index"] == 0


def test_ops_of_a_batch_that_is_not_atomic_fail_alone(api):
    api.put("a", 9, max=9)
    ops = [
        {"op": "increment", "name": "a"},
        {"op": "increment", "name": "b"},
        {"op": "get", "name": "none"},
        {"op": "delete", "name": "b", "if_version": "absent"},
    ]
    answer = api.ask("POST", "/v1/batch", {"atomic": False, "ops": ops})
    first, second, third, fourth = answer.json["results"]
    assert answer.status == 200
    assert (first["code"], first["status"], first["current"]["value"]) == ("out-of-bounds", 409, 9)
    assert second["value"] == 1
    assert (third["code"], third["type"]) == ("not-found", "/problems/not-found")
    assert "current" not in third and "index" not in third
    assert fourth["current"]["value"] == 1
    assert list(api.seen()) == ["a", "b"]
    answer = api.ask("POST", "/v1/batch", {"atomic": False, "ops": ops[2:3]}, SCRIPT_NAME="/x")
    assert answer.json["results"][0]["type"] == "/x/problems/not-found"


def test_a_batch_has_up_to_10_000_ops(api):
    ops = [{"op": "increment", "name": "a"}] * 10_000
    answer = api.ask("POST", "/v1/batch", {"ops": ops})
    assert (answer.status, len(answer.json["results"]), api.seen()["a"].value) == (200, 10_000, 10_000)


COUNTER = "GET, HEAD, PUT, PATCH, DELETE"
ALLOWED = [
    ("/v1/counters", "GET, HEAD"),
    ("/v1/counters/a", COUNTER),
    ("/v1/counters/increment", COUNTER),
    ("/v1/counters/a/increment", "POST"),
    ("/v1/counters/a/decrement", "POST"),
    ("/v1/counters/a/reset", "POST"),
    ("/v1/batch", "POST"),
    ("/v1/info", "GET, HEAD"),
    ("/v1/changes", "GET, HEAD"),
    ("/v1/events", "GET, HEAD"),
    ("/livez", "GET, HEAD"),
    ("/readyz", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
    ("/problems/not-found", "GET, HEAD"),
    ("/", "GET, HEAD"),
]
METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "TRACE", "CONNECT", "PROPFIND", "get", "X")


@pytest.mark.parametrize(("path", "allow"), ALLOWED)
def test_methods_of_each_address(api, path, allow):
    api.put("a", 1)
    options = api.ask("OPTIONS", path)
    assert (options.status, options.headers["allow"], options.body) == (200, allow, b"")
    for method in METHODS:
        if method not in allow.split(", "):
            answer = api.refuse(405, "method-not-allowed", method, path)
            assert answer.headers["allow"] == allow


@pytest.mark.parametrize("verb", ["increment", "decrement", "reset"])
def test_a_verb_by_another_method_is_told_how(api, verb):
    answer = api.refuse(405, "method-not-allowed", "GET", f"/v1/counters/New%20York'/{verb}")
    line = f"curl -X POST 'http://localhost:8000/v1/counters/New%20York%27/{verb}'"
    assert answer.json["detail"].endswith(line)


NOWHERE = ["/v1", "/v1/", "/v1/counter/a", "/v2/counters", "/nope", "/nope//x/", "/V1/counters", "/%FF"]
NOWHERE += ["/problems", "/problems/", "/problems/nope", "/problems/not-found/", "/livez/"]
NOWHERE += ["/v1/info/", "/v1/batch/x", "/v1//counters", "/v1/%0A"]
NOWHERE += ["/static/x", "/favicon.ico"]


@pytest.mark.parametrize("path", NOWHERE)
def test_other_addresses_are_404_with_every_method(api, path):
    for method in ("GET", "POST", "OPTIONS", "TRACE", "HEAD", "X"):
        api.refuse(404, "no-such-route", method, path)
