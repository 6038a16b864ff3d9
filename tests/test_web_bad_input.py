"""Bad input: in every place where it can stand it has one status and code, and changes nothing."""

import io
import json
import sys

import pytest
from web_client import Api

MAX_BODY = 64 * 1024
BATCH_BODY = 1024 * 1024


@pytest.fixture
def api():
    api = Api()
    api.put("a", 10)
    api.put("b", 20, max=50, ttl=1000)
    return api


# Names, in a path and in an op. In a path they are bytes, percent-encoded.
BAD_PATHS = {
    "empty": "",
    "251 bytes": "x" * 251,
    "252 bytes in 126 characters": "%C3%A9" * 126,
    "NUL": "a%00b",
    "line feed": "a%0Ab",
    "trailing line feed": "a%0A",
    "escape": "%1B[31m",
    "DEL": "a%7F",
    "C1": "a%C2%85",
    "one byte": "%FF",
    "another byte": "%FE",
    "Latin-1": "caf%E9",
    "overlong slash": "a%C0%AFb",
    "encoded surrogate": "%ED%A0%80",
    "cut short": "a%E2%80",
    "beyond Unicode": "%F4%90%80%80",
    "dot": ".",
    "encoded dot": "%2E",
    "dots": "..",
    "encoded dots": "%2E%2e",
}
METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE"]


@pytest.mark.parametrize("path", BAD_PATHS.values(), ids=list(BAD_PATHS))
def test_a_bad_name_in_a_path(api, path):
    for method in METHODS:
        body = {"value": 1} if method == "PUT" else b""
        answer = api.refuse(400, "invalid-request", method, f"/v1/counters/{path}", body)
        assert not answer.body or "route" not in answer.json["detail"]
    for verb in ("increment", "decrement", "reset"):
        api.refuse(400, "invalid-request", "POST", f"/v1/counters/{path}/{verb}")


@pytest.mark.parametrize("name", ["a/increment", "a/decrement", "a/reset", "/reset", "a/increment/reset"])
def test_a_name_that_ends_in_a_verb_is_a_verb(api, name):
    """GET and PUT find the verb's own address; below another verb the sentence says where such names go."""
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        code = (
            (405, "method-not-allowed")
            if name.count("/") == 1 and name[0] != "/"
            else (400, "invalid-request")
        )
        api.refuse(*code, method, f"/v1/counters/{name}", {"value": 1} if method == "PUT" else b"")
    answer = api.refuse(400, "invalid-request", "POST", f"/v1/counters/{name}/increment")
    assert "/v1/batch" in answer.json["detail"]


@pytest.mark.parametrize("name", [".", ".."])
def test_dots_are_told_where_to_go(api, name):
    answer = api.refuse(400, "invalid-request", "GET", f"/v1/counters/{name}")
    assert "/v1/batch" in answer.json["detail"]


BAD_NAMES = ['""', f'"{"x" * 251}"', f'"{"é" * 126}"', r'"a\u0000b"', r'"a\n"', r'"a\u007f"', r'"a\u0085"']
BAD_NAMES += [r'"a\ud800"', r'"\udc00b"', "1", "null", "true", "[]", '{"a": 1}', "1.0", '"a']


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("op", ["get", "increment", "set", "delete"])
def test_a_bad_name_in_an_op(api, op, name):
    value = ', "value": 1' if op == "set" else ""
    for atomic in ("true", "false"):
        ops = f'{{"op": "increment", "name": "b"}}, {{"op": "{op}", "name": {name}{value}}}'
        body = f'{{"atomic": {atomic}, "ops": [{ops}]}}'
        api.refuse(400, "invalid-request", "POST", "/v1/batch", body.encode())


@pytest.mark.parametrize(
    "prefix",
    ["x" * 251, "%C3%A9" * 126, "a%00", "%0A", "%7F", "%C2%85", "%FF", "\xff", "%ED%A0%80", "caf%E9"],
)
def test_a_bad_prefix(api, prefix):
    api.refuse(400, "invalid-request", "GET", f"/v1/counters?prefix={prefix}")


