"""One worker process: an app, served on a socket that the supervisor bound and other workers share.

The supervisor starts it as ``python -m counter.worker LINK SOCKET FOLDER [APP]``: two file descriptors, the
current folder of whoever started it all, and what to serve if not the HTTP API. It says over the link when
its app is imported, its socket served and the manager has answered.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import os
import re
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from . import logs
from .access import AccessLog, json_line, text_line
from .errors import CounterError, InvalidRequest
from .link import Link
from .meter import REPORT_SECONDS, Meter
from .ops import Info, Request
from .settings import ACCESS_LOG, DEFAULT_SERVER, LOG_NAMES, SERVER, SERVERS, number, switch
from .store import Store, open_store

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

API = "counter.web:create_app"
API_BODY = 2 * 1024 * 1024  # above the API's own caps, so that it is the API that says 413
PROBES = ("/livez", "/readyz", "/metrics")
"""Paths of the API that are answered however busy it is; an app of one's own keeps its own rules."""
GRACE = 10.0
"""Seconds for requests in flight after SIGTERM."""
CONNECTIONS = 1000

logger = logging.getLogger("counter.worker")

_APP = re.compile(r"(?P<module>\w+(\.\w+)*):(?P<name>\w+(\.\w+)*)(?P<call>\(\))?")


def parse_app(spec: str) -> tuple[str, str, bool]:
    """The module, the name in it, and whether ``()`` follows, of an APP such as ``app:app``.

    Raises:
        InvalidRequest: it has another form.
    """
    match = _APP.fullmatch(spec)
    if match is None:
        raise InvalidRequest(f"APP is MODULE:NAME, such as app:app or shop.web:create_app, not {spec!r}")
    return match["module"], match["name"], match["call"] is not None


def load_app(spec: str) -> WSGIApplication:
    """The WSGI app that *spec* names, or that the factory makes which it names.

    What can be called without arguments is a factory, with or without ``()`` after its name.

    Raises:
        InvalidRequest: it cannot be imported, or is no app; the cause is what the import raised.
    """
    module, name, call = parse_app(spec)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        if call or _is_factory(found):
            found = found()
    except (Exception, SystemExit) as exc:
        raise InvalidRequest(f"cannot load the app {spec}: {type(exc).__name__}: {exc}") from exc
    if not callable(found):
        what = f"{'an' if type(found).__name__[0] in 'aeiou' else 'a'} {type(found).__name__}"
        raise InvalidRequest(f"cannot load the app {spec}: it is {what}, not a WSGI app or a factory of one")
    return cast("WSGIApplication", found)


def _is_factory(found: object) -> bool:
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False  # it needs arguments, as every WSGI app does, or does not tell
    return True


class Server(Protocol):
    """What serves an app on a socket: `WaitressServer`, or another with the same arguments."""

    stopping: threading.Event

    def run(self, grace: float) -> None:
        """Serve until `stop` is called; then at most *grace* seconds more for what is in flight."""

    def stop(self) -> None:
        """Make `run` end. For signal handlers and other threads."""


def load_server(name: str, source: str = SERVER) -> Callable[..., Server]:
    """The class of the server *name*, which is one of `SERVERS`.

    Args:
        name: which.
        source: where it was said, for the error.

    Raises:
        InvalidRequest: there is none of this name, or it is not installed; says how to.
    """
    if name not in SERVERS:
        raise InvalidRequest(f"{source} is {' or '.join(SERVERS)}, not {name!r}")
    module, _, attribute = SERVERS[name].partition(":")
    try:
        found: Callable[..., Server] = getattr(importlib.import_module(module), attribute)
    except ImportError as exc:
        raise InvalidRequest(f"{source}: {exc}") from exc
    return found


