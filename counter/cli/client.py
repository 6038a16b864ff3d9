"""What the commands on counters have in common: how they find their store, ask it, and take arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import click

from ..ops import AnyOp, Request
from ..settings import SETTINGS
from ..store import Store, open_store
from . import output

Command = Callable[..., None]


class Client(NamedTuple):
    """The store that a command asks, and how it wants the answer printed."""

    store: Store
    timeout: float | None
    json: bool
    idempotency_key: str | None = None

    def ask(self, *ops: AnyOp) -> Any:  # noqa: ANN401  (RESULT_TYPES tells by the op)
        """Carry out *ops*, all or none, and return the result of the last one."""
        request = Request(list(ops), idempotency_key=self.idempotency_key)
        return self.store.execute(request, self.timeout).unwrap()[-1]

    def tell(self, *ops: AnyOp) -> None:
        """Carry out *ops* and print the counter's value; with `--json` all of the last answer."""
        result = self.ask(*ops)
        if self.json:
            output.print_json(result)
        else:
            output.echo(result.value)


class DataCommand(click.Command):
    """A command that takes `-5` for a number, though it looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand click the options first, and the rest behind `--`, where nothing looks like an option."""
        options: list[str] = []
        others: list[str] = []
        left = iter(args)
        for arg in left:
            if arg == "--":
                others += left
            elif not arg.startswith("-") or not arg[1:].strip("0123456789"):
                others.append(arg)
            else:
                wanted = int(arg in self._options_with_value())
                values = list(islice(left, wanted))
                if len(values) < wanted:
                    return super().parse_args(ctx, args)  # It knows best how to say what is missing.
                options += [arg, *values]
        return super().parse_args(ctx, [*options, "--", *others])

    def _options_with_value(self) -> set[str]:
        options = (param for param in self.params if isinstance(param, click.Option))
        return {name for option in options if not option.is_flag for name in option.opts}


def data_command(name: str) -> Callable[[Command], click.Command]:
    """Make the command *name* of a function that takes a `Client` and its own arguments."""

    def decorate(function: Command) -> click.Command:
        @functools.wraps(function)
        def call(
            url: str | None,
            home: str | None,
            timeout: str | None,
            json: bool,
            idempotency_key: str | None = None,
            **arguments: Any,  # noqa: ANN401
        ) -> None:
            seconds = None if timeout is None else SETTINGS["timeout"].parse(timeout, "--timeout")
            store = open_store(_store_url(url, home))
            function(Client(store, seconds, json, idempotency_key), **arguments)

        command = click.command(name, cls=DataCommand)(call)
        command.params += _COMMON
        return command

    return decorate


_COMMON = [
    click.Option(["--url"], metavar="URL", help="The store; else COUNTER_URL, else the manager at home."),
    click.Option(["--home"], metavar="DIR", help="The home of the manager, instead of --url."),
    click.Option(["--timeout"], metavar="SECONDS", help="The longest that the call may take."),
    click.Option(["--json"], is_flag=True, help="Print all there is to say, as one line of JSON."),
]


def _store_url(url: str | None, home: str | None) -> str | None:
    if home is None:
        return url
    if url is not None:
        raise click.UsageError("Give --url or --home, not both.")
    return "counter://" + quote(str(Path(home).absolute()))
