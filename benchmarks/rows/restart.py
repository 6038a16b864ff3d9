"""How long a manager with many counters takes from its start to the ready line."""

from __future__ import annotations

import counter
from benchmarks.homes import fill
from benchmarks.managers import manager
from benchmarks.row import OURS, Aim, Case, Found, Options, Row, expect_total

LOG_BYTES = 64 * 1024 * 1024
"""A log behind 1,000,000 counters; behind fewer it has less, or it would be worth a snapshot."""


def measure(options: Options) -> Found:
    """Start with nothing, from a snapshot, and from one with a log behind it, in turn."""
    homes = {
        start: options.folder / name
        for start, name in (("nothing", "empty"), ("a snapshot", "snapshot"), ("a snapshot and a log", "log"))
    }
    log_bytes = LOG_BYTES * options.counters // 1_000_000
    totals = {
        "nothing": 0,
        "a snapshot": fill(homes["a snapshot"], options.counters),
        "a snapshot and a log": fill(homes["a snapshot and a log"], options.counters, log_bytes),
    }
    cases = {start: Case(OURS, start, {"seconds": []}) for start in homes}
    order = list(homes)
    for _ in range(options.rounds):
        for start in order:
            with manager(homes[start], "everysec") as started:
                cases[start].figures["seconds"].append(started.ready_seconds)
                expect_total(f"a start from {start}", counter.connect(started.url).total(), totals[start])
        order.append(order.pop(0))
    log = f"{log_bytes / 1024 / 1024:.1f}"
    return Found(list(cases.values()), [f"{options.counters:,} counters; the log has {log} MiB"])


ROW = Row(
    "restart",
    "From the start of a manager to its ready line.",
    measure,
    (Aim("seconds", OURS, "", "a snapshot", 5.0, 2.0),),
)