class Worker:
    """An app on a socket, its meter, and its talk with the manager."""

    def __init__(self, app: WSGIApplication, store: Store, listener: socket.socket, **settings: Any) -> None:  # noqa: ANN401
        self._store = store
        self.meter = Meter(app, store, self._is_stopping)
        self._access_log = access_log()
        self.server = load_server(os.environ.get(SERVER, DEFAULT_SERVER))(
            self.meter, listener, int(number("threads")), access_log=self._access_log, **settings
        )

    def run(self, ready: Callable[[str], None]) -> None:
        """Serve until `server.stop`, then finish what is in flight; *ready* is told the durability mode."""
        threading.Thread(target=self._talk, args=[ready], name="report", daemon=True).start()
        self.server.run(GRACE)
        self.meter.report()
        if self._access_log is not None:
            self._access_log.close()

    def _is_stopping(self) -> bool:
        return self.server.stopping.is_set()

    def _talk(self, ready: Callable[[str], None]) -> None:
        mode = self._wait_for_manager()
        self.meter.report()  # so the manager knows us from the first moment
        if mode is not None:
            ready(mode)
        while not self.server.stopping.wait(REPORT_SECONDS):
            self.meter.report()

    def _wait_for_manager(self) -> str | None:
        """Its durability mode once it answers; None if we are to stop before."""
        told = ""
        while not self.server.stopping.is_set():
            try:
                # with all that our requests may have: a manager of an earlier version does not know it, and
                # then the workers of before go on
                asked = Request([Info()], request_id="ready")
                mode: str = self._store.execute(asked).only().durability
            except CounterError as error:
                if str(error) != told:
                    told = str(error)
                    logger.warning("waiting for the manager: %s", told)
            else:
                return mode
            self.server.stopping.wait(REPORT_SECONDS)
        return None


def access_log() -> AccessLog | None:
    """The one that the environment asks for, if it does.

    Raises:
        InvalidRequest: a setting holds a value that is none.
    """
    if not switch(os.environ.get(ACCESS_LOG), ACCESS_LOG):
        return None
    line = json_line if os.environ.get(logs.VARIABLE) == "json" else text_line
    return AccessLog(line("worker", switch(os.environ.get(LOG_NAMES), LOG_NAMES)))


def main(arguments: list[str]) -> int:
    """Be the worker that *arguments* ask for; the exit code."""
    link_file, listener_file, folder, *app = arguments
    for number_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_, lambda *_: os._exit(0))  # nothing is served yet
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is where the log is
    logs.configure("worker", os.environ.get(logs.VARIABLE, "text"))
    link = Link(int(link_file))
    link.watch()
    listener = socket.socket(fileno=int(listener_file))
    listener.set_inheritable(False)
    _enter(folder)
    spec = app[0] if app else API
    url = os.environ["COUNTER_URL"]  # looked at first: what an app makes of its environment is its own
    try:
        found = load_app(spec)
        store = open_store(f"{url}?role=worker")
        settings: dict[str, Any] = {} if app else {"max_request_body_size": API_BODY, "lanes": PROBES}
        worker = Worker(found, store, listener, connection_limit=_connections(), **settings)
    except InvalidRequest as error:
        logger.error("%s", error, exc_info=error.__cause__ if _is_in_the_app(error.__cause__) else None)
        return 3
    for number_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_, lambda *_: worker.server.stop())
    worker.run(link.say_ready)
    return 0


def _enter(folder: str) -> None:
    """Be in *folder*, and import from there first."""
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this package, where -m found it
    os.chdir(folder)
    sys.path.insert(0, folder)


def _is_in_the_app(error: BaseException | None) -> bool:
    """Whether the app's own code raised *error*, so that its author needs to see where."""
    trace = error.__traceback__ if error else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = trace.tb_frame.f_code.co_filename if trace else __file__
    return where != __file__ and not where.startswith("<frozen importlib")


def _connections() -> int:
    """Most connections at once, each of which may take three files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS if hard == resource.RLIM_INFINITY else min(4 * CONNECTIONS, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return min(CONNECTIONS, max(soft, wanted) // 4)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
