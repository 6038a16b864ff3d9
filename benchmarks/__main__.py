"""The command line: measures the rows that it is told, and reports them."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from benchmarks import report
from benchmarks.row import Found, Options, Row, WrongTotal

ROWS = (
    *("increment", "threads", "batch", "read", "durable-always", "floor", "buffered"),
    *("http", "http-api", "http-server"),
    *("memory", "restart", "snapshot-stall", "connections", "modes", "changes"),
)
"""Every row, in the order in which they are measured; each is `ROW` of a module in `benchmarks.rows`."""
LONGEST_FOLDER = 60
"""Bytes: a socket's address has 107, and is some folders deeper."""


def load(name: str) -> Row:
    """The row *name*; only what is measured is imported."""
    row: Row = import_module(f"benchmarks.rows.{name.replace('-', '_')}").ROW
    return row


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[NAME]...", type=click.Choice(ROWS), nargs=-1)
@click.option("--list", "listed", is_flag=True, help="Tell what rows there are, and measure nothing.")
@click.option(
    "--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="How often all is compared."
)
@click.option(
    "--seconds", type=click.FloatRange(0.02, 60), default=1.0, show_default=True, help="A turn of a subject."
)
@click.option(
    "--counters",
    type=click.IntRange(10, 1_000_000),
    default=1_000_000,
    show_default=True,
    help="How many there are, in rows about size.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there."
)
@click.option(
    "--plot",
    "charts",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw a chart of each row there.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/var/tmp"),  # noqa: S108  a new folder is made in it
    show_default=True,
    help="Where homes, data of the others and sockets are for the time being.",
)
def main(
    names: tuple[str, ...],
    listed: bool,
    rounds: int,
    seconds: float,
    counters: int,
    file: Path | None,
    charts: Path | None,
    folder: Path,
) -> None:
    """Compare the counters with what people would pick instead, on this machine.

    Without NAME all rows are measured. No figure fails anything; a wrong total ends it with exit code 1.
    """
    if listed:
        for name in ROWS:
            click.echo(f"{name:15} {load(name).about}")
        return
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        said = f"a socket's path in it would be too long; take one of at most {LONGEST_FOLDER} bytes"
        raise click.BadParameter(said, param_hint="--folder")
    machine = report.machine()
    click.echo(report.tell_machine(machine))
    measured: dict[str, tuple[Row, Found]] = {}
    for name in names or ROWS:
        row = load(name)
        try:
            with tempfile.TemporaryDirectory(prefix="counter-bench-", dir=folder) as own:
                found = row.measure(Options(rounds, seconds, counters, Path(own)))
        except WrongTotal as error:
            raise click.ClickException(f"{name}: {error}") from error
        measured[name] = row, found
        click.echo(f"\n{report.tell(row, found)}")
    about = {"machine": machine, "rounds": rounds, "seconds": seconds, "counters": counters}
    _keep(measured, about, file, charts)


def _keep(
    measured: dict[str, tuple[Row, Found]], about: dict[str, Any], file: Path | None, charts: Path | None
) -> None:
    if file:
        rows = {name: report.as_json(row, found) for name, (row, found) in measured.items()}
        file.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    if charts:
        from benchmarks.plot import draw  # with matplotlib, which takes a second to import

        for row, found in measured.values():
            draw(row, found, about, charts)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what was started, too
    sys.exit(main(prog_name="scripts/bench"))
