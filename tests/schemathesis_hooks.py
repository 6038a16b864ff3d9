"""What schemathesis must know of the API that its document cannot say.

Everything that a check finds and that is no fault is listed in `NO_FAULT`, with its reason.
"""

import re
from urllib.parse import unquote

import schemathesis

from counter.web.schemas import TAGS

MAX_NAME = 250


@schemathesis.hook
def before_call(context, case, kwargs):
    """Bound what waits, polls to a second and streams to a message; make valid what is meant to be."""
    if case.meta is not None and case.meta.generation.mode.is_positive:
        _make_valid(case)
    if case.operation.path == "/v1/changes" and _number(case.query.get("wait")) > 1:
        case.query["wait"] = round(_number(case.query["wait"]) % 1, 3)
    elif case.operation.path == "/v1/events" and _number(case.query.get("limit", 1)) >= 1:
        case.query["limit"] = 1


def _make_valid(case):
    """Mend what the document tells in words alone, and would be refused before it has tested anything."""
    if case.query and case.method == "POST" and isinstance(case.body, dict):
        case.query.clear()  # delta, or value, may be in either place, and a parameter cannot exclude a body
    case.query.pop("cursor", None)  # only the service makes cursors; any other string is none
    if "wait" in case.query:
        case.query["wait"] = round(float(case.query["wait"]), 3)  # no exponent, few digits after the point
    for name, value in case.headers.items():
        if name.lower().endswith("-match") and not re.search(TAGS["pattern"], value):
            case.headers[name] = "*"  # a number, out of an earlier answer, against the pattern
    while _conditions(case) > 1:  # they exclude each other, and parameters cannot say so
        if "if_version" in _given(case)[0]:
            del case.body["if_version"]
        else:
            del case.headers["If-None-Match"]
    if isinstance(case.body, dict):
        case.body = _exact(case.body)


def _exact(value):
    """To JSON Schema 5.0 is an integer, and here it is none: a float is not exact."""
    if isinstance(value, dict):
        return {name: _exact(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_exact(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value):
    try:
        return min(float(value), 55)
    except (TypeError, ValueError):
        return 0


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drop a valid request's refusal where a rule forbids it that JSON Schema has no words for."""
    if type(failure).__name__ != "RejectedPositiveData" or response.status_code != 400:
        return True
    detail = response.json()["detail"]
    return not any(re.search(said, detail) and applies(case) for said, applies, _ in NO_FAULT)


def _given(case):
    """The fields in the body that are not null; of a batch, those of each op."""
    body = case.body if isinstance(case.body, dict) else {}
    return [{k: v for k, v in op.items() if v is not None} for op in body.get("ops", [body])]


def _conditions(case):
    names = {name.lower() for name in case.headers or {}} & {"if-match", "if-none-match"}
    return len(names) + ("if_version" in _given(case)[0])


def _names(case):
    return [
        *[case.path_parameters.get("name", "")],  # as it is, or quoted
        *[str(case.query.get("prefix", ""))],
        *[op.get("name", "") for op in _given(case)],
    ]


NO_FAULT = [
    (
        "min (-?[0-9]+ )?must not be above max",
        lambda case: any("min" in op or "max" in op for op in _given(case)),
        "the order of two fields, one of which may be the counter's own already",
    ),
    (
        "ttl_mode needs a ttl",
        lambda case: any("ttl_mode" in op and "ttl" not in op for op in _given(case)),
        "the ttl may be the counter's own already, so the schema cannot ask for both",
    ),
    (
        f"to {MAX_NAME} bytes of UTF-8",
        lambda case: any(len(str(name).encode()) > MAX_NAME for name in _names(case)),
        "maxLength counts characters, and a name's limit is in bytes",
    ),
    (
        "names that begin with U\\+FDD0 are the service's own",
        lambda case: any(unquote(str(name)).startswith("\ufdd0") for name in _names(case)),
        "a noncharacter that is nobody's text: a pattern against it would be in the way of all who read it",
    ),
    (
        "cannot stand in a path",
        lambda case: re.search(r"^\.\.?$|/(increment|decrement|reset)$", case.path_parameters["name"]),
        "these names are other addresses; they go through /v1/batch",
    ),
]
"""What the detail says, whether it is true of the request, and why the document does not say it."""
