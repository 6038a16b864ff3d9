"""Each sync takes long: `everysec` hardly notices, with `always` more calls share a sync, and no call fails.

A disk without delay comes first, then 20, 200 and, if the run is not short, 2,000 ms. Each of 8 threads
makes its calls without a pause. Checked: with `everysec` half of the calls take less than half a sync; with
`always` there are several calls for each sync, 9 of 10 calls take no longer than three syncs (the one under
way, one's own, and one more) and 0.1 s, and 99 of 100 no longer than that and a second in which the machine
stands still.

The first call of a thread is told apart: a connection that is new goes through several turns of the manager
until it may ask, and each can hold a sync.
"""

import statistics

from faults.load import load
from faults.plan import Plan
from faults.service import service

MILLISECONDS = (0, 20, 200, 2000)
LONG = 10
"""So many runs are not short."""
FASTER = 100
"""How many times as many calls there are with `everysec`."""
SLACK, STANDSTILL = 0.1, 1.0
"""Seconds that the machine may take for itself: always, and once in a hundred calls."""
TIMEOUT = 30
"""Seconds that a call may take."""


def run(trial):
    for milliseconds in MILLISECONDS[: None if trial.runs >= LONG else -1]:
        calls, syncs = calls_on(trial, milliseconds)
        first = [seconds_of(call) for call in calls if call.who.endswith("#0")]
        took = [seconds_of(call) for call in calls if not call.who.endswith("#0")]
        seconds = (max(call.ended for call in calls) - min(call.begun for call in calls)) / 1e9
        percentiles = statistics.quantiles(took, n=100, method="inclusive")
        p50, p90, p99 = (percentiles[number - 1] for number in (50, 90, 99))
        key = f"sync_{milliseconds}_ms"
        trial.figures[key] = {
            "calls_per_second": round(len(calls) / seconds, 1),
            "calls_per_sync": round(len(calls) / max(1, syncs), 1),
            "p50_ms": round(1000 * p50, 1),
            "p90_ms": round(1000 * p90, 1),
            "p99_ms": round(1000 * p99, 1),
            "slowest_first_call_ms": round(1000 * max(first), 1),
        }
        sync = milliseconds / 1000
        if sync and trial.durability == "everysec":
            trial.require(p50 <= sync / 2, f"{key}: half of the calls take {p50:.3f} s")
        elif sync:
            trial.require(p90 <= 3 * sync + SLACK, f"{key}: the 90th percentile is {p90:.3f} s")
            trial.require(p99 <= 3 * sync + STANDSTILL, f"{key}: the 99th percentile is {p99:.3f} s")
            trial.require(len(calls) >= 2 * syncs, f"{key}: {syncs} syncs for {len(calls)} calls")


def seconds_of(call):
    """How long *call* took."""
    return (call.ended - call.begun) / 1e9


def calls_on(trial, milliseconds):
    """The calls that were made on a disk that is so slow, and how many syncs there were."""
    calls = max(3, trial.runs) * (FASTER if trial.durability == "everysec" else 1)
    if trial.durability == "always" and milliseconds >= 2000:
        calls = max(3, trial.runs // 4)
    plan = Plan(trial.new_folder(f"plan.{milliseconds}"))
    faults = [f"faults.disk_faults:slow_sync={milliseconds}:{plan.folder}"]
    home = trial.folder / f"home.{milliseconds}"
    with (
        service(trial, faults=faults, home=home) as running,
        load(trial, f"{running.counters_url}?timeout={TIMEOUT}", 2, 4, calls=calls, pause=0) as clients,
    ):
        made = clients.join(600)
        syncs = len(plan.told())
        trial.judge(made, running.values())
    return made, syncs
