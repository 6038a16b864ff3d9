"""`Idempotency-Key`: once, however often it is sent, and one request to the store for one over HTTP."""

import pytest
from web_client import Api, Relay

from counter.errors import OutcomeUnknown, StoreUnavailable
from counter.fields import MAX_KEY
from counter.stores.memory import MemoryStore
from counter.web import create_app
from counter.web.idempotency import parse_key

UNSAFE = {
    "put": ("PUT", "/v1/counters/a", {"value": 7}),
    "put a new one": ("PUT", "/v1/counters/new", {"value": 7}),
    "patch": ("PATCH", "/v1/counters/a", {"max": 100}),
    "delete": ("DELETE", "/v1/counters/a", b""),
    "increment": ("POST", "/v1/counters/a/increment", b""),
    "decrement": ("POST", "/v1/counters/a/decrement?delta=2", b""),
    "reset": ("POST", "/v1/counters/a/reset", b""),
    "reset to 5": ("POST", "/v1/counters/a/reset", {"value": 5}),
    "batch": ("POST", "/v1/batch", {"ops": [{"op": "increment", "name": "a"}, {"op": "get", "name": "a"}]}),
    "refused: out of bounds": ("PUT", "/v1/counters/a", {"value": 9, "max": 8}),
    "refused: not found": ("DELETE", "/v1/counters/none", b""),
    "refused: reset of nothing": ("POST", "/v1/counters/none/reset", b""),
    "refused: batch": ("POST", "/v1/batch", {"ops": [{"op": "get", "name": "none"}]}),
    "each for itself": (
        "POST",
        "/v1/batch",
        {"atomic": False, "ops": [{"op": "get", "name": "none"}, {"op": "increment", "name": "a"}]},
    ),
}
CONDITIONS = [
    {},
    {"If-Match": "*"},
    {"If-Match": '"nope"'},
    {"If-Match": '"{v}"'},
    {"If-Match": '"x", "{v}", "y"'},
    {"If-Match": '"x", "y"'},
    {"If-None-Match": "*"},
]


class Counting(Relay):
    """Counts what the store is asked, and may lose the answer."""

    def __init__(self, store):
        self.target, self.asked, self.loses = store, [], False

    def execute(self, request, timeout=None):
        self.asked.append(request)
        reply = super().execute(request, timeout)
        if self.loses:
            raise OutcomeUnknown("the answer was lost")
        return reply


@pytest.fixture
def store():
    return Counting(MemoryStore())


@pytest.fixture
def api(store):
    """With one counter, `a`."""
    api = Api(store)
    api.put("a", 4)
    store.asked.clear()
    return api


@pytest.fixture(params=UNSAFE.values(), ids=list(UNSAFE))
def change(request):
    return request.param


def told(answer):
    """What a replay has in common with the first answer: all but the mark."""
    headers = {name: value for name, value in answer.headers.items() if name != "idempotent-replayed"}
    return answer.status, answer.body, headers


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_a_replay_has_the_same_status_and_body_and_says_so(api, store, change, condition):
    method, path, body = change
    version = api.seen()["a"].version
    headers = {name: value.format(v=version) for name, value in condition.items()}
    headers["Idempotency-Key"] = '"evt_1"'
    first = api.ask(method, path, body, headers)
    after = api.seen()
    second = api.ask(method, path, body, headers)
    assert told(second) == told(first)
    marks = [answer.headers.get("idempotent-replayed") for answer in (first, second)]
    assert marks == ([None, None] if first.status == 400 else [None, "true"])
    assert api.seen() == after, "done once"


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
@pytest.mark.parametrize("key", [None, "k"])
def test_each_request_is_one_to_the_store(api, store, change, condition, key):
    method, path, body = change
    version = api.seen()["a"].version
    headers = {name: value.format(v=version) for name, value in condition.items()}
    store.asked.clear()
    answer = api.ask(method, path, body, headers | ({} if key is None else {"Idempotency-Key": key}))
    assert len(store.asked) == (0 if answer.status == 400 else 1), answer
    assert [request.idempotency_key for request in store.asked] == [key] * len(store.asked)


def test_a_lost_answer_comes_with_the_repetition(api, store):
    store.loses = True
    lost = api.ask("POST", "/v1/counters/a/increment", headers={"Idempotency-Key": "k"})
    assert (lost.status, lost.headers["retry-after"]) == (504, "1")
    assert "same Idempotency-Key" in lost.json["detail"]
    store.loses = False
    found = api.ask("POST", "/v1/counters/a/increment", headers={"Idempotency-Key": "k"})
    assert (found.status, found.value, found.headers["idempotent-replayed"]) == (200, 5, "true")
    assert api.seen()["a"].value == 5


def test_without_a_key_504_says_nothing_of_repeating(api, store):
    store.loses = True
    lost = api.ask("POST", "/v1/counters/a/increment")
    assert (lost.status, "retry-after" in lost.headers) == (504, False)
    assert "read the counter before you repeat it" in lost.json["detail"]
    read = api.ask("GET", "/v1/counters/a", headers={"Idempotency-Key": "k"})
    assert (read.status, "retry-after" in read.headers) == (504, False)


