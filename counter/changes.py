"""What a watcher has not seen yet: changes after a version, in their order."""

from __future__ import annotations

from datetime import datetime

from .fields import HIDDEN
from .listing import SLICE, Job
from .ops import Changes
from .results import ChangesPage, Entry
from .table import CounterTable, S


def changes(table: CounterTable[S], op: Changes, now: datetime) -> Job[ChangesPage]:
    """What *op* asks for, without waiting for it; a counter that ended before *now* is not told.

    Between slices the table may change: what changes again then is told later, as it is by then.
    """
    history, versions = table.history, table.versions
    found = None if op.since is None else versions.find(op.since)
    at, known = found or (0, -1)  # what was gone at `known` is not missed by whoever asks
    complete = known < history.forgotten
    if complete:
        at, known = 0, history.newest
    told: dict[str, Entry | None] = {}
    while places := history.after(at, SLICE):
        for place, name in places:
            if len(told) == op.limit:
                return _page(told, versions.between(at, known), True, complete)
            at = place
            if not name.startswith(op.prefix) or name.startswith(HIDDEN):
                continue
            told.pop(name, None)  # it changed between two slices
            entry = table.entries.get(name)
            if entry is None:
                if place > known:
                    told[name] = None
            elif not entry.expired(now):
                told[name] = entry
        yield
        if max(at, known) < history.forgotten:  # what went between two slices cannot be told any more
            told, complete, at, known = {}, True, 0, history.newest
    return _page(told, versions.of(max(at, history.newest)), False, complete)


def _page(told: dict[str, Entry | None], version: str, more: bool, complete: bool) -> ChangesPage:
    counters = [entry for entry in told.values() if entry is not None]
    gone = [name for name, entry in told.items() if entry is None]
    return ChangesPage(counters, gone, version, more, complete)
