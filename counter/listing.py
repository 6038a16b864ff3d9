"""Questions about many counters, answered in slices: each is a generator that yields between two of them.

Between slices the table may change, so a listing by value or by time is no snapshot. A listing by name shows
every counter that is there from its beginning to its end, once.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Generator, Iterator
from datetime import datetime
from itertools import islice
from math import floor
from typing import TypeVar

import msgspec

from .errors import InvalidRequest
from .fields import HIDDEN, Sort
from .ops import List
from .results import Entry, Page
from .table import CounterTable, S

T = TypeVar("T")
Job = Generator[None, None, T]
"""Yields between slices and returns its answer."""
SLICE = 2000
"""Counters looked at in one slice: about a millisecond."""


class _Cursor(msgspec.Struct, array_like=True):
    """Where a page ended: the sort it belongs to and the last counter's place in it."""

    sort: Sort
    place: int | float
    name: str


def page(table: CounterTable[S], op: List, now: datetime) -> Job[Page]:
    """The page that *op* asks for, of the counters that live at *now*.

    Raises:
        InvalidRequest: the cursor is of another listing.
    """
    cursor = _decode_cursor(op)
    if op.sort == "name":
        found = yield from _by_name(table, op, now, cursor)
    else:
        found = yield from _by_place(table, op, now, cursor)
    if len(found) <= op.limit:
        return Page(found, None)
    last = found[op.limit - 1]
    return Page(found[: op.limit], _encode_cursor(_Cursor(op.sort, _place(last, op.sort), last.name)))


def count(table: CounterTable[S], now: datetime) -> Job[int]:
    """How many counters live at *now*, also where the sweep is behind."""
    hidden = yield from _count_hidden(table, now)
    total = len(table.entries) - table.ends.count_due(floor(now.timestamp())) - hidden
    ending = [name for name in table.ending(now) if not name.startswith(HIDDEN)]
    for first in range(0, len(ending), SLICE):
        entries = map(table.entries.get, ending[first : first + SLICE])
        total -= sum(entry is None or entry.expired(now) for entry in entries)
        yield
    return total


def _count_hidden(table: CounterTable[S], now: datetime) -> Job[int]:
    """How many counters there are that nobody is told of, without those that are due."""
    due = floor(now.timestamp())
    total, start, inclusive = 0, HIDDEN, True
    while names := list(islice(table.names.after(start, inclusive), SLICE)):
        entries = [table.entries[name] for name in names if name.startswith(HIDDEN)]
        total += sum(e.expires_at is None or e.expires_at.timestamp() > due for e in entries)
        if len(entries) < SLICE:
            break
        start, inclusive = names[-1], False
        yield
    return total


def everything(table: CounterTable[S], now: datetime, most: int) -> Job[list[Entry]]:
    """All counters that live at *now*, by name.

    Raises:
        InvalidRequest: there are more than *most*.
    """
    if (yield from count(table, now)) > most:
        raise InvalidRequest(
            f"above {most} counters ask for pages: the HTTP API and `counter list` give them"
        )
    found: list[Entry] = []
    for entries in _slices(table, "", None):
        found += (entry for entry in entries if not entry.expired(now))
        yield
    return found


def _by_name(table: CounterTable[S], op: List, now: datetime, cursor: _Cursor | None) -> Job[list[Entry]]:
    found: list[Entry] = []
    for entries in _slices(table, op.prefix, cursor.name if cursor else None):
        found += islice((e for e in entries if not e.expired(now)), op.limit + 1 - len(found))
        if len(found) > op.limit:
            break
        yield
    return found


def _by_place(table: CounterTable[S], op: List, now: datetime, cursor: _Cursor | None) -> Job[list[Entry]]:
    def place(entry: Entry) -> tuple[int | float, str]:
        return _place(entry, op.sort), entry.name

    after = (cursor.place, cursor.name) if cursor else None
    best: list[Entry] = []
    for entries in _slices(table, op.prefix, None):
        best += (e for e in entries if not e.expired(now) and (after is None or place(e) > after))
        best = heapq.nsmallest(op.limit + 1, best, key=place)
        yield
    return best


def _slices(table: CounterTable[S], prefix: str, after: str | None) -> Iterator[list[Entry]]:
    """The counters under *prefix* by name, from above *after*; the table may change between two slices."""
    start, inclusive = (prefix, True) if after is None or after < prefix else (after, False)
    while names := list(islice(table.names.after(start, inclusive), SLICE)):
        yield [
            table.entries[name] for name in names if name.startswith(prefix) and not name.startswith(HIDDEN)
        ]
        start, inclusive = names[-1], False
        if not start.startswith(prefix):
            return


def _place(entry: Entry, sort: Sort) -> int | float:
    """Where *entry* stands; smaller is earlier. An int for a value, so that 64 bits stay exact."""
    if sort == "-value":
        return -entry.value
    return -entry.updated_at.timestamp() if sort == "-updated" else 0


def _encode_cursor(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _decode_cursor(op: List) -> _Cursor | None:
    if op.cursor is None:
        return None
    try:
        raw = base64.urlsafe_b64decode(op.cursor + "=" * (-len(op.cursor) % 4))
        cursor = msgspec.json.decode(raw, type=_Cursor)
        cursor.name.encode()
    except (ValueError, msgspec.MsgspecError, RecursionError):  # the last: deep and superfluous
        cursor = None
    if cursor is None or cursor.sort != op.sort:
        raise InvalidRequest("cursor is what the page before gave as next, with the same sort")
    return cursor
