"""The command line: hands over to one benchmark, whose `command` takes what follows its name."""

from __future__ import annotations

import sys
from importlib import import_module

import click

BENCHMARKS = {"changes": "benchmarks.changes", "durability": "benchmarks.durability"}
USAGE = "Usage: scripts/bench NAME [ARGS], or --list\n\nscripts/bench NAME --help tells the ARGS of one."


def main(arguments: list[str]) -> int:
    """Run the benchmark that *arguments* name; the exit code."""
    name = arguments[0] if arguments else ""
    if name == "--list":
        for each, module in BENCHMARKS.items():
            click.echo(f"{each:12} {(import_module(module).__doc__ or '').splitlines()[0]}")
        return 0
    if name not in BENCHMARKS:
        click.echo(USAGE, err=name not in ("-h", "--help"))
        return 0 if name in ("-h", "--help") else 2
    command: click.Command = import_module(BENCHMARKS[name]).command
    command.main(arguments[1:], prog_name=f"scripts/bench {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
