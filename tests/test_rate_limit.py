"""The limit for each address: exact across workers, told in the headers, and seen in no list."""

import collections
import contextlib
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from http_load import running
from web_client import Api

import counter
from counter import InvalidRequest, LimitExceeded, OutcomeUnknown, Store, StoreUnavailable
from counter.fields import HIDDEN
from counter.ops import Changes, Get, Request
from counter.prefix import PrefixStore
from counter.settings import RateLimit
from counter.stores.memory import MemoryStore
from counter.web.rate_limit import address

ODD = HIDDEN.encode()


def limited(limit="2/minute", **config):
    return Api(config.pop("store", None), COUNTER_RATE_LIMIT=limit, **config)


class Failing(Store):
    """A store that fails increments of its own kind, and counts what it was asked."""

    def __init__(self, error):
        self.error = error
        self.base = MemoryStore()
        self.asked = []

    def execute(self, request, timeout=None):
        if request.ops[0].on_counter and request.ops[0].name.startswith(HIDDEN):
            self.asked.append(timeout)
            raise self.error
        return self.base.execute(request, timeout)

    def close(self):
        pass


# -- what it lets through


def test_an_address_is_let_through_as_often_as_the_limit_says_and_then_told_when_to_come_back():
    api = limited()
    told = [api.ask("POST", "/v1/counters/a/increment", REMOTE_ADDR="192.0.2.1") for _ in range(2)]
    assert [answer.status for answer in told] == [200, 200]
    assert [answer.headers["ratelimit"] for answer in told] == ['"address";r=1;t=60', '"address";r=0;t=60']
    refused = api.refuse(429, "rate-limited", "POST", "/v1/counters/a/increment", REMOTE_ADDR="192.0.2.1")
    assert {answer.headers["ratelimit-policy"] for answer in (*told, refused)} == {'"address";q=2;w=60'}
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"].startswith('"address";r=0;t=')
    assert api.seen()["a"].value == 2
    assert api.ask("GET", "/v1/counters/a", REMOTE_ADDR="192.0.2.2").status == 200


def test_what_is_refused_for_other_reasons_has_the_fields_too_and_counts():
    api = limited("3/hour")
    assert api.ask("GET", "/v1/counters/none").headers["ratelimit"] == '"address";r=2;t=3600'
    assert api.ask("POST", "/v1/batch", b"{").headers["ratelimit"] == '"address";r=1;t=3600'
    assert api.ask("GET", "/nowhere").headers["ratelimit"] == '"address";r=0;t=3600'
    assert api.ask("GET", "/nowhere").status == 429


def test_a_page_of_another_site_uses_up_nothing():
    """Else any page could lock out whoever looks at it."""
    api = limited("1/minute")
    for _ in range(3):
        answer = api.ask("POST", "/v1/counters/a/increment", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403 and "ratelimit" not in answer.headers
        assert api.ask("GET", "/v1/counters", HTTP_HOST="evil.test").status == 421
    assert api.ask("GET", "/v1/counters").status == 200


def test_probes_are_never_limited():
    api = limited("1/minute")
    for _ in range(3):
        assert {api.ask("GET", path).status for path in ("/livez", "/readyz")} == {200}
    assert api.ask("GET", "/metrics").status == 200
    assert api.ask("GET", "/metrics").status == 429


def test_without_a_limit_nothing_is_counted_or_told():
    api = Api(COUNTER_RATE_LIMIT="")
    answer = api.ask("GET", "/v1/counters")
    assert not [name for name in answer.headers if name.startswith("ratelimit")]
    assert not api.store._table.entries


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OutcomeUnknown("late"), LimitExceeded("full")])
def test_a_store_that_fails_refuses_nobody(error, caplog):
    api = limited("1/minute", store=Failing(error))
    for _ in range(3):
        assert api.ask("POST", "/v1/counters/a/increment").status == 200
    assert api.store.asked == [1.0] * 3, "a request does not wait long for this"
    assert "not counted for the rate limit" in caplog.text


def test_views_of_one_store_have_one_limit():
    store = MemoryStore()
    for prefix in ("a:", "b:"):
        api = limited("2/minute", store=PrefixStore(store, prefix))
        assert api.ask("POST", "/v1/counters/x/increment").status == 200
    assert api.ask("GET", "/v1/counters").status == 429


