"""The commands that read and change counters, in any store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import click
from msgspec import structs

from ..fields import MAX_PAGE, OnBound, Sort, TtlMode
from ..information import Information
from ..ops import Delete, Get, Increment, Info, List, Set
from ..results import Page
from . import output
from .client import Client, Command, data_command


def _integer_or_none(text: str) -> int | str:
    """A number, or the word none, which clears a setting."""
    try:
        return text if text == "none" else int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor none.") from None


def _settings(
    function: Command, number: Callable[[str], int | str] = int, none: tuple[str, ...] = ()
) -> Command:
    """The options for bounds and time to live."""
    options = (
        click.option("--min", metavar="NUMBER", type=number, help="Least value."),
        click.option("--max", metavar="NUMBER", type=number, help="Greatest value."),
        click.option(
            "--on-bound", type=click.Choice(get_args(OnBound) + none), help="At a bound; reject if not said."
        ),
        click.option("--ttl", metavar="SECONDS", type=number, help="Time to live."),
        click.option(
            "--ttl-mode",
            type=click.Choice(get_args(TtlMode) + none),
            help="Sliding: each write starts it again; fixed if not said.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _clearable_settings(function: Command) -> Command:
    """The same, each of which can also be `none`."""
    return _settings(function, _integer_or_none, ("none",))


_if_version = click.option(
    "--if-version",
    metavar="VERSION",
    help="Only if this is its version; present, absent: if it is there or not.",
)

_idempotency_key = click.option(
    "--idempotency-key", metavar="KEY", help="Done once under this key, however often the command is run."
)


@data_command("get")
@click.argument("name")
def get(client: Client, name: str) -> None:
    """Print the value of NAME."""
    client.tell(Get(name))


@data_command("incr")
@click.argument("name")
@click.argument("delta", type=int, default=1)
@_settings
@_if_version
@_idempotency_key
def incr(client: Client, name: str, delta: int, **options: Any) -> None:  # noqa: ANN401
    """Add DELTA, or 1, to NAME and print its value.

    --min and --max hold for this call, besides the counter's own bounds. --ttl
    counts if this call creates it.
    """
    client.tell(Increment(name, delta, **options))


@data_command("decr")
@click.argument("name")
@click.argument("delta", type=int, default=1)
@_settings
@_if_version
@_idempotency_key
def decr(client: Client, name: str, delta: int, **options: Any) -> None:  # noqa: ANN401
    """Subtract DELTA, or 1, from NAME. The options are those of incr."""
    client.tell(Increment(name, -delta, **options))


@data_command("set")
@click.argument("name")
@click.argument("value", type=int)
@_clearable_settings
@_if_version
@_idempotency_key
def set_(client: Client, name: str, value: int, if_version: str | None, **options: Any) -> None:  # noqa: ANN401
    """Give NAME the value VALUE, and settings that stay with it.

    A setting that is left out is kept; the word none clears one.
    """
    settings = {
        key: None if given == "none" else given for key, given in options.items() if given is not None
    }
    client.tell(Set(name, value, if_version=if_version, **settings))


@data_command("reset")
@click.argument("name")
@click.option("--value", type=int, default=0, help="Instead of 0.")
@_if_version
@_idempotency_key
def reset(client: Client, name: str, value: int, if_version: str | None) -> None:
    """Set NAME, which must exist, back to 0; its settings are kept."""
    # One atomic request: without the counter the get is refused, and the set with it.
    client.tell(Get(name), Set(name, value, if_version=if_version))


@data_command("delete")
@click.argument("name")
@_if_version
@_idempotency_key
def delete(client: Client, name: str, if_version: str | None) -> None:
    """Remove NAME and print its last value."""
    client.tell(Delete(name, if_version))


@data_command("list")
@click.option("--prefix", default="", help="Only names that begin with it.")
@click.option("--sort", type=click.Choice(get_args(Sort)), default="name", help="By name, or highest first.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most counters shown.")
@click.option("--all", "everything", is_flag=True, help="Show all, whatever --limit says.")
def list_(client: Client, prefix: str, sort: Sort, limit: int, everything: bool) -> None:
    """List counters with their values and times of change.

    With --json, a line holds up to 1,000 counters.
    """
    for page in _pages(client, prefix, sort, None if everything else limit):
        if client.json:
            output.print_json(page)
        else:
            output.print_counters(page.counters)


def _pages(client: Client, prefix: str, sort: Sort, limit: int | None) -> Iterator[Page]:
    """Pages with *limit* counters together; all there are if it is None."""
    cursor, left = None, limit
    while left is None or left > 0:
        page: Page = client.ask(List(prefix, sort, min(left or MAX_PAGE, MAX_PAGE), cursor))
        yield page
        cursor = page.next
        left = None if left is None else left - len(page.counters)
        if cursor is None:
            return


@data_command("info")
def info(client: Client) -> None:
    """Print what the store is, its limits and its figures; what HTTP took, with --json alone."""
    answer: Information = client.ask(Info())
    if client.json:
        output.print_json(answer)
    else:
        output.print_fields(structs.replace(answer, http={}))  # else a line for each bucket of each route


@data_command("ping")
def ping(client: Client) -> None:
    """See that the store answers, and how fast. Exit code 3: it does not."""
    began = time.perf_counter()
    answer = client.ask(Info())
    if client.json:
        output.print_json(answer)
    else:
        output.echo(f"pong {(time.perf_counter() - began) * 1000:.1f} ms")
