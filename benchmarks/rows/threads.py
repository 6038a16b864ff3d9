"""Increments by the threads of one process, which share what their library wants them to share."""

from __future__ import annotations

from benchmarks.row import Found, Options, Row
from benchmarks.rows.increment import SUBJECTS
from benchmarks.turns import Crowd, compare

THREADS = 8


def measure(options: Options) -> Found:
    """One turn of each subject in every round."""
    found = compare(options, SUBJECTS, {f"{THREADS} threads": Crowd(threads=THREADS)})
    return found._replace(
        notes=[*found.notes, "pymemcache is its PooledClient; SQLite a connection a thread"]
    )


ROW = Row("threads", f"Single increments by {THREADS} threads of one process.", measure)