@pytest.mark.parametrize(
    ("remote", "who"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "-"),
        ("unix:", "-"),
        ("x" * 1000, "-"),
    ],
)
def test_an_address_is_a_host_or_the_network_that_an_ipv6_host_has_for_itself(remote, who):
    assert address(remote) == who


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100/minute", (100, 60)),
        ("100 per minute", (100, 60)),
        ("5/10seconds", (5, 10)),
        ("5 per 10 seconds", (5, 10)),
        (" 1/HOUR ", (1, 3600)),
        ("7/2 days", (7, 172_800)),
        ("", None),
    ],
)
def test_a_limit_is_written_as_flask_limiter_has_it(text, limit):
    assert RateLimit.parse(text) == limit


@pytest.mark.parametrize(
    "text", ["100", "0/minute", "5/0seconds", "-1/minute", "5/week", "10r/s", "x" * 1000]
)
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(InvalidRequest, match="--rate-limit is a limit such as 100/minute"):
        RateLimit.parse(text, "--rate-limit")
    with pytest.raises(InvalidRequest):
        limited(text)


# -- who sees it


def test_nobody_is_told_of_the_counters_that_it_counts_with():
    api = limited("1000/minute")
    api.put("visible", 5)
    since = api.ask("GET", "/v1/changes").json["version"]
    for _ in range(3):
        for path in ("/v1/counters", "/v1/counters?sort=-value", "/v1/counters?sort=-updated", "/v1/changes"):
            answer = api.ask("GET", path)
            assert [entry["name"] for entry in answer.json["counters"]] == ["visible"]
            assert ODD not in answer.body and b"rate:" not in answer.body
    assert api.ask("GET", f"/v1/changes?since={since}").json["counters"] == []
    assert api.ask("GET", "/v1/info").json["counters"] == 1
    scrape = api.ask("GET", "/metrics").body
    assert b"counter_counters 1.0" in scrape and b"counter_left_out 0.0" in scrape
    assert ODD not in scrape and b"rate:" not in scrape
    assert "rate:" not in api.ask("GET", "/").body.decode()
    counters = counter.SharedCounter(api.store)
    assert (len(counters), list(counters), dict(counters), counters.total()) == (
        1,
        ["visible"],
        {"visible": 5},
        5,
    )
    assert len(api.store._table.entries) == 2, "there was something to hide"


def test_it_is_neither_read_nor_changed_over_http():
    api = limited("1000/minute")
    name = "%EF%B7%90rate:60:-"
    api.ask("GET", "/")
    for method, path, body in [
        ("GET", f"/v1/counters/{name}", b""),
        ("DELETE", f"/v1/counters/{name}", b""),
        ("PUT", f"/v1/counters/{name}", {"value": 0}),
        ("PATCH", f"/v1/counters/{name}", {"max": None}),
        ("POST", f"/v1/counters/{name}/reset", b""),
        ("POST", f"/v1/counters/{name}/decrement", b""),
        (
            "POST",
            "/v1/batch",
            {"ops": [{"op": "get", "name": "a"}, {"op": "delete", "name": f"{HIDDEN}rate:60:-"}]},
        ),
    ]:
        assert "U+FDD0" in api.refuse(400, "invalid-request", method, path, body).json["detail"]
    assert api.ask("GET", "/v1/counters?prefix=%EF%B7%90").json["counters"] == []


# -- with real processes


@pytest.mark.process
def test_of_concurrent_requests_to_several_workers_exactly_the_limit_gets_through(tmp_path):
    with running("--workers", "2", "--threads", "4", "--rate-limit", "50/hour", home=tmp_path / "home") as (
        _,
        url,
    ):
        where = urlsplit(url)

        def client(_):
            told = []
            for _ in range(12):
                with contextlib.closing(
                    http.client.HTTPConnection(where.hostname, where.port, timeout=30)
                ) as one:
                    one.request("POST", "/v1/counters/hits/increment")
                    response = one.getresponse()
                    told.append((response.status, json.loads(response.read()).get("value")))
            return told

        with ThreadPoolExecutor(8) as pool:
            told = [one for each in pool.map(client, range(8)) for one in each]
        statuses = collections.Counter(status for status, _ in told)
        assert statuses == {200: 50, 429: 46}
        assert sorted(value for status, value in told if status == 200) == [*range(1, 51)]
        library = counter.connect(f"counter://{tmp_path / 'home'}")
        assert dict(library) == {"hits": 50}
        page = library.store.execute(Request([Changes()])).only()
        assert [entry.name for entry in page.counters] == ["hits"]
        hidden = library.store.execute(Request([Get(f"{HIDDEN}rate:3600:127.0.0.1")])).only()
        assert hidden.value == 50 and hidden.expires_at - hidden.created_at == timedelta(hours=1)
