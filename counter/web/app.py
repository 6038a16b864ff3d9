"""The doors into Flask: every address of the API, its guard, and the app that holds them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.sansio.blueprints import BlueprintSetupState
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Rule, WebsocketMismatch

from ..errors import CounterError, InvalidRequest, JournalFull, OutcomeUnknown, StoreUnavailable
from ..flask import RETRY_AFTER, failure
from ..information import OTHER
from ..logs import Withheld
from ..problems import MEDIA_TYPE, HttpError, document
from ..store import Store
from . import authorization, changes, counters, metrics, openapi, pages, rate_limit, security, system
from .call import Answer, Call, Handler, json_answer
from .config import api_of, install
from .idempotency import parse_key
from .watcher import watcher_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

log = logging.getLogger(__name__)

_REST = "counter_rest"


class RestConverter(BaseConverter):
    """All that is left of a path, slashes and nothing at all included."""

    regex = r"[\s\S]*"
    part_isolating = False
    weight = 300


def _nowhere(call: Call) -> Answer:
    raise HttpError("no-such-route", "there is nothing at this address; counters are at /v1/counters/{name}")


class _Response(Response):
    """An answer whose headers are complete from the start, and go out as they are unless an app changed them.

    Werkzeug makes another list of them, each through its checks, and looks for what could be missing.
    """

    complete: list[tuple[str, str]] | None = None

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        if self.status_code == 200 and [*self.headers] == self.complete:
            return self.headers
        return super().get_wsgi_headers(environ)


ROUTES: dict[str, Handler] = {
    "/v1/counters": counters.counters,
    f"/v1/counters/<{_REST}:rest>": counters.counter,
    "/v1/batch": counters.batch,
    "/v1/changes": changes.changes,
    "/v1/events": changes.events,
    "/v1/info": system.info,
    f"/v1/<{_REST}:rest>": _nowhere,
    "/livez": system.alive,
    "/readyz": system.ready,
    "/metrics": metrics.metrics,
    "/openapi.json": openapi.mounted,
    f"/problems/<{_REST}:rest>": pages.problem,
}
"""What a blueprint brings; a path with a rest below one without."""
_RESTS = {f"/v1/counters/<{_REST}:rest>": "{name}", f"/problems/<{_REST}:rest>": "{code}"}
OWN_ROUTES: dict[str, Handler] = {
    "/": pages.home,
    "/openapi.json": openapi.whole,
    f"/<{_REST}:rest>": _nowhere,
}
"""What the API has besides where the whole app is its own."""


def create_app(store: Store | None = None, **config: Any) -> Flask:  # noqa: ANN401
    """The HTTP API as an app.

    Nothing is connected yet. Settings are Flask config, from *config*, from `FLASK_COUNTER_…`, else from
    `COUNTER_…` in the environment: COUNTER_URL, COUNTER_MAX_BODY, COUNTER_ALLOW_HOSTS, COUNTER_TIMEOUT,
    COUNTER_TOKENS (a file), COUNTER_OPEN_METRICS.

    Args:
        store: the counters to serve; if left out, those of COUNTER_URL.
        config: Flask config.

    Raises:
        InvalidRequest: a setting holds a value that is none.
    """
    app = Flask(__name__, static_folder=None)
    app.config.from_prefixed_env()
    app.config.from_mapping(config)
    install(app, store)
    app.register_blueprint(_blueprint(ROUTES | OWN_ROUTES))
    app.register_error_handler(Exception, _flask_refusal)
    return app


def api_blueprint() -> Blueprint:
    """The HTTP API for an app of yours: register it, with a `url_prefix` if you like.

    Its rules (who may ask, sizes of bodies, error pages) are for its own addresses; your app keeps its own.
    It reads the same `COUNTER_…` settings from the app's config.
    """
    return _blueprint(ROUTES)


def _blueprint(routes: dict[str, Handler]) -> Blueprint:
    blueprint = Blueprint("counter_api", __name__, template_folder="templates")

    def register(state: BlueprintSetupState) -> None:
        state.app.url_map.converters[_REST] = RestConverter
        for path, handler in routes.items():
            _add_route(state, path, handler)

    blueprint.record(register)
    return blueprint


def _add_route(state: BlueprintSetupState, path: str, handler: Handler) -> None:
    """For every method, which `add_url_rule` cannot: so that no refusal is Flask's own."""
    prefix = (state.url_prefix or "").rstrip("/")
    endpoint = f"{state.name_prefix}.{state.name}.{handler.__name__.strip('_')}".lstrip(".")
    rule = Rule(prefix + path, endpoint=endpoint, subdomain=state.subdomain, merge_slashes=False)
    state.app.url_map.add(rule)
    route = OTHER if handler is _nowhere else path.replace(f"<{_REST}:rest>", _RESTS.get(path, ""))
    state.app.view_functions[endpoint] = _serve(handler, cast(Flask, state.app), prefix, route)


