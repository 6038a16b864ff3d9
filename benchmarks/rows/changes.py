"""What a new watcher's first answer costs: how long it takes to be told all, and the increments beside it."""

from __future__ import annotations

import time
from typing import NamedTuple

import counter
from benchmarks.figures import percentile
from benchmarks.homes import fill, increments
from benchmarks.load import Clients
from benchmarks.managers import manager
from benchmarks.row import OURS, Case, Found, Options, Row, expect_total

BESIDE, BEFORE = "while a watcher is told all", "before"


class Told(NamedTuple):
    """A new watcher's first answer: in how many pages and seconds, and of how many counters."""

    pages: int
    counters: int
    begin: float
    end: float


def measure(options: Options) -> Found:
    """Tell a new watcher everything, while a client increments."""
    home = options.folder / "home"
    total = fill(home, options.counters)
    beside, before = Case(OURS, BESIDE, {}), Case(OURS, BEFORE, {})
    pages = 0
    with manager(home, "everysec") as started, Clients(1) as clients:
        for _ in range(options.rounds):
            began = clients.start(started.url)
            time.sleep(max(0.0, began + options.seconds - time.monotonic()))
            told = _tell_all(started.url)
            calls = clients.stop()
            total += increments(calls)
            pages = told.pages
            expect_total("what the watcher was told", told.counters, options.counters)
            expect_total(OURS, counter.connect(started.url).total(), total)
            beside.figures.setdefault("seconds", []).append(told.end - told.begin)
            for case, start, end in ((before, began, told.begin), (beside, told.begin, told.end)):
                took = calls[0].between(start, end)
                case.figures.setdefault("p99", []).append(percentile(took, 0.99))
                case.figures.setdefault("longest", []).append(max(took, default=0.0))
    return Found([before, beside], [f"the first answer has {options.counters:,} counters in {pages} pages"])


def _tell_all(url: str) -> Told:
    pages, names = 0, set[str]()
    begin = time.monotonic()
    for page in counter.connect(url).watch(wait=1):
        pages += 1
        names.update(entry.name for entry in page.counters)  # one that changes meanwhile is told again
        if not page.more:
            break
    return Told(pages, len(names), begin, time.monotonic())


ROW = Row("changes", "What it costs to tell a new watcher everything.", measure)
