"""A manager without a supervisor, so that its own exit code and its own refusal to start can be seen."""

import contextlib

from support import wait_until

from faults.launcher import launched
from faults.processes import started

PATIENCE = 30.0


@contextlib.contextmanager
def lone_manager(trial, home, faults=(), tracer=()):
    """The `Process` of a manager that serves *home*, until the end of the block.

    Args:
        trial: with its durability; what the process says is in its folder.
        home: the manager's folder.
        faults: as `launcher` takes them.
        tracer: a command that runs another one in its own place.
    """
    command = launched(faults, ["manager", "--home", home, "--durability", trial.durability])
    number = len(list(trial.folder.glob("lone.*.out")))
    with started([*tracer, *command], trial.folder, f"lone.{number}") as process:

        def ready():
            assert process.exit_code is None, process.last_words()
            return process.stdout.read_text().startswith("ready")

        wait_until(ready, PATIENCE)
        yield process