def _serve(handler: Handler, app: Flask, prefix: str = "", route: str = OTHER) -> Callable[..., Response]:
    """*handler* as a view of *app*: guarded, counted as *route*, and with an answer to whatever happens."""

    def view(rest: str = "") -> Response:
        call = Call(request.environ, api_of(app), prefix, rest)
        try:
            security.check(call.environ, call.api.config.allow_hosts)
            call.token = authorization.check(call.environ, route, call.api.config)
            _count_for_limit(call, route)
            if call.unsafe and (key := call.header("IDEMPOTENCY_KEY")) is not None:
                call.key = parse_key(key)
            answer = handler(call)
        except (CounterError, HttpError) as error:
            answer = _problem(call, error)
        except Exception as error:  # noqa: BLE001  (a client gets an answer whatever happens)
            _log_mistake(call, route, error)
            answer = _problem(call, HttpError("internal", "this is our mistake; the server's log says more"))
        _note_for_metrics(call, route)
        return _respond(call, answer)

    return view


def _count_for_limit(call: Call, route: str) -> None:
    limit = call.api.config.rate_limit
    if limit is not None and route not in rate_limit.UNLIMITED:
        call.headers += rate_limit.check(call.environ, call.api.store, limit, call.left)


def _log_mistake(call: Call, route: str, error: Exception) -> None:
    """Say what went wrong in our own code, without the names of counters unless they are asked for."""
    names = call.api.config.log_names
    where, told = (repr(call.environ.get("PATH_INFO")), error) if names else (route, Withheld(error))
    log.error("%s %s failed (request %s)", call.method, where, call.id, exc_info=told)


def _note_for_metrics(call: Call, route: str) -> None:
    """Tell the worker that serves this, if there is one, what the request was and where the slots are."""
    if (know_slots := call.environ.get("counter.slots")) is not None:
        know_slots(watcher_of(call.api).slots)
        verb = call.rest().removeprefix(call.name) if call.name else ""
        call.environ["counter.route"] = route + verb
        call.environ["counter.token"] = call.token


def _flask_refusal(error: Exception) -> Response:
    """What Flask refuses before it comes to a route, such as a Host that it cannot read."""

    def handler(call: Call) -> Answer:
        if isinstance(error, WebsocketMismatch):
            raise InvalidRequest("no address here is a WebSocket; leave out the Upgrade header")
        if isinstance(error, HTTPException) and 400 <= (error.code or 500) < 500:
            raise InvalidRequest(error.description or "the request cannot be read")
        raise error

    return _serve(handler, current_app)()


def _problem(call: Call, error: CounterError | HttpError) -> Answer:
    headers = error.headers if isinstance(error, HttpError) else ()
    if isinstance(error, StoreUnavailable) or (isinstance(error, OutcomeUnknown) and call.key is not None):
        headers = (RETRY_AFTER,)
    if isinstance(error, StoreUnavailable | OutcomeUnknown):
        told = failure(error, _advice(call, error), call.base)
    else:
        told = document(error, call.base)
    return json_answer(told, told.status, *headers)._replace(content_type=MEDIA_TYPE)


def _advice(call: Call, error: CounterError) -> str:
    """What is to be said and done about a store that did not answer."""
    if isinstance(error, JournalFull):
        return (
            "nothing was changed, as it could not be written down; reads go on, and so do changes once there "
            "is room on the disk: repeat it after the seconds in Retry-After"
        )
    if isinstance(error, StoreUnavailable):
        return f"{error.title.lower()}: nothing was changed; repeat it after the seconds in Retry-After"
    if not call.unsafe:
        return "no answer came in time; nothing was to be changed, so ask again"
    if call.key is not None:
        return (
            "the answer is lost, and whether the change was applied is not known; repeat it with the same "
            "Idempotency-Key: it is applied once, and you get the answer"
        )
    return (
        "the answer is lost, and whether the change was applied is not known; read the counter before you "
        "repeat it (a change sent with If-Match can be repeated: it is applied once at the most; with an "
        "Idempotency-Key too)"
    )


def _respond(call: Call, answer: Answer) -> Response:
    body, whole = answer.body, isinstance(answer.body, bytes)
    headers = [
        ("Content-Type", answer.content_type),
        ("Cache-Control", "no-cache" if whole and not call.unsafe else "no-store"),
        ("Content-Security-Policy", answer.policy),
        *security.HEADERS,
        *call.headers,
        *answer.headers,
    ]
    if call.replayed:
        headers.append(("Idempotent-Replayed", "true"))
    if isinstance(body, bytes):
        headers.append(("Content-Length", str(len(body))))
        body = [body]
    checked = Headers()
    checked[:] = headers  # one by one, and then type and length, they take five times as many bytecodes
    response = _Response(body, answer.status, checked)
    response.complete = headers if whole else None
    return response
