"""What a store tells of itself: the answer to `Info`."""

from __future__ import annotations

from msgspec import Struct

from .fields import MAX_NAME, MAX_OPS, MAX_PAGE


class Limits(Struct, frozen=True):
    """What is allowed: bytes, seconds and numbers of things."""

    max_counters: int
    max_frame: int
    max_name: int = MAX_NAME
    max_ops: int = MAX_OPS
    max_page: int = MAX_PAGE


class ManagerFigures(Struct, frozen=True):
    """The manager process. *uptime* in seconds; *requests* since it started."""

    pid: int
    uptime: float
    connections: int
    requests: int


class WorkerFigures(Struct, frozen=True):
    """A process that said hello and reports what it served."""

    pid: int
    role: str
    requests: int


class Information(Struct, frozen=True):
    """The answer to `Info`. *durability* tells what an acknowledgement means."""

    version: str
    store: str
    durability: str
    run: str
    counters: int
    limits: Limits
    manager: ManagerFigures | None = None
    workers: list[WorkerFigures] = []
