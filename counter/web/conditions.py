"""Conditional requests (RFC 9110, 13): ETags are versions, and `If-Match` is a compare-and-set.

For whatever changes a counter the condition becomes the op's `if_version`, so the store decides it in the
same step as the change.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import InvalidRequest, VersionMismatch
from ..results import Entry
from .call import Call

NEVER = "*"
"""An `if_version` that no counter ever has."""
_KEYWORDS = ("present", "absent", "")  # what if_version means otherwise, and no version is
_ITEM = re.compile(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*)?(?:,|\Z)')


class Tags(NamedTuple):
    """A condition's header: *anything* is ``*``; weak tags never match where a strong one is asked for."""

    anything: bool
    strong: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()


def parse_tags(field: str, text: str) -> Tags:
    """The tags in the header *field*.

    Raises:
        InvalidRequest: it is neither ``*`` nor a list of ETags.
    """
    if text.strip(" \t") == "*":
        return Tags(True)
    strong: list[str] = []
    weak: list[str] = []
    at = 0
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None:
            strong, weak = [], []
            break
        if item[2] is not None:
            (weak if item[1] else strong).append(item[2])
        at = item.end()
    if not strong and not weak:
        raise InvalidRequest(f'{field} is * or versions in double quotes, such as {field}: "3fQx.17"')
    return Tags(False, tuple(strong), tuple(weak))


def etag(version: str) -> tuple[str, str]:
    """The header that tells *version*."""
    return "ETag", f'"{version}"'


def is_unchanged(call: Call, entry: Entry) -> bool:
    """Whether a reader has *entry* already.

    Raises:
        InvalidRequest: a header is malformed, also where the other one decides.
        VersionMismatch: `If-Match` asks for another one.
    """
    match, none_match = call.header("IF_MATCH"), call.header("IF_NONE_MATCH")
    wanted = None if match is None else parse_tags("If-Match", match)
    known = None if none_match is None else parse_tags("If-None-Match", none_match)
    if wanted is not None and not wanted.anything and entry.version not in wanted.strong:
        raise VersionMismatch(f"{entry.name!r} has another version than If-Match asks for", entry)
    return known is not None and (known.anything or entry.version in known.strong + known.weak)


def if_versions(call: Call) -> list[str]:
    """What the headers ask of a change of the call's counter: each an `if_version`, and any of them will do.

    There is none where nothing is asked.

    Raises:
        InvalidRequest: they are malformed, or ask for what no store decides in one step.
    """
    match, none_match = call.header("IF_MATCH"), call.header("IF_NONE_MATCH")
    if none_match is None:
        return [] if match is None else _if_match(parse_tags("If-Match", match))
    if match is not None:
        raise InvalidRequest("give If-Match or If-None-Match, not both")
    if not parse_tags("If-None-Match", none_match).anything:
        raise InvalidRequest("with a change If-None-Match takes * alone: only if there is no such counter")
    return ["absent"]


def refuse_conditions(call: Call) -> None:
    """Refuse the headers where they could mean any of several counters: ignoring one would lose an update.

    Raises:
        InvalidRequest: there is one.
    """
    if call.header("IF_MATCH") is not None or call.header("IF_NONE_MATCH") is not None:
        raise InvalidRequest(
            "If-Match and If-None-Match are for one counter; here each op takes an if_version"
        )


def _if_match(tags: Tags) -> list[str]:
    if tags.anything:
        return ["present"]
    return [tag for tag in dict.fromkeys(tags.strong) if tag not in _KEYWORDS] or [NEVER]
