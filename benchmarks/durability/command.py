"""The command line of the benchmark, which measures one part after the other."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.durability import cost, restart, stalls

PARTS = ("cost", "restart", "stalls")
SLOW_ROUNDS = 3
"""Most rounds of what takes many seconds each."""


class Options(NamedTuple):
    """What to measure."""

    seconds: float
    rounds: int
    counters: int
    clients: tuple[int, ...]
    pace: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(0.05, 60), default=1.5, show_default=True, help="A turn.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help=f"How often everything is compared; restarts and snapshots at most {SLOW_ROUNDS} times.",
)
@click.option("--counters", type=click.IntRange(10, 1_000_000), default=1_000_000, show_default=True)
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this; can be repeated.")
@click.option(
    "--clients",
    multiple=True,
    type=click.IntRange(1, 64),
    default=(8, 1),
    show_default=True,
    help="For cost.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    help="Calls a second of each client beside a snapshot; 0: as many as it can.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/var/tmp"),  # noqa: S108  a new folder is made in it; /tmp is no disk on many hosts
    show_default=True,
    help="Where the homes are made: the disk that is measured.",
)
@click.option("--json", "as_json", is_flag=True, help="All figures as one line of JSON.")
def command(parts: tuple[str, ...], folder: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Measure what durability costs on this machine.

    cost: increments a second, latency and the manager's CPU with each --durability.
    restart: from the start to the ready line, and the memory then.
    stalls: the longest latency while a snapshot is made, and how long the manager's loop stood still.
    """
    chosen = Options(**options)
    figures: dict[str, Any] = {"machine": _machine(), "options": chosen._asdict()}
    with tempfile.TemporaryDirectory(prefix="counter-bench-", dir=folder) as name:
        for part in [each for each in PARTS if each in (parts or PARTS)]:
            measure, tell = _PARTS[part]
            found = measure(Path(name), chosen)
            figures[part] = found
            if not as_json:
                click.echo(f"{part}\n{tell(found)}\n")
    if as_json:
        click.echo(json.dumps(figures))


def _machine() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cost(folder: Path, options: Options) -> list[dict[str, Any]]:
    return [cost.measure(folder, number, options.rounds, options.seconds) for number in options.clients]


def _restart(folder: Path, options: Options) -> dict[str, Any]:
    return restart.measure(folder, min(options.rounds, SLOW_ROUNDS), options.counters)


def _stalls(folder: Path, options: Options) -> dict[str, Any]:
    pause = 1 / options.pace if options.pace else 0.0
    return stalls.measure(folder, min(options.rounds, SLOW_ROUNDS), options.counters, pause)


_PARTS: dict[str, tuple[Callable[[Path, Options], Any], Callable[[Any], str]]] = {
    "cost": (_cost, cost.tell),
    "restart": (_restart, restart.tell),
    "stalls": (_stalls, stalls.tell),
}
