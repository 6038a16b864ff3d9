"""What can be done at each address of the API, as the OpenAPI document tells it; with an example of each.

An example is a request and its answer where the counter `page` stands at 41 and there is no other; versions
and times in it are made up.
"""

from __future__ import annotations

from typing import Any

from ..errors import HTTP_PROBLEMS, STORE_ERRORS
from ..fields import INT64_MAX, INT64_MIN
from ..ops import Changes, List
from . import schemas
from .call import JSON, MERGE_PATCH
from .changes import EVENT_STREAM, MAX_WAIT_SECONDS
from .counters import TEXT
from .parts import answer, json_body, operation, parameter, query, use
from .schemas import Schema, refer

HTML = "text/html"
OPENMETRICS = "application/openmetrics-text"

_MADE = "2026-01-31T12:00:00Z"
ENTRY: dict[str, Any] = {
    "name": "page",
    "value": 41,
    "version": "3fQxYtR1.17",
    "created_at": _MADE,
    "updated_at": _MADE,
    "min": None,
    "max": None,
    "on_bound": None,
    "ttl": None,
    "ttl_mode": None,
    "expires_at": None,
}
"""The counter of the examples, as it is before each."""
_PROBE = ("invalid-request", "host-not-allowed", "cross-site", "internal")
_PAGE = (*_PROBE, "rate-limited")
_READ = (*_PAGE, "unauthorized")
_ASK = (*_READ, "store-unavailable", "outcome-unknown")
_LISTED = (*_ASK, "limit-exceeded")
_CHANGE = (
    *_ASK,
    "forbidden",
    "version-mismatch",
    "too-large",
    "key-reused",
    "journal-full",
    "limit-exceeded",
)
_STEP = (*_CHANGE, "out-of-bounds", "media-type")


def _json(name: str, example: Any = None) -> Schema:  # noqa: ANN401
    content: Schema = {"schema": refer(name)}
    if example is not None:
        content["example"] = example
    return {JSON: content}


def _changed(**fields: Any) -> Schema:  # noqa: ANN401
    """A change of the examples' counter."""
    return _json("Change", ENTRY | {"previous": 41, "delta": 0, "created": False} | fields)


_CONDITIONS = ("Key", "IfMatch", "IfAbsent")


def paths() -> Schema:
    """Every address, with what each of its methods does."""
    return {
        "/v1/counters": {
            "get": operation(
                "listCounters",
                "A page of counters.",
                {"200": answer("The page.", _json("Page", {"counters": [ENTRY], "next": None}))},
                _LISTED,
                query(List, "prefix", "sort", "limit", "cursor"),
            )
        },
        "/v1/counters/{name}": {"parameters": use("Name"), **_counter()},
        **{
            f"/v1/counters/{{name}}/{verb}": {"parameters": use("Name"), "post": _verb(verb)}
            for verb in _VERBS
        },
        "/v1/batch": {"post": _batch()},
        "/v1/info": {
            "get": operation(
                "getInfo",
                "Version, limits, durability, and the processes behind it.",
                {"200": answer("What the service tells of itself.", _json("Information"))},
                _ASK,
            )
        },
        **_watching(),
        **_probes(),
        **_pages(),
    }


def _counter() -> Schema:
    number = {"schema": {"type": "string", "pattern": "^-?[0-9]+\\n$"}}
    put = {
        "200": answer("It has this value now.", _changed(value=5, delta=-36), "ETag", "Idempotent-Replayed"),
        "201": answer("It was created.", _json("Change"), "ETag", "Location", "Idempotent-Replayed"),
    }
    for done in put.values():
        done["links"] = _links("getCounter", "incrementCounter", "resetCounter", "deleteCounter")
    return {
        "get": operation(
            "getCounter",
            "One counter.",
            {
                "200": answer(
                    "The counter, or with Accept: text/plain its value alone.",
                    _json("Entry", ENTRY) | {TEXT: number},
                    "ETag",
                    "Vary",
                ),
                "304": answer("It has a version of If-None-Match.", {}, "ETag", "Vary"),
            },
            (*_ASK, "not-found", "version-mismatch"),
            use("IfMatch", "IfNoneMatch"),
        ),
        "put": operation(
            "putCounter",
            "Set value and settings; a setting that is left out is cleared.",
            put,
            _STEP,
            use(*_CONDITIONS),
            requestBody=json_body(schemas.set_body(), {"value": 5}),
        ),
        "patch": operation(
            "patchCounter",
            "Change settings; one that is left out is kept, null clears it.",
            {"200": answer("It has these settings now.", _changed(max=100), "ETag", "Idempotent-Replayed")},
            (*_STEP, "not-found"),
            use(*_CONDITIONS),
            requestBody=json_body(schemas.settings_body(), {"max": 100}, JSON, MERGE_PATCH),
        ),
        "delete": operation(
            "deleteCounter",
            "Delete the counter.",
            {"200": answer("The counter as it was.", _changed(), "Idempotent-Replayed")},
            (*_CHANGE, "not-found"),
            use(*_CONDITIONS),
        ),
    }


def _links(*operations: str) -> Schema:
    """What can be done next, with the same counter."""
    named = {"name": "$request.path.name"}
    return {name: {"operationId": name, "parameters": named} for name in operations}


