"""Replies come when their calls have been given up: no later call is told what was meant for one before it.

A proxy holds 30 % of the replies back, for up to twice as long as a call may take. What was given up was
executed all the same, once. Nothing else may go wrong.
"""

from faults.load import load
from faults.oracle import UNKNOWN, slowest
from faults.proxy import Proxy
from faults.service import service

PROCESSES, THREADS = 2, 4
TIMEOUT = 0.25
FAULT = "reply delayed"
FAILURES = ("OutcomeUnknown(", "StoreUnavailable(")
SECONDS = 300.0


def run(trial):
    home = trial.new_folder("proxy")
    each = -(-trial.runs // (PROCESSES * THREADS))
    with service(trial) as running:
        with (
            Proxy(home, running.home, trial.seed, [FAULT], 2 * TIMEOUT) as proxy,
            load(trial, f"counter://{home}?timeout={TIMEOUT}", PROCESSES, THREADS, each, pause=0) as clients,
        ):
            calls = clients.join(SECONDS)
        finals = running.values()
    given_up = [call for call in calls if call.outcome == UNKNOWN]
    trial.figures["replies_delayed"] = proxy.faults[FAULT]
    trial.figures["given_up_calls"] = len(given_up)
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.judge(calls, finals, errors_allowed=True)
    odd = {call.said for call in calls if call.failed and not call.said.startswith(FAILURES)}
    trial.require(not odd, f"a call ended with something else: {odd}")
    trial.require(given_up, "no reply came too late, so nothing is shown")
