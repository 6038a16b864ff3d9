"""Who may ask: by a name that is ours, no page of another site; on every address, before anything else."""

import pytest
from web_client import Api

from counter.errors import InvalidRequest
from counter.web import create_app

EVERYWHERE = [
    ("GET", "/v1/counters"),
    ("GET", "/v1/counters/a"),
    ("GET", "/v1/counters/%FF"),
    ("GET", "/v1/counters/a/increment"),
    ("POST", "/v1/counters/a/increment"),
    ("POST", "/v1/counters/a/increment?x"),
    ("PUT", "/v1/counters/a"),
    ("PATCH", "/v1/counters/a"),
    ("DELETE", "/v1/counters/a"),
    ("OPTIONS", "/v1/counters/a"),
    ("TRACE", "/v1/counters/a"),
    ("X", "/v1/counters/a"),
    ("POST", "/v1/batch"),
    ("GET", "/v1/info"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/problems/not-found"),
    ("GET", "/"),
    ("POST", "/"),
    ("GET", "/nope"),
    ("POST", "/nope"),
    ("HEAD", "/v1/counters/a"),
]
GOOD_HOSTS = [
    "localhost",
    "localhost:8000",
    "LocalHost:1",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:65535",
    "10.1.2.3",
]
GOOD_HOSTS += ["[::1]", "[::1]:8000", "[2001:DB8::1]:80", "[::ffff:127.0.0.1]", "0.0.0.0"]
BAD_HOSTS = [
    None,
    "",
    "example.org",
    "localhost.example.org",
    "example.org:8000",
    "localhost, localhost",
    "a b",
]
BAD_HOSTS += [
    "localhost,localhost",
    "127.0.0.1, evil.example",
    "evil.example, 127.0.0.1",
    "localhost:x",
    "localhost:",
]
BAD_HOSTS += [
    "[::1",
    "::1",
    "[::1]x",
    "[zz]",
    "[]",
    "[::1%25eth0]",
    "[127.0.0.1]",
    "127.0.0.1.",
    "127.1",
    "127.0.0.01",
]
BAD_HOSTS += [
    "0x7f000001",
    "2130706433",
    "1.2.3.4.5",
    "256.1.1.1",
    "user@localhost",
    "localhost/",
    "http://localhost",
]
BAD_HOSTS += [
    "localhost#",
    "localhost?",
    "localhost\\",
    "\xe9",
    "localhost\n",
    "\tlocalhost",
    "localhost ",
    ".localhost",
]
BAD_HOSTS += [
    "a.localhost",
    "localhost..",
    "x" * 5000,
    "localhost:" + "1" * 5000,
    ":80",
    "127.0.0.1:-1",
    "*",
    "\xb2.0.0.1",
]
BAD_HOSTS.remove("127.0.0.1.")


@pytest.fixture
def api():
    api = Api()
    api.put("a", 10)
    return api


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_hosts_that_are_ours(api, host):
    assert api.ask("GET", "/livez", headers={"Host": host}).status == 200
    assert api.ask("POST", "/v1/counters/a/increment", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", BAD_HOSTS, ids=lambda host: str(host)[:30])
def test_hosts_that_are_not(api, host):
    for method, path in EVERYWHERE:
        answer = api.refuse(421, "host-not-allowed", method, path, headers={"Host": host})
        assert method == "HEAD" or "COUNTER_ALLOW_HOSTS" in answer.json["detail"]


@pytest.mark.parametrize(
    "given",
    ["a.example, B.example.", "a.example b.example", ["a.example", "B.example"], ("a.example", "b.example")],
)
def test_more_names_can_be_allowed(given):
    api = Api(COUNTER_ALLOW_HOSTS=given)
    for host in ("a.example", "A.Example:8000", "b.example", "b.example.", "localhost"):
        assert api.ask("GET", "/livez", headers={"Host": host}).status == 200
    for host in ("c.example", "x.a.example", "a.example.org", "a.example, a.example", "a.example:x"):
        api.refuse(421, "host-not-allowed", "GET", "/livez", headers={"Host": host})


def test_names_are_allowed_by_the_environment(monkeypatch):
    monkeypatch.setenv("COUNTER_ALLOW_HOSTS", "a.example")
    api = Api(app=create_app())
    assert api.ask("GET", "/livez", headers={"Host": "a.example"}).status == 200
    monkeypatch.setenv("FLASK_COUNTER_ALLOW_HOSTS", '["b.example"]')
    api = Api(app=create_app())
    assert api.ask("GET", "/livez", headers={"Host": "b.example"}).status == 200
    assert api.ask("GET", "/livez", headers={"Host": "a.example"}).status == 421


@pytest.mark.parametrize("given", ["a.example:80", "http://a.example", "*", "a_b/c", ["a b"], 5.5, {"a": 1}])
def test_a_name_that_is_none_is_a_mistake_of_the_config(given):
    if given == 5.5:
        create_app(
            COUNTER_ALLOW_HOSTS=given
        )  # a number that the environment's JSON made of it is a name all the same
        return
    with pytest.raises(InvalidRequest, match="COUNTER_ALLOW_HOSTS"):
        create_app(COUNTER_ALLOW_HOSTS=given)


CROSS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "null"},
    {"Sec-Fetch-Site": "Same-Origin"},
    {"Sec-Fetch-Site": "same-origin, cross-site"},
    {"Sec-Fetch-Site": "none, none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8000"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:8001"},
    {"Origin": "https://localhost:8000"},
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": "localhost:8000"},
    {"Origin": "http://localhost:8000/"},
    {"Origin": "http://localhost:8000.evil.example"},
    {"Origin": "http://localhost:8000, http://evil.example"},
    {"Origin": "http://localhost:8000 http://localhost:8000"},
]
OWN = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8000"},
    {"Sec-Fetch-Site": "none", "Origin": "null"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "HTTP://LocalHost:8000"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_pages_of_other_sites_change_and_read_nothing(api, headers):
    for method, path in EVERYWHERE:
        api.refuse(403, "cross-site", method, path, headers=headers)


@pytest.mark.parametrize("headers", OWN)
def test_programs_and_own_pages_do(api, headers):
    assert api.ask("POST", "/v1/counters/a/increment", headers=headers).status == 200
    assert api.ask("DELETE", "/v1/counters/a", headers=headers).status == 200


VISIT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
IN_ADVANCE = [
    {"Sec-Purpose": "prefetch"},
    {"Sec-Purpose": "prefetch;prerender"},
    {"Sec-Purpose": "prefetch;anonymous-client-ip"},
    {"Purpose": "prefetch"},
    {"X-Purpose": "preview"},
    {"X-Moz": "prefetch"},
    {"X-Moz": "Prefetch"},
    {"Purpose": "billing", "X-Moz": "prefetch"},
]


def test_a_link_from_anywhere_leads_here(api):
    """Somebody followed it: a window of its own, which the page with the link cannot read."""
    for path in ("/", "/v1/counters/a", "/problems/not-found"):
        assert api.ask("GET", path, headers=VISIT).status == 200
        assert api.ask("GET", path, headers=VISIT | {"Sec-Fetch-Site": "same-site"}).status == 200


@pytest.mark.parametrize(
    "change",
    [{"Sec-Fetch-Dest": dest} for dest in ("iframe", "frame", "object", "embed", "empty", "", "Document")]
    + [{"Sec-Fetch-Mode": mode} for mode in ("no-cors", "cors", "nested-navigate", "")]
    + IN_ADVANCE,
)
def test_what_a_page_opens_in_itself_or_in_advance_is_no_visit(api, change):
    api.refuse(403, "cross-site", "GET", "/", headers=VISIT | change)
    api.refuse(403, "cross-site", "GET", "/v1/counters/a", headers=VISIT | change)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "POST", "PUT", "DELETE", "X"])
