"""Runs the `counter` command with some of its methods replaced: `launcher FAULT … -- COMMAND …`.

A FAULT is `module:function=text`: the function is called with the text before the command begins, and
replaces what it likes. Under `run` the faults are in the manager alone, each one that is started.
"""

import pkgutil
import sys

from counter import cli
from counter.cli import processes


def launched(faults, command):
    """The command line that runs *command* with *faults*."""
    return [sys.executable, "-m", "faults.launcher", *faults, "--", *command]


def plant(faults):
    """Let each of *faults* replace what it likes in this process."""
    for fault in faults:
        where, _, text = fault.partition("=")
        pkgutil.resolve_name(where)(text)


def main(arguments):
    end = arguments.index("--")
    faults, command = arguments[:end], arguments[end + 1 :]
    if command[0] == "run":
        ordinary = processes._manager_command

        def manager_command(*options):
            line = ordinary(*options)
            return launched(faults, line[line.index("manager") :])

        processes._manager_command = manager_command
    else:
        plant(faults)
    cli.main(command)


if __name__ == "__main__":
    main(sys.argv[1:])