# Numbers.
NO_INTEGERS = ["1.0", "1e3", "1E3", "-1.5", "0.0", "1e400", "true", "false", '"1"', "[1]", "{}", '""']
NO_INTEGERS += ["NaN", "Infinity", "-Infinity", "+1", "01", "-", "0x10", "1_000", "١", "null"]
TOO_LARGE = [
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1" * 30,
    "1" * 5000,
    "-" + "1" * 5000,
]
TOO_LARGE += ["1" * 21, "-" + "1" * 20, "9" * 60_000]
BAD_NUMBERS = NO_INTEGERS + TOO_LARGE

PLACES = {
    "increment": ("POST", "/v1/counters/a/increment", '{"delta": %s}'),
    "decrement": ("POST", "/v1/counters/a/decrement", '{"delta": %s}'),
    "reset": ("POST", "/v1/counters/a/reset", '{"value": %s}'),
    "put": ("PUT", "/v1/counters/a", '{"value": %s}'),
    "put new": ("PUT", "/v1/counters/new", '{"value": %s}'),
    "batch increment": ("POST", "/v1/batch", '{"ops": [{"op": "increment", "name": "a", "delta": %s}]}'),
    "batch set": ("POST", "/v1/batch", '{"ops": [{"op": "set", "name": "a", "value": %s}]}'),
}
NULLABLE = {
    "put max": ("PUT", "/v1/counters/a", '{"value": 1, "max": %s}'),
    "put ttl": ("PUT", "/v1/counters/a", '{"value": 1, "ttl": %s}'),
    "patch min": ("PATCH", "/v1/counters/a", '{"min": %s}'),
    "patch ttl": ("PATCH", "/v1/counters/a", '{"ttl": %s}'),
    "increment max": ("POST", "/v1/counters/a/increment", '{"max": %s}'),
    "increment ttl": ("POST", "/v1/counters/a/increment", '{"ttl": %s}'),
    "decrement min": ("POST", "/v1/counters/a/decrement", '{"min": %s}'),
    "batch ttl": ("POST", "/v1/batch", '{"ops": [{"op": "increment", "name": "a", "ttl": %s}]}'),
}


def shorten(value):
    return value if len(value) < 25 else f"{value[:8]}…{len(value)}"


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=shorten)
def test_a_bad_number_in_a_body(api, number):
    for method, path, body in PLACES.values():
        api.refuse(400, "invalid-request", method, path, (body % number).encode())
    for method, path, body in NULLABLE.values():
        if number != "null":
            api.refuse(400, "invalid-request", method, path, (body % number).encode())


@pytest.mark.parametrize("ttl", ["0", "-1", str(100 * 366 * 86_400 + 1)])
def test_a_ttl_out_of_range(api, ttl):
    for name in ("put ttl", "patch ttl", "increment ttl", "batch ttl"):
        method, path, body = NULLABLE[name]
        api.refuse(400, "invalid-request", method, path, (body % ttl).encode())


def test_the_least_integer_cannot_be_subtracted(api):
    answer = api.refuse(400, "invalid-request", "POST", "/v1/counters/a/decrement", {"delta": -(2**63)})
    assert "subtracted" in answer.json["detail"]
    api.refuse(400, "invalid-request", "POST", f"/v1/counters/a/decrement?delta={-(2**63)}")


BAD_QUERY_NUMBERS = [n for n in BAD_NUMBERS if n not in ("01",)] + [
    "",
    "+5",
    "%2B5",
    "5 ",
    "%205",
    "0x5",
    "5%00",
    "05",
    "00",
]
BAD_QUERY_NUMBERS += ["-01", "--1", "5;6", "%D9%A1", "5%0A", "1,000", "\xb2"]


