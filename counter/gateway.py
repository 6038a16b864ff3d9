"""What stands between granian and an app: who is admitted, and what an answer must be.

granian calls `Gateway` in a thread for each request that has its head. There a request waits for the rest of
itself first, and only then, if it is admitted, for one of a few places: so who sends slowly holds a thread,
of which there can be many, and nobody up. Who is turned away is told as under waitress.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .access import AccessLog, Served
from .admission import LANE, Overloaded
from .information import OTHER
from .request_ids import HEADER, of
from .request_parser import HEADER_BYTES
from .waitress_channel import IN_MEMORY_BYTES

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

_CHUNKED = "411 Length Required", "send a Content-Length: chunked bodies are not taken here"
_TOO_LARGE = "413 Request Entity Too Large", "the body is too large"
_LONG_HEAD = "431 Request Header Fields Too Large", f"headers have at most {HEADER_BYTES} bytes"
_CUT = "400 Bad Request", "the body is shorter than its Content-Length"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

logger = logging.getLogger("counter.worker")

Headers = list[tuple[str, str]]


class Places:
    """As many requests at a time as there are *threads*, and others that wait, *limit* with them."""

    def __init__(self, threads: int, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0
        self._lock = threading.Lock()
        self._free = threading.Semaphore(threads)

    def take(self) -> bool:
        """Wait for a place; False at once if too many do."""
        with self._lock:
            if self._in_flight >= self._limit:
                return False
            self._in_flight += 1
        self._free.acquire()
        return True

    def leave(self) -> None:
        """Give the place back."""
        self._free.release()
        with self._lock:
            self._in_flight -= 1


class Answer:
    """What the app says to one request, from `start_response` to the last of its body."""

    def __init__(self, environ: WSGIEnvironment, done: Callable[[Answer], None]) -> None:
        self.environ = environ
        self.status = "500 Internal Server Error"
        self.headers: Headers = []
        self.size = 0
        self._written: list[bytes] = []
        self._done = done
        self._started = self._leaving = self._closed = False
        self._iterable: Iterable[bytes] = ()
        self._rest: Iterator[bytes] = iter(())

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:  # noqa: ANN401
        """The `start_response` of WSGI."""
        if exc_info is not None and self._leaving:
            raise exc_info[1].with_traceback(exc_info[2])  # too late for another answer
        if exc_info is None and self._started:
            raise AssertionError("start_response was called twice")
        self._started = True
        self.status, self.headers = status, headers
        return self._written.append

    def begin(self, iterable: Iterable[bytes]) -> bytes | None:
        """Take the body's beginning out of *iterable*: all of it if it is short, None if more follows."""
        self._iterable = iterable
        self._rest = iter(iterable)
        first = next((chunk for chunk in self._rest if chunk), b"")  # by then the app has called `start`
        self._written.append(first)
        if not first or isinstance(iterable, list) or self._is_short():
            whole = b"".join([*self._written, *self._rest])
            if self._length() in (None, len(whole)) or not self._has_body():
                return whole
            self._written, self._rest = [whole], iter(())  # only in pieces does granian hold it to its length
        return None

    def check(self) -> None:
        """Raise what is wrong with status and headers; granian would end the process, or leave them out."""
        if not self._started:
            raise AssertionError("start_response was not called")
        if not 200 <= int(self.status.split(" ", 1)[0]) <= 999:
            raise ValueError(f"{self.status!r} is no status")
        for name, value in self.headers:
            (name + value).encode("latin-1")
            if _CONTROL.search(name + value):
                raise ValueError(f"the header {name!r} holds a control character")
        self._leaving = True

    def _has_body(self) -> bool:
        return self.environ["REQUEST_METHOD"] != "HEAD" and self.status[:3] not in ("204", "304")

    def _length(self) -> int | None:
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        return int(lengths[0]) if lengths else None

    def _is_short(self) -> bool:
        length = self._length()
        return length is not None and length <= IN_MEMORY_BYTES

    def __next__(self) -> bytes:
        """The next piece of a body that granian sends piece by piece."""
        chunk = self._written.pop(0) if self._written else next(self._rest)
        self.size += len(chunk)
        return chunk

    def close(self) -> None:
        """The end, whatever it came from; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            if (close := getattr(self._iterable, "close", None)) is not None:
                close()
        except BaseException:
            logger.exception("the app failed at the end of an answer")
        finally:
            self._done(self)


class Gateway:
    """Calls *app* for the requests that granian hands on; see the module.

    Its environ has `counter.arrived` and `counter.request_id`, as under waitress.
    """

    def __init__(
        self,
        app: WSGIApplication,
        threads: int,
        lanes: Iterable[str],
        access_log: AccessLog | None,
        most: int,
        is_ending: Callable[[], bool],
    ) -> None:
        self._app = app
        self._places = Places(threads, 2 * threads)
        self._lanes = {path: Places(1, LANE) for path in lanes}
        self._access_log = access_log
        self._most = most
        self._is_ending = is_ending

    def __call__(self, protocol: Any, environ: WSGIEnvironment) -> None:  # noqa: ANN401
        """Answer the request of *environ* over *protocol*, granian's."""
        environ |= _ENVIRON
        if environ["SERVER_PROTOCOL"] == "HTTP/1":
            environ["SERVER_PROTOCOL"] = "HTTP/1.0"
        of(environ)
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as body:
            refusal = self._read(environ, body)
            environ["counter.arrived"] = time.monotonic()
            if refusal is not None:
                self._refuse(
                    protocol, environ, refusal[0], [("Content-Type", "text/plain")], refusal[1].encode()
                )
                return
            places = self._lanes.get(environ["PATH_INFO"], self._places)
            if not places.take():
                self._refuse(protocol, environ, *Overloaded(of(environ)).to_response())
                return
            self._serve(protocol, environ, places)

    def _read(self, environ: WSGIEnvironment, body: Any) -> tuple[str, str] | None:  # noqa: ANN401
        """Take the request's body into the file *body*; what is to be said if it is none."""
        if _head_bytes(environ) > HEADER_BYTES:
            return _LONG_HEAD  # granian's own limit is one on what it reads at once
        if "HTTP_TRANSFER_ENCODING" in environ:
            return _CHUNKED  # granian does not tell the end of one from a client that has gone
        left = int(environ.get("CONTENT_LENGTH") or 0)  # granian has looked at it
        if left > self._most:
            return _TOO_LARGE
        while left:
            piece = environ["wsgi.input"].read(min(left, IN_MEMORY_BYTES))
            if not piece:
                return _CUT
            body.write(piece)
            left -= len(piece)
        body.seek(0)
        environ["wsgi.input"] = body
        return None

    def _serve(self, protocol: Any, environ: WSGIEnvironment, places: Places) -> None:  # noqa: ANN401
        def done(answer: Answer) -> None:
            places.leave()
            self._log(answer)

        answer = Answer(environ, done)
        try:
            whole = answer.begin(self._app(environ, answer.start))
            answer.check()
        except BaseException:  # SystemExit as well: whatever an app raises, its client is answered
            logger.exception(
                "the app failed at %s %s", environ["REQUEST_METHOD"], environ.get("counter.route", OTHER)
            )
            answer.status, answer.headers = "500 Internal Server Error", [("Content-Type", "text/plain")]
            whole = b"Internal Server Error"
        try:
            self._respond(protocol, answer, whole)
        finally:
            answer.close()  # which gives the place back, if nobody else has

    def _refuse(
        self,
        protocol: Any,  # noqa: ANN401
        environ: WSGIEnvironment,
        status: str,
        headers: Headers,
        body: bytes,
    ) -> None:
        """Answer without the app, and close the connection: the rest of the request may be on its way."""
        answer = Answer(environ, self._log)
        answer.status, answer.headers = status, [*headers, ("Connection", "close")]
        if all(name != HEADER for name, _ in headers):
            answer.headers.append((HEADER, of(environ)))
        self._respond(protocol, answer, body)

    def _respond(self, protocol: Any, answer: Answer, whole: bytes | None) -> None:  # noqa: ANN401
        headers = [(name, value if value.isascii() else _utf8(value)) for name, value in answer.headers]
        if self._is_ending():
            headers.append(("Connection", "close"))
        status = int(answer.status[:3])
        if whole is None:
            protocol.response_iter(status, headers, answer)
            return
        answer.size = len(whole)
        answer.close()
        protocol.response_bytes(status, headers, whole)

    def _log(self, answer: Answer) -> None:
        if self._access_log is None:
            return
        environ = answer.environ
        self._access_log.add(
            Served(
                time.time(),
                environ["REQUEST_METHOD"],
                environ.get("counter.route", OTHER),
                environ["PATH_INFO"],
                int(answer.status[:3]),
                time.monotonic() - environ["counter.arrived"],
                answer.size,
                of(environ),
                environ.get("counter.token", ""),
            )
        )


def _utf8(value: str) -> str:
    """What granian sends as the bytes that the app means, if they are UTF-8: it encodes by itself."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _head_bytes(environ: WSGIEnvironment) -> int:
    fields = [(name, value) for name, value in environ.items() if name.startswith("HTTP_")]
    return len(environ["PATH_INFO"] + environ["QUERY_STRING"]) + sum(len(n) + len(v) for n, v in fields)


_ENVIRON = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}
