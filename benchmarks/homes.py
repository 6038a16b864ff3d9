"""Homes with many counters in their journal, made without a manager."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.load import NAMES, Calls
from counter import snapshot
from counter.disk import Disk
from counter.home import Home
from counter.log import Log
from counter.ops import Increment, Request
from counter.recovery import LOG, SNAPSHOT, file_name, numbered
from counter.results import Entry
from counter.run import boot_id
from counter.state import Outcome, State
from counter.table import CounterTable
from counter.wire import encode_reply

TURN = 4
"""Requests in a turn, and so in a record, of the log."""


def names() -> Iterator[str]:
    """The names of so many counters as are wanted; those of `load` come first, so clients find theirs."""
    return itertools.chain(NAMES, (f"counter:{number:07}" for number in itertools.count()))


def value(number: int) -> int:
    """Of the counter with this *number*: each has an int of its own, as counters in use have."""
    return 1000 + number


def increments(calls: Iterable[Calls]) -> int:
    """How many increments *calls* were, with the one by which each client wakes up before a turn."""
    return sum(len(each.ends) + 1 for each in calls)


def fill(path: Path, counters: int, log_bytes: int = 0) -> int:
    """Make a home in *path* with a snapshot of *counters*, and a log of *log_bytes* of increments behind it.

    A process of its own does it, so that the one that measures stays small.

    Returns:
        The sum of the values.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_fill, path, counters, log_bytes).result()


def _fill(path: Path, counters: int, log_bytes: int) -> int:
    home = Home(path)
    home.prepare()
    home.journal_path.mkdir(0o700)
    disk, boot, now = Disk(home.journal_path), boot_id(), datetime.now(UTC)
    wanted = list(itertools.islice(names(), counters))
    state: State[bytes] = State()
    state.assign(Outcome(now, {name: _entry(name, number, now) for number, name in enumerate(wanted)}))
    total = sum(map(value, range(counters)))
    snapshot.write(disk, file_name(counters + 1, SNAPSHOT), boot, state, counters, time.monotonic())
    if log_bytes:
        log = Log(disk, boot, counters, always=False)
        total += _append(log, disk, log_bytes, state, wanted)
        log.close()
    return total


def _entry(name: str, number: int, now: datetime) -> Entry:
    """Made and changed at times of its own: what is alike in all of them could be kept once."""
    changed = now - timedelta(microseconds=number)
    return Entry(name, value(number), f"benchmark.{number}", changed - timedelta(seconds=number), changed)


def _append(log: Log, disk: Disk, size: int, state: State[bytes], wanted: list[str]) -> int:
    """Increment counters here and there until *log* has *size* bytes; how often."""
    table: CounterTable[bytes] = CounterTable("benchmark", 2 * len(wanted))
    table.restore(state, time.monotonic())
    callers = itertools.cycle([os.urandom(16) for _ in range(2 * TURN)])
    choose = random.Random(0)  # noqa: S311  which counters is no secret
    number = 0
    while not number or number % 100 or _log_bytes(disk) < size:
        number += 1
        with table.turn(datetime.now(UTC)) as turn:
            ticks = time.monotonic()
            for caller in itertools.islice(callers, TURN):
                request = Request(
                    [Increment(choose.choice(wanted))], caller=caller, seq=number, deadline=ticks + 10
                )
                turn.execute(request, ticks, encode_reply)
            turn.commit(log.append)
    return number * TURN


def _log_bytes(disk: Disk) -> int:
    sizes = disk.sizes()
    return sum(sizes[name] for name in numbered(sizes, LOG).values())
