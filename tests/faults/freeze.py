"""The manager stands still for longer than calls may take: what has failed is not executed when it wakes up.

Each call has 0.5 s. While the manager is stopped, and it is certain that it is, calls are made, sent into its
socket and given up. Then it goes on, and finds them there. Checked:

- every call ends, with an answer, `OutcomeUnknown` or `StoreUnavailable`, and at most a second late;
- no call that began and failed while the manager stood still is ever in a counter: in the check it counts as
  refused, so one that was executed is doubled;
- a call that had begun before may be, once: it can have been executed and its answer lost;
- in each freeze some call was sent, or the freeze showed nothing.
"""

import os
import signal
import time

from faults.load import load
from faults.oracle import REFUSED, UNKNOWN, slowest
from faults.processes import freeze
from faults.service import service

TIMEOUT = 0.5
FAILURES = ("OutcomeUnknown(", "StoreUnavailable(")
LATEST = TIMEOUT + 1.0
"""When a call must have ended; the second is for a busy machine."""


def run(trial):
    freezes = []
    with (
        service(trial) as running,
        load(trial, f"{running.counters_url}?timeout={TIMEOUT}", 2, 4, pause=0.05) as clients,
    ):
        pid = running.manager()
        for _ in range(trial.runs):
            time.sleep(trial.chance.uniform(0.1, 0.3))
            freezes.append(stand_still(pid, trial.chance.uniform(1.6, 2.6) * TIMEOUT))
        calls = clients.finish()
        finals = running.values()
        trial.require(running.manager() == pid, "the manager was replaced, and no longer only stood still")
    expired = [[call for call in calls if is_given_up_in(call, *freeze)] for freeze in freezes]
    given_up = {call for each in expired for call in each}
    sent = [sum(call.outcome == UNKNOWN for call in each) for each in expired]
    late = slowest(calls)
    trial.figures["freezes"] = len(freezes)
    trial.figures["given_up_calls"] = len(given_up)
    trial.figures["sent_and_given_up_calls"] = sum(sent)
    trial.figures["slowest_call_seconds"] = late
    trial.require(late <= LATEST, f"a call took {late} s, and had {TIMEOUT} s")
    trial.require(all(call.ended for call in calls), "a call never ended")
    trial.require(all(sent), "in a freeze no call was sent, so it shows nothing")
    calls = [call._replace(outcome=REFUSED) if call in given_up else call for call in calls]
    trial.judge(calls, finals, errors_allowed=True)
    odd = {call.said for call in calls if call.failed and not call.said.startswith(FAILURES)}
    trial.require(not odd, f"a call ended with something else: {odd}")


def is_given_up_in(call, begin, end):
    """Whether *call* began and failed between *begin* and *end*."""
    return call.failed and begin < call.begun and call.ended < end


def stand_still(pid, seconds):
    """Stop *pid* for *seconds*; from when to when it certainly stood still."""
    freeze(pid)
    begin = time.monotonic_ns()
    try:
        time.sleep(seconds)
        end = time.monotonic_ns()
    finally:
        os.kill(pid, signal.SIGCONT)
    return begin, end
