"""The lines that `counter export` writes and `counter import` reads: what one says, and a file full of them.

A line is a JSON object with the fields of `Entry`. A file is checked as a whole before any of it is used.
What has been checked goes to a file of its own: neither needs to be in memory.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import IO, Annotated

import msgspec

from .. import strict_json
from ..errors import InvalidRequest
from ..fields import MAX_TTL, Int64, Name, OnBound, Ttl, TtlMode
from ..ops import Set
from ..results import Entry

MAX_LINE = 64 * 1024
"""Longest line, in bytes; the longest name and all fields need a tenth of it."""
SAME_END = timedelta(seconds=2)
"""Ends this close are equal: an import rounds up to a second, and takes a moment."""

_POSITION = re.compile(r": line 1 column (\d+) \(char \d+\)")

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A counter as a line of an import says it: the fields of `Entry`, all but two optional.

    Version and times of creation and change are read, so that an export can be imported, and not used: the
    store gives its own.
    """

    name: Name
    value: Int64
    version: str | None = None
    created_at: Moment | None = None
    updated_at: Moment | None = None
    min: Int64 | None = None
    max: Int64 | None = None
    on_bound: OnBound | None = None
    ttl: Ttl | None = None
    ttl_mode: TtlMode | None = None
    expires_at: Moment | None = None

    def __post_init__(self) -> None:
        Set(self.name, self.value, self.min, self.max)
        if self.ttl is None and (self.ttl_mode is not None or self.expires_at is not None):
            raise InvalidRequest("ttl_mode and expires_at need a ttl")
        low, high = self.min, self.max
        # Refused also where the store would clamp: what is imported is what the line says.
        if (low is not None and self.value < low) or (high is not None and self.value > high):
            raise InvalidRequest(f"value {self.value} is outside of min and max")

    def op(self, now: datetime) -> Set | None:
        """What gives a store this counter at *now*; None if its time is over.

        A fixed counter keeps the moment of its end, up to the next full second. A sliding one, and one
        without `expires_at`, starts its time to live anew.

        Raises:
            InvalidRequest: its end is too far away for a ttl.
        """
        ttl = self.ttl
        if self.expires_at is not None:
            if self.expires_at <= now:
                return None
            if self.ttl_mode != "sliding":
                ttl = math.ceil((self.expires_at - now) / timedelta(seconds=1))
                if ttl > MAX_TTL:
                    raise InvalidRequest("expires_at is more than a hundred years away")
        return Set(self.name, self.value, self.min, self.max, self.on_bound, ttl, self.ttl_mode)

    def same_as(self, entry: Entry) -> bool:
        """Whether *entry* has this value, these settings, and the same end if that is fixed."""
        mode = self.ttl_mode or (self.ttl and "fixed")
        ours = (self.value, self.min, self.max, self.on_bound, mode)
        if ours != (entry.value, entry.min, entry.max, entry.on_bound, entry.ttl_mode):
            return False
        if mode == "fixed" and self.expires_at and entry.expires_at:
            return abs(self.expires_at - entry.expires_at) <= SAME_END
        return self.ttl == entry.ttl


def check(file: IO[bytes], checked: IO[bytes], now: datetime, tell: Callable[[int], None]) -> int:
    """Copy what the lines of *file* say to *checked*, for `read`, and return how many counters that are.

    Args:
        file: the lines; empty ones are skipped.
        checked: an empty file, open for reading and writing.
        now: the time; what ends later must have an end that a ttl can reach.
        tell: is told of bytes that have been read.

    Raises:
        InvalidRequest: a line is wrong, and which, or a name stands in two.
    """
    names, encode = _Names(), msgspec.json.Encoder().encode
    for number, text in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
        if len(text) == MAX_LINE or not text.isspace():
            line = _parse(text, number, now)
            names.add(line.name)
            checked.write(encode((number, line)) + b"\n")
        tell(len(text))
    names.check(checked)
    return len(names)


def read(checked: IO[bytes]) -> Iterator[Line]:
    """The lines that `check` has copied."""
    return (line for _, line in _numbered(checked))


def _numbered(checked: IO[bytes]) -> Iterator[tuple[int, Line]]:
    """The same, each with the number that it had in its file."""
    checked.seek(0)
    return map(msgspec.json.Decoder(tuple[int, Line]).decode, checked)


def _parse(text: bytes, number: int, now: datetime) -> Line:
    try:
        if len(text) == MAX_LINE:
            raise InvalidRequest(f"it is longer than {MAX_LINE:,} bytes")
        line = msgspec.convert(strict_json.decode(text.strip()), Line)
        line.op(now)
    except (InvalidRequest, msgspec.ValidationError) as exc:
        raise InvalidRequest(f"line {number}: {_reason(str(exc))}; nothing was imported") from None
    return line


def _reason(complaint: str) -> str:
    """What is wrong with a line; the readers of JSON and of its fields have other words for where that is."""
    what, _, field = complaint.replace("`", "").partition(" - at $.")
    what = _POSITION.sub(r" in column \1", what.replace("the body", "it"))
    what = what[:1].lower() + what[1:]
    return f"{field}: {what}" if field else what


class _Names:
    """The names in a file, as 8 bytes each: enough to know which ones must be looked at a second time."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, name: str) -> None:
        """Take *name* for one that the file holds."""
        self._hashes.append(hash(name))

    def check(self, checked: IO[bytes]) -> None:
        """See that no name stands in two lines.

        Raises:
            InvalidRequest: one does, and where.
        """
        suspects = {one for one, other in pairwise(sorted(self._hashes)) if one == other}
        if not suspects:
            return
        first: dict[str, int] = {}
        for number, line in _numbered(checked):
            if hash(line.name) in suspects and first.setdefault(line.name, number) != number:
                raise InvalidRequest(
                    f"line {number}: {json.dumps(line.name)} stands in line {first[line.name]} already;"
                    " nothing was imported"
                )
