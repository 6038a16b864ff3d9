"""Single increments beside the least that another process, or a shared file, costs in Python; and Redis."""

from __future__ import annotations

from benchmarks.peers import bare_loop, counters, mapped, ping_pong, redis_py
from benchmarks.row import OURS, Aim, Found, Options, Row
from benchmarks.rows.increment import condition
from benchmarks.turns import Crowd, compare


def measure(options: Options) -> Found:
    """One turn of each subject with each number of processes, in every round."""
    subjects = (
        counters.everysec,
        ping_pong.ping_pong,
        bare_loop.bare_loop,
        mapped.mapped,
        redis_py.everysec,
    )
    return compare(options, subjects, {condition(number): Crowd(number) for number in (1, 8)})


ROW = Row(
    "floor",
    "Single increments beside raw exchanges over a Unix socket, a locked file in memory, and Redis.",
    measure,
    (Aim("p50", OURS, ping_pong.SUBJECT, condition(1), 2.5, 1.8),),
)
