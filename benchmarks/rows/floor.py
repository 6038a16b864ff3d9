"""Single increments beside the least that another process, or shared memory, can cost in Python."""

from __future__ import annotations

from benchmarks.peers import counters, mapped, ping_pong
from benchmarks.row import OURS, Aim, Found, Options, Row
from benchmarks.rows.increment import condition
from benchmarks.turns import Crowd, compare


def measure(options: Options) -> Found:
    """One turn of each subject with each number of processes, in every round."""
    subjects = (counters.everysec, ping_pong.ping_pong, mapped.mapped)
    return compare(options, subjects, {condition(number): Crowd(number) for number in (1, 8)})


ROW = Row(
    "floor",
    "Single increments beside a raw exchange over a Unix socket, and a locked file in memory.",
    measure,
    (Aim("p50", OURS, ping_pong.SUBJECT, condition(1), 2.5, 1.8),),
)
