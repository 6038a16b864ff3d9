"""Increments a second, latency and the manager's CPU in each mode.

A manager in each mode is up all the time, and the same clients go from one to the other in short turns, in
another order each round: what else the machine does meets all of them alike. The CPU time of an increment is
the steadiest figure, because others that use the machine hardly change it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Spread, percentile, table
from benchmarks.load import Clients
from benchmarks.managers import Manager, manager

MODES = ("memory", "everysec", "always")
_SYNCS = 20


def measure(folder: Path, number: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Compare the modes with a *number* of clients in *rounds* of a turn of *seconds* each."""
    found: dict[str, dict[str, list[float]]] = {mode: defaultdict(list) for mode in MODES}
    syncs = []
    with contextlib.ExitStack() as stack:
        homes = {mode: folder / f"{mode}-{number}" for mode in MODES}
        managers = {mode: stack.enter_context(manager(homes[mode], mode)) for mode in MODES}
        clients = stack.enter_context(Clients(number))
        for mode in MODES:
            clients.run(managers[mode].url, min(seconds, 0.5))  # not counted: connections, caches
        for each in range(rounds):
            syncs += _sync_times(folder)
            for mode in (MODES[(each + step) % len(MODES)] for step in range(len(MODES))):
                for name, figure in _turn(clients, managers[mode], seconds).items():
                    found[mode][name].append(figure)
    return {
        "clients": number,
        "sync_seconds": Spread.of(syncs),
        "modes": {mode: _summary(found[mode], found["memory"]) for mode in MODES},
    }


def tell(parts: list[dict[str, Any]]) -> str:
    """The figures for people."""
    return "\n\n".join(map(_tell, parts))


def _tell(figures: dict[str, Any]) -> str:
    rows = [("", "increments/s", "of memory", "p50 ms", "p99 ms", "manager us/increment", "of memory")]
    for mode, found in figures["modes"].items():
        rows.append(
            (
                mode,
                found["rate"].told(0),
                found["rate_ratio"].told(2),
                found["p50"].told(2, 1e3),
                found["p99"].told(2, 1e3),
                found["cpu"].told(1, 1e6),
                found["cpu_ratio"].told(2),
            )
        )
    sync = figures["sync_seconds"].told(2, 1e3)
    return f"{figures['clients']} clients; a lone write and sync takes {sync} ms\n{table(rows)}"


def _turn(clients: Clients, target: Manager, seconds: float) -> dict[str, float]:
    before = target.cpu_seconds
    begin, calls = clients.run(target.url, seconds)
    used = target.cpu_seconds - before
    took = [each for client in calls for each in client.between(begin, begin + seconds)]
    made = sum(len(client.ends) + 1 for client in calls)  # 1: the one that wakes all up
    return {
        "rate": len(took) / seconds,
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
        "cpu": used / made,
    }


def _summary(found: dict[str, list[float]], base: dict[str, list[float]]) -> dict[str, Spread]:
    summary = {name: Spread.of(values) for name, values in found.items()}
    for name in ("rate", "cpu"):
        ratios = [value / other for value, other in zip(found[name], base[name], strict=True)]
        summary[f"{name}_ratio"] = Spread.of(ratios)
    return summary


def _sync_times(folder: Path) -> list[float]:
    """How long the disk takes to keep 350 bytes more, a few times: `always` cannot be faster than that."""
    times = []
    file = os.open(folder / "syncs", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(_SYNCS):
            before = time.monotonic()
            os.write(file, bytes(350))
            os.fdatasync(file)
            times.append(time.monotonic() - before)
    finally:
        os.close(file)
    return times
