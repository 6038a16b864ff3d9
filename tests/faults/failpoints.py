"""The manager is killed at each point of its way, under load: no call fails, none is lost or doubled.

It kills itself, at the n-th time that it comes to the point; n is left to chance. One run is a round over all
points: those of a request, of a sync, of a snapshot and of a start.
"""

from itertools import pairwise

from support import wait_until

from faults.disk_faults import IN_A_START, POINTS
from faults.load import load
from faults.oracle import in_flight, slowest
from faults.plan import Plan
from faults.service import PATIENCE, service

FAULTS = ("frequent_snapshots=1,1", "sync_seconds=0.05")


def run(trial):
    plan = Plan(trial.new_folder("plan"))
    lines = planned(trial)
    plan.write(lines)
    faults = [f"faults.disk_faults:{fault}" for fault in (*FAULTS, f"killed_at={plan.folder}")]
    with (
        service(trial, faults=faults) as running,
        load(trial, running.counters_url, processes=4, pause=0.002) as clients,
    ):
        for done in range(1, len(lines) + 1):
            wait_for_kill(plan, done, lines)
        running.manager()
        calls = clients.finish()
        finals = running.values()
        kept = [file.name for file in (running.home / "journal").iterdir()]
    moments = deaths(plan.told())
    trial.figures["kills"] = len(moments)
    trial.figures["points"] = len(POINTS)
    trial.figures["in_flight_kills"] = hit = in_flight(moments, calls)
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.judge(calls, finals)
    trial.require(len(moments) == len(lines), f"{len(moments)} kills, and {len(lines)} were planned")
    trial.require(hit >= len(lines) // 4, f"only {hit} kills met a call in flight, so little is shown")
    trial.require(any(name.endswith(".snapshot") for name in kept), f"no snapshot was made: {kept}")


def planned(trial):
    """The points of all rounds, each round in another order, and the times for each.

    A point in a start comes between two others: after several starts that fail the supervisor waits longer
    than a call may take, and a service whose first start fails ends.
    """
    lines = []
    for _ in range(trial.runs):
        others = [point for point in POINTS if point not in IN_A_START]
        trial.chance.shuffle(others)
        places = sorted(trial.chance.sample(range(1, len(others)), len(IN_A_START)), reverse=True)
        for place, point in zip(places, IN_A_START, strict=True):
            others.insert(place, point)
        lines += [f"{point} {trial.chance.randint(1, POINTS[point])}" for point in others]
    return lines


def wait_for_kill(plan, done, lines):
    """Wait until so many kills are *done*."""
    try:
        wait_until(lambda: len(deaths(plan.told())) >= done, 2 * PATIENCE)
    except AssertionError:
        raise AssertionError(f"nothing came to the point of kill {done}: {lines[done - 1]}") from None


def deaths(told):
    """For each kill that was followed by a start: when it was, and when the next manager started."""
    times = [(words[1], int(words[-1])) for words in told]
    pairs = pairwise(times)
    return [(at, next_at) for (what, at), (then, next_at) in pairs if (what, then) == ("killed", "started")]