@pytest.mark.parametrize(
    "number", [n for n in BAD_QUERY_NUMBERS if "{" not in n and '"' not in n], ids=shorten
)
def test_a_bad_number_in_a_query(api, number):
    number = number.encode("utf-8" if "١" in number else "latin-1").decode("latin-1")
    for path in ("a/increment?delta", "a/decrement?delta", "a/reset?value"):
        api.refuse(400, "invalid-request", "POST", f"/v1/counters/{path}={number}")
    api.refuse(400, "invalid-request", "GET", f"/v1/counters?limit={number}")


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "-0"])
def test_a_limit_out_of_range(api, limit):
    api.refuse(400, "invalid-request", "GET", f"/v1/counters?limit={limit}")


# Queries.
BAD_QUERIES = [
    "x=1",
    "delta",
    "delta=1&",
    "&",
    "=",
    "=1",
    "delta=%FF",
    "%FF=1",
    "delta=1&delta=1",
    "delta=1&delta=2",
]
BAD_QUERIES += [
    "delta=1&x=2",
    "Delta=1",
    "delta=1;delta=2",
    "delta=\xff",
    "delta[]=1",
    "op=set",
    "name=b",
    "max=1",
]


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_bad_query(api, query):
    for method, path in (
        ("POST", "/v1/counters/a/increment"),
        ("POST", "/v1/counters/a/decrement"),
        ("POST", "/v1/counters/a/reset"),
        ("GET", "/v1/counters"),
        ("GET", "/v1/counters/a"),
        ("DELETE", "/v1/counters/a"),
        ("GET", "/v1/info"),
    ):
        api.refuse(400, "invalid-request", method, f"{path}?{query}")
    api.refuse(400, "invalid-request", "PUT", f"/v1/counters/a?{query}", {"value": 1})
    api.refuse(400, "invalid-request", "PATCH", f"/v1/counters/a?{query}", {"max": 11})
    ops = {"ops": [{"op": "increment", "name": "a"}]}
    api.refuse(400, "invalid-request", "POST", f"/v1/batch?{query}", ops)


BAD_LISTINGS = ["sort=value", "sort=", "sort=-name", "cursor=", "cursor=x", "cursor=%00", "cursor=WzEsMl0"]
BAD_LISTINGS += [
    "sort=name&sort=name",
    "limit=1&limit=1",
    "prefix=a&prefix=a",
    "cursor=%F0%9F%90%B8",
    "offset=1",
]


@pytest.mark.parametrize("query", BAD_LISTINGS)
def test_a_bad_query_of_a_listing(api, query):
    api.refuse(400, "invalid-request", "GET", f"/v1/counters?{query}")


def test_a_cursor_belongs_to_its_sort(api):
    cursor = api.ask("GET", "/v1/counters?limit=1").json["next"]
    api.refuse(400, "invalid-request", "GET", f"/v1/counters?sort=-value&cursor={cursor}")


def test_what_is_sent_is_not_all_sent_back(api):
    detail = api.refuse(400, "invalid-request", "GET", f"/v1/counters?{'x' * 9000}=1").json["detail"]
    assert len(detail) < 300
    detail = api.refuse(400, "invalid-request", "GET", f"/v1/counters?limit={'x' * 9000}").json["detail"]
    assert len(detail) < 300


def test_a_delta_comes_one_way_only(api):
    for body in (b"{}", {"delta": 5}, {"max": 5}):
        api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment?delta=5", body)
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/reset?value=5", {"value": 5})
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment?value=5")
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/reset?delta=5")


