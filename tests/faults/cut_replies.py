"""A proxy hurts 30 % of the requests: replies lost, late or cut, requests cut or repeated; each counts once.

A request that the manager gets again, on whatever connection, must be answered with the same bytes.
"""

from faults.load import load
from faults.oracle import slowest
from faults.proxy import Proxy
from faults.service import service

PROCESSES, THREADS = 2, 4
SECONDS = 300.0


def run(trial):
    home = trial.new_folder("proxy")
    each = -(-trial.runs // (PROCESSES * THREADS))
    with service(trial) as running:
        with (
            Proxy(home, running.home, trial.seed) as proxy,
            load(trial, f"counter://{home}", PROCESSES, THREADS, each, pause=0) as clients,
        ):
            calls = clients.join(SECONDS)
        finals = running.values()
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.figures["faults"] = proxy.faults
    trial.figures["replies_compared"] = proxy.repeated
    trial.judge(calls, finals)
    trial.violations += proxy.violations
    trial.require(all(proxy.faults.values()), "some kind of fault was never made")
    trial.require(proxy.repeated > 0, "no request was answered twice, so nothing is shown")
