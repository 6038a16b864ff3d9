"""What the manager knows about its clients: who said hello, and what the workers among them served."""

from __future__ import annotations

from .connection import Connection
from .fields import INT64_MAX
from .information import WorkerFigures
from .ops import Hello

_REMEMBERED = 256


class Figures:
    """Requests so far, and each reporting worker's figures by its pid.

    A worker is shown while it is connected, and goes on counting if it connects again.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._served: dict[int, WorkerFigures] = {}
        self._connected: dict[Connection, Hello] = {}

    def hello(self, connection: Connection, who: Hello) -> None:
        """*connection* is *who*'s."""
        self._connected[connection] = who

    def report(self, connection: Connection, requests: int) -> None:
        """The worker behind *connection* served *requests* more."""
        who = self._connected.get(connection)
        if who is None:
            return
        before = self._served.pop(who.pid, None)
        served = min(requests + (before.requests if before else 0), INT64_MAX)  # so that it can be told
        self._served[who.pid] = WorkerFigures(who.pid, who.role, served)
        if len(self._served) > _REMEMBERED:
            del self._served[next(iter(self._served))]  # the one that has not reported for longest

    def leave(self, connection: Connection) -> None:
        """*connection* is closed."""
        self._connected.pop(connection, None)

    def workers(self) -> list[WorkerFigures]:
        """The workers that are connected, by pid."""
        pids = {who.pid for who in self._connected.values()}
        return [self._served[pid] for pid in sorted(pids & self._served.keys())]
