"""Single increments, of which each is on the disk before it is answered."""

from __future__ import annotations

from benchmarks.peers import counters, redis_py, sqlite
from benchmarks.row import OURS, Aim, Found, Options, Row
from benchmarks.rows.increment import condition
from benchmarks.turns import Crowd, compare


def measure(options: Options) -> Found:
    """One turn of each subject in every round."""
    subjects = (counters.always, redis_py.always, redis_py.valkey_always, sqlite.full)
    return compare(options, subjects, {condition(8): Crowd(8)})


ROW = Row(
    "durable-always",
    "Single increments that are on the disk when they are answered, 8 processes.",
    measure,
    (
        Aim("rate", OURS, redis_py.ALWAYS, condition(8), 1.5, 2.0),
        Aim("rate", OURS, sqlite.FULL, condition(8), 5.0, 10.0),
    ),
)
