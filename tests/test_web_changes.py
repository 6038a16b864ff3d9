"""Changes over HTTP, byte for byte: pages and streams of them, what they cost, and how they end."""

import contextlib
import gc
import json
import logging
import threading
import time

import pytest
from support import wait_until
from web_client import Api, Client

from counter.errors import InvalidRequest, JournalFull, StoreUnavailable
from counter.fields import MAX_PAGE
from counter.ops import Changes, Delete, Increment, Request
from counter.store import Store
from counter.stores.memory import MemoryStore
from counter.web import changes as module
from counter.web import watcher as watching

EVER = 30.0
SLOTS = 2


class Guarded(Store):
    """A store that fails while it is told to."""

    def __init__(self):
        self.inner = MemoryStore()
        self.error = None
        self.asked = []

    def execute(self, request, timeout=None):
        self.asked.append(request.ops[0])
        if self.error is not None:
            raise self.error
        return self.inner.execute(request, timeout)

    def close(self):
        pass


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    """Nobody's promise: how long it takes until something is noticed."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(watching, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(watching, "_ASK_SECONDS", 0.05)
    monkeypatch.setattr(watching, "_IDLE_SECONDS", 0.02)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def api(store):
    return Api(store, COUNTER_THREADS=2 * SLOTS)


def increment(store, *names):
    for name in names:
        store.execute(Request([Increment(name)])).only()


def newest(store):
    return store.execute(Request([Changes(limit=1000)])).only().version


def later(action, when):
    """Do *action* in another thread, once *when* is true."""

    def run():
        wait_until(when)
        action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def watcher(api):
    return api.app.extensions["counter_watch"].here()


def waiting(api):
    """Whether somebody waits, and the watcher has looked around once for it."""
    return "counter_watch" in api.app.extensions and watcher(api)._waiting and watcher(api).moment


class Stream:
    """An answer of /v1/events, read as it comes."""

    def __init__(self, client, path="/v1/events", headers=None, method="GET", **environ):
        started = []
        base = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path.partition("?")[0],
            "QUERY_STRING": path.partition("?")[2],
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
            "wsgi.input": None,
        }
        base |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
        self.chunks = client.app(base | environ, lambda *given: started.append(given))
        self._iterator = iter(self.chunks)
        self.status = int(started[0][0].split()[0])
        self.headers = {name.lower(): value for name, value in started[0][1]}

    def chunk(self):
        return next(self._iterator)

    def message(self):
        """The next message's id and body."""
        while True:
            chunk = self.chunk()
            if not chunk.startswith((b"retry", b":")):
                break
        assert chunk.endswith(b"\n\n") and chunk.count(b"\n") == 3
        first, second = chunk.decode().split("\n")[:2]
        assert first.startswith("id: ") and second.startswith("data: ")
        return first[4:], json.loads(second[6:])

    def rest(self):
        return list(self._iterator)

    def close(self):
        self.chunks.close()


@pytest.fixture
def stream(api):
    opened = []

    def open_stream(*args, **options):
        opened.append(Stream(api, *args, **options))
        return opened[-1]

    yield open_stream
    for each in opened:
        if each.chunks is not None:
            each.close()


def values(page):
    return {entry["name"]: entry["value"] for entry in page["counters"]}


# One page


def test_a_page_is_what_the_store_says(api, store):
    increment(store, "a", "b", "a")
    page = api.ask("GET", "/v1/changes").json
    assert page.keys() == {"counters", "gone", "version", "more", "complete"}
    assert (values(page), page["gone"], page["more"], page["complete"]) == ({"b": 1, "a": 2}, [], False, True)
    assert page["counters"][1] == api.ask("GET", "/v1/counters/a").json
    store.execute(Request([Delete("a")]))
    page = api.ask("GET", f"/v1/changes?since={page['version']}").json
    assert (page["counters"], page["gone"], page["complete"]) == ([], ["a"], False)


def test_pages_by_limit_and_prefix(api, store):
    increment(store, "s:a", "t:b", "s:c")
    page = api.ask("GET", "/v1/changes?prefix=s%3A&limit=1").json
    assert (values(page), page["more"], page["complete"]) == ({"s:a": 1}, True, True)
    page = api.ask("GET", f"/v1/changes?prefix=s%3A&limit=1&since={page['version']}&wait=55").json
    assert (values(page), page["more"], page["complete"]) == ({"s:c": 1}, False, False)


def test_head_is_the_same_without_a_body_and_never_waits(api, store):
    begun = time.monotonic()
    answer = api.ask("HEAD", f"/v1/changes?since={newest(store)}&wait=55")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] != "0"
    assert time.monotonic() - begun < 10


