"""What the manager knows of its clients: who they are, what they asked, what workers served."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from .connection import Connection
from .errors import InvalidRequest
from .fields import INT64_MAX
from .information import LATENCY_BOUNDS, OTHER, Http, Latencies, StatusClass, WorkerFigures
from .ops import Changes, Hello, Op, Report
from .results import Problem, Reply

_MOST_ROUTES = 200
_REMEMBERED = 256
_OK = "ok"


class Figures:
    """Requests so far, operations by what came of them, and what workers reported.

    A worker is shown while it is connected, and goes on counting if it connects again. What it served stays
    in the totals when it has ended.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._done: defaultdict[type[Op], int] = defaultdict(int)
        self._refused: defaultdict[tuple[type[Op], str], int] = defaultdict(int)
        self._served: dict[int, tuple[int, WorkerFigures]] = {}  # with the number of the last report
        self._http: Http = {}
        self._connected: dict[Connection, Hello] = {}
        self._waiting: set[Connection] = set()

    # Operations

    def unreadable(self) -> None:
        """A frame that holds no request was refused."""
        self._refused[Op, InvalidRequest.code] += 1

    def decided(self, ops: Sequence[Op], reply: Reply | None) -> None:
        """*reply* came of *ops*, for good; None: it had come before."""
        if reply is None:
            return
        if reply.problem is not None:
            for op in ops:
                self._refused[type(op), reply.problem.code] += 1
            return
        for op, result in zip(ops, reply.results):  # noqa: B905  of a length; to compare it costs as much again
            if type(result) is Problem:
                self._refused[type(op), result.code] += 1
            else:
                self._done[type(op)] += 1

    def asked(
        self, connection: Connection, op: Op, seal: Callable[[Reply], bytes]
    ) -> Callable[[Reply], bytes]:
        """*seal* for the answer to *op*, which is counted with that."""
        if isinstance(op, Changes) and op.wait:
            self._waiting.add(connection)

        def seal_and_count(reply: Reply) -> bytes:
            sealed = seal(reply)
            self._waiting.discard(connection)
            self.decided([op], reply)
            return sealed

        return seal_and_count

    def operations(self) -> dict[str, dict[str, int]]:
        """How many there were, by op and by what came of them."""
        told: dict[str, dict[str, int]] = {}
        counts = [(_name(kind), _OK, count) for kind, count in self._done.items()]
        counts += [(_name(kind), outcome, count) for (kind, outcome), count in self._refused.items()]
        for name, outcome, count in sorted(counts):
            told.setdefault(name, {})[outcome] = count
        return told

    # Clients

    @property
    def waiting(self) -> int:
        """How many wait for changes."""
        return len(self._waiting)

    def hello(self, connection: Connection, who: Hello) -> None:
        """*connection* is *who*'s."""
        self._connected[connection] = who

    def report(self, connection: Connection, report: Report) -> None:
        """What the worker behind *connection* served since its last report."""
        who = self._connected.get(connection)
        if who is None:
            return
        number, before = self._served.get(who.pid, (-1, None))
        if report.number <= number:
            return  # it was sent again, as its answer did not arrive
        requests = _added(report.requests, before.requests if before else 0)
        figures = WorkerFigures(who.pid, who.role, requests, report.slots, report.slots_used)
        self._served.pop(who.pid, None)
        self._served[who.pid] = report.number, figures
        if len(self._served) > _REMEMBERED:
            del self._served[next(iter(self._served))]  # the one that has not reported for longest
        for route, by_status in report.http.items():
            for status, latencies in by_status.items():
                self._add(route, status, latencies)

    def leave(self, connection: Connection) -> None:
        """*connection* is closed."""
        self._connected.pop(connection, None)
        self._waiting.discard(connection)

    def workers(self) -> list[WorkerFigures]:
        """The workers that are connected, by pid."""
        pids = {who.pid for who in self._connected.values()}
        return [self._served[pid][1] for pid in sorted(pids & self._served.keys())]

    def http(self) -> Http:
        """What all workers ever served, by route and class of status."""
        return {route: dict(sorted(by_status.items())) for route, by_status in sorted(self._http.items())}

    def _add(self, route: str, status: StatusClass, more: Latencies) -> None:
        if route not in self._http and len(self._http) >= _MOST_ROUTES:
            route = OTHER
        by_status = self._http.setdefault(route, {})
        before = by_status.get(status) or Latencies(0.0, [0] * (len(LATENCY_BOUNDS) + 1))
        counts = [_added(*pair) for pair in zip(before.counts, more.counts, strict=True)]
        by_status[status] = Latencies(before.seconds + more.seconds, counts)


def _name(kind: type[Op]) -> str:
    return "unknown" if kind is Op else str(kind.__struct_config__.tag)


def _added(one: int, other: int) -> int:
    return min(one + other, INT64_MAX)  # so that it can be told