def test_a_visit_is_a_get(api, method):
    """A form of another site can POST as a visit."""
    api.refuse(403, "cross-site", method, "/v1/counters/a", headers=VISIT)
    api.refuse(403, "cross-site", method, "/v1/counters/a/increment", headers=VISIT)


@pytest.mark.parametrize("headers", IN_ADVANCE)
def test_what_is_fetched_in_advance_changes_nothing(api, headers):
    for own in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert api.ask("GET", "/v1/counters/a", headers=own | headers).status == 200
        api.refuse(403, "cross-site", "POST", "/v1/counters/a/increment", headers=own | headers)
        api.refuse(403, "cross-site", "DELETE", "/v1/counters/a", headers=own | headers)


def test_a_purpose_of_another_kind_is_none_of_ours(api):
    assert api.ask("POST", "/v1/counters/a/increment", headers={"Purpose": "billing"}).status == 200


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "status"),
    [
        ("http", "localhost", "http://localhost", 200),
        ("http", "localhost:80", "http://localhost", 200),
        ("http", "localhost", "http://localhost:80", 200),
        ("http", "localhost", "http://localhost:443", 403),
        ("http", "localhost:443", "http://localhost", 403),
        ("https", "localhost", "https://localhost", 200),
        ("https", "localhost:443", "https://localhost", 200),
        ("https", "localhost", "http://localhost", 403),
        ("http", "[::1]:8000", "http://[::1]:8000", 200),
        ("http", "[::80]", "http://[::80]", 200),
    ],
)
def test_the_default_port_may_be_left_out_of_an_origin(api, scheme, host, origin, status):
    headers = {"Host": host, "Origin": origin}
    answer = api.ask("POST", "/v1/counters/a/increment", headers=headers, **{"wsgi.url_scheme": scheme})
    assert answer.status == status


def test_the_host_comes_before_the_site(api):
    headers = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}
    api.refuse(421, "host-not-allowed", "POST", "/v1/counters/a/increment", headers=headers)


def test_a_preflight_gets_no_leave(api):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
    answer = api.refuse(403, "cross-site", "OPTIONS", "/v1/counters/a", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_forwarded_names_are_not_believed(api):
    headers = {"Host": "evil.example", "X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
    api.refuse(421, "host-not-allowed", "GET", "/livez", headers=headers)
