"""What a watcher has not seen yet: changes after a version, in their order."""

from __future__ import annotations

from datetime import datetime

from .listing import SLICE, Job
from .ops import Changes
from .results import ChangesPage, Entry
from .table import CounterTable, S


def changes(table: CounterTable[S], op: Changes, now: datetime) -> Job[ChangesPage]:
    """What *op* asks for, without waiting for it; a counter that ended before *now* is not told.

    Between slices the table may change: what changes again then is told later, as it is by then.
    """
    seen = None if op.since is None else table.versions.find(op.since)
    complete = seen is None or seen < table.history.forgotten
    at = 0 if seen is None or complete else seen
    counters: list[Entry] = []
    gone: list[str] = []
    while places := table.history.after(at, SLICE):
        for place, name in places:
            if len(counters) + len(gone) == op.limit:
                return ChangesPage(counters, gone, table.versions.of(at), True, complete)
            at = place
            if not name.startswith(op.prefix):
                continue
            entry = table.entries.get(name)
            if entry is None:
                gone += [] if complete else [name]
            elif not entry.expired(now):
                counters.append(entry)
        yield
    newest = max(at, table.history.newest)
    return ChangesPage(counters, gone, table.versions.of(newest), False, complete)
