"""The command that makes a token for the HTTP API: `token`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..settings import TOKENS
from ..tokens import SCOPES, Scope, add, make
from . import output


@click.command("token")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    required=True,
    help="What it allows: to read the counters; or to change them, too.",
)
@click.option("--tokens", "file", metavar="FILE", help=f"Add its line to this file.  [{TOKENS}]")
def token(name: str, scope: Scope, file: str | None) -> None:
    """Make a token for the HTTP API, and print it, this once.

    FILE is for --tokens of `counter run`, which takes note of the new line by itself. Without
    FILE the line is printed on stderr. A NAME can have several tokens: make the new one, change
    to it everywhere, and remove the line of the old one, which comes first.
    """
    text, made = make(name, scope)
    file = file or os.environ.get(TOKENS)
    if file:
        add(Path(file), made)
        told = f"its line is in {Path(file).absolute()}"
    else:
        told = f"its line, for the file of --tokens: {made}"
    output.echo(text)
    click.echo(f"this is the only time that it is shown; {told}", err=True)