# Bodies.
DEEP = 10_000
NO_JSON = {
    "trailing garbage": b'{"delta": 1} x',
    "two values": b"{} {}",
    "trailing comma": b'{"delta": 1,}',
    "single quotes": b"{'delta': 1}",
    "comment": b'{"delta": 1} // one',
    "bare key": b"{delta: 1}",
    "form": b"delta=1",
    "cut short": b'{"delta": 1',
    "open string": b'{"delta',
    "white space": b" \n",
    "NUL": b"\0",
    "BOM": b'\xef\xbb\xbf{"delta": 1}',
    "UTF-16": '{"delta": 1}'.encode("utf-16"),
    "UTF-16 LE": '{"delta": 1}'.encode("utf-16-le"),
    "bad UTF-8": b'{"\xff": 1}',
    "bad UTF-8 value": b'{"if_version": "\xc3\x28"}',
    "overlong UTF-8": b'{"if_version": "\xc0\xaf"}',
    "raw surrogate": b'{"if_version": "\xed\xa0\x80"}',
    "lone surrogate": rb'{"if_version": "\ud800"}',
    "lone surrogate key": rb'{"\udfff": 1}',
    "raw control character": b'{"if_version": "a\nb"}',
    "bad escape": rb'{"if_version": "\x41"}',
    "duplicate key": b'{"delta": 1, "delta": 1}',
    "duplicate after unescaping": rb'{"delta": 1, "d\u0065lta": 2}',
    "duplicate, huge": b'{"' + b"x" * 30_000 + b'": 1, "' + b"x" * 30_000 + b'": 1}',
    "duplicate deeper": b'{"x": {"a": 1, "a": 2}}',
    "unknown field": b'{"delat": 1}',
    "unknown field, other case": b'{"Delta": 1}',
    "unknown field, empty": b'{"": 1}',
    "unknown field, huge": b'{"' + b"x" * 60_000 + b'": 1}',
    "array": b"[]",
    "array of one": b'[{"delta": 1}]',
    "number": b"5",
    "string": b'"5"',
    "null": b"null",
    "true": b"true",
    "NaN": b"NaN",
    "deep arrays": b"[" * DEEP,
    "deep arrays, closed": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep below a field": b'{"delta": ' + b"[" * 20 + b"]" * 20 + b"}",
    "name": b'{"name": "a"}',
    "other name": b'{"name": "b", "delta": 1}',
    "op": b'{"op": "increment"}',
    "other op": b'{"op": "set"}',
    "a number for a version": b'{"if_version": 1}',
    "empty version": b'{"if_version": ""}',
    "bad mode": b'{"ttl": 5, "ttl_mode": "slide"}',
    "bad on_bound": b'{"on_bound": "wrap"}',
    "on_bound of another case": b'{"on_bound": "Clamp"}',
    "on_bound as a list": b'{"on_bound": ["clamp"]}',
    "min above max": b'{"min": 5, "max": 1}',
    "mode without ttl": b'{"ttl_mode": "fixed"}',
}
BODIES = [
    ("POST", "/v1/counters/a/increment"),
    ("POST", "/v1/counters/a/decrement"),
    ("POST", "/v1/counters/a/reset"),
    ("POST", "/v1/counters/new/increment"),
    ("PUT", "/v1/counters/a"),
    ("PUT", "/v1/counters/new"),
    ("PATCH", "/v1/counters/a"),
    ("POST", "/v1/batch"),
]


@pytest.mark.parametrize("body", NO_JSON.values(), ids=list(NO_JSON))
def test_a_bad_body(api, body):
    for method, path in BODIES:
        if method == "PUT" and body.startswith(b'{"') and body.endswith(b"}") and b'"value"' not in body:
            api.refuse(400, "invalid-request", method, path, body[:-1] + b', "value": 1}')
        answer = api.refuse(400, "invalid-request", method, path, body)
        assert len(answer.json["detail"]) < 500


