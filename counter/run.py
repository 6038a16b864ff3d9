"""One run of a store: its id, its clock, and the boot of the host that it is in."""

from __future__ import annotations

import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

UNKNOWN_BOOT = bytes(16)
"""It may be this boot or another: callers are kept, and a loss may be that of a power cut."""


class Run:
    """From the start of a store to its end.

    Its id is part of every version given in it, so that no version of an earlier run is ever met again. Its
    time never goes back: it begins at the wall clock, or at *not_before* if that is later, and is then
    carried on by the monotonic clock.
    """

    ticks = staticmethod(time.monotonic)
    """The host's monotonic clock, in seconds: the clock of deadlines, the same in every process."""

    def __init__(self, not_before: datetime | None = None) -> None:
        self.id = secrets.token_urlsafe(6)
        self._began = self.ticks()
        wall = datetime.now(UTC)
        self._began_at = wall if not_before is None else max(wall, not_before)

    def now(self) -> datetime:
        """The time, UTC."""
        return self._began_at + timedelta(seconds=self.uptime())

    def uptime(self) -> float:
        """Seconds since the run began."""
        return self.ticks() - self._began


def boot_id() -> bytes:
    """16 bytes that stay the same until the host is restarted: as long as the monotonic clock goes on.

    `UNKNOWN_BOOT` where the system does not tell.
    """
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return UNKNOWN_BOOT
