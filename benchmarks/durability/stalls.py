"""How long anyone waits while a snapshot of many counters is made, and whose fault that is.

Clients increment all the time, and one more measures how long each of its calls takes. From the switch of
logs to the snapshot's adoption it counts as *snapshot*; for as long after it, as *quiet*. The manager watches
its own loop meanwhile (`launcher`), which tells its own stalls from waiting for a CPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Spread, percentile, table
from benchmarks.homes import fill
from benchmarks.launcher import WANTED, Stall
from benchmarks.load import Calls, Clients
from benchmarks.managers import Manager, manager
from counter.recovery import LOG, SNAPSHOT, numbered

CLIENTS = 4
PROBE_PAUSE = 0.001
"""Seconds between two calls of the one that measures."""
POLL = 0.02
PATIENCE = 120.0


class Window(NamedTuple):
    """A time on the monotonic clock, in which a snapshot was made or (*kind*) was not."""

    kind: str
    start: float
    end: float


def measure(folder: Path, rounds: int, counters: int, pause: float) -> dict[str, Any]:
    """Make a snapshot of *counters* in each of the *rounds*; *pause* seconds after each call of a client."""
    home, told = folder / "stalls", folder / "stalls.json"
    fill(home, counters)
    windows: list[Window] = []
    launcher = ("-m", "benchmarks.launcher", str(home), "everysec", str(told))
    with manager(home, "everysec", launcher) as watched, Clients(CLIENTS) as load, Clients(1) as probe:
        load.start(watched.url, pause)
        probe.start(watched.url, PROBE_PAUSE)
        time.sleep(1.0)
        for _ in range(rounds):
            snapshot = _make_snapshot(watched)
            time.sleep(0.5)
            windows += [snapshot, _quiet(watched, snapshot.end - snapshot.start)]
        (probed,), loaded = probe.stop(), load.stop()
    stalls = [Stall(*each) for each in json.loads(told.read_text())]
    found = [_figures(window, probed, loaded, stalls) for window in windows]
    return {
        "counters": counters,
        "clients": CLIENTS,
        "windows": [{"kind": window.kind} | each for window, each in zip(windows, found, strict=True)],
    }


def tell(figures: dict[str, Any]) -> str:
    """The figures for people."""
    columns = {
        "seconds": ("seconds", 2, 1),
        "increments/s": ("rate", 0, 1),
        "probe p99 ms": ("p99", 1, 1e3),
        "probe max ms": ("longest", 1, 1e3),
        "loop max ms": ("loop", 1, 1e3),
        "own": ("own", 1, 1e3),
        "of it running": ("running", 1, 1e3),
        "of it blocked": ("blocked", 1, 1e3),
        "no CPU": ("queued", 1, 1e3),
    }
    rows = [("", *columns)]
    for kind in ("snapshot", "quiet"):
        found = [each for each in figures["windows"] if each["kind"] == kind]
        cells = [
            Spread.of(each[name] for each in found).told(digits, scale)
            for name, digits, scale in columns.values()
        ]
        rows.append((kind, *cells))
    turned = [list(row) for row in zip(*rows, strict=True)]
    title = f"{figures['counters']:,} counters, {figures['clients']} clients and a probe"
    return f"{title}\n{table(turned)}"


def _figures(window: Window, probed: Calls, loaded: list[Calls], stalls: list[Stall]) -> dict[str, float]:
    start, end = window.start, window.end
    probe = probed.between(start, end)
    inside = [each for each in stalls if each.begin < end and each.begin + each.wall > start]
    work = [each for each in inside if not each.waking]

    def longest(of: Callable[[Stall], float], among: list[Stall]) -> float:
        return max(map(of, among), default=0.0)

    return {
        "seconds": end - start,
        "rate": sum(len(each.between(start, end)) for each in loaded) / (end - start),
        "p99": percentile(probe, 0.99),
        "longest": max(probe, default=0.0),
        "loop": longest(lambda each: each.wall, work),
        "own": longest(lambda each: each.own, work),
        "running": longest(lambda each: each.running, work),
        "blocked": longest(lambda each: each.blocked, work),
        "queued": longest(lambda each: each.queued, inside),
    }


def _make_snapshot(watched: Manager) -> Window:
    logs, snapshots = _newest(watched, LOG), _newest(watched, SNAPSHOT)
    (watched.home / WANTED).touch()
    try:
        start = _when(lambda: _newest(watched, LOG) != logs)
        return Window("snapshot", start, _when(lambda: _newest(watched, SNAPSHOT) != snapshots))
    except TimeoutError as error:
        raise RuntimeError(f"no snapshot was made; the manager says: {watched.errors}") from error


def _quiet(watched: Manager, seconds: float) -> Window:
    start = time.monotonic()
    end = _when(lambda: _newest(watched, LOG) < 0 or time.monotonic() >= start + seconds)  # looks as often
    return Window("quiet", start, end)


def _newest(watched: Manager, suffix: str) -> int:
    names = [each.name for each in (watched.home / "journal").iterdir()]
    return max(numbered(iter(names), suffix), default=0)


def _when(condition: Callable[[], bool]) -> float:
    """When *condition* was true first."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened within {PATIENCE:.0f} s")
        time.sleep(POLL)
    return time.monotonic()