_VERBS: dict[str, tuple[str, str, Schema, dict[str, Any]]] = {
    "increment": ("delta", "Add to the counter.", {"delta": 1}, {"value": 42, "delta": 1}),
    "decrement": ("delta", "Subtract from the counter.", {"delta": 1}, {"value": 40, "delta": -1}),
    "reset": ("value", "Set the value of a counter that exists.", {"value": 0}, {"value": 0, "delta": -41}),
}
"""Of each verb: the query parameter, what it does, the body of the example, and what comes out."""


def _verb(verb: str) -> Schema:
    field, summary, example, fields = _VERBS[verb]
    reset = verb == "reset"
    schema = schemas.reset_body() if reset else schemas.step_body(INT64_MIN + (verb == "decrement"))
    number = {name: told for name, told in schema["properties"][field].items() if name != "description"}
    also = "In the body or here, not both."
    done = answer("The counter after this call.", _changed(**fields), "ETag", "Idempotent-Replayed")
    done["links"] = _links("getCounter")
    return operation(
        f"{verb}Counter",
        summary,
        {"200": done},
        (*_STEP, "not-found") if reset else _STEP,
        [parameter("query", field, number, also), *use(*_CONDITIONS)],
        requestBody=json_body(schema, example, required=False),
    )


def _batch() -> Schema:
    example = {"ops": [{"op": "increment", "name": "page"}, {"op": "get", "name": "page"}]}
    after = ENTRY | {"value": 42}
    results = [after | {"previous": 41, "delta": 1, "created": False}, after]
    return operation(
        "batch",
        "Several ops at once: all or nothing, or (atomic: false) each for itself.",
        {
            "200": answer(
                "The result of each op.", _json("BatchResults", {"results": results}), "Idempotent-Replayed"
            )
        },
        (*_STEP, "not-found"),
        use("Key"),
        requestBody=json_body(refer("Batch"), example),
    )


def _watching() -> Schema:
    seconds = schemas.query(Changes, "wait") | {"maximum": MAX_WAIT_SECONDS}
    messages = {"type": "integer", "format": "int64", "minimum": 1, "maximum": INT64_MAX}
    since = schemas.query(Changes, "since")
    event: Schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The version, to go on from."},
            "data": {"type": "string", "contentMediaType": JSON, "contentSchema": refer("ChangesPage")},
        },
        "required": ["id", "data"],
    }
    page = {"counters": [ENTRY], "gone": [], "version": ENTRY["version"], "more": False, "complete": True}
    return {
        "/v1/changes": {
            "get": operation(
                "getChanges",
                "What changed since a version; waits for something, if there is nothing.",
                {"200": answer("What changed.", _json("ChangesPage", page))},
                _LISTED,
                [
                    *query(Changes, "since", "prefix", "limit"),
                    parameter(
                        "query", "wait", seconds, "Seconds to wait, as a decimal number without an exponent."
                    ),
                ],
            )
        },
        "/v1/events": {
            "get": operation(
                "streamEvents",
                "The same as a stream of server-sent events, until it has lived for five minutes.",
                {"200": answer("The stream; the schema is of one event.", {EVENT_STREAM: {"schema": event}})},
                (*_LISTED, "overloaded"),
                [
                    *query(Changes, "since", "prefix"),
                    parameter("query", "limit", messages, "The stream ends after as many messages."),
                    parameter(
                        "header", "Last-Event-ID", since, "The id of the last event; goes before since."
                    ),
                ],
            )
        },
    }


def _status(word: str) -> Schema:
    schema = {"type": "object", "properties": {"status": {"const": word}}, "required": ["status"]}
    return {"200": answer("It does.", {JSON: {"schema": schema, "example": {"status": word}}})}


def _probes() -> Schema:
    ready = (*_PROBE, "store-unavailable")
    metrics = {kind: {"schema": {"type": "string"}} for kind in (TEXT, OPENMETRICS)}
    return {
        "/livez": {"get": operation("isAlive", "Whether this process answers.", _status("alive"), _PROBE)},
        "/readyz": {"get": operation("isReady", "Whether changes are taken.", _status("ready"), ready)},
        "/metrics": {
            "get": operation(
                "getMetrics",
                "The counters and the service, for Prometheus.",
                {
                    "200": answer(
                        "The same from every worker; counter_up is 0 without a manager.", metrics, "Vary"
                    )
                },
                _READ,
            )
        },
    }


def _pages() -> Schema:
    page = {HTML: {"schema": {"type": "string"}}}
    codes = [*STORE_ERRORS, *HTTP_PROBLEMS]
    code = parameter("path", "code", {"type": "string", "enum": codes}, required=True, example="not-found")
    return {
        "/openapi.json": {
            "get": operation(
                "getDocument",
                "This document.",
                {"200": answer("OpenAPI 3.1.", {JSON: {"schema": {"type": "object"}}})},
                _PAGE,
            )
        },
        "/problems/{code}": {
            "get": operation(
                "getProblemPage",
                "What an error means.",
                {"200": answer("A page for people.", page)},
                (*_PAGE, "no-such-route"),
                [code],
            )
        },
        "/": {
            "get": operation(
                "getHomePage",
                "The newest counters, and how to begin.",
                {
                    "200": answer("A page for people.", page),
                    "503": {
                        "description": "The same page, without counters: the store does not answer.",
                        "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
                        "content": page,
                    },
                },
                _READ,
            )
        },
    }
