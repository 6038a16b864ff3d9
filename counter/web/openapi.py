"""The OpenAPI document: the whole API in a form that tools read, made once in a process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from ..settings import VERSION
from . import operations, parts, schemas
from .call import Answer, Call, by_method

OWN_PATHS = frozenset(("/",))
"""What an app that only mounts the API does not have."""

_TOLD = """\
Exact counters that many processes share. A GET never changes anything; every change is one step in the store,
with its bounds, its time to live and its condition.

- HEAD answers as GET, without the body. OPTIONS answers 200, with the methods of the address in `Allow`;
  every other method gets a 405 problem that says the same.
- Every error is an `application/problem+json`; `code` is the word for programs. 503 means that nothing was
  applied.
- Bodies are strict JSON: no unknown or repeated fields, and integers without fraction or exponent.
"""


def whole(call: Call) -> Answer:
    """`/openapi.json` of an app that is the API and nothing else."""
    return by_method(call, {"GET": lambda _: Answer(_encoded(call.base, False))})


def mounted(call: Call) -> Answer:
    """`/openapi.json` of the API in an app of somebody's own."""
    return by_method(call, {"GET": lambda _: Answer(_encoded(call.base, True))})


@lru_cache(maxsize=8)
def _encoded(base: str, is_part: bool) -> bytes:
    return msgspec.json.encode(document(base, is_part)) + b"\n"


def document(base: str = "", is_part: bool = False) -> dict[str, Any]:
    """The document of the API below the path *base*; *is_part*: without `OWN_PATHS`."""
    paths = operations.paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "counter",
            "summary": "Shared counters",
            "description": _TOLD,
            "version": VERSION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base or "/"}],
        "paths": {path: item for path, item in paths.items() if not (is_part and path in OWN_PATHS)},
        "components": {
            "schemas": schemas.components(),
            "parameters": parts.parameters(),
            "headers": parts.headers(),
            "responses": parts.refusals(),
        },
    }
