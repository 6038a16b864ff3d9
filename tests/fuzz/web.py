"""Requests over HTTP: never a 500, every answer in its form, and what is refused has changed nothing.

An input is what a client would send: a line with the method and the address, headers, an empty line, a body.
"""

import json
import re
from urllib.parse import unquote_to_bytes

from web_client import Api

from counter.errors import InvalidRequest
from counter.strict_json import MAX_DEPTH, decode

TOKEN = re.compile(r"[A-Z]{1,10}")
HEADER = re.compile(r"([A-Za-z][A-Za-z-]{0,30}): ?([\x20-\x7e\xa0-\xff]{0,200})")
WAITS = (b"/v1/changes", b"/v1/events")
"""What may take its time, and is no JSON from outside."""
WORDS = [
    *b'{ } [ ] : , " null true false 1.0 1e9 NaN -0 \\ud800 \\udc00'.split(),
    *b"9223372036854775807 -9223372036854775808 9223372036854775808".split(),
    *b'"name" "op" "delta" "value" "min" "max" "on_bound" "ttl" "ttl_mode"'.split(),
    *b'"if_version" "ops" "atomic"'.split(),
    *b'"increment" "get" "set" "delete" "reject" "clamp" "fixed" "sliding" "present" "absent"'.split(),
    *b"POST GET PUT PATCH DELETE HEAD OPTIONS TRACE".split(),
    *b"/v1/counters/a /v1/counters /v1/batch /increment /decrement /reset ?delta= %2F %00 %ff".split(),
    *(b"If-Match: ", b"If-None-Match: ", b"Idempotency-Key: ", b"Accept: text/plain", b"Content-Type: "),
    *(b"application/json", b"application/merge-patch+json", b"W/", b"\n\n", b'"*"'),
]


def one_input(data):
    head, _, body = data.partition(b"\n\n")
    read_json(body)
    line, *lines = head.decode("latin-1").split("\n")
    method, _, address = line.partition(" ")
    path = unquote_to_bytes(address.partition("?")[0].encode("latin-1"))
    if not TOKEN.fullmatch(method) or not path.startswith(b"/") or path.startswith(WAITS):
        return
    headers = dict(match.groups() for match in map(HEADER.fullmatch, lines[:8]) if match)
    client = Api()
    client.put("a", 5, min=0, max=10)
    client.put("b", 7)
    before = client.seen()
    answer = client.ask(method, address, body, headers)
    assert answer.status < 500 or answer.status in (501, 507), answer
    after = client.seen()
    if answer.status >= 400 or method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        assert after == before, answer
    if answer.status < 300 and answer.body.startswith(b'{"name":'):
        follow(before, after, method, answer.json)


def follow(before, after, method, told):
    """One counter is told of: it is as it was told, and nothing else has changed."""
    name = told["name"]
    if name in after:
        assert after[name].value == told["value"]
        if told.get("delta") is not None:
            assert told["value"] == told["previous"] + told["delta"]
    else:
        assert method == "DELETE"
    assert {other: entry for other, entry in before.items() if other != name} == {
        other: entry for other, entry in after.items() if other != name
    }


def read_json(body):
    """What is taken as JSON is what the standard reader makes of it, and has one meaning."""
    try:
        value = decode(body)
    except InvalidRequest as refusal:
        assert len(refusal.detail) < 300
        return
    # Of their texts, because these tell types apart too.
    assert repr(json.loads(body, object_pairs_hook=without_repeats)) == repr(value)
    check_plain(value, MAX_DEPTH)
    assert decode(json.dumps(value).encode()) == value


def without_repeats(pairs):
    fields = dict(pairs)
    assert len(fields) == len(pairs), "a key is given twice"
    return fields


def check_plain(value, deeper):
    if isinstance(value, dict | list):
        assert deeper
        for each in value.values() if isinstance(value, dict) else value:
            check_plain(each, deeper - 1)
    else:
        assert value is None or type(value) in (bool, int, str)
        assert type(value) is not str or value.encode() is not None  # no lone surrogates


def request(line, body=b"", *headers, kind="application/json"):
    headers = [*headers, f"Content-Type: {kind}"] if body else headers
    return "\n".join([line, *headers]).encode() + b"\n\n" + body


def seeds():
    batch = {"ops": [{"op": op, "name": "a", **more} for op, more in OPS]}
    yield request("POST /v1/counters/a/increment")
    yield request("POST /v1/counters/a/increment?delta=5")
    yield request("POST /v1/counters/a/decrement", b'{"delta": 2, "min": 0, "on_bound": "clamp"}')
    yield request("POST /v1/counters/new/increment", b'{"ttl": 60, "ttl_mode": "sliding", "max": 100}')
    yield request("POST /v1/counters/a/reset", b'{"value": 3}')
    yield request("PUT /v1/counters/a", b'{"value": 3, "min": null, "max": 9223372036854775807}')
    yield request("PUT /v1/counters/n%C3%A4me", b'{"value": -9223372036854775808}', "If-None-Match: *")
    yield request("PATCH /v1/counters/a", b'{"max": null}', kind="application/merge-patch+json")
    yield request("PATCH /v1/counters/a", b'{"value": 1}')
    yield request("DELETE /v1/counters/a", b"", 'If-Match: "x"', 'Idempotency-Key: "k"')
    yield request("GET /v1/counters/a", b"", "Accept: text/plain", 'If-None-Match: W/"x"')
    yield request("GET /v1/counters?prefix=a&sort=-value&limit=1")
    yield request("GET /v1/counters?cursor=WyJuYW1lIiwwLCJhIl0")
    yield request("POST /v1/batch", json.dumps(batch).encode())
    yield request("POST /v1/batch", json.dumps(batch | {"atomic": False}).encode(), "Idempotency-Key: k")
    yield request("POST /v1/batch", b'{"ops": [{"op": "increment", "name": "a", "name": "b"}]}')
    yield request("POST /v1/batch", b'{"ops": [{"op": "list"}]}')
    for text in ODD:
        yield request("POST /v1/counters/a/increment", text)
    for path in (
        "/",
        "/v1/info",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/problems/not-found",
        "/x",
    ):
        yield request(f"GET {path}")
    for method in ("HEAD", "OPTIONS", "TRACE", "BREW"):
        yield request(f"{method} /v1/counters/a")
    yield request("POST /v1/counters/a/increment", b"{}", "Origin: http://evil.test", "Sec-Fetch-Site: none")
    yield request("POST /v1/counters/a/increment", b"{}", "Host: [::1]:8000", "Origin: null")
    yield request("POST /v1/counters/a/increment", b"{}", "Content-Length: 1", "Transfer-Encoding: chunked")


OPS = [
    ("get", {}),
    ("increment", {"delta": 3, "max": 9}),
    ("set", {"value": 1, "ttl": 5}),
    ("delete", {"if_version": "present"}),
]
ODD = [
    *(b"[1]", b"1.0", b"NaN", b"-0", b'"\\ud800"', b'{"delta": true}', b'{"delta": 1e3}', b'{"delta": "1"}'),
    *(
        b"[" * 20,
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b'{"delta": 1, "delta": 2}',
        b'{"delta": 99999999999999999999}',
    ),
    *(b"\xff{}", b"\xef\xbb\xbf{}", b'{"delta": 1}{}', b' {"delta" : 1 } ', b'{"x": "\\"[[[["}', b"{"),
]
