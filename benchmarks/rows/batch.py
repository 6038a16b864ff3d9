"""A hundred increments of a hundred counters in one request."""

from __future__ import annotations

from benchmarks.load import BATCH
from benchmarks.peers import counters, redis_py, sqlite
from benchmarks.row import OURS, Aim, Found, Options, Row
from benchmarks.turns import Crowd, compare

CONDITION = "4 processes"
NOTES = [
    "the latencies are those of a whole request; everything else is an increment's share",
    "counter is hits.update(names), all or none; SQLite a transaction; redis-py a pipeline without one",
    "pymemcache has no request for several increments: not compared",
]


def measure(options: Options) -> Found:
    """One turn of each subject in every round."""
    subjects = (counters.everysec, redis_py.everysec, redis_py.valkey_everysec, sqlite.normal)
    found = compare(options, subjects, {CONDITION: Crowd(4)}, "update")
    return found._replace(notes=found.notes + NOTES)


ROW = Row(
    "batch",
    f"{len(BATCH)} increments of as many counters in a request, 4 processes.",
    measure,
    (Aim("rate", OURS, redis_py.EVERYSEC, CONDITION, 4.0, 8.0),),
)
