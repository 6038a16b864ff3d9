"""Clients fork in the middle of their counting: parent and child go on, and each counts for itself.

A child finds the connections and callers of its parent, whose other threads use them at that moment.
"""

from faults.load import load
from faults.oracle import slowest
from faults.service import service

PROCESSES, THREADS = 2, 3


def run(trial):
    with (
        service(trial) as running,
        load(trial, running.counters_url, PROCESSES, THREADS, pause=0.002, forks=trial.runs) as clients,
    ):
        calls = clients.finish()
        finals = running.values()
    trial.figures["forks"] = PROCESSES * trial.runs
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.judge(calls, finals)
