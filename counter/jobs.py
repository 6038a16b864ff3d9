"""Questions that are answered between the turns of the loop, a slice of each at a time."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from msgspec import structs

from .connection import Connection
from .connections import Connections
from .errors import CounterError
from .listing import Job
from .ops import Changes
from .results import ChangesPage, Reply
from .wire import decode_request

LOOK_SECONDS = 1.0
"""How often those who wait are looked after: whether they are still there."""
_MOST_CUTS = 100_000  # of names to prefixes in one go, ten milliseconds; beyond that all look again
_GRAIN = 0.02  # seconds between two looks for those whose time is over: each goes through all who wait

logger = logging.getLogger("counter.manager")


class Question(NamedTuple):
    """Whom to answer, how a reply becomes the payload of the answer, and what HTTP request it is part of."""

    connection: Connection
    seal: Callable[[Reply], bytes]
    request_id: str = ""


class _UnderWay(NamedTuple):
    """A question and what answers it; *changes* until *until* (ticks), if it may wait for something."""

    question: Question
    job: Job[Any]
    changes: Changes | None = None
    until: float = 0.0


class _Parked:
    """Those who wait, by the prefix of what they wait for: a change costs no look at each of them."""

    def __init__(self) -> None:
        self._by_length: dict[int, dict[str, list[_UnderWay]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def add(self, each: _UnderWay, prefix: str) -> None:
        self._by_length.setdefault(len(prefix), {}).setdefault(prefix, []).append(each)

    def take(self, changed: Collection[str]) -> list[_UnderWay]:
        """Who waits for one of the names that *changed*, and perhaps more; they wait no longer."""
        if len(self._by_length) * len(changed) > _MOST_CUTS:
            return self.take_all()
        found = []
        for length, by_prefix in list(self._by_length.items()):
            for prefix in {name[:length] for name in changed} & by_prefix.keys():
                found += by_prefix.pop(prefix)
            if not by_prefix:
                del self._by_length[length]
        return found

    def take_all(self) -> list[_UnderWay]:
        """Everybody; nobody waits any longer."""
        waiting = self._by_length.values()
        found = [each for by_prefix in waiting for group in by_prefix.values() for each in group]
        self._by_length = {}
        return found


class Jobs:
    """The questions under way, and those that wait for changes.

    Args:
        connections: where they come from.
        ticks: the monotonic clock, in seconds.
        look: begins to look for changes.
        newest: the version of now, which only a change that `wake` is told of makes another one.
    """

    def __init__(
        self,
        connections: Connections,
        ticks: Callable[[], float],
        look: Callable[[Changes], Job[ChangesPage]],
        newest: Callable[[], str],
    ) -> None:
        self._connections = connections
        self._ticks = ticks
        self._look = look
        self._newest = newest
        self._seen = ""  # by all who wait: looking again, they need not go through what was before
        self._jobs: deque[_UnderWay] = deque()
        self._parked = _Parked()
        self._looks_at = math.inf  # for those whose time is over
        self._looked_at = -math.inf
        self._checks_at = math.inf  # for those who have left

    def __len__(self) -> int:
        """How many are under way; those that wait are not."""
        return len(self._jobs)

    @property
    def next_look(self) -> float | None:
        """When, in ticks, somebody who waits is to be looked after; None if nobody waits."""
        return min(self._looks_at, self._checks_at) if self._parked else None

    def begin(self, question: Question, job: Job[Any]) -> None:
        """Answer *question* by *job*; until then its connection asks nothing else."""
        self._begin(_UnderWay(question, job))

    def begin_changes(self, question: Question, op: Changes) -> None:
        """Answer *question* with what *op* asks for, once there is something or its time is over."""
        self._begin(_UnderWay(question, self._look(op), op, self._ticks() + op.wait))

    def wake(self, changed: Collection[str]) -> None:
        """Look again for those who wait for one of the names that *changed*."""
        if self._parked:
            self._jobs += map(self._again, self._parked.take(changed))
            self._seen = self._newest()

    def look_after(self) -> None:
        """Answer those who have waited long enough, and forget those who have left."""
        ticks, next_look = self._ticks(), self.next_look
        if next_look is None or ticks < next_look:
            return
        check = ticks >= self._checks_at
        waiting, self._looked_at, self._looks_at = self._parked.take_all(), ticks, math.inf
        self._checks_at = math.inf if check else self._checks_at
        for each in waiting:
            connection = each.question.connection
            if connection.closed or (check and connection.abandoned):
                self._connections.close(connection)
            elif each.until <= ticks:
                self._jobs.append(self._again(each))
            else:
                self._park(each, ticks)

    def run(self, until: float) -> None:
        """Go on with the jobs in turn, a slice each."""
        while self._jobs and self._ticks() < until:
            each = self._jobs.popleft()
            connection = each.question.connection
            if connection.closed or connection.abandoned:
                self._connections.close(connection)
                continue
            try:
                self._go_on(each)
            except Exception:  # noqa: BLE001  whatever a peer sends must not end the loop
                self.give_up(connection, each.question.request_id)

    def give_up(self, connection: Connection, request_id: str = "") -> None:
        """Close *connection* after an error that is nobody's but ours, in the HTTP request *request_id*."""
        told = f" (request {request_id})" if request_id else ""
        extra = {"request_id": request_id}
        logger.exception("closing a connection after an internal error%s", told, extra=extra)
        self._connections.close(connection)

    def _begin(self, each: _UnderWay) -> None:
        connection = each.question.connection
        connection.working = True
        self._jobs.append(each)
        self._connections.go_on(connection)

    def _park(self, each: _UnderWay, ticks: float) -> None:
        self._parked.add(each, each.changes.prefix if each.changes else "")
        self._looks_at = min(self._looks_at, max(each.until, self._looked_at + _GRAIN))
        self._checks_at = min(self._checks_at, ticks + LOOK_SECONDS)

    def _again(self, each: _UnderWay) -> _UnderWay:
        if each.changes is None:
            return each
        return each._replace(job=self._look(structs.replace(each.changes, since=self._seen)))

    def _go_on(self, each: _UnderWay) -> None:
        """One slice, and the answer if that was the last."""
        try:
            next(each.job)
        except StopIteration as end:
            answer = end.value
            ticks = self._ticks()
            if each.changes and not answer.tells and ticks < each.until:
                self._seen = answer.version
                self._park(each, ticks)
                return
            reply = Reply([answer])
        except CounterError as error:
            reply = Reply.refusing(error)
        else:
            self._jobs.append(each)
            return
        each.question.connection.working = False
        self._connections.send(each.question.connection, _sealed(each.question, reply))


def request_id_of(payload: bytes) -> str:
    """The id of the HTTP request that the frame *payload* is part of; empty if it is of none."""
    try:
        return decode_request(payload).request_id
    except Exception:  # noqa: BLE001  what went wrong with it before may go wrong again
        return ""


def _sealed(question: Question, reply: Reply) -> bytes:
    try:
        return question.seal(reply)
    except CounterError as error:
        return question.seal(Reply.refusing(error))
