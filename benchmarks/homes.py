"""Homes with many counters in their journal, made without a manager."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load import NAMES
from counter import snapshot
from counter.disk import Disk
from counter.home import Home
from counter.log import Log
from counter.ops import Increment, Request
from counter.recovery import LOG, SNAPSHOT, file_name, numbered
from counter.results import Entry
from counter.run import boot_id
from counter.state import State
from counter.table import CounterTable
from counter.wire import encode_reply

TURN = 4
"""Requests in a turn, and so in a record, of the log."""


def fill(path: Path, counters: int, log_bytes: int = 0) -> None:
    """Make a home in *path* with a snapshot of *counters*, and a log of *log_bytes* of increments behind it.

    A process of its own does it, so that the one that measures stays small.
    """
    process = multiprocessing.get_context("spawn").Process(target=_fill, args=(path, counters, log_bytes))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"no home with {counters} counters could be made")


def _fill(path: Path, counters: int, log_bytes: int) -> None:
    home = Home(path)
    home.prepare()
    home.journal_path.mkdir(0o700)
    disk, boot, now = Disk(home.journal_path), boot_id(), datetime.now(UTC)
    others = (f"counter:{number:07}" for number in itertools.count())
    names = list(itertools.islice(itertools.chain(NAMES, others), counters))  # clients find theirs there
    state: State[bytes] = State()
    state.at = now
    state.entries = {name: Entry(name, 1, "benchmark.1", now, now) for name in names}
    snapshot.write(disk, file_name(counters + 1, SNAPSHOT), boot, state, counters, time.monotonic())
    if log_bytes:
        log = Log(disk, boot, counters, always=False)
        _append(log, disk, log_bytes, state, names)
        log.close()


def _append(log: Log, disk: Disk, size: int, state: State[bytes], names: list[str]) -> None:
    """Increment counters here and there until *log* has *size* bytes."""
    table: CounterTable[bytes] = CounterTable("benchmark", 2 * len(names))
    table.restore(state, time.monotonic())
    callers = itertools.cycle([os.urandom(16) for _ in range(2 * TURN)])
    choose = random.Random(0)  # noqa: S311  which counters is no secret
    for number in itertools.count(1):
        with table.turn(datetime.now(UTC)) as turn:
            ticks = time.monotonic()
            for caller in itertools.islice(callers, TURN):
                request = Request(
                    [Increment(choose.choice(names))], caller=caller, seq=number, deadline=ticks + 10
                )
                turn.execute(request, ticks, encode_reply)
            turn.commit(log.append)
        if number % 100 == 0:
            sizes = disk.sizes()
            if sum(sizes[name] for name in numbered(sizes, LOG).values()) >= size:
                return
