"""Conditional requests: ETags are versions, and a change's condition is decided with the change."""

import pytest
from web_client import Api, Relay

from counter.ops import Increment, Request
from counter.stores.memory import MemoryStore

CHANGES = {
    "put": ("PUT", "/v1/counters/a", {"value": 1}),
    "patch": ("PATCH", "/v1/counters/a", {"max": 100}),
    "delete": ("DELETE", "/v1/counters/a", b""),
    "increment": ("POST", "/v1/counters/a/increment", b""),
    "increment by 5": ("POST", "/v1/counters/a/increment?delta=5", b""),
    "increment up to 50": ("POST", "/v1/counters/a/increment", {"max": 50}),
    "decrement": ("POST", "/v1/counters/a/decrement", b""),
    "reset": ("POST", "/v1/counters/a/reset", b""),
    "reset to 5": ("POST", "/v1/counters/a/reset", {"value": 5}),
}
CREATES = {"put": 201, "increment": 200, "increment by 5": 200, "increment up to 50": 200, "decrement": 200}


@pytest.fixture(params=CHANGES.values(), ids=list(CHANGES))
def change(request):
    return request.param


@pytest.fixture
def api():
    return Api()


# {v} is the version that the counter has, {old} the one that it had before.
HOLD = [
    '"{v}"',
    "*",
    " * ",
    '"{old}", "{v}"',
    '"{v}","{old}"',
    'W/"{v}", "{v}"',
    ' , "{v}" ,, ',
    '"a,b", "{v}"',
    '"","{v}"',
]
FAIL = [
    '"{old}"',
    'W/"{v}"',
    'W/"{v}", "{old}"',
    '"nope"',
    '"present"',
    '"absent"',
    '""',
    '"*"',
    '"{v}x"',
    '"x","y"',
]
FAIL += ['"present", "absent"', '"\xe9"', '"w/{v}"', '"present", "{old}"', '"{old}", "nope"']
MALFORMED = [
    "{v}",
    '"{v}',
    "",
    " ",
    ",",
    '"{v}" "{old}"',
    '"{v}"x',
    '*, "{v}"',
    "**",
    "'{v}'",
    'w/"{v}"',
    '"a b"',
]
MALFORMED += [
    '"{v}"; "{old}"',
    '"a\x7f"',
    'W/ "{v}"',
    "W/",
    '"{v}",x',
    '"{v}", "' + "x" * 5000,
    '"' * 5001,
    "," * 5000,
]


def two_versions(api):
    old = api.put("a", 3).version
    return {"old": old, "v": api.put("a", 4).version}


@pytest.mark.parametrize("header", HOLD)
def test_if_match_that_holds(api, change, header):
    method, path, body = change
    answer = api.ask(method, path, body, {"If-Match": header.format(**two_versions(api))})
    assert answer.status == 200
    assert answer.json["previous" if method != "DELETE" else "value"] == 4


@pytest.mark.parametrize("header", FAIL)
def test_if_match_that_fails(api, header):
    header = {"If-Match": header.format(**two_versions(api))}
    for method, path, body in CHANGES.values():
        answer = api.refuse(412, "version-mismatch", method, path, body, header)
        assert answer.json["current"]["value"] == 4


@pytest.mark.parametrize("header", ['"{v}"', "*", '"{v}", "x"', '"absent"', '"absent", "present"', 'W/"x"'])
def test_if_match_without_a_counter(api, header):
    """Never creates one, and a reset is no exception: the condition failed."""
    header = {"If-Match": header.format(v="x.1")}
    for method, path, body in CHANGES.values():
        problem = api.refuse(412, "version-mismatch", method, path, body, header).json
        assert problem["current"] is None


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("header", MALFORMED, ids=lambda header: header[:20])
def test_malformed(api, name, header):
    header = {name: header.format(**two_versions(api))}
    for method, path, body in CHANGES.values():
        api.refuse(400, "invalid-request", method, path, body, header)
    api.refuse(400, "invalid-request", "GET", "/v1/counters/a", headers=header)
    api.refuse(400, "invalid-request", "HEAD", "/v1/counters/a", headers=header)


def test_a_malformed_header_is_refused_also_where_the_other_one_decides(api):
    api.put("a")
    headers = {"If-Match": '"nope"', "If-None-Match": "nope"}
    refused = api.refuse(400, "invalid-request", "GET", "/v1/counters/a", headers=headers)
    assert refused.json["detail"].startswith("If-None-Match is")


def test_if_none_match_star_is_only_if_absent(api, change):
    method, path, body = change
    api.put("a", 4)
    answer = api.refuse(412, "version-mismatch", method, path, body, {"If-None-Match": "*"})
    assert answer.json["current"]["value"] == 4


@pytest.mark.parametrize("name", list(CHANGES))
def test_if_none_match_star_without_a_counter(api, name):
    method, path, body = CHANGES[name]
    if name in CREATES:
        assert api.ask(method, path, body, {"If-None-Match": "*"}).status == CREATES[name]
        assert list(api.seen()) == ["a"]
    else:
        api.refuse(404, "not-found", method, path, body, {"If-None-Match": "*"})


