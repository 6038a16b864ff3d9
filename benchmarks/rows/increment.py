"""Single increments, of which each returns its number, by more and more processes at once."""

from __future__ import annotations

from benchmarks.peers import counters, disk_cache, memcached, redis_py, sqlite, stock
from benchmarks.row import OURS, PEAK, Aim, Found, Options, Row
from benchmarks.turns import Crowd, compare

PROCESSES = (1, 2, 4, 8, 16, 32)
SUBJECTS = (
    *(counters.everysec, redis_py.everysec, redis_py.valkey_everysec, memcached.memcached),
    *(stock.stock_object, stock.stock_dict, sqlite.normal, disk_cache.disk_cache),
)


def condition(processes: int) -> str:
    """How so many *processes* are called in the report."""
    return "1 process" if processes == 1 else f"{processes} processes"


def measure(options: Options) -> Found:
    """One turn of each subject with each number of processes, in every round."""
    return compare(options, SUBJECTS, {condition(number): Crowd(number) for number in PROCESSES})


_AT_8 = condition(8)
ROW = Row(
    "increment",
    "Single increments that return their number, 1 to 32 processes.",
    measure,
    (
        Aim("rate", OURS, redis_py.EVERYSEC, _AT_8, 2.0, 3.0),
        Aim("rate", OURS, memcached.SUBJECT, _AT_8, 0.7, 1.0),
        Aim("rate", OURS, stock.OBJECT, _AT_8, 2.0, 3.0),
        Aim("rate", OURS, stock.DICT, _AT_8, 12.0, 20.0),
        Aim("rate", OURS, disk_cache.SUBJECT, _AT_8, 2.0, 3.0),
        Aim("cpu", OURS, redis_py.EVERYSEC, _AT_8, 0.5, 0.35),
        Aim("p50", OURS, redis_py.EVERYSEC, condition(1), 0.6, 0.5),
        Aim("rate", OURS, OURS, condition(32), 0.8, 0.95, against_condition=PEAK),
    ),
)
