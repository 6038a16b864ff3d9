"""Single values, read one after the other."""

from __future__ import annotations

from benchmarks.row import Found, Options, Row
from benchmarks.rows.increment import SUBJECTS, condition
from benchmarks.turns import Crowd, compare


def measure(options: Options) -> Found:
    """One turn of each subject in every round."""
    return compare(options, SUBJECTS, {condition(number): Crowd(number) for number in (1, 8)}, "get")


ROW = Row("read", "Single values, 1 and 8 processes.", measure)
