"""One run of a scenario: its folder, its chance, and the figures that it comes to."""

import random
import time
from collections import Counter
from pathlib import Path

from faults import oracle

MOST_SENTENCES = 20
"""How many violations are told in full."""


class Trial:
    """What a scenario works with, and where it puts what it found.

    Attributes:
        planted, planted_in_clients: faults for the manager, and for clients, that it does not know of, as
            `launcher` takes them.
        folder: for whatever it writes; it is removed at the end.
        chance: its random numbers, from *seed*.
        figures: what is counted; a scenario may add its own.
        violations: sentences; none of them means that all is well.
    """

    def __init__(self, name, folder, runs, seed, durability, planted=(), planted_in_clients=()):
        self.name = name
        self.folder = Path(folder)
        self.runs = runs
        self.seed = seed
        self.durability = durability
        self.planted = list(planted)
        self.planted_in_clients = list(planted_in_clients)
        self.chance = random.Random(seed)
        self.begun = time.monotonic()
        self.violations = []
        self.figures = dict.fromkeys(
            (
                "kills",
                "in_flight_kills",
                "acknowledged",
                "unknown",
                "lost",
                "doubled",
                "refused_connections",
                "client_errors",
            ),
            0,
        )

    def new_folder(self, name):
        """A new folder in this trial's."""
        folder = self.folder / name
        folder.mkdir(0o700)
        return folder

    def judge(self, calls, finals, errors_allowed=False):
        """Let the oracle compare *calls* with the *finals*; the verdict is in the figures, and returned.

        Unless *errors_allowed*, no call may have failed.
        """
        verdict = oracle.check(calls, finals)
        figures = self.figures
        figures["acknowledged"] += verdict.acknowledged
        figures["unknown"] += verdict.unknown
        figures["lost"] += len(verdict.lost)
        figures["doubled"] += verdict.doubled
        figures["refused_connections"] += sum(call.refused_connections for call in calls)
        failed = [call for call in calls if call.failed]
        figures["client_errors"] += len(failed)
        self.violations += verdict.violations
        if not errors_allowed:
            said = Counter(f"a call failed ({call.outcome}): {call.said}" for call in failed)
            self.violations += [f"{sentence} ({times} times)" for sentence, times in said.items()]
        self.require(verdict.acknowledged > 0, "nothing was acknowledged at all, so nothing is shown")
        return verdict

    def require(self, true, sentence):
        """It is a violation, told by *sentence*, if *true* is not."""
        if not true:
            self.violations.append(sentence)

    def line(self):
        """All that is told of it."""
        told, planted = self.violations[:MOST_SENTENCES], self.planted + self.planted_in_clients
        if len(self.violations) > MOST_SENTENCES:
            told.append(f"and {len(self.violations) - MOST_SENTENCES} more")
        return {
            "scenario": self.name,
            "seed": self.seed,
            "durability": self.durability,
            "runs": self.runs,
            **({"planted": planted} if planted else {}),
            "seconds": round(time.monotonic() - self.begun, 1),
            **self.figures,
            "violations": told,
        }