def test_503_carries_retry_after_with_a_key_and_without(monkeypatch, api, store):
    def unavailable(request, timeout=None):
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "execute", unavailable)
    for headers in ({}, {"Idempotency-Key": "k"}):
        answer = api.ask("POST", "/v1/counters/a/increment", headers=headers)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_the_same_key_for_something_else_is_422(api):
    key = {"Idempotency-Key": "k"}
    assert api.ask("POST", "/v1/counters/a/increment", headers=key).value == 5
    for path, body in (
        ("/v1/counters/a/increment?delta=2", b""),
        ("/v1/counters/b/increment", b""),
        ("/v1/counters/a/reset", b""),
        ("/v1/counters/a/increment", {"max": 100}),
    ):
        answer = api.refuse(422, "key-reused", "POST", path, body, key)
        assert "idempotent-replayed" not in answer.headers
    assert api.ask("POST", "/v1/counters/a/increment", headers=key).value == 5


def test_the_same_request_however_it_is_written_is_the_same(api):
    for path, body, key in (
        ("/v1/counters/a/increment", b"", "k"),
        ("/v1/counters/a/increment?delta=1", b"", '"k"'),
        ("/v1/counters/a/increment", {"delta": 1}, " k "),
        ("/v1/counters/%61/increment", {"max": None, "delta": 1}, '\t"k"'),
    ):
        answer = api.ask("POST", path, body, {"Idempotency-Key": key})
        assert (answer.status, answer.value) == (200, 5)
    assert api.seen()["a"].value == 5


def test_what_never_reached_the_store_has_not_used_the_key(api):
    key = {"Idempotency-Key": "k"}
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment", {"delta": "1"}, key)
    api.refuse(415, "media-type", "POST", "/v1/counters/a/increment", b"1", key, CONTENT_TYPE="text/plain")
    assert api.ask("POST", "/v1/counters/a/increment", {"delta": 1}, key).value == 5


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("key", ["k", "", "a,b", "é", '"'])
def test_a_safe_method_ignores_the_header(api, store, method, key):
    for _ in range(2):
        answer = api.ask(method, "/v1/counters/a", headers={"Idempotency-Key": key})
        assert (answer.status, "idempotent-replayed" in answer.headers) == (200, False)
    assert not [request for request in store.asked if request.idempotency_key]


KEYS = {
    "k": "k",
    '"k"': "k",
    "8e03978e-40d5-43dd-bc93-6894a57f9324": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    '"a,b"': "a,b",
    r'"a\"b"': 'a"b',
    r'"a\\b"': "a\\b",
    "a\\b": "a\\b",
    "a;b=c": "a;b=c",
    "\t k \t": "k",
    "k" * MAX_KEY: "k" * MAX_KEY,
    f'"{"k" * MAX_KEY}"': "k" * MAX_KEY,
}
MALFORMED = [
    "",
    " ",
    '""',
    '"',
    '"k',
    'k"',
    'a"b',
    '"a"b"',
    r'"a\b"',
    '"a\\"',
    "a,b",
    "a, b",
    '"a", "b"',
    '"a","b"',
    '"a";p=1',
    "a b",
    '"a b"',
    "é",
    '"\x7f"',
    "a\x00",
    "k" * (MAX_KEY + 1),
    f'"{"k" * (MAX_KEY + 1)}"',
    "('k')x\n",
]


@pytest.mark.parametrize(("text", "key"), KEYS.items())
def test_a_key_is_quoted_or_bare(text, key):
    assert parse_key(text) == key


@pytest.mark.parametrize("text", MALFORMED)
def test_anything_else_is_refused_wherever_it_is_sent(api, text):
    """Two headers are joined with a comma by the server: outside quotes that is no key. Inside it is one."""
    headers = {"Idempotency-Key": text}
    for method, path, body in UNSAFE.values():
        answer = api.refuse(400, "invalid-request", method, path, body, headers)
        assert "Idempotency-Key" in answer.json["detail"] or "idempotency key" in answer.json["detail"]
    for path in ("/v1/info", "/nowhere", "/"):
        api.refuse(400, "invalid-request", "POST", path, b"", headers)


def test_who_may_not_ask_is_told_that_first(api):
    api.refuse(
        421,
        "host-not-allowed",
        "POST",
        "/v1/counters/a/increment",
        b"",
        {"Idempotency-Key": ""},
        HTTP_HOST="evil.example",
    )


def test_a_full_table_of_keys_is_507_and_other_requests_go_on(monkeypatch, api):
    monkeypatch.setattr("counter.keys.MAX_KEYS", 1)
    path = "/v1/counters/a/increment"
    assert api.ask("POST", path, headers={"Idempotency-Key": "k"}).status == 200
    answer = api.refuse(507, "limit-exceeded", "POST", path, b"", {"Idempotency-Key": "l"})
    assert "idempotency keys" in answer.json["detail"]
    assert api.ask("POST", path, headers={"Idempotency-Key": "k"}).headers["idempotent-replayed"] == "true"
    assert api.ask("POST", path).status == 200


def test_keys_are_known_to_every_app_of_the_store():
    store = MemoryStore()
    first, second = (Api(store, create_app(store)) for _ in range(2))
    key = {"Idempotency-Key": "k"}
    assert first.ask("POST", "/v1/counters/a/increment", headers=key).value == 1
    answer = second.ask("POST", "/v1/counters/a/increment", headers=key)
    assert (answer.value, answer.headers["idempotent-replayed"]) == (1, "true")
