"""Increments that need no answer, in one thread of one process."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.managers import cpu_seconds, manager
from benchmarks.row import OURS, Aim, Case, Found, Options, Row, expect_total

PROMETHEUS = "prometheus_client"
NOTES = [
    "a turn of counter ends when all is applied, by the flush at its end; that time and its thread's count",
    "prometheus_client is in its multiprocess mode: it writes into a file that is mapped, and asks nobody",
]
_AT_ONCE = 1000  # increments between two looks at the clock

_spawn = multiprocessing.get_context("spawn")


class _Subject(NamedTuple):
    """One who counts: *add* adds 1, *flush* waits until all is there, *total* tells how much that is."""

    add: Callable[[], None]
    flush: Callable[[], None]
    total: Callable[[], int]


def measure(options: Options) -> Found:
    """One turn of each subject in every round, all in the same process."""
    with manager(options.folder / "home", "everysec") as ours:
        here, there = _spawn.Pipe()
        process = _spawn.Process(
            target=_count, args=(there, ours.url, ours.pid, options.folder, options.rounds, options.seconds)
        )
        process.start()
        there.close()
        with here:
            try:
                found: Any = here.recv()
            except EOFError:
                raise RuntimeError("the process that counts has failed") from None
            finally:
                process.join()
    if isinstance(found, Exception):
        raise found
    return Found([Case(subject, "", figures) for subject, figures in found.items()], NOTES)


def _count(results: Connection, url: str, server: int, folder: Path, rounds: int, seconds: float) -> None:
    """Count in all rounds, and send the figures of each subject, or the error that there was."""
    try:
        results.send(_figures(url, server, folder, rounds, seconds))
    except Exception as error:  # told where it can be seen
        results.send(error)
        raise


def _figures(
    url: str, server: int, folder: Path, rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    subjects = {OURS: _ours(url), PROMETHEUS: _prometheus(folder)}
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in subjects}
    made = dict.fromkeys(subjects, 0)
    for number in range(-1, rounds):  # the first is to wake up, and does not count
        order = random.Random(number).sample(list(subjects), len(subjects))  # noqa: S311  no secret
        for name in order:
            subject = subjects[name]
            client, served, began = time.process_time(), cpu_seconds(server), time.perf_counter()
            calls = _turn(subject, seconds)
            took = time.perf_counter() - began
            client, served = time.process_time() - client, cpu_seconds(server) - served
            made[name] += calls
            expect_total(name, subject.total(), made[name])
            if number >= 0:
                served = served if name == OURS else 0.0
                told = {"rate": calls / took, "client_cpu": client / calls, "server_cpu": served / calls}
                for figure, value in (told | {"cpu": (client + served) / calls}).items():
                    figures[name][figure].append(value)
    return {name: dict(found) for name, found in figures.items()}


def _turn(subject: _Subject, seconds: float) -> int:
    """Add ones for so many *seconds*, and flush; how many there were."""
    add, calls, until = subject.add, 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        for _ in range(_AT_ONCE):
            add()
        calls += _AT_ONCE
    subject.flush()
    return calls


def _ours(url: str) -> _Subject:
    import counter

    hits = counter.connect(url)
    counts = hits.buffered()
    return _Subject(partial(counts.increment, "page"), counts.flush, lambda: hits["page"])


def _prometheus(folder: Path) -> _Subject:
    files = folder / "prometheus"
    files.mkdir()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)
    from prometheus_client import CollectorRegistry, Counter  # reads the environment when it is imported
    from prometheus_client.multiprocess import MultiProcessCollector

    page = Counter("page", "Increments.", registry=None)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(files))  # type: ignore[no-untyped-call]
    return _Subject(page.inc, lambda: None, lambda: int(registry.get_sample_value("page_total") or 0))


ROW = Row(
    "buffered",
    "Increments that need no answer, in one thread of one process.",
    measure,
    (Aim("rate", OURS, PROMETHEUS, "", 2.0, 3.5),),
)
