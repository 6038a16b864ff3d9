"""The manager is killed again and again under load by the library: no call fails, none is lost or doubled.

A kill counts as in flight if a call had begun before it and was answered only after the next manager had
begun to start. With durability `memory` the losses must show: it is how one sees that they would.
"""

import statistics
import time

from faults.load import load
from faults.oracle import in_flight, slowest
from faults.processes import Kill
from faults.service import service


def run(trial):
    moments, restarts = [], []
    with service(trial) as running, load(trial, running.counters_url, pause=0.002) as clients:
        for _ in range(trial.runs):
            pid = running.manager()
            time.sleep(trial.chance.uniform(0.05, 0.5))
            kill = Kill(pid)
            moments.append((kill.at, running.wait_followed(pid)))
            running.manager()
            restarts.append((time.monotonic_ns() - kill.at) / 1e9)
        calls = clients.finish()
        finals = running.values()
    trial.figures["kills"] = len(moments)
    trial.figures["in_flight_kills"] = hit = in_flight(moments, calls)
    trial.figures["restart_seconds"] = {
        "median": round(statistics.median(restarts), 3),
        "longest": round(max(restarts), 3),
        "last": round(restarts[-1], 3),
    }
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.judge(calls, finals)
    trial.require(hit >= trial.runs // 4, f"only {hit} kills met a call in flight, so little is shown")
