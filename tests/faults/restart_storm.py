"""The manager is restarted in quick succession, killed or asked to end, under load by 64 threads.

They go on as if nothing happened: no call fails, none is lost or doubled, and once the last manager is ready
every thread is answered within seconds.
"""

import os
import signal
import time

from faults.load import load
from faults.oracle import slowest
from faults.processes import Kill
from faults.service import service

RECOVERY_SECONDS = 5.0
PROCESSES, THREADS = 4, 16


def run(trial):
    kills = 0
    with (
        service(trial) as running,
        load(trial, running.counters_url, PROCESSES, THREADS, pause=0.02) as clients,
    ):
        for _ in range(trial.runs):
            pid = running.manager()
            time.sleep(trial.chance.uniform(0, 0.1))
            if trial.chance.random() < 0.5:
                kills += 1
                Kill(pid)
            else:
                os.kill(pid, signal.SIGTERM)
            running.wait_followed(pid)
        running.manager()
        ready = time.monotonic_ns()
        clients.wait_answered(ready, 2 * RECOVERY_SECONDS)
        calls = clients.finish()
        finals = running.values()
    recovery = recovered(calls, ready)
    trial.figures["kills"] = kills
    trial.figures["recovery_seconds"] = recovery
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.judge(calls, finals)
    sentence = f"a thread was first answered {recovery} s after the last manager was ready"
    trial.require(recovery < RECOVERY_SECONDS, sentence)


def recovered(calls, ready):
    """Seconds from *ready* until every thread had been answered; infinite if one never was."""
    firsts = {call.who.partition("#")[0]: float("inf") for call in calls}
    for call in calls:
        if call.value is not None and call.ended > ready:
            thread = call.who.partition("#")[0]
            firsts[thread] = min(firsts[thread], call.ended)
    return round((max(firsts.values()) - ready) / 1e9, 3)
