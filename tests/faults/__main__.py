"""The command line: carries out one scenario and prints its figures as one line of JSON.

Exit code 0: no violation; 1: some; 2: asked wrongly.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import traceback

from faults.launcher import plant
from faults.scenarios import SCENARIOS
from faults.trial import Trial

DURABILITIES = ("everysec", "always", "memory")


def main(arguments):
    options = parse(arguments)
    if options.list:
        for name, scenario in SCENARIOS.items():
            what = scenario.load().__doc__.splitlines()[0]
            print(f"{name:15} {what} ({scenario.runs} runs; one is a {scenario.run})")
        return 0
    # So that whatever was started is ended, and the folder removed, also if this process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    scenario = SCENARIOS[options.name]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        runs = scenario.runs if options.runs is None else options.runs
        trial = Trial(
            options.name, folder, runs, options.seed, options.durability, options.plant, options.plant_client
        )
        try:
            if scenario.here:
                plant(trial.planted)
            scenario.load().run(trial)
        except Exception as error:  # noqa: BLE001  a scenario that cannot go on is told in the figures too
            traceback.print_exc()
            trial.violations.append(f"it could not go on: {error}")
        line = trial.line()
    print(json.dumps(line))
    return 1 if trial.violations else 0


def parse(arguments):
    parser = argparse.ArgumentParser(
        "scripts/faults", description="Hurt a real service and count its losses."
    )
    parser.add_argument("name", nargs="?", choices=SCENARIOS, metavar="NAME", help="one of --list")
    parser.add_argument("--list", action="store_true", help="say which scenarios there are")
    parser.add_argument("--runs", type=positive, metavar="N", help="how many kills, calls, …")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), metavar="S")
    parser.add_argument("--durability", choices=DURABILITIES, default="everysec", metavar="M")
    parser.add_argument(
        "--plant", action="append", default=[], metavar="FAULT", help="a mistake in the manager, to be found"
    )
    parser.add_argument(
        "--plant-client", action="append", default=[], metavar="FAULT", help="one in each client that counts"
    )
    options = parser.parse_args(arguments)
    if options.list == bool(options.name):
        parser.error("name one scenario, or ask for the --list")
    return options


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
