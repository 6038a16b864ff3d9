"""What the fields of an op may hold, and how much of it: names, integers, and the few words."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .errors import InvalidRequest

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
MAX_NAME = 250
"""Longest name, in bytes of UTF-8."""
HIDDEN = "\ufdd0"
"""What the names begin with of counters that the service keeps for itself: no list and no figure shows them.

A noncharacter, which Unicode sets aside for what is nobody's text. Over HTTP no counter can be named so.
"""
MAX_OPS = 10_000
"""Most ops in one request."""
MAX_PAGE = 1000
"""Most counters in one page of a `List`."""
MAX_WAIT = 60.0
"""Longest that a question for changes waits, in seconds."""
MAX_KEY = 255
"""Longest idempotency key, in characters."""
MAX_REQUEST_ID = 128
"""Longest id of a request, in characters."""
MAX_TTL = 100 * 366 * 86_400
"""Longest time to live, in seconds: a hundred years."""

Int64 = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
Ttl = Annotated[int, Meta(ge=1, le=MAX_TTL)]
Name = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME, description="1-250 bytes, no control characters")
]
ShortText = Annotated[str, Meta(max_length=64)]
Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY, description="1-255 visible ASCII characters")]
OnBound = Literal["reject", "clamp"]
TtlMode = Literal["fixed", "sliding"]
Sort = Literal["name", "-value", "-updated"]


def check_name(name: object, least: int = 1) -> None:
    """Refuse what is no counter's name.

    Raises:
        InvalidRequest: not a str of *least* to 250 bytes of UTF-8, or with a control character or surrogate.
    """
    if type(name) is str and least <= len(name) <= MAX_NAME and name.isascii() and name.isprintable():
        return  # most names; what follows says what is wrong with others, if anything is
    if type(name) is not str:
        raise InvalidRequest(f"a counter's name is a str, not {_kind(name)}")
    if name.isascii():
        size = len(name)
    else:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidRequest("a counter's name cannot hold surrogates; use valid Unicode") from None
    if not least <= size <= MAX_NAME:
        raise InvalidRequest(f"a counter's name has {least} to {MAX_NAME} bytes of UTF-8, not {size}")
    # isprintable() is the fast way out: it is False for every control character, and for some harmless ones.
    if not name.isprintable() and any(c < " " or "\x7f" <= c <= "\x9f" for c in name):
        raise InvalidRequest("a counter's name cannot hold control characters (U+0000-1F, U+007F-9F)")


def check_int(field: str, value: object, least: int = INT64_MIN, most: int = INT64_MAX) -> None:
    """Refuse what is no exact integer from *least* to *most*; True, 1.0 and "1" are none.

    Raises:
        InvalidRequest: naming *field*.
    """
    if type(value) is not int:
        raise InvalidRequest(f"{field} is an integer, not {_kind(value)}")
    if not least <= value <= most:
        raise InvalidRequest(f"{field} goes from {least} to {most}")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _is_visible(text: object, most: int) -> bool:
    """Whether it is a str of visible ASCII, without spaces, of *most* characters."""
    # printable and ASCII: from the space to the tilde
    fits = type(text) is str and len(text) <= most and text.isascii() and text.isprintable()
    return fits and " " not in text  # type: ignore[operator]


def check_key(key: object) -> None:
    """Refuse what is no idempotency key.

    Raises:
        InvalidRequest: not a str of 1 to 255 visible ASCII characters; a space is none.
    """
    if not _is_visible(key, MAX_KEY) or not key:
        raise InvalidRequest(f"an idempotency key is 1 to {MAX_KEY} visible ASCII characters, without spaces")


def check_request_id(given: object) -> None:
    """Refuse what is no id of a request.

    Raises:
        InvalidRequest: not a str of up to 128 visible ASCII characters.
    """
    if not _is_visible(given, MAX_REQUEST_ID):
        raise InvalidRequest(
            f"a request's id is up to {MAX_REQUEST_ID} visible ASCII characters, without spaces"
        )


def check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of *choices*.

    Raises:
        InvalidRequest: naming *field* and the choices.
    """
    if type(value) is not str or value not in choices:
        raise InvalidRequest(f"{field} is one of {', '.join(choices)}")


def check_condition(if_version: object) -> None:
    """Refuse what can be no `if_version`.

    Raises:
        InvalidRequest: it is neither None nor a str that is not empty.
    """
    if if_version is not None and (type(if_version) is not str or not if_version):
        raise InvalidRequest('if_version is "present", "absent" or a version that the store gave you')
