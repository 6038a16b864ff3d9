"""Who gets a thread of waitress, and who is turned away at once.

More than twice as many connections with a request in flight as there are threads: the next is answered 503 by
the loop itself, without waiting for a thread; so is what is no request, with what is wrong in it. Connections
are counted, not requests: each has one at a time, and a client that has its answer may send again before the
thread has put its tools away.

Requests for some paths have a lane of their own, with one thread and a queue: whoever asks whether this
process is alive is answered also while all threads are busy, or wait for a store that hangs.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# (waitress has no type hints; the ones that pyright brings for it are of another version)

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]

from .errors import HTTP_PROBLEMS
from .request_ids import HEADER, choose

if TYPE_CHECKING:
    from .waitress_channel import Channel

LANE = 64
"""Most connections with a request in one lane: none waits longer than those before it take one thread."""


class Overloaded:
    """The answer to a request that is turned away; a waitress error, and so the connection is closed.

    That is good here: the client's next connection may meet a worker that is less busy.
    """

    def __init__(self, request_id: str) -> None:
        self._id = request_id

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status line, headers and body."""
        return _STATUS, [*_HEADERS, (HEADER, self._id)], _BODY


_CODE, _TITLE = HTTP_PROBLEMS["overloaded"]
_STATUS = f"{_CODE} Service Unavailable"
_HEADERS = (("Content-Type", "application/problem+json"), ("Retry-After", "1"))
_BODY = (
    json.dumps(
        {
            "type": "/problems/overloaded",
            "title": _TITLE,
            "status": _CODE,
            "detail": "every thread is busy and the queue is full; nothing was done; try again in a second",
            "code": "overloaded",
        }
    ).encode()
    + b"\n"
)


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """waitress' threads and their queue, with a limit on the connections that have a request in flight.

    Args:
        threads: how many there are.
        limit: most connections with a request in flight.
        lanes: paths of requests that do not wait for these threads.
    """

    def __init__(self, threads: int, limit: int, lanes: Iterable[str] = ()) -> None:
        super().__init__()
        self._limit = limit
        self._lanes = {path: Dispatcher(1, LANE) for path in lanes}
        self._unannounced = 0
        self._in_flight: Counter[Channel] = Counter()
        self.set_thread_count(threads)

    def lane(self, channel: Channel) -> Dispatcher:
        """Who answers the first request of *channel*."""
        return self._lanes.get(channel.requests[0].path, self)

    def add_task(self, channel: Channel) -> None:
        """Queue the first request of *channel*, or have it turned away, as what is no request."""
        request = channel.requests[0]
        request.arrived = time.monotonic()
        request.id = choose(request.headers.get("X_REQUEST_ID"))
        if request.error is not None or not self.lane(channel).admitted(channel):
            channel.turn_away()

    def admitted(self, channel: Channel) -> bool:
        """Whether there was room for the first request of *channel*, which is queued then."""
        with self.lock:
            if channel not in self._in_flight and len(self._in_flight) >= self._limit:
                return False
            self._in_flight[channel] += 1
            self.queue.append(channel)
            self._unannounced += 1
            return True

    def announce(self) -> None:
        """Wake threads up for what was queued; called by the loop right before it waits.

        Woken at once, as waitress does it, a thread would find Python's lock held by the loop, and go back to
        sleep until that waits. A thread that queues its channel again looks into the queue next, by itself.
        """
        if self._unannounced:
            with self.lock:
                self.queue_cv.notify(self._unannounced)
                self._unannounced = 0
        for lane in self._lanes.values():
            lane.announce()

    def done(self, channel: Channel) -> None:
        """A request of *channel* was served."""
        with self.lock:
            self._in_flight[channel] -= 1
            if not self._in_flight[channel]:
                del self._in_flight[channel]

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """As waitress does, the lanes included."""
        for lane in self._lanes.values():
            lane.shutdown(cancel_pending, timeout)
        stopped: bool = super().shutdown(cancel_pending, timeout)
        return stopped
