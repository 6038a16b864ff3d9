"""A worker is killed again and again under load by HTTP: nobody is refused, no call is lost or doubled.

Each call has an Idempotency-Key, and is repeated with it when its connection breaks. The family's socket is
the supervisor's, so no connection may be refused either. A kill counts as in flight if a call was under way
while the worker died.
"""

import time

from faults.load import load
from faults.oracle import in_flight, slowest
from faults.processes import Kill
from faults.service import service

WORKERS = 2


def run(trial):
    kill_again_and_again(trial, with_manager=False)


def kill_again_and_again(trial, with_manager):
    """Kill a worker, or a worker and the manager at once, as often as *trial* says."""
    moments = []
    with (
        service(trial, WORKERS) as running,
        load(trial, running.url, processes=2, threads=4) as clients,
    ):
        for _ in range(trial.runs):
            victims = [trial.chance.choice(running.wait_workers(WORKERS))]
            victims += [running.manager()] if with_manager else []
            time.sleep(trial.chance.uniform(0.05, 0.5))
            kills = [Kill(pid) for pid in victims]
            moments.append((kills[0].at, kills[-1].gone_at))
        running.wait_workers(WORKERS)
        calls = clients.finish()
        finals = running.values()
    trial.figures["kills"] = len(moments) * (2 if with_manager else 1)
    trial.figures["in_flight_kills"] = in_flight(moments, calls)
    trial.figures["broken_connections"] = sum(call.broken_connections for call in calls)
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.judge(calls, finals)
    refused = trial.figures["refused_connections"]
    trial.require(not refused, f"{refused} connections were refused")
