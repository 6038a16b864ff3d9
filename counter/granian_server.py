"""granian's worker on one socket, in our process, and what it lacks: our rules for what reaches an app.

granian, in Rust, accepts connections, reads heads and sends answers, and calls `Gateway` in a thread for each
request that has its head. There a request waits for the rest of itself first, and only then, if it is
admitted, for one of a few places: so who sends slowly holds a thread, of which there can be many, and nobody
up. Who is turned away is told as under waitress.

This is granian's own inside, and changes with its versions: one that is built differently is refused.

**The end.** `stop` has each answer say `Connection: close`, and after another moment, in which a client may
be sending just now, granian ends what is idle and finishes what is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .access import AccessLog, Served
from .admission import LANE, Overloaded
from .errors import Unsupported
from .extras import extra
from .information import OTHER
from .request_ids import HEADER, of
from .request_parser import HEADER_BYTES
from .waitress_server import IDLE_SECONDS, IN_MEMORY_BYTES

with extra("granian", needed_by=__name__):
    from granian import _futures, _granian
    from granian.http import HTTP1Settings

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

TRIED = "2.8"
"""The version of granian that this was written for."""
BACKLOG = 1024
HEAD_SECONDS = 30
"""How long a connection may take to send the head of a request, and may be idle before."""
APP_BODY = 1024 * 1024 * 1024  # as waitress has it
_CHUNKED = "411 Length Required", "send a Content-Length: chunked bodies are not taken here"
_TOO_LARGE = "413 Request Entity Too Large", "the body is too large"
_LONG_HEAD = "431 Request Header Fields Too Large", f"headers have at most {HEADER_BYTES} bytes"
_CUT = "400 Bad Request", "the body is shorter than its Content-Length"

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
        self._iterable: Iterable[bytes] = ()
        self._rest: Iterator[bytes] = iter(())

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:  # noqa: ANN401
        """The `start_response` of WSGI."""
        self.status, self.headers = status, headers
        return self._written.append

    def begin(self, iterable: Iterable[bytes]) -> bytes | None:
        """Take the body's beginning out of *iterable*: all of it if it is short, None if more follows."""
        self._iterable = iterable
        self._rest = iter(iterable)
        first = next((chunk for chunk in self._rest if chunk), b"")  # by then the app has called `start`
        self._written.append(first)
        if not first or isinstance(iterable, list) or self._is_short():
            return b"".join([*self._written, *self._rest])
        return None

    def _is_short(self) -> bool:
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        return bool(lengths) and int(lengths[0]) <= IN_MEMORY_BYTES

    def __next__(self) -> bytes:
        """The next piece of a body that granian sends piece by piece."""
        chunk = self._written.pop(0) if self._written else next(self._rest)
        self.size += len(chunk)
        return chunk

    def close(self) -> None:
        """The end, whatever it came from; granian calls it once."""
        try:
            if (close := getattr(self._iterable, "close", None)) is not None:
                close()
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
        except Exception:  # whatever an app raises, its client is answered
            logger.exception(
                "the app failed at %s %s", environ["REQUEST_METHOD"], environ.get("counter.route", OTHER)
            )
            answer.status, answer.headers = "500 Internal Server Error", [("Content-Type", "text/plain")]
            whole = b"Internal Server Error"
        self._respond(protocol, answer, whole)

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
        headers = [*answer.headers, ("Connection", "close")] if self._is_ending() else answer.headers
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


class GranianServer:
    """*app* on the bound socket *listener*, *threads* requests at a time; all else as of `WaitressServer`."""

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        threads: int,
        lanes: Iterable[str] = (),
        access_log: AccessLog | None = None,
        connection_limit: int = 1000,
        max_request_body_size: int = APP_BODY,
    ) -> None:
        logging.getLogger("_granian").setLevel(logging.WARNING)  # the supervisor says who is started
        self.stopping = threading.Event()
        self._end: queue.SimpleQueue[None] = queue.SimpleQueue()  # which a signal handler may put into
        self._ended = threading.Event()
        self._signal = _granian.WorkerSignal()
        self._signal.add_cb(self._ended.set)
        self._gateway = Gateway(app, threads, lanes, access_log, max_request_body_size, self.stopping.is_set)
        native: Any = _granian  # whose type hints are of another version
        has_backlog = sys.platform.startswith(("linux", "freebsd"))
        try:
            shared = native.SocketHolder(listener.detach(), False, *([BACKLOG] if has_backlog else ()))
            self._worker = native.WSGIWorker(
                1,
                (None, shared),
                None,
                py_threads=connection_limit,
                backpressure=connection_limit,
                http_mode="1",
                http1_opts=HTTP1Settings(
                    header_read_timeout=1000 * HEAD_SECONDS, max_buffer_size=HEADER_BYTES
                ),
            )
            self._serve, self._schedule = self._worker.serve_mtr, _futures._new_cbscheduler
        except (AttributeError, TypeError) as error:
            there = version("granian")
            raise Unsupported(
                f"granian {there} is built differently inside ({error}): install {TRIED}, or use waitress"
            ) from error

    def run(self, grace: float) -> None:
        """Serve until `stop` is called; then at most *grace* seconds more for what is in flight."""
        with contextlib.closing(asyncio.new_event_loop()) as unused:  # only apps of other kinds need one
            schedule: Any = self._schedule
            self._serve(schedule(unused, self._gateway), unused, self._signal)
            self._end.get()
            idle = min(IDLE_SECONDS, grace)
            time.sleep(idle)
            self._signal.set()
            self._ended.wait(grace - idle)

    def stop(self) -> None:
        """Make `run` end. For signal handlers and other threads."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._end.put(None)
