"""What watching costs: the first answer to a new watcher, stalls beside it, memory, and each increment."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

import counter
from benchmarks.figures import Spread, percentile, table
from benchmarks.homes import fill
from benchmarks.load import Clients
from benchmarks.managers import Manager, manager

STARTS = 3
"""Most starts of each version: they take seconds."""
_MIB = 1024 * 1024


class Told(NamedTuple):
    """A new watcher's first answer: in how many pages and seconds, and of how many counters."""

    pages: int
    counters: int
    begin: float
    end: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--counters", type=click.IntRange(10, 1_000_000), default=1_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.05, 60), default=1.0, show_default=True, help="A turn.")
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with another version of the package counter/: its start, memory and increments, in turn.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/var/tmp"),  # noqa: S108  a new folder is made in it
    show_default=True,
    help="Where the homes are made.",
)
@click.option("--json", "as_json", is_flag=True, help="All figures as one line of JSON.")
def command(
    counters: int, rounds: int, seconds: float, against: Path | None, folder: Path, as_json: bool
) -> None:
    """Measure what watching costs on this machine."""
    with tempfile.TemporaryDirectory(prefix="counter-bench-", dir=folder) as name:
        figures = measure(Path(name), counters, rounds, seconds, against)
    click.echo(json.dumps(figures) if as_json else tell(figures))


def measure(
    folder: Path, counters: int, rounds: int, seconds: float, against: Path | None = None
) -> dict[str, Any]:
    """All figures: of this version, and what there is to compare of the one in *against*."""
    packages = {"this": None} | ({"against": against} if against else {})
    found: dict[str, dict[str, list[float]]] = {version: defaultdict(list) for version in packages}
    for version in packages:
        fill(folder / version, counters)
    for _ in range(min(rounds, STARTS)):
        for version, package in packages.items():
            with _started(folder / version, package) as started:
                found[version]["ready_seconds"].append(started.ready_seconds)
                found[version]["memory"].append(started.memory)
    with contextlib.ExitStack() as stack:
        managers = {
            version: stack.enter_context(_started(folder / version, package))
            for version, package in packages.items()
        }
        clients = stack.enter_context(Clients(1))
        for started in managers.values():
            clients.run(started.url, min(seconds, 0.5))  # not counted: connections, caches
        for each in range(rounds):
            for version in sorted(managers, reverse=bool(each % 2)):
                _increments(clients, managers[version], seconds, found[version])
        answers = [_first_answer(clients, managers["this"].url, seconds) for _ in range(rounds)]
    return {
        "counters": counters,
        "versions": {
            version: {name: Spread.of(each) for name, each in figures.items()}
            for version, figures in found.items()
        },
        "first_answer": {name: Spread.of(each[name] for each in answers) for name in answers[0]},
    }


@contextlib.contextmanager
def _started(home: Path, package: Path | None) -> Iterator[Manager]:
    arguments = ["counter", "manager", "--home", str(home), "--durability", "everysec"]
    code = f"import sys; sys.path.insert(0, {str(package)!r}); sys.argv = {arguments!r}\n"
    other = ("-c", f"{code}from counter.cli import main\nmain()")
    with manager(home, "everysec", other if package else ()) as started:
        yield started


def _increments(clients: Clients, of: Manager, seconds: float, found: dict[str, list[float]]) -> None:
    """One turn of increments, one after the other, and what each of them cost."""
    before = of.cpu_seconds
    _, (calls,) = clients.run(of.url, seconds)
    found["cpu"].append((of.cpu_seconds - before) / max(1, len(calls.seconds)))
    found["p50"].append(percentile(calls.seconds, 0.5))


def _first_answer(clients: Clients, url: str, seconds: float) -> dict[str, float]:
    """Tell a new watcher everything, while a client increments."""
    began = clients.start(url)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    told = _tell_all(url)
    (calls,) = clients.stop()
    quiet, beside = calls.between(began, told.begin), calls.between(told.begin, told.end)
    return {
        "pages": told.pages,
        "counters": told.counters,
        "seconds": told.end - told.begin,
        "quiet_p99": percentile(quiet, 0.99),
        "quiet_longest": max(quiet, default=0.0),
        "p99": percentile(beside, 0.99),
        "longest": max(beside, default=0.0),
    }


def _tell_all(url: str) -> Told:
    pages = counters = 0
    begin = time.monotonic()
    for page in counter.connect(url).watch(wait=1):
        pages += 1
        counters += len(page.counters)
        if not page.more:
            break
    return Told(pages, counters, begin, time.monotonic())


def tell(figures: dict[str, Any]) -> str:
    """The figures for people."""
    rows = [("", "ready s", "MiB then", "manager us/increment", "p50 ms")]
    for version, found in figures["versions"].items():
        rows.append(
            (
                version,
                found["ready_seconds"].told(2),
                found["memory"].told(0, 1 / _MIB),
                found["cpu"].told(1, 1e6),
                found["p50"].told(3, 1e3),
            )
        )
    answer = figures["first_answer"]
    lines = [f"{figures['counters']:,} counters", table(rows)]
    if "against" in figures["versions"]:
        this, other = (figures["versions"][each] for each in ("this", "against"))
        ratio, grown = (
            this["cpu"].median / other["cpu"].median,
            this["memory"].median - other["memory"].median,
        )
        lines.append(
            f"an increment costs {ratio:.2f} times as much CPU as there; "
            f"a counter {grown / figures['counters']:.0f} bytes more"
        )
    pages, seconds = answer["pages"].told(0), answer["seconds"].told(2)
    lines.append(f"the first answer: {pages} pages in {seconds} s; increments meanwhile and before, in ms:")
    beside = [["", "p99", "longest"]]
    for when, prefix in (("meanwhile", ""), ("before", "quiet_")):
        beside.append([when, *(answer[prefix + name].told(1, 1e3) for name in ("p99", "longest"))])
    lines.append(table(beside))
    return "\n".join(lines)
