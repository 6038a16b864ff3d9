"""Questions that are answered between the turns of the loop, a slice of each at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .connection import Connection
from .connections import Connections
from .errors import CounterError
from .listing import Job
from .results import Reply
from .stock import Work

logger = logging.getLogger("counter.manager")


class Question(NamedTuple):
    """What one frame asks, and how its reply becomes the payload of an answer."""

    connection: Connection
    work: Work
    seal: Callable[[Reply], bytes]


class Jobs:
    """The questions under way; *ticks* is the monotonic clock, in seconds."""

    def __init__(self, connections: Connections, ticks: Callable[[], float]) -> None:
        self._connections = connections
        self._ticks = ticks
        self._jobs: deque[tuple[Question, Job[Any]]] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def begin(self, question: Question, job: Job[Any]) -> None:
        """Answer *question* by *job*; until then its connection asks nothing else."""
        question.connection.working = True
        self._jobs.append((question, job))
        self._connections.go_on(question.connection)

    def run(self, until: float) -> None:
        """Go on with the jobs in turn, a slice each."""
        while self._jobs and self._ticks() < until:
            question, job = self._jobs.popleft()
            if question.connection.closed or question.connection.abandoned:
                self._connections.close(question.connection)
                continue
            try:
                if (sealed := _slice(question, job)) is None:
                    self._jobs.append((question, job))
                    continue
            except Exception:  # noqa: BLE001  whatever a peer sends must not end the loop
                self.give_up(question.connection)
                continue
            question.connection.working = False
            self._connections.send(question.connection, sealed)

    def give_up(self, connection: Connection) -> None:
        """Close *connection* after an error that is nobody's but ours."""
        logger.exception("closing a connection after an internal error")
        self._connections.close(connection)


def _slice(question: Question, job: Job[Any]) -> bytes | None:
    """Run *job* for one slice; its sealed answer, once it has one."""
    try:
        next(job)
    except StopIteration as end:
        reply = Reply([end.value])
    except CounterError as error:
        reply = Reply.refusing(error)
    else:
        return None
    try:
        return question.seal(reply)
    except CounterError as error:
        return question.seal(Reply.refusing(error))