BAD_BATCHES = {
    "no ops": {},
    "empty ops": {"ops": []},
    "ops is an object": {"ops": {}},
    "ops is null": {"ops": None},
    "an op is a string": {"ops": ["increment"]},
    "an op is null": {"ops": [None]},
    "no op": {"ops": [{"name": "a"}]},
    "unknown op": {"ops": [{"op": "reset", "name": "a"}]},
    "op of another case": {"ops": [{"op": "Increment", "name": "a"}]},
    "op is a number": {"ops": [{"op": 1, "name": "a"}]},
    "a listing": {"ops": [{"op": "list"}]},
    "info": {"ops": [{"op": "info"}]},
    "hello": {"ops": [{"op": "hello", "role": "worker", "pid": 1, "version": "1"}]},
    "report": {"ops": [{"op": "report", "requests": 5}]},
    "no name": {"ops": [{"op": "increment"}]},
    "unknown field": {"ops": [{"op": "increment", "name": "a", "by": 1}]},
    "delta in a set": {"ops": [{"op": "set", "name": "a", "delta": 1}]},
    "null delta": {"ops": [{"op": "increment", "name": "a", "delta": None}]},
    "unknown field of the batch": {"ops": [{"op": "increment", "name": "a"}], "seq": 1},
    "caller": {"ops": [{"op": "increment", "name": "a"}], "caller": "x" * 16},
    "atomic is 1": {"ops": [{"op": "increment", "name": "a"}], "atomic": 1},
    "atomic is null": {"ops": [{"op": "increment", "name": "a"}], "atomic": None},
    "too many": {"ops": [{"op": "increment", "name": "a"}] * 10_001},
    "the last one is bad": {
        "ops": [{"op": "increment", "name": "a"}] * 50 + [{"op": "increment", "name": ""}]
    },
}


@pytest.mark.parametrize("batch", BAD_BATCHES.values(), ids=list(BAD_BATCHES))
def test_a_bad_batch(api, batch):
    api.refuse(400, "invalid-request", "POST", "/v1/batch", batch)
    api.refuse(400, "invalid-request", "POST", "/v1/batch", {"atomic": False} | batch)


def test_the_complaint_says_where(api):
    ops = [{"op": "increment", "name": "a"}, {"op": "increment", "name": "a", "delta": "5"}]
    answer = api.refuse(400, "invalid-request", "POST", "/v1/batch", {"ops": ops})
    assert answer.json["detail"] == "ops[1].delta: expected int, got str"
    answer = api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment", {"by": 1})
    told = "there is an unknown field by (there is: delta, min, max, on_bound, ttl, ttl_mode, if_version)"
    assert answer.json["detail"] == told
    answer = api.refuse(400, "invalid-request", "POST", "/v1/batch", {"op": "get"})
    assert answer.json["detail"] == "there is an unknown field op (there is: ops, atomic)"
    answer = api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment", {"min": 2, "max": 1})
    assert answer.json["detail"] == "min must not be above max"


def test_a_word_that_is_none_of_a_few_is_answered_with_those(api):
    def told(*request):
        return api.refuse(400, "invalid-request", *request).json["detail"]

    assert told("GET", "/v1/counters?sort=value").endswith("; it is name, -value or -updated")
    body = {"on_bound": "wrap"}
    assert told("POST", "/v1/counters/a/increment", body).endswith("; it is reject or clamp")
    body = {"ttl": 5, "ttl_mode": "never"}
    assert told("POST", "/v1/counters/a/increment", body).endswith("; it is fixed or sliding")
    body = {"ops": [{"op": "list"}]}
    assert told("POST", "/v1/batch", body).endswith("; it is get, increment, set or delete")


@pytest.mark.parametrize("path", ["PUT /v1/counters/a", "PATCH /v1/counters/a", "POST /v1/batch"])
def test_a_body_where_one_is_needed(api, path):
    method, path = path.split()
    answer = api.refuse(400, "invalid-request", method, path)
    assert "curl" in answer.json["detail"] and "--json" in answer.json["detail"]


def test_put_needs_a_value_and_patch_takes_none(api):
    for body in ({}, {"max": 5}, {"value": None}):
        api.refuse(400, "invalid-request", "PUT", "/v1/counters/a", body)
    for body in ({"value": 5}, {"value": None}, {"value": 5, "max": 9}):
        api.refuse(400, "invalid-request", "PATCH", "/v1/counters/a", body)
    api.refuse(400, "invalid-request", "PATCH", "/v1/counters/a", {"ttl_mode": "sliding"})
    api.refuse(400, "invalid-request", "PATCH", "/v1/counters/b", {"min": 51})