BAD_WAITS = ["wait=56", "wait=-1", "wait=nan", "wait=1e1", "wait=", "wait=x", "wait=55.1", "wait=%D9%A3"]
BAD = ["limit=0", "limit=x", "limit=-1", "prefix=%0A", "since=%FF", "name=a", "since=a&since=a"]


@pytest.mark.parametrize("query", [*BAD_WAITS, *BAD, "limit=1001", "wait=1&wait=1"])
def test_a_bad_question_is_refused(api, query):
    api.refuse(400, "invalid-request", "GET", f"/v1/changes?{query}")


@pytest.mark.parametrize("query", [*BAD, "wait=1", f"limit={2**63}"])
def test_a_bad_question_for_a_stream_is_refused(api, query):
    api.refuse(400, "invalid-request", "GET", f"/v1/events?{query}")


def test_what_is_there_is_told_at_once_and_what_is_not_is_waited_for(api, store):
    increment(store, "a")
    assert values(api.ask("GET", "/v1/changes?wait=55").json) == {"a": 1}
    later(lambda: increment(store, "b"), lambda: waiting(api))
    page = api.ask("GET", f"/v1/changes?since={newest(store)}&wait=55").json
    assert (values(page), page["complete"]) == ({"b": 1}, False)
    assert watcher(api).slots.used == 0


def test_a_change_elsewhere_does_not_end_the_wait(api, store):
    def change():
        before = watcher(api).moment
        increment(store, "t:b")
        wait_until(lambda: watcher(api).moment > before)
        increment(store, "s:b")

    later(change, lambda: waiting(api))
    page = api.ask("GET", f"/v1/changes?prefix=s:&since={newest(store)}&wait=55").json
    assert values(page) == {"s:b": 1}


def test_a_wait_ends_with_nothing_and_a_version_to_go_on_from(api, store):
    since, begun = newest(store), time.monotonic()
    page = api.ask("GET", f"/v1/changes?since={since}&wait=0.05").json
    told = {"counters": [], "gone": [], "version": since, "more": False, "complete": False}
    assert page == told and time.monotonic() - begun >= 0.05


@pytest.mark.parametrize("name", ["waitress.client_disconnected", "counter.stopping"])
def test_nobody_is_waited_for_who_has_left_and_nobody_kept_by_a_worker_that_ends(api, store, name):
    left = threading.Event()
    later(left.set, lambda: waiting(api))
    begun = time.monotonic()
    api.ask("GET", f"/v1/changes?since={newest(store)}&wait=55", **{name: left.is_set})
    assert time.monotonic() - begun < 20 and watcher(api).slots.used == 0


def test_over_the_slots_a_poll_answers_at_once(api, store, stream):
    increment(store, "a")
    streams = [stream() for _ in range(SLOTS)]
    begun = time.monotonic()
    for since in (newest(store), "x"):
        assert api.ask("GET", f"/v1/changes?since={since}&wait=55").status == 200
    assert time.monotonic() - begun < 10
    streams[0].close()
    increment(store, "b")
    assert watcher(api).slots.used == SLOTS - 1


def test_polls_have_their_slots_while_they_wait(api, store):
    since = newest(store)
    path = f"/v1/changes?since={since}&wait=55"
    polls = [threading.Thread(target=lambda: api.ask("GET", path)) for _ in range(SLOTS)]
    for poll in polls:
        poll.start()
    wait_until(lambda: waiting(api) and watcher(api).slots.used == SLOTS)
    api.refuse(503, "overloaded", "GET", "/v1/events")
    increment(store, "a")
    for poll in polls:
        poll.join(20)
    assert watcher(api).slots.used == 0


@pytest.mark.parametrize("error", [StoreUnavailable("no manager"), JournalFull("full"), InvalidRequest("x")])
def test_a_store_that_fails_while_a_poll_waits_frees_its_slot(error):
    store = Guarded()
    api = Api(store, COUNTER_THREADS=4)
    api.seen = dict
    since = newest(store.inner)
    later(lambda: setattr(store, "error", error), lambda: waiting(api))
    answer = api.ask("GET", f"/v1/changes?since={since}&wait=0.3")
    assert (answer.status, answer.json["code"]) == (error.status, error.code)
    assert watcher(api).slots.used == 0
    answer = api.ask("GET", "/v1/events")
    assert (answer.status, watcher(api).slots.used) == (error.status, 0)


# Streams


