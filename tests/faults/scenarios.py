"""The table of scenarios."""

from importlib import import_module
from typing import NamedTuple


class Scenario(NamedTuple):
    """Where a scenario is, how many runs it makes unless told, and what one run is."""

    module: str
    runs: int
    run: str
    here: bool = False
    """Whether it starts no processes: what is planted is planted in this one."""

    def load(self):
        """Its module: `run(trial)` carries it out, the first line of the docstring says what it is."""
        return import_module(self.module)


SCENARIOS = {
    "kill-manager": Scenario("faults.kill_manager", 200, "kill"),
    "kill-workers": Scenario("faults.kill_workers", 100, "kill"),
    "kill-both": Scenario("faults.kill_both", 100, "kill of both"),
    "cut-replies": Scenario("faults.cut_replies", 20_000, "call"),
    "late-replies": Scenario("faults.late_replies", 4000, "call"),
    "freeze": Scenario("faults.freeze", 20, "freeze"),
    "restart-storm": Scenario("faults.restart_storm", 50, "restart"),
    "forks": Scenario("faults.forks", 20, "fork of each client"),
    "simulation": Scenario("faults.simulated", 2000, "seed", here=True),
    "failpoints": Scenario("faults.failpoints", 20, "kill at each point"),
    "power-cut": Scenario("faults.power_cut", 30, "cut"),
    "sync-error": Scenario("faults.sync_error", 20, "failing sync"),
    "disk-full": Scenario("faults.disk_full", 4, "full disk"),
    "slow-disk": Scenario("faults.slow_disk", 20, "call of each thread"),
    "torn-tail": Scenario("faults.torn_tail", 4, "journal, cut at every byte", here=True),
    "bit-flips": Scenario("faults.bit_flips", 1000, "bit", here=True),
    "reordered-pages": Scenario("faults.reordered_pages", 500, "power cut", here=True),
}
