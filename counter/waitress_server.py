"""waitress on one socket, and what it lacks: a limit on what is in flight, an end that loses nothing.

Who gets a thread, and who is turned away, is in `admission`.

**The end.** `stop` closes the door: no more connections are accepted, each answer says `Connection: close`,
and a request that is half read, queued or running is finished. A connection without one is kept for
another moment, because its client may be sending just now.

**The crowd.** Where all connections are taken, those that are idle make room for others. What one connection
may ask for is in `waitress_channel`.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# pyright: reportIncompatibleVariableOverride=false
# (waitress has no type hints; the ones that pyright brings for it are of another version)

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]

from .access import AccessLog
from .admission import Dispatcher
from .request_parser import HEADER_BYTES
from .waitress_channel import IN_MEMORY_BYTES, Channel

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

IDLE_SECONDS = 0.5
LOOP_SECONDS = 30.0  # as often as waitress looks for connections to time out; all else wakes the loop


class WaitressServer:
    """*app* on the bound socket *listener*, with *threads* threads and other *settings* of waitress.

    Requests for the paths *lanes* do not wait for these threads: see `admission`. *access_log* is told of
    every request.
    """

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        threads: int,
        lanes: Iterable[str] = (),
        access_log: AccessLog | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        self.stopping = threading.Event()
        self._map: dict[int, Any] = {}
        self._dispatcher = Dispatcher(threads, 2 * threads, lanes)
        self._server = create_server(
            app,
            map=self._map,
            _dispatcher=self._dispatcher,
            sockets=[listener],
            threads=threads,
            ident=None,
            max_request_header_size=HEADER_BYTES,
            channel_request_lookahead=1,  # or nobody notices that a client has gone
            inbuf_overflow=IN_MEMORY_BYTES,
            outbuf_overflow=IN_MEMORY_BYTES,
            asyncore_use_poll=True,
            **settings,
        )
        self._server.channel_class = Channel
        self._server.access_log = access_log

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
        """As wasyncore.poll2, which has no place for what comes right before it waits."""
        if len(self._map) >= self._server.adj.connection_limit:
            self._make_room()
        waiting = select.poll()
        for number, one in list(self._map.items()):
            flags = select.POLLIN | select.POLLPRI if one.readable() else 0
            if one.writable() and not one.accepting:
                flags |= select.POLLOUT
            if flags:
                waiting.register(number, flags)
        self._dispatcher.announce()
        for number, flags in waiting.poll(timeout * 1000):
            if (one := self._map.get(number)) is not None:
                wasyncore.readwrite(one, flags)

    def _make_room(self) -> None:
        """Close the tenth of the connections that was idle the longest; else nobody else would get in."""
        idle = [channel for channel in self._server.active_channels.values() if not channel.requests]
        idle.sort(key=lambda channel: channel.last_activity)
        for channel in idle[: 1 + self._server.adj.connection_limit // 10]:
            channel.handle_close()

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
