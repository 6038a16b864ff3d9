"""Increments a second, latency and the manager's CPU with each `--durability`.

A manager in each mode is up all the time, and the same clients go from one to the other in short turns, in
another order each round: what else the machine does meets all of them alike. The CPU time of an increment is
the steadiest figure, because others that use the machine hardly change it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

import counter
from benchmarks.figures import Spread, percentile
from benchmarks.homes import increments
from benchmarks.load import Clients
from benchmarks.managers import Manager, manager
from benchmarks.row import OURS, Case, Found, Options, Row, expect_total

MODES = {"everysec": OURS, "memory": f"{OURS} --durability memory", "always": f"{OURS} --durability always"}
"""By what each is called; the first is the default."""
PROCESSES = (8, 1)
_SYNCS = 20


def measure(options: Options) -> Found:
    """Compare the modes, with many clients and with one."""
    syncs: list[float] = []
    cases = [case for number in PROCESSES for case in _measure(number, options, syncs)]
    sync = Spread.of(syncs).told(2, 1e3)
    return Found(cases, [f"a lone write and sync of 350 bytes takes {sync} ms"])


def _measure(number: int, options: Options, syncs: list[float]) -> list[Case]:
    condition = f"{number} processes" if number > 1 else "1 process"
    cases = {mode: Case(subject, condition, {}) for mode, subject in MODES.items()}
    with contextlib.ExitStack() as stack:
        homes = {mode: options.folder / f"{mode}-{number}" for mode in MODES}
        managers = {mode: stack.enter_context(manager(homes[mode], mode)) for mode in MODES}
        clients = stack.enter_context(Clients(number))
        totals = dict.fromkeys(MODES, 0)
        for mode in MODES:  # not counted: connections, caches
            totals[mode] += _turn(clients, managers[mode], min(options.seconds, 0.5)).made
        order = list(MODES)
        for _ in range(options.rounds):
            syncs += _sync_times(options.folder)
            for mode in order:
                turn = _turn(clients, managers[mode], options.seconds)
                totals[mode] += turn.made
                expect_total(MODES[mode], counter.connect(managers[mode].url).total(), totals[mode])
                for name, figure in turn.figures.items():
                    cases[mode].figures.setdefault(name, []).append(figure)
            order.append(order.pop(0))
    return list(cases.values())


class Turn(NamedTuple):
    """One turn: how many increments were *made* in all, and the *figures*."""

    made: int
    figures: dict[str, float]


def _turn(clients: Clients, target: Manager, seconds: float) -> Turn:
    before = target.cpu_seconds
    begin, calls = clients.run(target.url, seconds)
    used = target.cpu_seconds - before
    took = [each for client in calls for each in client.between(begin, begin + seconds)]
    made = increments(calls)
    return Turn(
        made,
        {
            "rate": len(took) / seconds,
            "p50": percentile(took, 0.5),
            "p99": percentile(took, 0.99),
            "server_cpu": used / made,
        },
    )


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


ROW = Row("modes", "What each --durability costs.", measure)
