"""What a store tells of itself: the answer to `Info`."""

from __future__ import annotations

from datetime import datetime

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
    """The answer to `Info`. *durability* tells what an acknowledgement means."""

    version: str
    store: str
    durability: str
    run: str
    counters: int
    limits: Limits
    manager: ManagerFigures | None = None
    journal: JournalFigures | None = None
    workers: list[WorkerFigures] = []
