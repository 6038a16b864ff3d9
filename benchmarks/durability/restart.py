"""How long a manager with many counters takes from its start to the ready line, and its memory then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.figures import Spread, table
from benchmarks.homes import fill
from benchmarks.managers import manager

LOG_BYTES = 64 * 1024 * 1024
"""A log behind 1,000,000 counters; behind fewer it has less, or it would be worth a snapshot."""
_MIB = 1024 * 1024


def measure(folder: Path, rounds: int, counters: int) -> dict[str, Any]:
    """Start with nothing, from a snapshot of *counters*, and from one with a log behind it, in turn."""
    log_bytes = LOG_BYTES * counters // 1_000_000
    homes = {
        "nothing": folder / "empty",
        "a snapshot": folder / "snapshot",
        "a snapshot and a log": folder / "log",
    }
    fill(homes["a snapshot"], counters)
    fill(homes["a snapshot and a log"], counters, log_bytes)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in homes}
    for _ in range(rounds):
        for name, home in homes.items():
            with manager(home, "everysec") as started:
                found[name].append((started.ready_seconds, started.memory, started.peak_memory))
    names = ("seconds", "memory", "peak_memory")
    return {
        "counters": counters,
        "log_bytes": log_bytes,
        "from": {
            start: {name: Spread.of(each) for name, each in zip(names, zip(*runs, strict=True), strict=True)}
            for start, runs in found.items()
        },
    }


def tell(figures: dict[str, Any]) -> str:
    """The figures for people."""
    rows = [("from", "seconds", "MiB then", "MiB at most")]
    for start, found in figures["from"].items():
        memory = [found[name].told(0, 1 / _MIB) for name in ("memory", "peak_memory")]
        rows.append((start, found["seconds"].told(2), *memory))
    log = figures["log_bytes"] / _MIB
    return f"{figures['counters']:,} counters; the log has {log:.0f} MiB\n{table(rows)}"