def test_if_none_match_with_a_change_takes_the_star_alone(api, change):
    method, path, body = change
    version = two_versions(api)["v"]
    api.refuse(400, "invalid-request", method, path, body, {"If-None-Match": f'"{version}x"'})
    api.refuse(400, "invalid-request", method, path, body, {"If-None-Match": "*", "If-Match": "*"})


@pytest.mark.parametrize("if_version", ["present", "absent", "{v}", "{old}"])
@pytest.mark.parametrize("name", ["put", "patch", "increment", "decrement", "reset"])
def test_if_version_in_the_body(api, name, if_version):
    method, path, body = CHANGES[name]
    body = (body or {}) | {"if_version": if_version.format(**two_versions(api))}
    if if_version in ("present", "{v}"):
        assert api.ask(method, path, body).json["previous"] == 4
        api.refuse(400, "invalid-request", method, path, body, {"If-Match": "*"})
    else:
        api.refuse(412, "version-mismatch", method, path, body)
    if if_version == "absent" and name in ("patch", "reset"):
        api.ask("DELETE", "/v1/counters/a")
        api.refuse(404, "not-found", method, path, body)


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_takes_conditions_in_its_ops_alone(api, header, atomic):
    """A header that is not heeded would be a compare-and-set that compares nothing."""
    version = api.put("a", 4).version
    ops = [{"op": "increment", "name": "a", "if_version": version}]
    body = {"ops": ops, "atomic": atomic}
    for tag in ("*", f'"{version}"', '"x"', ""):
        problem = api.refuse(400, "invalid-request", "POST", "/v1/batch", body, {header: tag}).json
        assert "if_version" in problem["detail"]
    assert api.ask("POST", "/v1/batch", body).json["results"][0]["value"] == 5


READS = [
    ({"If-None-Match": '"{v}"'}, 304),
    ({"If-None-Match": 'W/"{v}"'}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"{old}", W/"x", "{v}"'}, 304),
    ({"If-None-Match": '"{old}"'}, 200),
    ({"If-None-Match": '"present"'}, 200),
    ({"If-Match": '"{v}"'}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"{old}", "{v}"'}, 200),
    ({"If-Match": '"{old}"'}, 412),
    ({"If-Match": 'W/"{v}"'}, 412),
    ({"If-Match": '"present"'}, 412),
    ({"If-Match": '"{v}"', "If-None-Match": '"{v}"'}, 304),
    ({"If-Match": '"{v}"', "If-None-Match": '"{old}"'}, 200),
    ({"If-Match": '"{old}"', "If-None-Match": '"{v}"'}, 412),
    ({"If-None-Match": '"{v}"', "Accept": "text/plain"}, 304),
    ({"If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"}, 200),
    ({"Range": "bytes=0-1"}, 200),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("headers", "status"), READS)
def test_reads(api, method, headers, status):
    versions = two_versions(api)
    headers = {name: value.format(**versions) for name, value in headers.items()}
    answer = api.ask(method, "/v1/counters/a", headers=headers)
    assert answer.status == status
    if status == 412:
        assert method == "HEAD" or answer.json["current"]["value"] == 4
        return
    assert (answer.etag, answer.headers["vary"]) == (f'"{versions["v"]}"', "Accept")
    assert bool(answer.body) == (status == 200 and method == "GET")


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_read_of_nothing_is_404_whatever_is_asked(api, header):
    api.refuse(404, "not-found", "GET", "/v1/counters/a", headers={header: "*"})


def test_the_etag_of_a_change_is_the_next_condition(api):
    tag = api.ask("PUT", "/v1/counters/a", {"value": 1}).etag
    for method, path, body in CHANGES.values():
        if method != "DELETE":
            answer = api.ask(method, path, body, {"If-Match": tag})
            assert answer.status == 200
            tag = answer.etag
    assert api.ask("GET", "/v1/counters/a", headers={"If-None-Match": tag}).status == 304
    assert api.ask("DELETE", "/v1/counters/a", headers={"If-Match": tag}).status == 200


class Racing(Relay):
    """Somebody changes the counter right after each request."""

    def __init__(self, store):
        self.store = store

    def execute(self, request, timeout=None):
        reply = self.store.execute(request, timeout)
        self.store.execute(Request([Increment("a", 100)]))
        return reply


def test_a_list_of_tags_is_decided_by_the_store_in_one_request(change):
    """Nobody comes in between looking which of them holds and the change."""
    store = MemoryStore()
    api = Api(store)
    version = api.put("a", 4).version
    api.store = Racing(store)
    method, path, body = change
    answer = api.ask(method, path, body, {"If-Match": f'"x", "{version}", "y"'})
    assert (answer.status, answer.json["previous" if method != "DELETE" else "value"]) == (200, 4)


def test_of_a_list_of_tags_the_one_that_holds_says_what_is_wrong(api):
    version = api.put("a", 4, max=4).version
    answer = api.refuse(
        409, "out-of-bounds", "POST", "/v1/counters/a/increment", b"", {"If-Match": f'"x", "{version}", "y"'}
    )
    assert "index" not in answer.json
