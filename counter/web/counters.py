"""Counters over HTTP: the listing, one counter, its verbs, and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import quote

from msgspec import structs
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from ..errors import CounterError, InvalidRequest, NotFound, OutcomeUnknown, StoreUnavailable
from ..fields import INT64_MIN, check_name
from ..ops import Batch, CounterOp, Delete, Get, Increment, List, Set
from ..problems import document
from ..results import Change, Entry, Problem
from .call import JSON, Answer, Call, Handler, build, by_method, integer, json_answer
from .conditions import etag, if_versions, is_unchanged, refuse_conditions

MAX_BATCH_BODY = 1024 * 1024
TEXT = "text/plain"
VARY = ("Vary", "Accept")

_CLEARED = {"min": None, "max": None, "on_bound": None, "ttl": None, "ttl_mode": None}
_Changing = TypeVar("_Changing", Increment, Set, Delete)


def counters(call: Call) -> Answer:
    """`/v1/counters`."""
    return by_method(call, {"GET": _list})


def _list(call: Call) -> Answer:
    query: dict[str, Any] = dict(call.query("prefix", "sort", "limit", "cursor"))
    if "limit" in query:
        query["limit"] = integer("limit", query["limit"])
    return json_answer(call.ask(build(List, query)))


def counter(call: Call) -> Answer:
    """`/v1/counters/{name}`, and the verbs below it."""
    path = call.rest()
    name, slash, verb = path.rpartition("/")
    if slash and verb in _VERBS:
        _check_addressable(name)
        call.name = name
        hint = "" if call.method == "POST" else f"{verb} takes POST alone: {call.curl('-X POST')}"
        return by_method(call, _VERBS[verb], hint)
    _check_addressable(path)
    call.name = path
    return by_method(call, _METHODS)


def _check_addressable(name: str) -> None:
    """Refuse what is no name, or would be taken for another address on the way."""
    check_name(name)
    if name in (".", "..") or name.rpartition("/")[1:] in _VERB_ENDS:
        raise InvalidRequest(f"the name {name!r} cannot stand in a path; use POST /v1/batch for it")


def _get(call: Call) -> Answer:
    call.query()
    entry: Entry = call.ask(Get(call.name))
    headers = (etag(entry.version), VARY)
    if is_unchanged(call, entry):
        return Answer(b"", 304, headers)
    if _wants_text(call):
        return Answer(b"%d\n" % entry.value, 200, headers, f"{TEXT}; charset=utf-8")
    return json_answer(entry, 200, *headers)


def _wants_text(call: Call) -> bool:
    accept = call.header("ACCEPT")
    if not accept or "text/" not in accept:
        return False
    return parse_accept_header(accept, MIMEAccept).best_match([JSON, TEXT]) == TEXT


def _put(call: Call) -> Answer:
    call.query()
    fields = _required(call, '{"value": 5}')
    if "value" not in fields:
        raise InvalidRequest(
            "PUT gives the whole counter, so a value is required; PATCH changes settings alone"
        )
    change = _change(call, Set, _CLEARED | fields)
    if not change.created:
        return _changed(change)
    return _changed(change, 201, ("Location", f"{call.base}/v1/counters/{quote(call.name, safe='')}"))


def _patch(call: Call) -> Answer:
    call.query()
    fields = _required(call, '{"max": 100}')
    if "value" in fields:
        raise InvalidRequest("PATCH changes settings, not the value: use PUT, or POST …/increment")
    return _changed(_change(call, Set, fields))


def _delete(call: Call) -> Answer:
    call.query()
    if call.body():
        raise InvalidRequest("DELETE takes no body; a version goes into If-Match")
    return json_answer(_change(call, Delete, {}))


def _increment(call: Call) -> Answer:
    return _changed(_change(call, Increment, _fields(call, "delta")))


def _decrement(call: Call) -> Answer:
    return _changed(_change(call, Increment, _fields(call, "delta"), _negated))


def _negated(op: Increment) -> Increment:
    if op.delta == INT64_MIN:
        raise InvalidRequest(f"delta: {INT64_MIN} cannot be subtracted; its opposite has more than 64 bits")
    return structs.replace(op, delta=-op.delta)


def _reset(call: Call) -> Answer:
    """To a value, of a counter that exists: a condition can be added, and this one is always there."""
    fields = {"value": 0} | _fields(call, "value")
    if unknown := sorted(fields.keys() - {"value", "if_version"}):
        raise InvalidRequest(f"reset takes a value alone, not {unknown[0][:50]!r}; PATCH changes settings")
    ops = _ops(call, Set, fields)
    if ops[0].if_version not in (None, "absent"):
        return _changed(call.ask_any(ops))
    try:
        _, change = call.execute([Get(call.name), *ops]).unwrap()
    except NotFound as exc:
        raise NotFound(f"there is no counter {call.name!r} to reset; PUT creates one") from exc
    except CounterError as error:
        error.index = None  # whoever asked knows of one op
        raise
    return _changed(cast(Change, change))


_METHODS: dict[str, Handler] = {"GET": _get, "PUT": _put, "PATCH": _patch, "DELETE": _delete}
_VERBS: dict[str, dict[str, Handler]] = {
    "increment": {"POST": _increment},
    "decrement": {"POST": _decrement},
    "reset": {"POST": _reset},
}
_VERB_ENDS = frozenset(("/", verb) for verb in _VERBS)


def _fields(call: Call, parameter: str) -> dict[str, Any]:
    """A verb's fields: the query's one, or the body's."""
    query = call.query(parameter)
    body = call.json_object(f'{{"{parameter}": 5}}')
    if query and body is not None:
        raise InvalidRequest(f"give {parameter} in the query or in the body, not in both")
    if query:
        return {parameter: integer(parameter, query[parameter])}
    return body or {}


