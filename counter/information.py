"""What a store tells of itself: the answer to `Info`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from .fields import INT64_MAX, MAX_NAME, MAX_OPS, MAX_PAGE

LATENCY_BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Up to how many seconds a request takes that is counted at each place of `Latencies.counts`."""
OTHER = "other"
"""The route of what comes by none that is known."""

Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]
StatusClass = Literal["1xx", "2xx", "3xx", "4xx", "5xx"]


class Limits(Struct, frozen=True):
    """What is allowed: bytes, seconds and numbers of things."""

    max_counters: int
    max_frame: int
    max_name: int = MAX_NAME
    max_ops: int = MAX_OPS
    max_page: int = MAX_PAGE


class ManagerFigures(Struct, frozen=True):
    """The manager process.

    Attributes:
        uptime: seconds since it started.
        connections: who is connected now.
        requests: how many it was asked since it started.
        waiting: questions for changes that wait for something to tell.
    """

    pid: int
    uptime: float
    connections: int
    requests: int
    waiting: int = 0


class WorkerFigures(Struct, frozen=True):
    """A process that said hello and reports what it served.

    Attributes:
        slots: how many of its clients can wait for changes at once; 0 until it has served the HTTP API.
        slots_used: how many do.
    """

    pid: int
    role: str
    requests: int
    slots: int = 0
    slots_used: int = 0


class Latencies(Struct, frozen=True):
    """How long HTTP requests took until the answer began.

    Attributes:
        seconds: all together.
        counts: how many took up to each of 0.005, 0.025, 0.1, 0.5, 2.5 and 10 seconds, and more than that;
            each request is counted at one place.
    """

    seconds: float
    counts: list[Count]


Http = dict[str, dict[StatusClass, Latencies]]
"""Latencies by route, such as `/v1/counters/{name}`, and class of status."""


class JournalFigures(Struct, frozen=True):
    """The journal of a manager.

    Attributes:
        bytes: what its files hold together.
        writable: whether the last change could be written down; if not, changes are refused until one can.
        synced_at: when it was last known to be on the disk, as far as it went then.
        snapshot_at: when the newest snapshot was made; null if there is none.
        cut: what the start found at the end and cut off; null if all was whole.
    """

    bytes: int
    writable: bool
    synced_at: datetime | None
    snapshot_at: datetime | None
    cut: str | None


class Information(Struct, frozen=True):
    """The answer to `Info`.

    Attributes:
        durability: what an acknowledgement means.
        run: new with each start of the store.
        workers: those that are connected.
        operations: how many there were since the start, by op and by what came of it: ok, or the code of the
            problem. One that was answered again is counted once.
        http: what the workers served since the start, with those that have ended.
    """

    version: str
    store: str
    durability: str
    run: str
    counters: int
    limits: Limits
    manager: ManagerFigures | None = None
    journal: JournalFigures | None = None
    workers: list[WorkerFigures] = []
    operations: dict[str, dict[str, int]] = {}
    http: Http = {}
