"""Counters in a Flask app: `FlaskCounter`, bound to whichever app is current, and the store that an app has.

hits = FlaskCounter()            # beside the other extensions
hits.init_app(app)               # where the app is made
hits.increment("page")           # in a view
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Flask, Response, current_app, has_app_context, request
from msgspec import structs

from . import request_ids
from .errors import CounterError, InvalidRequest, StoreFailure, StoreUnavailable
from .ops import Request
from .problems import MEDIA_TYPE, ProblemDocument, document
from .results import Reply
from .settings import SETTINGS
from .shared_counter import SharedCounter
from .store import Store, open_store

EXTENSION = "counter"
"""Where an app keeps its store: `app.extensions["counter"]`."""
RETRY_AFTER = ("Retry-After", "1")

log = logging.getLogger(__name__)


class FlaskCounter(SharedCounter):
    """A `SharedCounter` of the current app: one global name for any number of apps, each with its counters.

    They are those of the app's config COUNTER_URL, else of the environment's, else of the manager in its
    usual home; COUNTER_TIMEOUT in the config is how many seconds a call may take. Both are read at each call,
    and nothing is opened before the first. A view of it, made at import, is bound to the current app as well.

    A call outside an app context, or for an app without `init_app`, raises `RuntimeError`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        super().__init__(_CurrentStore())
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Let *app* count. Connects to nothing and starts nothing.

        A `StoreUnavailable` that a view lets pass is answered with 503 and Retry-After from now on, an
        `OutcomeUnknown` with 504, both as `application/problem+json`. A handler of yours for one of them, or
        for `CounterError`, goes before, whether it is registered earlier or later; all other errors are left
        to the app.
        """
        app.extensions.setdefault(EXTENSION, AppStore(app.config))
        app.register_error_handler(StoreFailure, _answer)


class _Relay(Store):
    """A store that hands everything on to another, which it looks up each time."""

    @abstractmethod
    def _target(self) -> Store: ...

    @property
    def capabilities(self) -> frozenset[str]:  # type: ignore[override]
        """Those of the store behind it."""
        return self._target().capabilities

    @property
    def prefix(self) -> str:  # type: ignore[override]
        """That of the store behind it."""
        return self._target().prefix

    @property
    def whole(self) -> Store:
        """That of the store behind it."""
        return self._target().whole

    def execute(self, request: Request, timeout: float | None = None) -> Reply:
        """As the store behind it."""
        return self._target().execute(request, timeout)

    def close(self) -> None:
        """As the store behind it."""
        self._target().close()


class AppStore(_Relay):
    """The counters of one app, whatever counts in it.

    Args:
        config: the app's, of which COUNTER_URL and COUNTER_TIMEOUT are read at each call.
        store: the counters, if no URL is to say where they are.
    """

    def __init__(self, config: Mapping[str, Any], store: Store | None = None) -> None:
        self._config = config
        self._store = store

    def execute(self, request: Request, timeout: float | None = None) -> Reply:
        """As every store does; *timeout* is by default that of the config, if it has one.

        Raises:
            RuntimeError: COUNTER_URL or COUNTER_TIMEOUT cannot be used: a mistake of the app, not of whoever
                asks it.
        """
        given = self._config.get("COUNTER_TIMEOUT")
        if timeout is None and given is not None:
            try:
                timeout = SETTINGS["timeout"].parse(str(given))
            except InvalidRequest as exc:
                raise RuntimeError(str(exc)) from exc
        return super().execute(request, timeout)

    def _target(self) -> Store:
        if self._store is not None:
            return self._store
        try:
            return open_store(self._config.get("COUNTER_URL") or None)
        except InvalidRequest as exc:
            raise RuntimeError(f"COUNTER_URL: {exc}") from exc


class _CurrentStore(_Relay):
    """The store of whichever app is current."""

    def __repr__(self) -> str:
        return "of the current app"

    def _target(self) -> Store:
        if not has_app_context():
            raise RuntimeError(
                "a FlaskCounter counts for the current app, and there is none here: call it in a request or "
                "in `with app.app_context():`; a program without an app takes counter.connect()"
            )
        store: Store | None = current_app.extensions.get(EXTENSION)
        if store is None:
            raise RuntimeError(
                f"the app {current_app.name!r} has no FlaskCounter: call init_app(app) where it is made"
            )
        return store


def store_of(app: Flask) -> Store:
    """The counters of *app*, whether or not there is a `FlaskCounter` for it."""
    store: Store = app.extensions.get(EXTENSION) or AppStore(app.config)
    return store


def failure(error: CounterError, detail: str, base: str = "") -> ProblemDocument:
    """*error*, a store's that did not answer, for strangers: with *detail* in place of its own.

    Its own names folders of this host and is for the log. *base* is as of `problems.document`.
    """
    told = request.method, error.code, error.detail, request_ids.of(request.environ)
    log.warning("%s %s: %s (request %s)", *told)
    return structs.replace(document(error, base), detail=detail)


def _answer(error: CounterError) -> Response:
    """What a visitor of the app gets for *error*, of a view that may have done other things before."""
    if isinstance(error, StoreUnavailable):
        detail, headers = f"{error.title.lower()}: ask again after the seconds in Retry-After", [RETRY_AFTER]
    else:
        detail, headers = "no answer came in time: what was to be counted may be counted, or not", []
    # The page that `type` leads to is the API's, which need not be there.
    told = structs.replace(failure(error, detail), type="about:blank")
    return Response(msgspec.json.encode(told) + b"\n", told.status, headers, content_type=MEDIA_TYPE)
