"""Callers, network, manager and disk are simulated: each seed is another run of their chances.

`python tests/simulation.py SEED` plays one again, and shows it.
"""

from simulation import Violation, simulate


def run(trial):
    trial.figures["seeds"] = 0
    for _ in range(trial.runs):
        trial.figures["seeds"] += 1
        seed = trial.chance.randrange(1_000_000_000)
        try:
            simulate(seed)
        except Violation as violation:
            trial.violations.append(str(violation).splitlines()[-1])
            break  # one is enough, and it may be the first of very many
