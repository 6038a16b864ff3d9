"""What a counter takes of the server's memory: its resident bytes with so many, less those with none.

Every counter has a name and a value of its own. The manager is filled by requests of `BATCH` counters, which
share the time at which they were made, and started with as many in a snapshot, which have times of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import counter
from benchmarks.homes import fill, names, value
from benchmarks.managers import manager, memory
from benchmarks.peers import Missing, redis_py
from benchmarks.row import OURS, Aim, Case, Found, Options, Row, expect_total

REDIS = "redis-py"
FILLED, RESTARTED, PEAK = "filled", "after a restart", "at most, in a restart"
BATCH = 100
"""Counters in a request: those of one were made at the same time."""


def measure(options: Options) -> Found:
    """Fill a new manager, start one, and fill Redis, in each round."""
    total = fill(options.folder / "snapshot", options.counters)
    cases = {when: Case(OURS, when, {"bytes": []}) for when in (FILLED, RESTARTED, PEAK)}
    redis = Case(REDIS, FILLED, {"bytes": []})
    notes = [f"{options.counters:,} counters; those of Redis are a name and an integer, and nothing else"]
    for number in range(options.rounds):
        folder = options.folder / str(number)
        folder.mkdir()
        empty, filled = _fill_ours(folder / "filled", options.counters, total)
        cases[FILLED].figures["bytes"].append((filled - empty) / options.counters)
        with manager(options.folder / "snapshot", "everysec") as started:
            restarted, peak = started.memory, started.peak_memory
            expect_total("a restarted manager", counter.connect(started.url).total(), total)
        cases[RESTARTED].figures["bytes"].append((restarted - empty) / options.counters)
        cases[PEAK].figures["bytes"].append((peak - empty) / options.counters)
        try:
            redis.figures["bytes"].append(_fill_redis(folder, options.counters, total) / options.counters)
        except Missing as error:
            notes = [*notes[:1], f"{error}: not compared"]
    return Found([*cases.values(), *([redis] if redis.figures["bytes"] else [])], notes)


def _wanted(counters: int) -> Iterator[dict[str, int]]:
    """All counters with their values, in batches."""
    numbered = enumerate(itertools.islice(names(), counters))
    while batch := {name: value(number) for number, name in itertools.islice(numbered, BATCH)}:
        yield batch


def _fill_ours(home: Path, counters: int, total: int) -> tuple[int, int]:
    """The resident bytes of a manager before and after."""
    with manager(home, "everysec") as running:
        hits, empty = counter.connect(running.url), running.memory
        for batch in _wanted(counters):
            hits.update(batch)
        filled = running.memory
        expect_total(OURS, hits.total(), total)
    return empty, filled


def _fill_redis(folder: Path, counters: int, total: int) -> int:
    """By how many resident bytes Redis grows."""
    with redis_py.everysec(folder) as running:
        import redis

        client, (pid,) = redis.Redis(unix_socket_path=running.target.address), running.pids
        empty = memory(pid)
        for batch in _wanted(counters):
            client.mset(batch)
        grown = memory(pid) - empty
        found = 0
        for batch in _wanted(counters):
            found += sum(int(each or 0) for each in client.mget(list(batch)))
        expect_total(REDIS, found, total)
    return grown


ROW = Row(
    "memory",
    "Resident bytes of each counter.",
    measure,
    (Aim("bytes", OURS, "", FILLED, 450, 250), Aim("bytes", OURS, "", RESTARTED, 450, 250)),
)
