"""waitress on one socket, and what it lacks: a limit on what is in flight, an end that loses nothing.

**The limit.** More than twice as many connections with a request in flight as there are threads: the next is
answered 503 by the loop itself, without waiting for a thread. Connections are counted, not requests: each
has one at a time, and a client that has its answer may send again before the thread has put its tools away.

**The end.** `stop` closes the door: no more connections are accepted, each answer says `Connection: close`,
and a request that is half read, queued or running is finished. A connection without one is kept for
another moment, because its client may be sending just now.

And where a request's body ends must be plain: see `Parser`.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# (waitress has no type hints; the ones that pyright brings for it are of another version)

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.parser import HTTPRequestParser, ParsingError  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]
from waitress.task import ThreadedTaskDispatcher, WSGITask  # type: ignore[import-untyped]

from .errors import HTTP_PROBLEMS

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

HEADER_BYTES = 32 * 1024
IDLE_SECONDS = 0.5
LOOP_SECONDS = 30.0  # as often as waitress looks for connections to time out; all else wakes the loop


class Overloaded:
    """The answer to a request that is turned away; a waitress error, and so the connection is closed.

    That is good here: the client's next connection may meet a worker that is less busy.
    """

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status line, headers and body."""
        status, title = HTTP_PROBLEMS["overloaded"]
        problem = {
            "type": "/problems/overloaded",
            "title": title,
            "status": status,
            "detail": "every thread is busy and the queue is full; nothing was done; try again in a second",
            "code": "overloaded",
        }
        headers = [("Content-Type", "application/problem+json"), ("Retry-After", "1")]
        return f"{status} Service Unavailable", headers, json.dumps(problem).encode() + b"\n"


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """waitress' threads and their queue, with a limit on the connections that have a request in flight."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._limit = 2 * threads
        self._in_flight: Counter[Channel] = Counter()
        self.set_thread_count(threads)

    def add_task(self, channel: Channel) -> None:
        """Queue the first request of *channel*, or have it turned away."""
        with self.lock:
            admitted = channel in self._in_flight or len(self._in_flight) < self._limit
            if admitted:
                self._in_flight[channel] += 1
        if admitted:
            super().add_task(channel)
        else:
            channel.turn_away()

    def done(self, channel: Channel) -> None:
        """A request of *channel* was served."""
        with self.lock:
            self._in_flight[channel] -= 1
            if not self._in_flight[channel]:
                del self._in_flight[channel]


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """What a client sends, read; refused where a server in front of us could see another end of the body.

    waitress takes the chunks where there is a Content-Length too, and neither with HTTP/1.0, so that the body
    would be read as the next request (RFC 9112, 6.1 and 11.2).
    """

    def parse_header(self, header_plus: bytes) -> None:
        """As waitress does, which takes Transfer-Encoding away where it follows it.

        Raises:
            ParsingError: the end of the body can be read in two ways.
        """
        super().parse_header(header_plus)
        if "TRANSFER_ENCODING" in self.headers or (self.chunked and "CONTENT_LENGTH" in self.headers):
            raise ParsingError("Send a Content-Length, or with HTTP/1.1 Transfer-Encoding, but not both")


class Task(WSGITask):  # type: ignore[misc]
    """A request that the app answers, which finds in its environ how many bytes `counter.unsent` has."""

    def get_environment(self) -> dict[str, Any]:
        """As waitress does, and how much of what was answered waits for the client to read it."""
        environ: dict[str, Any] = super().get_environment()
        environ["counter.unsent"] = lambda: self.channel.total_outbufs_len
        return environ

    def build_response_header(self) -> bytes:
        """As waitress does, but without a promise to listen on if the server is to end."""
        if not self.channel.server.accepting:
            self.request.headers["CONNECTION"] = "close"  # so waitress thinks that the client wants it
        header: bytes = super().build_response_header()
        return header

    def finish(self) -> None:
        """As waitress does, which would end the body of an answer to HEAD, where there is none."""
        if self.request.command == "HEAD":
            self.write(b"")
            self.chunked_response = False
        super().finish()


class Channel(HTTPChannel):  # type: ignore[misc]
    """A client's connection."""

    parser_class = Parser
    task_class = Task
    _turned_away = False

    def check_client_disconnected(self) -> bool:
        """As waitress does, which reads no further, and so notices nothing, behind a second request."""
        return super().check_client_disconnected() or self._hung_up()

    def _hung_up(self) -> bool:
        hangup = select.poll()
        try:
            hangup.register(self.socket, getattr(select, "POLLRDHUP", 0))
            return bool(hangup.poll(0))
        except (OSError, ValueError):  # closed by the loop meanwhile
            return True

    def turn_away(self) -> None:
        """Have the request answered 503. Called by the dispatcher, inside `received`, which holds a lock."""
        self.requests[0].error = self.requests[0].error or Overloaded()
        self._turned_away = True

    def received(self, data: bytes) -> bool:
        """Take *data* in; in the loop's thread."""
        more: bool = super().received(data)
        while self._turned_away:
            self._turned_away = False
            super().service()  # an error's answer is short, and never waits
        return more

    def service(self) -> None:
        """Answer the first request; in a thread of the dispatcher."""
        try:
            super().service()
        finally:
            self.server.task_dispatcher.done(self)

    def close_if_idle(self) -> None:
        """Close it unless a request is being read or served, or an answer sent; in the loop's thread."""
        if not (self.requests or self.request or self.total_outbufs_len):
            self.handle_close()


class WaitressServer:
    """*app* on the bound socket *listener*, with *threads* threads and other *settings* of waitress."""

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        threads: int,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        self.stopping = threading.Event()
        self._map: dict[int, Any] = {}
        self._dispatcher = Dispatcher(threads)
        self._server = create_server(
            app,
            map=self._map,
            _dispatcher=self._dispatcher,
            sockets=[listener],
            threads=threads,
            ident=None,
            max_request_header_size=HEADER_BYTES,
            channel_request_lookahead=1,  # or nobody notices that a client has gone
            asyncore_use_poll=True,
            **settings,
        )
        self._server.channel_class = Channel

    def run(self, grace: float) -> None:
        """Serve until `stop` is called; then at most *grace* seconds more for what is in flight."""
        while not self.stopping.is_set():
            self._turn(LOOP_SECONDS)
        self._drain(grace)
        self._dispatcher.shutdown(timeout=0.5)
        wasyncore.close_all(self._map)

    def stop(self) -> None:
        """Make `run` end. For signal handlers and other threads."""
        if not self.stopping.is_set():
            self.stopping.set()
            with contextlib.suppress(OSError):  # `run` has seen it already, and closed all
                self._server.pull_trigger()

    def _turn(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)

    def _drain(self, grace: float) -> None:
        now = time.monotonic()
        idle_until, deadline = now + min(IDLE_SECONDS, grace), now + grace
        wasyncore.dispatcher.close(self._server)  # the listener; not what else its own close() would
        channels = self._server.active_channels
        while channels and now < deadline:
            self._turn(max(idle_until, now) - now or deadline - now)
            now = time.monotonic()
            for channel in list(channels.values()) if now >= idle_until else ():
                channel.close_if_idle()