def test_a_stream_is_the_pages_as_messages(api, store, stream):
    increment(store, "a")
    events = stream()
    assert events.status == 200
    assert events.headers["content-type"] == "text/event-stream"
    assert events.headers["cache-control"] == "no-store"
    assert events.headers["x-accel-buffering"] == "no"
    assert not events.headers.keys() & {"content-length", "connection", "transfer-encoding", "keep-alive"}
    assert events.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in events.headers["content-security-policy"]
    assert events.chunk() == b"retry: 1000\n\n"
    version, page = events.message()
    assert (version, values(page), page["complete"]) == (page["version"], {"a": 1}, True)
    increment(store, "a", "b")
    version, page = events.message()
    assert (version, values(page), page["complete"]) == (newest(store), {"a": 2, "b": 1}, False)


@pytest.mark.parametrize("accept", [None, "*/*", "text/html", "application/json", "text/event-stream"])
def test_a_stream_is_a_stream_whatever_is_accepted(stream, accept):
    assert stream(headers={"Accept": accept} if accept else {}).status == 200


def test_an_empty_store_is_told_too(stream):
    _, page = stream().message()
    assert (page["counters"], page["complete"], page["more"]) == ([], True, False)


def test_a_stream_ends_after_as_many_messages(api, store, stream):
    increment(store, "a")
    events = stream("/v1/events?limit=2")
    increment(store, "b")
    assert values(events.message()[1]) == {"a": 1}
    assert values(events.message()[1]) == {"b": 1}
    assert events.rest() == []
    events.close()
    assert watcher(api).slots.used == 0


def test_the_last_id_goes_before_since(store, stream):
    def first_message(since, **headers):
        with contextlib.closing(stream(f"/v1/events?since={since}&limit=1", headers)) as events:
            return events.message()[1]

    increment(store, "a")
    first = newest(store)
    increment(store, "b")
    page = first_message(first)
    assert (values(page), page["complete"]) == ({"b": 1}, False)
    increment(store, "c")
    second = page["version"]
    page = first_message(first, **{"Last-Event-ID": second})
    assert values(page) == {"c": 1}
    page = first_message(second, **{"Last-Event-ID": "of another run"})
    assert (values(page), page["complete"]) == ({"a": 1, "b": 1, "c": 1}, True)


def test_the_first_body_comes_in_pages_right_after_each_other(store, stream):
    names = [f"n{number:04}" for number in range(2500)]
    increment(store, *names)
    begun = time.monotonic()
    events = stream()
    pages = [events.message()[1] for _ in range(3)]
    assert [(len(page["counters"]), page["more"], page["complete"]) for page in pages] == [
        (1000, True, True),
        (1000, True, False),
        (500, False, False),
    ]
    assert [entry["name"] for page in pages for entry in page["counters"]] == names
    assert time.monotonic() - begun < 10


def test_changes_in_between_are_merged(api, store, stream):
    events = stream("/v1/events?prefix=s:")
    events.message()
    increment(store, "s:a", "s:b", "t:a", "s:a", "s:a")
    store.execute(Request([Delete("s:b")]))
    version, page = events.message()
    assert (values(page), page["gone"], version) == ({"s:a": 3}, ["s:b"], newest(store))


def test_at_most_five_messages_a_second(api, store, stream, monkeypatch):
    monkeypatch.setattr(module, "PACE_SECONDS", 0.2)
    events, done = stream(), threading.Event()

    def count():
        while not done.is_set():
            increment(store, "a")

    thread = threading.Thread(target=count)
    thread.start()
    try:
        events.message()
        begun = time.monotonic()
        last = [values(events.message()[1])["a"] for _ in range(3)][-1]
        assert time.monotonic() - begun >= 0.4
        assert last > 3
    finally:
        done.set()
        thread.join(20)


