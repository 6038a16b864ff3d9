"""How answers are printed: JSON, tab separated, or aligned where a person is reading."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from ..errors import OutcomeUnknown
from ..results import Entry


class Unwritten(click.ClickException):
    """The answer cannot be printed. What was asked is done, and who asked does not learn what came out."""

    exit_code = OutcomeUnknown.exit_code


def echo(answer: object) -> None:
    """Print *answer* on a line of its own.

    Raises:
        Unwritten: stdout takes nothing, such as a file on a disk that is full.
    """
    try:
        click.echo(answer)
    except BrokenPipeError:
        raise  # click knows what to do
    except OSError as exc:
        raise Unwritten(f"it is done, but the answer cannot be written: {exc.strerror}") from exc


def counters(number: int) -> str:
    """So many counters, in words."""
    return f"{number:,} counter{'' if number == 1 else 's'}"


def print_json(answer: msgspec.Struct) -> None:
    """*answer* as one line of JSON."""
    echo(msgspec.json.encode(answer))


def print_counters(entries: Sequence[Entry]) -> None:
    """Name, value and time of the last change, a line each; nothing for none."""
    rows = [(entry.name, str(entry.value), str(msgspec.to_builtins(entry.updated_at))) for entry in entries]
    if rows and sys.stdout.isatty():
        rows.insert(0, ("NAME", "VALUE", "UPDATED"))
    _print_rows(rows, numeric=1)


def print_fields(answer: msgspec.Struct) -> None:
    """Each field of *answer* and its value; those of a part as `part.field`."""
    _print_rows(list(_flat("", msgspec.to_builtins(answer))))


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, str]]:  # noqa: ANN401
    parts = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if parts is None:
        yield prefix, "" if value is None else str(value)
        return
    for key, part in parts:
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), part)


def _print_rows(rows: Sequence[tuple[str, ...]], numeric: int | None = None) -> None:
    """*rows*, aligned on a terminal, the column *numeric* to the right; else with a tab between two cells."""
    if sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if at == numeric else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
    else:
        lines = ["\t".join(row) for row in rows]
    if lines:
        echo("\n".join(lines).encode())  # UTF-8 in every locale, as JSON is
