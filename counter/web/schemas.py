"""The schemas of the OpenAPI document: made from the types that the API reads and writes.

What those types check in code and JSON Schema can say as well (no control characters in a name) is added
here, and a sentence for each field.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from .. import information, problems, results
from ..fields import INT64_MIN, MAX_KEY, MAX_NAME
from ..information import Information
from ..ops import Batch, Changes, Increment, List, Set
from ..problems import ProblemDocument
from ..results import Change, ChangesPage, Entry, Page

Schema = dict[str, Any]

_ASKED = (Batch,)
_ANSWERED = (Entry, Change, Page, ChangesPage, Information, ProblemDocument)
_PLACE = "#/components/schemas/{name}"
_NAME_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_TAG = r'(?:W/)?"[!#-~\u0080-\u00ff]*"'

TAGS: Schema = {
    "type": "string",
    "pattern": rf"^(?:[ \t]*\*[ \t]*|[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*)$",
}
"""`If-Match` and `If-None-Match`."""
KEY: Schema = {
    "type": "string",
    "pattern": rf'^(?:[!#-+\--~]{{1,{MAX_KEY}}}|"(?:[!#-\[\]-~]|\\["\\]){{1,{MAX_KEY}}}")$',
}
"""`Idempotency-Key`."""

_TOLD = {
    "name": "1-250 bytes of UTF-8 without control characters (U+0000-1F, U+007F-9F).",
    "prefix": "The beginning of the names that are meant; at most 250 bytes of UTF-8.",
    "value": "A signed 64-bit integer.",
    "delta": "What is added: a signed 64-bit integer. Of a change: what was really added; null where a set "
    "moved the value by more than 64 bits hold.",
    "min": "The lower bound; not above max.",
    "max": "The upper bound; not below min.",
    "on_bound": "What a step beyond a bound does: it is refused (reject, the default), or ends at the bound "
    "(clamp).",
    "ttl": "Seconds to live. Of an increment: only if it creates the counter.",
    "ttl_mode": "Whether the time to live runs from its setting (fixed, the default), or restarts with each "
    "write (sliding). It needs a ttl.",
    "if_version": "Do it only if the counter has this version, or is present, or is absent.",
    "version": "Opaque, new with each change, never used twice.",
    "previous": "The value before; 0 where there was none.",
    "created": "Whether this call made the counter.",
    "next": "The cursor of the page after this one; null: there is none.",
    "gone": "Names of counters that were deleted or have expired.",
    "more": "Whether there is more already.",
    "complete": "Whether this is all there is, and not only what changed.",
    "cursor": "What the page before gave as next, with the same sort.",
    "sort": "By name; or by value or last change, the greatest first.",
    "limit": "How many at the most.",
    "since": "The version that the last answer was told with.",
    "wait": "How many seconds to wait for something, if there is nothing.",
    "code": "What went wrong, for programs: a word that stays.",
    "detail": "What happened and what to do, for people.",
    "type": "The address of a page about this error.",
    "current": "The counter as it is; null if there is none.",
    "index": "Which op of a batch failed, counted from 0.",
}


def components() -> Schema:
    """Everything that bodies are made of, by name."""
    answers = _kinds()
    _, made = msgspec.json.schema_components([*_ASKED, *_ANSWERED], ref_template=_PLACE)
    for name, schema in made.items():
        if name in answers:
            _answered(schema, answers[name])
        _finish(schema)
    limits = made["Limits"]
    for name in ("max_body", "threads"):  # what /v1/info adds for this face
        limits["properties"][name] = {"type": "integer"}
    limits["properties"]["timeout"] = {"type": "number"}
    limits["required"] += ["max_body", "threads", "timeout"]
    made["BatchResults"] = {
        "title": "BatchResults",
        "description": "What each op of a batch is answered with, in their order.",
        "type": "object",
        "properties": {
            "results": {
                "type": "array",
                "items": {"anyOf": [refer("Change"), refer("Entry"), refer(PROBLEM)]},
            }
        },
        "required": ["results"],
    }
    return made


PROBLEM = "ProblemDocument"


def refer(name: str) -> Schema:
    """The component *name*."""
    return {"$ref": _PLACE.format(name=name)}


def body(kind: type[Struct], *fields: str, required: tuple[str, ...] = ()) -> Schema:
    """A request body with *fields* of the op *kind*, and no others."""
    properties = _properties(kind)
    schema: Schema = {"type": "object", "properties": {name: properties[name] for name in fields}}
    if required:
        schema["required"] = [*required]
    return schema | {"additionalProperties": False}


SETTINGS = ("min", "max", "on_bound", "ttl", "ttl_mode", "if_version")


def set_body() -> Schema:
    """The body of a PUT: the whole counter."""
    return body(Set, "value", *SETTINGS, required=("value",))


def settings_body() -> Schema:
    """The body of a PATCH: settings alone."""
    return body(Set, *SETTINGS)


def reset_body() -> Schema:
    """The body of a reset."""
    schema = body(Set, "value", "if_version")
    schema["properties"]["value"]["default"] = 0
    return schema


def step_body(least: int = INT64_MIN) -> Schema:
    """The body of an increment; *least* is the smallest delta."""
    schema = body(Increment, "delta", *SETTINGS)
    schema["properties"]["delta"]["minimum"] = least
    return schema


def query(kind: type[List | Changes], field: str) -> Schema:
    """What the query parameter *field* holds; one that is left out is no null."""
    schema: Schema = _properties(kind)[field]
    plain: Schema = next((part for part in schema.get("anyOf", []) if part != {"type": "null"}), schema)
    if plain.get("default") == "":
        del plain["default"]
    return {"description": schema["description"]} | plain


def _properties(kind: type[Struct]) -> Schema:
    made = msgspec.json.schema_components([kind], ref_template=_PLACE)[1][kind.__name__]
    _finish(made)
    properties: Schema = made["properties"]
    return properties


def _kinds() -> Schema:
    """The types of answers, by name."""
    return {name: kind for module in (information, problems, results) for name, kind in vars(module).items()}


def _answered(schema: Schema, kind: type[Struct]) -> None:
    """An answer holds every field, null where it is unset; only what is UNSET is left out."""
    fields = msgspec.structs.fields(kind)
    schema["required"] = [field.encode_name for field in fields if field.default is not UNSET]
    for part in schema["properties"].values():
        part.pop("default", None)


def _finish(schema: Schema) -> None:
    """Say what msgspec's schema of a type leaves out."""
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    for name, part in schema["properties"].items():
        if name in _TOLD and "$ref" not in part:
            part["description"] = _TOLD[name]
        for piece in part.get("anyOf", [part]):
            if piece.get("type") == "integer":
                piece["format"] = "int64"
            elif piece.get("type") == "string" and name.endswith("_at"):
                piece["format"] = "date-time"
            elif piece.get("maxLength") == MAX_NAME:
                piece["pattern"] = _NAME_PATTERN
            elif name == "if_version" and piece.get("type") == "string":
                piece["minLength"] = 1
