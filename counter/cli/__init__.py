"""The `counter` command: what it can do, where that is, and how it ends.

A command's module is imported when it is asked for, so `counter get` loads neither Flask nor waitress.
Every error is one sentence on stderr and an exit code: 0 done, 1 refused, 2 asked wrongly, 3 not reachable or
not configured, 4 outcome unknown (or not written, on a disk that is full), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from ..errors import CounterError, StoreUnavailable
from ..settings import VERSION

COMMANDS = {
    "run": "counter.cli.processes:run",
    "manager": "counter.cli.processes:manager",
    "workers": "counter.cli.processes:workers",
    "stop": "counter.cli.processes:stop",
    "token": "counter.cli.tokens:token",
    "get": "counter.cli.data:get",
    "incr": "counter.cli.data:incr",
    "decr": "counter.cli.data:decr",
    "set": "counter.cli.data:set_",
    "reset": "counter.cli.data:reset",
    "delete": "counter.cli.data:delete",
    "list": "counter.cli.data:list_",
    "watch": "counter.cli.watching:watch",
    "export": "counter.cli.moving:export",
    "import": "counter.cli.moving:import_",
    "backup": "counter.cli.homes:backup",
    "restore": "counter.cli.homes:restore_",
    "info": "counter.cli.data:info",
    "ping": "counter.cli.data:ping",
}
"""Who carries out which command."""
INTERRUPTED = 130


class Commands(click.Group):
    """The group of `COMMANDS`; no exception of ours or of click's leaves its `main`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = pkgutil.resolve_name(COMMANDS[cmd_name])
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; without any argument it shows the help."""
        return super().parse_args(ctx, args or ["--help"])

    def main(  # type: ignore[override]  # it always exits
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> NoReturn:
        """Carry out the command line *args* and exit the process."""
        extra["standalone_mode"] = False
        _open_standard_files()
        try:
            code = super().main(args, prog_name or "counter", **extra)
        except CounterError as error:
            code = _tell(error.detail, error.exit_code)
        except click.UsageError as error:
            hint = f" Try '{error.ctx.command_path} --help'." if error.ctx else ""
            code = _tell(error.format_message() + hint, error.exit_code)
        except click.ClickException as error:
            code = _tell(error.format_message(), error.exit_code)
        except click.Abort:
            code = INTERRUPTED
        except OSError as error:
            code = _tell(_surroundings(error), StoreUnavailable.exit_code)
        _drop_what_cannot_be_written()
        sys.exit(code if isinstance(code, int) else 0)


def _tell(sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):  # the exit code is still heard
        click.echo(f"counter: {sentence}", err=True)
    return code


def _surroundings(error: OSError) -> str:
    """What is wrong with where this process runs."""
    try:
        Path.cwd()
    except OSError:
        return "the current folder is gone; change to another one"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _open_standard_files() -> None:
    """Put /dev/null where 0, 1 or 2 is closed: or a lock gets the number, and then all that an app prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free


def _drop_what_cannot_be_written() -> None:
    """So that the interpreter, which flushes at its end, leaves the exit code as it is."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group("counter", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="counter %(version)s")
def main() -> None:
    """Counters that every process of your app shares.

    The first four commands start and stop processes, the fifth makes a token for the HTTP API; the others
    read and change counters.
    """
