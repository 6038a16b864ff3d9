"""A client's connection to waitress, and what is answered on it.

Who sends on and on and does not read is not answered on and on, and the loop is woken up only where it has
something to do. What is read of a request is in `request_parser`.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# pyright: reportIncompatibleVariableOverride=false
# (waitress has no type hints; the ones that pyright brings for it are of another version)

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator
from typing import Any

from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.task import ErrorTask, WSGITask  # type: ignore[import-untyped]
from waitress.task import Task as WaitressTask

from .access import Served
from .admission import Overloaded
from .at_once import send_at_once
from .information import OTHER
from .request_ids import ENVIRON
from .request_parser import Parser

IN_MEMORY_BYTES = 64 * 1024
"""What a body, or an answer that waits for its reader, has in memory; the rest is in a file."""
MOST_LATER = 16


class Answering(WaitressTask):  # type: ignore[misc]
    """What all answers have in common."""

    environ: dict[str, Any] | None = None
    _sent = 0

    def service(self) -> None:
        """As waitress does, and tell the access log, if there is one."""
        try:
            super().service()
        except Exception:
            if self.channel.connected and not self.wrote_header:
                self.status = "500"  # which waitress answers, by a request of its own
            raise
        finally:
            log = self.channel.server.access_log
            if log is not None and hasattr(self.request, "arrived"):  # not for that one, which nobody sent
                log.add(self._served())

    def _served(self) -> Served:
        request, environ, now = self.request, self.environ or {}, time.monotonic()
        return Served(
            time.time(),
            request.command,
            environ.get("counter.route", OTHER),
            request.path,
            int(self.status[:3]),
            now - request.arrived,
            self._sent,
            request.id,
            environ.get("counter.token", ""),
        )

    def write(self, data: bytes) -> None:
        """As waitress does, but headers and first bytes in one, as each sending wakes the client up."""
        self._sent += len(data) if self.has_body else 0
        if self.wrote_header or not data:
            super().write(data)
            return
        with self.channel.in_one_piece():
            super().write(data)


class Refusal(Answering, ErrorTask):  # type: ignore[misc]
    """A request that the app is not asked about."""


class Task(Answering, WSGITask):  # type: ignore[misc]
    """A request that the app answers.

    Its environ has `counter.arrived`, when it was there (monotonic clock, seconds), `counter.request_id`, and
    `counter.unsent`, how many bytes of what was answered the client has not read.
    """

    def get_environment(self) -> dict[str, Any]:
        """As waitress does, and what the class says."""
        environ: dict[str, Any] = super().get_environment()
        environ["counter.arrived"] = self.request.arrived
        environ[ENVIRON] = self.request.id
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


class _LoopOf:
    """The server as one channel sees it, which wakes the loop up only if there is something to be done.

    waitress does it after each answer, though the loop waits for the next request as long as one may be read
    ahead: a thread switch each time, and the lock of Python with it.
    """

    def __init__(self, channel: Channel, server: Any) -> None:  # noqa: ANN401
        self._channel = channel
        self._server = server

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._server, name)

    def add_task(self, channel: Channel) -> None:
        if not channel.waits_for_its_reader():
            self._server.add_task(channel)

    def pull_trigger(self) -> None:
        if self._channel.needs_loop:
            self._server.pull_trigger()


class Channel(HTTPChannel):  # type: ignore[misc]
    """A client's connection."""

    parser_class = Parser
    task_class = Task
    error_task_class = Refusal
    requests: list[Parser]
    _turned_away = False
    _in_thread = False  # one of the dispatcher's is at work on it
    _pieces: list[bytes] | None = None

    def __init__(self, server: Any, *others: Any, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(_LoopOf(self, server), *others, **settings)
        self._later: list[Parser] = []

    def send(self, data: bytes, do_close: bool = True) -> int:
        """As waitress does, but a thread keeps Python's lock where the loop cannot be closing the socket.

        The loop does, as it turns away whom no thread has room for: what was let in comes first.
        """
        if self._in_thread and self.connected:  # else its number may be another's before it is used
            with contextlib.suppress(OSError):  # waitress meets it as well
                return send_at_once(self.socket, data)
        sent: int = super().send(data, do_close)
        return sent

    @contextlib.contextmanager
    def in_one_piece(self) -> Iterator[None]:
        """What is written in this block is sent at its end, together."""
        self._pieces = []
        try:
            yield
        finally:
            pieces, self._pieces = self._pieces, None
            self.write_soon(b"".join(pieces))

    def write_soon(self, data: Any) -> int:  # noqa: ANN401
        """As waitress does, but with what comes next if that is wanted; of much it keeps what is left."""
        if self._pieces is not None:
            self._pieces.append(data)
            return len(data)
        sent = 0
        with self.outbuf_lock:
            much = isinstance(data, bytes) and len(data) >= IN_MEMORY_BYTES
            if much and self.connected and not self.total_outbufs_len:
                with contextlib.suppress(OSError):  # waitress meets it as well
                    sent = self.send(data, do_close=False)
            left: int = super().write_soon(data[sent:] if sent else data)
        return sent + left

    @property
    def needs_loop(self) -> bool:
        """Whether the loop has to look at this channel anew: it may be asleep without waiting for it."""
        return bool(
            self.total_outbufs_len
            or self.requests
            or self.close_when_flushed
            or self.will_close
            or not self.server.accepting  # the end waits for what is idle
        )

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
        request = self.requests[0]
        request.error = request.error or Overloaded(request.id)
        self._turned_away = True

    def received(self, data: bytes) -> bool:
        """Take *data* in; in the loop's thread."""
        more: bool = super().received(data)
        self._refuse()
        return more

    def _refuse(self) -> None:
        while self._turned_away:
            self._turned_away = False
            super().service()  # an error's answer is short, and never waits

    def service(self) -> None:
        """Answer the first request; in a thread of the dispatcher."""
        lane = self.server.task_dispatcher.lane(self)
        self._in_thread = True
        try:
            super().service()
        finally:
            self._in_thread = False
            lane.done(self)
        self._refuse()

    def waits_for_its_reader(self) -> bool:
        """Whether there is an answer that the client has yet to read; its next requests are kept until then.

        Else one that sends many at once and reads nothing would fill the memory, and then hold every thread.
        Where they are too many to keep, the connection ends with that answer.
        """
        with self.outbuf_lock:
            if not (self.total_outbufs_len or self._later):
                return False
            self._later += self.requests
            self.requests = []
            if len(self._later) > MOST_LATER:
                self._later = []
                self.close_when_flushed = True
            return True

    def handle_write(self) -> None:
        """As waitress does, and go on with the requests that waited for it; in the loop's thread."""
        super().handle_write()
        if self._later and self.connected and not self.total_outbufs_len:
            with self.requests_lock:
                self.requests, self._later = self._later, []
                self.server.add_task(self)
            self._refuse()

    def close_if_idle(self) -> None:
        """Close it unless a request is being read or served, or an answer sent; in the loop's thread."""
        if not (self.requests or self.request or self.total_outbufs_len):
            self.handle_close()
