"""How long anyone waits while a snapshot of many counters is made, and whose fault that is.

Clients increment all the time, and one more measures how long each of its calls takes. From the switch of
logs to the snapshot's adoption it counts as *snapshot*; for as long after it, as *quiet*. The manager watches
its own loop meanwhile (`launcher`), which tells its own stalls from waiting for a CPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import counter
from benchmarks.figures import percentile
from benchmarks.homes import fill, increments
from benchmarks.launcher import WANTED, Stall
from benchmarks.load import Calls, Clients
from benchmarks.managers import Manager, manager
from benchmarks.row import OURS, Aim, Case, Found, Options, Row, expect_total
from counter.recovery import LOG, SNAPSHOT, numbered

CLIENTS = 4
PROBE_PAUSE = 0.001
"""Seconds between two calls of the one that measures."""
POLL = 0.02
PATIENCE = 120.0
KINDS = {"snapshot": "a snapshot is made", "quiet": "none is"}
LOOP: dict[str, Callable[[Stall], float]] = {
    "its loop": lambda stall: stall.wall,
    "its loop, but for others on the CPU": lambda stall: stall.own,
    "of it running": lambda stall: stall.running,
    "of it blocked": lambda stall: stall.blocked,
}
"""What the longest turn of the manager's loop was made of."""


class Window(NamedTuple):
    """A time on the monotonic clock, in which a snapshot was made or (*kind*) was not."""

    kind: str
    start: float
    end: float


def measure(options: Options) -> Found:
    """Make a snapshot of all counters in each of the rounds."""
    home, told = options.folder / "stalls", options.folder / "stalls.json"
    total = fill(home, options.counters)
    windows: list[Window] = []
    launcher = ("-m", "benchmarks.launcher", str(home), "everysec", str(told))
    with manager(home, "everysec", launcher) as watched, Clients(CLIENTS) as load, Clients(1) as probe:
        load.start(watched.url)
        probe.start(watched.url, PROBE_PAUSE)
        time.sleep(options.seconds)
        for _ in range(options.rounds):
            snapshot = _make_snapshot(watched)
            time.sleep(0.5)
            windows += [snapshot, _quiet(watched, snapshot.end - snapshot.start)]
        probed, loaded = probe.stop(), load.stop()
        made = increments(probed) + increments(loaded)
        expect_total(OURS, counter.connect(watched.url).total(), total + made)
    stalls = [Stall(*each) for each in json.loads(told.read_text())]
    note = f"{options.counters:,} counters, {CLIENTS} clients and a probe"
    return Found(cases(windows, probed[0], loaded, stalls), [note])


def cases(
    windows: Sequence[Window], probed: Calls, loaded: Sequence[Calls], stalls: Sequence[Stall]
) -> list[Case]:
    """What the calls and the *stalls* of the loop were like in the *windows*; a round is one of each kind."""
    found: dict[str, Case] = {}

    def add(kind: str, part: str, **figures: float) -> None:
        condition = KINDS[kind] + part
        case = found.setdefault(condition, Case(OURS, condition, {}))
        for name, figure in figures.items():
            case.figures.setdefault(name, []).append(figure)

    for kind, start, end in windows:
        probe = probed.between(start, end)
        rate = sum(len(each.between(start, end)) for each in loaded) / (end - start)
        longest, p99 = max(probe, default=0.0), percentile(probe, 0.99)
        add(kind, "", rate=rate, p99=p99, longest=longest, seconds=end - start)
        inside = [each for each in stalls if each.begin < end and each.begin + each.wall > start]
        work = [each for each in inside if not each.waking]
        for part, of in LOOP.items():
            add(kind, f"; {part}", longest=max(map(of, work), default=0.0))
        add(kind, "; its loop without a CPU", longest=max((each.queued for each in inside), default=0.0))
    return list(found.values())


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


ROW = Row(
    "snapshot-stall",
    "The longest that an increment waits while a snapshot is made.",
    measure,
    (Aim("longest", OURS, "", KINDS["snapshot"], 0.05, 0.02),),
)
