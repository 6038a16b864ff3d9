"""The `Idempotency-Key` header: one key, in quotes (a string of RFC 8941) or bare."""

from __future__ import annotations

import re

from ..errors import InvalidRequest
from ..fields import MAX_KEY, check_key

_STRING = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x2b\x2d-\x7e]+")
_ESCAPED = re.compile(r'\\(["\\])')


def parse_key(text: str) -> str:
    """The key that the header *text* gives; in quotes or bare, the same characters are the same key.

    A comma in quotes is part of the key, as of any RFC 8941 string. A bare one is refused: servers join two
    headers of one name with it, and which of two keys counts cannot be told.

    Raises:
        InvalidRequest: it is no key, or several.
    """
    text = text.strip(" \t")
    if match := _STRING.fullmatch(text):
        key = _ESCAPED.sub(r"\1", match[1])
    elif _BARE.fullmatch(text):
        key = text
    else:
        raise InvalidRequest(
            f"give one Idempotency-Key of 1 to {MAX_KEY} visible ASCII characters; if there is a comma or a "
            "double quote among them, in double quotes"
        )
    check_key(key)
    return key
