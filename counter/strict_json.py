"""JSON without its ambiguities: what two readers could understand differently is refused.

Refused are keys given twice, numbers that are no 64-bit integers, lone surrogates, nesting above 16, and all
that is no JSON. In time and space linear in the size of the body, whatever is in it.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

from .errors import InvalidRequest

MAX_DEPTH = 16

_MOST_DIGITS = 20  # of an int64 with its sign
# Possessive, and the closing quote is optional: so no character is looked at twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?')
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEP)


def decode(body: bytes) -> Any:  # noqa: ANN401  (what it holds is for msgspec to judge)
    """The value that *body* stands for: objects are dicts, all numbers ints.

    Raises:
        InvalidRequest: it is no JSON, or ambiguous.
    """
    _check_depth(body)
    try:
        value = _DECODER.decode(body.decode())
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the body is not valid UTF-8 (byte {exc.start})") from None
    except json.JSONDecodeError as exc:
        raise InvalidRequest(f"the body is not valid JSON: {exc}") from None
    if b"\\u" in body:
        _check_surrogates(value)
    return value


def _check_depth(body: bytes) -> None:
    """Before anything recursive sees it. Brackets are counted outside strings.

    One closed too much needs no thought: the decoder stops there, before it sees what follows.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels")


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "the body holds half a surrogate pair (\\ud800-\\udfff); use valid Unicode"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRequest(f"the key {key[:50]!r} is given twice in one object")
    return fields


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise InvalidRequest("the body holds a number of more than 64 bits")
    return int(digits)


def _no_integer(text: str) -> NoReturn:
    raise InvalidRequest(f"numbers are integers without fraction or exponent, not {text[:30]}")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_no_integer, parse_constant=_no_integer
)
