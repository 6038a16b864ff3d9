"""The parts of which the OpenAPI document is put together: parameters, headers, answers, refusals."""

from __future__ import annotations

from typing import Any

from ..errors import HTTP_PROBLEMS, STORE_ERRORS
from ..ops import Changes, List
from ..problems import MEDIA_TYPE, meaning
from . import schemas
from .call import JSON
from .schemas import PROBLEM, Schema, refer

_HEADERS: dict[str, tuple[str, Schema, bool]] = {
    "ETag": ("The version in double quotes, for If-Match and If-None-Match.", {"type": "string"}, True),
    "Vary": ("What the answer depends on.", {"type": "string"}, True),
    "Location": ("The address of the new counter.", {"type": "string"}, True),
    "Allow": ("The methods of this address.", {"type": "string"}, True),
    "Idempotent-Replayed": (
        "true: this answer was given before, under the same Idempotency-Key.",
        {"type": "string", "enum": ["true"]},
        False,
    ),
    "WWW-Authenticate": ("Bearer, and what is wrong with the token.", {"type": "string"}, True),
    "Retry-After": (
        "After how many seconds to repeat the request.",
        {"type": "string", "pattern": "^[0-9]+$"},
        True,
    ),
}


def headers() -> Schema:
    """All of `components.headers`."""
    return {name: _header(*told) for name, told in _HEADERS.items()}


def _header(told: str, schema: Schema, required: bool) -> Schema:
    return {"description": told, "required": required, "schema": schema}


def refusals() -> Schema:
    """All of `components.responses`: one for each status of THE error table."""
    codes: dict[int, list[str]] = {}
    for code, error in (STORE_ERRORS | HTTP_PROBLEMS).items():
        codes.setdefault(error.status, []).append(code)
    return {f"Problem{status}": _refusal(status, codes[status]) for status in sorted(codes)}


def _refusal(status: int, codes: list[str]) -> Schema:
    meanings = [found for code in codes if (found := meaning(code)) is not None]
    told = "\n".join(f"- `{found.code}`: {found.title}. {found.advice}" for found in meanings)
    narrowed: Schema = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    if status in (409, 412):
        narrowed["required"] = ["current"]
    made: Schema = {
        "description": told,
        "content": {MEDIA_TYPE: {"schema": {"allOf": [refer(PROBLEM), narrowed]}}},
    }
    if status in (429, 503):
        made["headers"] = _refer_headers("Retry-After")
    if status == 401:
        made["headers"] = _refer_headers("WWW-Authenticate")
    if status == 504:  # only if the request had an idempotency key
        made["headers"] = {"Retry-After": _header(*_HEADERS["Retry-After"]) | {"required": False}}
    if status == 405:
        made["headers"] = _refer_headers("Allow")
    return made


def _refer_headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def answer(told: str, content: Schema, *headers: str) -> Schema:
    """One answer: what it means, its *content* by media type, and the headers that it has besides."""
    made: Schema = {"description": told}
    if headers:
        made["headers"] = _refer_headers(*headers)
    if content:
        made["content"] = content
    return made


def operation(
    name: str,
    summary: str,
    answers: Schema,
    problems: tuple[str, ...],
    parameters: list[Schema] | None = None,
    **more: Any,  # noqa: ANN401
) -> Schema:
    """What a method does.

    Args:
        name: its operationId.
        summary: the same in a sentence.
        answers: what it answers, by status.
        problems: the codes of what it may refuse.
        parameters: the parameters, without those of the path.
        more: further fields of the OpenAPI object.
    """
    told = {code: error.status for code, error in (STORE_ERRORS | HTTP_PROBLEMS).items()}
    refused = {str(told[code]): {"$ref": f"#/components/responses/Problem{told[code]}"} for code in problems}
    made: Schema = {"operationId": name, "summary": summary}
    if parameters:
        made["parameters"] = parameters
    return made | more | {"responses": dict(sorted((refused | answers).items()))}


def json_body(schema: Schema, example: Schema, *kinds: str, required: bool = True) -> Schema:
    """A request's body, as any of the media types *kinds*; if left out, as JSON."""
    content = {"schema": schema, "example": example}
    return {"required": required, "content": dict.fromkeys(kinds or (JSON,), content)}


def parameter(place: str, name: str, schema: Schema, told: str = "", **more: Any) -> Schema:  # noqa: ANN401
    """A parameter in *place* (path, query, header); *told*: what it is for, if the schema does not say."""
    told = told or schema.pop("description", "")
    made = {"name": name, "in": place, "schema": schema} | more
    return made | {"description": told} if told else made


def parameters() -> Schema:
    """All of `components.parameters`."""
    name = schemas.query(List, "prefix") | {"minLength": 1}
    del name["description"]
    return {
        "Name": parameter(
            "path",
            "name",
            name,
            "The name, percent-encoded; `/` and `%2F` are the same. At most 250 bytes of UTF-8. `.`, `..` "
            "and names that end in /increment, /decrement or /reset go through /v1/batch.",
            required=True,
            example="page",
        ),
        "Key": parameter(
            "header",
            "Idempotency-Key",
            schemas.KEY,
            "Do this once, however often it is sent: the same request with its key gets the same answer.",
        ),
        "IfMatch": parameter(
            "header",
            "If-Match",
            schemas.TAGS,
            "Only if the counter has one of these versions (*: any); not together with if_version.",
            example="*",
        ),
        "IfNoneMatch": parameter(
            "header",
            "If-None-Match",
            schemas.TAGS,
            "304 if the counter has one of these versions.",
            example='"3fQxYtR1.16"',
        ),
        "IfAbsent": parameter(
            "header",
            "If-None-Match",
            {"type": "string", "enum": ["*"]},
            "Only if there is no such counter; not together with If-Match or if_version.",
        ),
    }


def use(*names: str) -> list[Schema]:
    """Those of `parameters`."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def query(kind: type[List | Changes], *fields: str) -> list[Schema]:
    """Query parameters that are *fields* of an op."""
    return [parameter("query", field, schemas.query(kind, field)) for field in fields]
