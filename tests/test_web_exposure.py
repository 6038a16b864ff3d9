"""Every combination of what a request can say: only the allowed cells of the table change or read anything.

The table is a product; what is expected of a cell is worked out here, by a few lines that know the rules from
the docs and nothing of the code. Each cell is one request. What it changed is looked up in the store, what it
read is looked for in its answer, and a cell that is refused must not have asked the store for anything.
"""

import itertools
from typing import NamedTuple

import pytest
from web_client import JSON, Client

from counter.store import Store
from counter.stores.memory import MemoryStore
from counter.tokens import add, make

SECRET = 654_321
"""The value of the counter: where these digits are in an answer, something was read."""
ALLOWED_NAME = "counter.example"

HOSTS = {None: False, "localhost:8000": True, f"{ALLOWED_NAME}:8000": True, "rebound.example:8000": False}
"""Host, and whether it is ours."""
OWN = "own"
ORIGINS = (None, OWN, "http://evil.example")
FETCHES = (  # Sec-Fetch-Site, -Mode, -Dest
    (None, None, None),
    ("same-origin", "cors", "empty"),
    ("none", "navigate", "document"),
    ("same-site", "no-cors", "image"),
    ("cross-site", "cors", "empty"),
    ("cross-site", "navigate", "document"),
    ("cross-site", "navigate", "iframe"),
)
PREFETCHES = (None, "prefetch")
COUNTER = "/v1/counters/a"
BATCH = b'{"ops": [{"op": "increment", "name": "a"}]}'
READS = (COUNTER, "/v1/counters", "/v1/changes", "/v1/events?limit=1", "/metrics", "/")
TYPES = (JSON, "text/plain", "application/x-www-form-urlencoded")


class Ask(NamedTuple):
    """What is asked, and what comes of it where it is allowed."""

    method: str
    path: str
    body: bytes = b""
    type: str = ""
    reads: bool = False
    changes: bool = False


def asks():
    for path in READS:
        yield Ask("GET", path, reads=True)
    yield Ask("HEAD", COUNTER)
    yield Ask("OPTIONS", COUNTER)
    yield Ask("POST", f"{COUNTER}/increment", changes=True)
    yield Ask("DELETE", COUNTER, changes=True)
    bodies = [
        ("GET", COUNTER, b"{}"),
        ("POST", f"{COUNTER}/increment", b'{"delta": 2}'),
        ("PUT", COUNTER, b'{"value": 2}'),
        ("PATCH", COUNTER, b'{"max": 9000000}'),
        ("POST", "/v1/batch", BATCH),
    ]
    for (method, path, body), kind in itertools.product(bodies, TYPES):
        safe = method == "GET"
        yield Ask(method, path, body, kind, reads=safe, changes=not safe and kind == JSON)


class Cell(NamedTuple):
    ask: Ask
    host: str | None
    origin: str | None
    fetch: tuple
    prefetch: str | None

    @property
    def headers(self):
        site, mode, dest = self.fetch
        return {  # None: not sent
            "Host": self.host,
            "Origin": f"http://{self.host}" if self.origin == OWN else self.origin,
            "Sec-Fetch-Site": site,
            "Sec-Fetch-Mode": mode,
            "Sec-Fetch-Dest": dest,
            "Content-Type": self.ask.type,
            "Sec-Purpose": self.prefetch,
        }


def expected(cell, holder):
    """The code of a refusal, or None where the cell is allowed, by the rules in docs/http.md."""
    site, mode, dest = cell.fetch
    safe = cell.ask.method in ("GET", "HEAD", "OPTIONS")
    if not HOSTS[cell.host]:
        return "host-not-allowed"
    foreign = site in ("same-site", "cross-site") if site else cell.origin not in (None, OWN)
    link = cell.ask.method == "GET" and (mode, dest) == ("navigate", "document") and not cell.prefetch
    if (foreign and not link) or (cell.prefetch and not safe):
        return "cross-site"
    if holder in ("nobody", "stranger"):
        return "unauthorized"
    if holder == "reader" and not safe:
        return "forbidden"
    if cell.ask.body and not safe and cell.ask.type != JSON:
        return "media-type"
    return None


class Asked(Store):
    """A store in memory, which counts what it is asked."""

    def __init__(self):
        self.inner = MemoryStore()
        self.times = 0

    def execute(self, request, timeout=None):
        self.times += 1
        return self.inner.execute(request, timeout)

    def close(self):
        self.inner.close()


STATUS = {
    "host-not-allowed": 421,
    "cross-site": 403,
    "unauthorized": 401,
    "forbidden": 403,
    "media-type": 415,
}


def check(client, cell, refusal, credentials, before):
    """Send what *cell* says, and look at what came of it; the counters after it."""
    asked = client.store.times
    answer = client.ask(cell.ask.method, cell.ask.path, cell.ask.body, cell.headers | credentials)
    asked = client.store.times - asked
    after = client.seen()
    read = str(SECRET).encode() in answer.body
    told = (cell, answer)
    if refusal is not None:
        assert answer.status == STATUS[refusal], told
        assert not answer.body or answer.json["code"] == refusal, told
        assert not asked and not read and after == before, told
    else:
        assert answer.status == 200, told
        assert read == cell.ask.reads or cell.ask.changes, told  # what changes tells the value before
        assert (after != before) == cell.ask.changes, told
    assert not [name for name in answer.headers if name.startswith("access-control-")], told
    return after


def table():
    return map(Cell._make, itertools.product(asks(), HOSTS, ORIGINS, FETCHES, PREFETCHES))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A file of tokens, and those in it."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    given = {scope: make(scope, scope) for scope in ("read", "write")}
    for _, token in given.values():
        add(path, token)
    return path, {"stranger": "counter_unknown", "reader": given["read"][0], "writer": given["write"][0]}


@pytest.mark.slow
@pytest.mark.parametrize("holder", ["no tokens", "nobody", "stranger", "reader", "writer"])
def test_only_the_allowed_cells_change_or_read_anything(tokens, holder):
    """Where the service takes no tokens; asked by who has none, an unknown one, one of each scope."""
    path, texts = tokens
    settings = {} if holder == "no tokens" else {"COUNTER_TOKENS": str(path)}
    credentials = {"Authorization": f"Bearer {texts[holder]}"} if holder in texts else {}
    client = Client(Asked(), COUNTER_ALLOW_HOSTS=ALLOWED_NAME, **settings)
    client.put("a", SECRET)
    before = client.seen()
    outcomes = set()
    for cell in table():
        refusal = expected(cell, holder)
        outcomes.add(refusal)
        if check(client, cell, refusal, credentials, before) != before:
            client.put("a", SECRET, max=None)
            before = client.seen()
    assert {"host-not-allowed", "cross-site"} < outcomes
    assert (None in outcomes) == (holder in ("no tokens", "reader", "writer"))