def _required(call: Call, example: str, most: int | None = None) -> dict[str, Any]:
    fields = call.json_object(example, most)
    if fields is None:
        raise InvalidRequest(f"{call.method} needs a JSON body: {call.curl_json(example)}")
    return fields


def _ops(call: Call, kind: type[_Changing], fields: dict[str, Any]) -> list[_Changing]:
    """The op that path, fields and headers make together, once for each version that will do."""
    versions = if_versions(call)
    if not fields and not versions:
        return [kind(call.name)]  # the hot path
    if given := fields.keys() & {"name", "op"}:
        raise InvalidRequest(f"{min(given)} is in the address already; leave it out of the body")
    if versions:
        if fields.get("if_version") is not None:
            raise InvalidRequest("give if_version or a header (If-Match, If-None-Match), not both")
        fields = fields | {"if_version": versions[0]}
    op: _Changing = build(kind, fields | {"name": call.name})
    if len(versions) < 2:
        return [op]
    return [structs.replace(op, if_version=version) for version in versions]


def _change(
    call: Call,
    kind: type[_Changing],
    fields: dict[str, Any],
    adapt: Callable[[_Changing], _Changing] | None = None,
) -> Change:
    ops = _ops(call, kind, fields)
    change: Change = call.ask_any([adapt(op) for op in ops] if adapt else ops)
    return change


def _changed(change: Change, status: int = 200, *headers: tuple[str, str]) -> Answer:
    return json_answer(change, status, etag(change.version), *headers)


def batch(call: Call) -> Answer:
    """`/v1/batch`."""
    return by_method(call, {"POST": _batch})


def _batch(call: Call) -> Answer:
    call.query()
    refuse_conditions(call)
    example = '{"ops": [{"op": "increment", "name": "a"}]}'
    body = _required(call, example, MAX_BATCH_BODY)
    asked = build(Batch, body)
    reply = call.execute([*asked.ops], asked.atomic)
    try:
        results = reply.unwrap()
    except CounterError as error:
        raise _with_index(error, asked.ops) from None
    told = [document(item.error(), call.base) if isinstance(item, Problem) else item for item in results]
    return json_answer({"results": told})


def _with_index(error: CounterError, ops: list[CounterOp]) -> CounterError:
    """An atomic failure names its op, also where there is only one."""
    if len(ops) == 1 and error.index is None and not isinstance(error, StoreUnavailable | OutcomeUnknown):
        error.index = 0
    return error
