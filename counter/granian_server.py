"""granian's worker on one socket, in our process, with `Gateway` between it and an app.

granian, in Rust, accepts connections, reads heads and sends answers. This is its own inside, and changes with
its versions: one that is built differently is refused.

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
import threading
import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .access import AccessLog
from .errors import InvalidRequest
from .extras import extra
from .gateway import Gateway
from .request_parser import HEADER_BYTES
from .waitress_server import IDLE_SECONDS

with extra("granian", needed_by=__name__):
    from granian import _futures, _granian
    from granian.http import HTTP1Settings

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

TRIED = "2.8"
"""The version of granian that this was written for."""
BACKLOG = 1024
HEAD_SECONDS = 30
"""How long a connection may take to send the head of a request, and may be idle before."""
APP_BODY = 1024 * 1024 * 1024  # as waitress has it


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
            raise InvalidRequest(
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