def test_a_silent_stream_is_heard(stream, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    events = stream()
    events.message()
    assert [events.chunk() for _ in range(3)] == [b":\n\n"] * 3


def test_a_stream_ends_in_order_after_its_life(stream, monkeypatch):
    monkeypatch.setattr(module, "LIFE_SECONDS", 0.05)
    events = stream()
    events.message()
    assert events.rest() == []


def test_head_of_a_stream_has_its_headers_and_no_slot(api, stream):
    events = stream(method="HEAD")
    assert (events.status, events.headers["content-type"], events.rest()) == (200, "text/event-stream", [])
    assert "content-length" not in events.headers
    assert watcher(api).slots.used == 0
    assert stream("/v1/events?limit=0", method="HEAD").status == 400


def test_over_the_slots_a_stream_is_refused_and_told_when_to_come_back(api, stream):
    streams = [stream() for _ in range(SLOTS)]
    problem = api.refuse(503, "overloaded", "GET", "/v1/events")
    assert problem.headers["retry-after"] == "1"
    assert "/v1/changes" in problem.json["detail"]
    streams[0].message()
    streams[0].close()
    assert stream().status == 200


def test_a_slot_is_freed_however_a_stream_is_closed(api, stream):
    begun, never = stream(), stream()
    begun.message()
    for each in (begun, never, begun):
        each.close()
        each.close()
    assert watcher(api).slots.used == 0
    dropped = stream()
    assert watcher(api).slots.used == 1
    dropped.chunks = dropped._iterator = None
    gc.collect()
    assert watcher(api).slots.used == 0
    stream().close()


@pytest.fixture
def nothing_logged():
    """pytest keeps what is logged, and errors with it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_an_answer_that_an_app_drops_frees_its_slot(api, nothing_logged):
    def fail(response):
        raise ZeroDivisionError

    api.app.after_request_funcs.setdefault(None, []).append(fail)
    answer = Client.ask(api, "GET", "/v1/events")
    assert answer.status == 500
    gc.collect()  # the error, which is in a circle with the answer
    assert watcher(api).slots.used == 0


@pytest.mark.parametrize("name", ["waitress.client_disconnected", "counter.stopping"])
def test_a_stream_ends_with_its_client_and_with_its_worker(api, stream, name):
    left = threading.Event()
    events = stream(**{name: left.is_set})
    events.message()
    later(left.set, lambda: waiting(api))
    begun = time.monotonic()
    assert events.rest() == []
    assert time.monotonic() - begun < 10


def test_a_client_that_does_not_read_is_told_later_and_less(store, stream, monkeypatch):
    monkeypatch.setattr(module, "LIFE_SECONDS", 5.0)
    names = ["a", "b", "c"]

    def unsent():
        increment(store, *names[:1])
        return module._MOST_UNSENT + 1 if names and names.pop(0) else 0

    events = stream(**{"counter.unsent": unsent})
    events.message()
    assert values(events.message()[1]) == {"a": 1, "b": 1, "c": 1}


def test_what_changes_while_a_page_is_asked_for_is_looked_for_after():
    store = Guarded()
    api = Api(store, COUNTER_THREADS=4)
    with contextlib.closing(Stream(api)) as events:
        events.message()
        late = []

        def execute(request, timeout=None):
            reply = store.inner.execute(request, timeout)
            if request.ops[0].limit == MAX_PAGE and not request.ops[0].prefix and not late:
                late.append(watcher(api).moment)
                increment(store.inner, "a")
                wait_until(lambda: watcher(api).moment > late[0])
            return reply

        later(lambda: setattr(store, "execute", execute), lambda: waiting(api))
        later(lambda: increment(store.inner, "b"), lambda: "execute" in vars(store))
        begun, told = time.monotonic(), {}
        while "a" not in told:
            told |= values(events.message()[1])
        assert time.monotonic() - begun < module.HEARTBEAT_SECONDS / 2


def test_a_client_that_never_reads_is_left_after_the_stream_s_life(stream, monkeypatch):
    monkeypatch.setattr(module, "LIFE_SECONDS", 0.1)
    events = stream(**{"counter.unsent": lambda: module._MOST_UNSENT + 1})
    events.message()
    assert events.rest() == []


def test_while_the_store_is_away_a_stream_is_kept_and_goes_on_after(monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    store = Guarded()
    with contextlib.closing(Stream(Api(store, COUNTER_THREADS=4))) as events:
        events.message()
        store.error = StoreUnavailable("no manager")
        assert [events.chunk() for _ in range(3)] == [b":\n\n"] * 3
        increment(store.inner, "a")
        store.error = None
        assert values(events.message()[1]) == {"a": 1}


def test_what_a_failed_look_was_woken_for_is_looked_for_again():
    store = Guarded()
    api = Api(store, COUNTER_THREADS=4)
    with contextlib.closing(Stream(api)) as events:
        events.message()
        tries = []

        def execute(request, timeout=None):
            if request.ops[0].limit == MAX_PAGE and request.ops[0].prefix == "" and watcher(api).moment > 1:
                tries.append(request)
                if len(tries) == 1:
                    raise StoreUnavailable("no manager")
            return store.inner.execute(request, timeout)

        store.execute = execute
        later(lambda: increment(store.inner, "a"), lambda: waiting(api))
        begun = time.monotonic()
        assert values(events.message()[1]) == {"a": 1}
        assert len(tries) > 1 and time.monotonic() - begun < module.HEARTBEAT_SECONDS
