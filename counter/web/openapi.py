"""The OpenAPI document: the whole API in a form that tools read, made once in a process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from ..settings import VERSION
from . import operations, parts, schemas
from .authorization import OPEN, scope_of
from .call import Answer, Call, by_method
from .schemas import Schema

_SCHEME = "token"
_TOKENS_TOLD = "A token that `counter token` made, of the scope read or write; write implies read."
OWN_PATHS = frozenset(("/",))
"""What an app that only mounts the API does not have."""

_TOLD = """\
Exact counters that many processes share. A GET never changes anything; every change is one step in the store,
with its bounds, its time to live and its condition.

- HEAD answers as GET, without the body. OPTIONS answers 200, with the methods of the address in `Allow`;
  every other method gets a 405 problem that says the same.
- Every error is an `application/problem+json`; `code` is the word for programs. 503 means that nothing was
  applied.
- Where the service has tokens, a request brings one: `Authorization: Bearer TOKEN`. GET, HEAD, OPTIONS take
  one that may read; all else, `/v1/batch` too, takes one that may write.
- Bodies are strict JSON: no unknown or repeated fields, and integers without fraction or exponent.
"""


def whole(call: Call) -> Answer:
    """`/openapi.json` of an app that is the API and nothing else."""
    return by_method(call, {"GET": lambda _: _answer(call, is_part=False)})


def mounted(call: Call) -> Answer:
    """`/openapi.json` of the API in an app of somebody's own."""
    return by_method(call, {"GET": lambda _: _answer(call, is_part=True)})


def _answer(call: Call, is_part: bool) -> Answer:
    config = call.api.config
    return Answer(_encoded(call.base, is_part, config.tokens is not None, config.open_metrics))


@lru_cache(maxsize=8)
def _encoded(base: str, is_part: bool, has_tokens: bool, open_metrics: bool) -> bytes:
    return msgspec.json.encode(document(base, is_part, has_tokens, open_metrics)) + b"\n"


def document(
    base: str = "", is_part: bool = False, has_tokens: bool = False, open_metrics: bool = False
) -> dict[str, Any]:
    """The document of the API below the path *base*.

    Args:
        base: where it is mounted.
        is_part: whether it is without `OWN_PATHS`.
        has_tokens: whether requests need tokens; then each operation says which.
        open_metrics: whether `/metrics` does not.
    """
    paths = operations.paths()
    if has_tokens:
        _ask_for_tokens(paths, OPEN | {"/metrics"} if open_metrics else OPEN)
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
            "securitySchemes": {_SCHEME: {"type": "http", "scheme": "bearer", "description": _TOKENS_TOLD}},
        },
    }


def _ask_for_tokens(paths: Schema, but_for: frozenset[str]) -> None:
    for path, item in paths.items():
        for method in item.keys() - {"parameters"} if path not in but_for else ():
            item[method]["security"] = [{_SCHEME: [scope_of(method.upper())]}]
