"""The commands on a home that need no running manager: `backup` and `restore`."""

from __future__ import annotations

from pathlib import Path

import click

from ..backup import Saved, restore, save
from ..home import Home, default_home
from . import output


def _home(_context: click.Context, _parameter: click.Parameter, folder: str | None) -> Home:
    return Home(folder) if folder else Home(default_home())


home_option = click.option(
    "--home",
    metavar="DIR",
    callback=_home,
    help="Where the manager lives.  [COUNTER_HOME; default: counter in your folder for state]",
)
_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command("backup")
@_FILE
@home_option
def backup(file: Path, home: Home) -> None:
    """Save all counters of a home in FILE, while its manager runs or not.

    FILE has everything that was acknowledged before. If it is there, it is replaced,
    in one step.
    """
    saved = save(home, file)
    click.echo(f"{_what(saved)} saved from {home.path} in {file}")
    if saved.cut is not None:
        click.echo(f"the journal is not whole at its end, which is not in the backup: {saved.cut}", err=True)


@click.command("restore")
@_FILE
@home_option
def restore_(file: Path, home: Home) -> None:
    """Let the next manager of a home begin with what `counter backup` saved in FILE.

    Nothing may be running there. What the home holds now is moved aside, not lost.
    """
    restored, aside = restore(home, file)
    click.echo(f"{_what(restored)} restored to {home.path}")
    if aside is not None:
        click.echo(f"what was there before is in {aside}")


def _what(saved: Saved) -> str:
    until = f" as of {saved.at:%Y-%m-%d %H:%M:%S} UTC" if saved.at else ""
    return f"{output.counters(saved.counters)}{until}"