@pytest.mark.parametrize("field", ["delta", "min", "max", "on_bound", "ttl", "ttl_mode", "other"])
def test_reset_takes_a_value_alone(api, field):
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/reset", {field: 5})


def test_delete_takes_no_body(api):
    api.refuse(400, "invalid-request", "DELETE", "/v1/counters/a", {"if_version": "present"})
    api.refuse(400, "invalid-request", "DELETE", "/v1/counters/a", b"x", {"Content-Type": "text/plain"})


# Sizes, and how they are told.
def test_a_body_over_the_cap(api):
    body = b'{"delta": 1' + b" " * (MAX_BODY - 12) + b"}"
    assert len(body) == MAX_BODY
    assert api.ask("POST", "/v1/counters/a/increment", body).value == 11
    for method, path in BODIES[:-1]:
        answer = api.refuse(413, "too-large", method, path, body + b" ")
        assert str(MAX_BODY) in answer.json["detail"]
    api.refuse(413, "too-large", "DELETE", "/v1/counters/a", body + b" ")


def test_a_batch_over_the_cap(api):
    body = b'{"ops": [{"op": "increment", "name": "a"}]' + b" " * (BATCH_BODY - 43) + b"}"
    assert len(body) == BATCH_BODY
    assert api.ask("POST", "/v1/batch", body).status == 200
    api.refuse(413, "too-large", "POST", "/v1/batch", body + b" ")


def test_size_is_judged_before_type_and_content(api):
    api.refuse(
        413, "too-large", "POST", "/v1/counters/a/increment", b"x" * 70_000, {"Content-Type": "text/plain"}
    )


def test_a_body_over_the_cap_is_not_read(api):
    class Unread(io.BytesIO):
        def read(self, *size):
            raise AssertionError("read")

    api.refuse(
        413,
        "too-large",
        "POST",
        "/v1/counters/a/increment",
        headers={"Content-Length": "999999999"},
        **{"wsgi.input": Unread()},
    )


@pytest.mark.parametrize("length", ["-1", "abc", "1.0", "+5", "0x5", "٢", "2, 2", " ", "1" * 5000, "0" * 21])
def test_a_bad_content_length(api, length):
    body = b"{}"
    headers = {"Content-Length": length}
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment", body, headers)
    api.refuse(400, "invalid-request", "DELETE", "/v1/counters/a", b"", headers)


def test_half_a_body_is_none(api):
    """A client that dies after `{}` of `{} …` must not have incremented."""
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment", b"{}", {"Content-Length": "12"})
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment", b"", {"Content-Length": "12"})

    class Gone(io.BytesIO):
        def read(self, *size):
            raise ConnectionResetError

    environ = {"wsgi.input": Gone()}
    headers = {"Content-Length": "12"}
    api.refuse(400, "invalid-request", "POST", "/v1/counters/a/increment", b"", headers, **environ)


class Trickle(io.BytesIO):
    """A stream that gives one byte at a time."""

    def read(self, size=-1):
        return super().read(min(size, 1) if size >= 0 else 1)


@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_a_chunked_body(api, stream):
    def environ(body):
        return {"CONTENT_LENGTH": None, "wsgi.input": stream(body), "wsgi.input_terminated": True}

    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    path = "/v1/counters/a/increment"
    assert api.ask("POST", path, b"", headers, **environ(b'{"delta": 5}')).value == 15
    assert api.ask("POST", path, b"", headers, **environ(b"")).value == 16
    api.refuse(413, "too-large", "POST", path, b"", headers, **environ(b" " * (MAX_BODY + 1)))
    api.refuse(400, "invalid-request", "POST", path, b"", headers, **environ(b" " * MAX_BODY))
    api.refuse(415, "media-type", "POST", path, b"", headers | {"Content-Type": ""}, **environ(b"{}"))
    unknown = environ(b'{"delta": 5}') | {"wsgi.input_terminated": None}
    api.refuse(400, "invalid-request", "POST", path, b"", headers, **unknown)


