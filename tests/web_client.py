"""A client that sends WSGI requests byte for byte, and checks what all answers have in common."""

import io
import json
from functools import cache
from urllib.parse import unquote_to_bytes

from counter.ops import List, Request, Set
from counter.results import Change
from counter.store import Store
from counter.stores.memory import MemoryStore
from counter.web import create_app

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
JSON = "application/json"


class Answer:
    """What came back."""

    def __init__(self, status, headers, body):
        self.status = int(status.split(" ")[0])
        self.headers = {name.lower(): value for name, value in headers}
        self.header_names = [name.lower() for name, _ in headers]
        self.body = body

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]!r}"

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def value(self):
        return self.json["value"]

    @property
    def etag(self):
        return self.headers["etag"]


class Relay(Store):
    """The store of whichever client asks, so that most clients can share one app."""

    def __init__(self):
        self.target = None

    def execute(self, request, timeout=None):
        return self.target.execute(request, timeout)

    def close(self):
        pass


RELAY = Relay()


@cache
def shared_app():
    """Making an app takes longer than most tests."""
    return create_app(RELAY)


class Client:
    """Asks a WSGI app; *store* and *config* go to `create_app` if no *app* is given."""

    def __init__(self, store=None, app=None, **config):
        self.store = MemoryStore() if store is None else store
        self.app = app or (create_app(self.store, **config) if config else shared_app())

    def ask(self, method, path, body=b"", headers=None, **environ):
        """Send a request.

        *path* may be percent-encoded and have a query; a *body* that is no bytes is sent as JSON.
        *headers* go by their HTTP name; a keyword replaces a key of the environ (None removes it).
        """
        path, _, query = path.partition("?")
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost:8000",
            "HTTP_X_REQUEST_ID": "a-test",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": JSON if body else "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            sent[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        sent |= environ
        return self._send({name: value for name, value in sent.items() if value is not None})

    def _send(self, environ):
        RELAY.target = self.store
        started = []
        chunks = self.app(environ, lambda status, headers, exc_info=None: started.append((status, headers)))
        body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        ((status, headers),) = started
        return Answer(status, headers, body)

    def seen(self):
        """Every counter there is, by name."""
        page = self.store.execute(Request([List(limit=1000)])).only()
        assert page.next is None
        return {entry.name: entry for entry in page.counters}

    def put(self, name, value=0, **settings):
        """Make a counter, past the API."""
        change = self.store.execute(Request([Set(name, value, **settings)])).only()
        assert isinstance(change, Change)
        return change


class Api(Client):
    """A `Client` of the API, which checks what all of its answers have in common."""

    def ask(self, method, path, body=b"", headers=None, **environ):
        answer = super().ask(method, path, body, headers, **environ)
        check_common(answer, environ.get("REQUEST_METHOD", method))
        return answer

    def refuse(self, status, code, method, path, body=b"", headers=None, **environ):
        """The problem that the request is refused with; no counter has changed."""
        before = self.seen()
        answer = self.ask(method, path, body, headers, **environ)
        assert (answer.status, answer.json["code"] if answer.body else code) == (status, code), answer
        assert self.seen() == before
        return answer


def check_common(answer, method):
    """Headers of every answer, the newline at the end of every body, and the form of every problem."""
    headers = answer.headers
    assert len(set(answer.header_names)) == len(answer.header_names), "a header is given twice"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-request-id"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert "script-src" not in policy
    assert not [name for name in headers if name.startswith("access-control-")]
    assert headers["cache-control"] == ("no-cache" if method in SAFE else "no-store")
    if answer.body:
        assert answer.body.endswith(b"\n") and not answer.body.endswith(b"\n\n")
        assert headers["content-length"] == str(len(answer.body))
    if method == "HEAD":
        assert not answer.body
    elif answer.status >= 400 and not headers["content-type"].startswith("text/html"):
        check_problem(answer)


def check_problem(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem.keys() <= {"type", "title", "status", "detail", "code", "current", "index"}
    assert problem["status"] == answer.status
    assert problem["type"].endswith(f"/problems/{problem['code']}")
    assert problem["detail"] and problem["detail"] != problem["title"]
    assert ("current" in problem) == (problem["code"] in ("out-of-bounds", "version-mismatch"))
    assert ("allow" in answer.headers) == (answer.status == 405)
    if answer.status != 504:  # there it depends on the request: tests/test_web_idempotency.py
        assert ("retry-after" in answer.headers) == (answer.status in (429, 503))