def test_no_more_of_a_chunked_body_is_read_than_may_be():
    class Endless:
        taken = 0

        def read(self, size):
            self.taken += size
            return b" " * size

    stream = Endless()
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    environ = {"CONTENT_LENGTH": None, "wsgi.input": stream, "wsgi.input_terminated": True}
    Api().refuse(413, "too-large", "POST", "/v1/counters/a/increment", b"", headers, **environ)
    assert stream.taken <= MAX_BODY + 1


def test_bytes_after_the_content_length_are_not_ours(api):
    answer = api.ask("POST", "/v1/counters/a/increment", b'{"delta": 5}garbage', {"Content-Length": "12"})
    assert answer.value == 15


# Content types.
BAD_TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "json",
    "*/*",
]
BAD_TYPES += [
    "application/jsonx",
    "application/json, text/plain",
    "application/json; charset=latin-1",
    "text/json",
]
BAD_TYPES += [
    "application/json; x=y",
    "application/json; charset=utf-8; x=y",
    "application/problem+json",
    ";",
]


@pytest.mark.parametrize("content_type", BAD_TYPES)
def test_a_bad_content_type(api, content_type):
    for method, path in BODIES:
        headers = {"Content-Type": content_type}
        detail = api.refuse(415, "media-type", method, path, b"{}", headers).json["detail"]
        option = "" if method == "POST" else f"-X {method} "
        assert f"curl {option}--json '" in detail
        assert detail.endswith(f"'http://localhost:8000{path}'")


def test_the_curl_line_of_a_415_is_right(api):
    """Its body is one that the address takes."""
    for method, path in BODIES:
        detail = api.refuse(415, "media-type", method, path, b"{}", {"Content-Type": ""}).json["detail"]
        example = json.loads(detail.split("--json '")[1].split("' 'http")[0])
        assert api.ask(method, path, example).status in (200, 201)


def test_merge_patch_is_for_patch_alone(api):
    headers = {"Content-Type": "application/merge-patch+json"}
    for method, path in BODIES:
        if method != "PATCH":
            api.refuse(415, "media-type", method, path, {"value": 1}, headers)


GOOD_TYPES = ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", "application/json;"]
GOOD_TYPES += ['application/json;charset="UTF-8"', "application/json ; charset=utf-8"]


@pytest.mark.parametrize("content_type", GOOD_TYPES)
def test_a_good_content_type(api, content_type):
    answer = api.ask("POST", "/v1/counters/a/increment", {"delta": 5}, {"Content-Type": content_type})
    assert answer.value == 15


def test_an_empty_body_needs_no_type(api):
    for content_type in ("application/x-www-form-urlencoded", "text/plain", ""):
        headers = {"Content-Type": content_type}
        assert api.ask("POST", "/v1/counters/a/increment", b"", headers).status == 200
    assert api.ask("POST", "/v1/counters/a/increment", CONTENT_LENGTH=None, CONTENT_TYPE=None).value == 14


def test_no_bad_input_grows_the_recursion(api):
    """A request as deep as the interpreter's limit, in the query and the headers too."""
    deep = "[" * (sys.getrecursionlimit() + 50)
    api.refuse(400, "invalid-request", "GET", f"/v1/counters?prefix={deep}")
    api.refuse(400, "invalid-request", "PUT", "/v1/counters/a", {"value": 1}, {"If-Match": deep})
    assert api.ask("GET", "/v1/counters/a", headers={"Accept": "text/" + deep}).status == 200
    api.refuse(400, "invalid-request", "GET", "/v1/counters/" + "/" * 5000)
