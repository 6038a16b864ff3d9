"""Changes over HTTP: a page of them that may be waited for, and a stream of pages (server-sent events)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import structs

from ..errors import InvalidRequest, StoreUnavailable
from ..fields import INT64_MAX, MAX_PAGE, check_int
from ..flask import RETRY_AFTER
from ..ops import Changes
from ..problems import HttpError
from ..results import ChangesPage
from .call import Answer, Call, build, by_method, integer, json_answer
from .watcher import PACE_SECONDS, Slot, Watcher, watcher_of

MAX_WAIT_SECONDS = 55.0
"""Longest wait of one answer: proxies give up after 60."""
HEARTBEAT_SECONDS = 15.0
"""Longest silence of a stream."""
LIFE_SECONDS = 300.0
"""After this a stream ends in order; its client goes on from its last id."""
EVENT_STREAM = "text/event-stream"

_LOOK_SECONDS = 0.5  # how often one who waits looks whether its client is still there
_MOST_UNSENT = 1024 * 1024  # bytes; to a client that reads slower than this, less is told, and later
_DRAIN_SECONDS = 0.05
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_RETRY = b"retry: 1000\n\n"
_HEARTBEAT = b":\n\n"
_STREAM_HEADERS = (("X-Accel-Buffering", "no"),)


def changes(call: Call) -> Answer:
    """`/v1/changes`: one page, waited for where a slot is free."""
    return by_method(call, {"GET": _changes})


def _changes(call: Call) -> Answer:
    query: dict[str, Any] = dict(call.query("since", "prefix", "wait", "limit"))
    wait = _seconds(query.pop("wait", "0"))
    if "limit" in query:
        query["limit"] = integer("limit", query["limit"])
    follower = _Follower(call, build(Changes, query))
    if follower.look().tells or not wait or call.method == "HEAD":
        return json_answer(follower.page)
    slot = follower.watcher.slots.take()
    if slot is None:
        return json_answer(follower.page)
    try:
        follower.follow(time.monotonic() + wait)
        return json_answer(follower.page)
    finally:
        slot.free()


def _seconds(text: str) -> float:
    if not _NUMBER.fullmatch(text) or float(text) > MAX_WAIT_SECONDS:
        raise InvalidRequest(
            f"wait is 0 to {MAX_WAIT_SECONDS:.0f} seconds, such as 30 or 0.5, not {text[:30]!r}"
        )
    return float(text)


def events(call: Call) -> Answer:
    """`/v1/events`: a stream of the same pages, for as long as a slot is free."""
    return by_method(call, {"GET": _events})


def _events(call: Call) -> Answer:
    query: dict[str, Any] = dict(call.query("since", "prefix", "limit"))
    most = integer("limit", query.pop("limit", str(INT64_MAX)))
    check_int("limit", most, 1, INT64_MAX)
    if last := call.header("LAST_EVENT_ID"):
        query["since"] = last
    follower = _Follower(call, build(Changes, query | {"limit": MAX_PAGE}))
    if call.method == "HEAD":
        return Answer(iter(()), 200, _STREAM_HEADERS, EVENT_STREAM)
    slot = follower.watcher.slots.take()
    if slot is None:
        raise HttpError(
            "overloaded",
            "all streams and long polls that this worker has threads for are open: repeat it after the "
            "seconds in Retry-After, or ask /v1/changes, which then answers without waiting",
            (RETRY_AFTER,),
        )
    try:
        follower.look()  # so that what is wrong is answered as everywhere
    except BaseException:
        slot.free()
        raise
    return Answer(_Stream(slot, _messages(follower, most)), 200, _STREAM_HEADERS, EVENT_STREAM)


class _Stream:
    """*messages*, and the *slot* that goes with them; a generator that was never begun would keep it."""

    def __init__(self, slot: Slot, messages: Iterator[bytes]) -> None:
        self._slot = slot
        self._messages = messages

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._messages)

    def close(self) -> None:
        """Called by every WSGI server, whatever has happened."""
        self._slot.free()


class _Follower:
    """What one client was told already, and whether it is still there to be told more.

    Attributes:
        page: the latest that the store said.
        watcher: who knows when to look again.
    """

    page: ChangesPage

    def __init__(self, call: Call, op: Changes) -> None:
        self.watcher: Watcher = watcher_of(call.api)
        self._call = call
        self._op = op
        self._moment = -1
        environ = call.environ
        self._is_gone: Callable[[], bool] = environ.get("waitress.client_disconnected", lambda: False)
        self._is_stopping: Callable[[], bool] = environ.get("counter.stopping", lambda: False)
        self._unsent: Callable[[], int] = environ.get("counter.unsent", lambda: 0)

    @property
    def over(self) -> bool:
        """Whether nobody is there to be told, or this worker is about to end."""
        return self._is_gone() or self._is_stopping()

    def look(self) -> ChangesPage:
        """Ask the store for what comes after `page`, without waiting.

        Raises:
            CounterError: as the store says; what it could not tell is looked for again.
        """
        moment = self.watcher.moment
        self.page = self._call.ask(self._op)
        self._moment = moment
        self._op = structs.replace(self._op, since=self.page.version)
        return self.page

    def follow(self, until: float) -> None:
        """Look for the next page that tells something, until then or until it is over.

        Raises:
            CounterError: as the store says.
        """
        while not self.over and time.monotonic() < until:
            if not self.page.more:
                self._wait(until)
            if self.over or self.look().tells:
                return

    def _wait(self, until: float) -> None:
        while not self.over and (left := until - time.monotonic()) > 0:
            if self.watcher.wait(self._moment, self.page.version, min(left, _LOOK_SECONDS)):
                return

    def drain(self, until: float) -> None:
        """Let the client read what it was sent; where it does not, no more is kept for it."""
        while self._unsent() > _MOST_UNSENT and not self.over and time.monotonic() < until:
            time.sleep(_DRAIN_SECONDS)


def _messages(follower: _Follower, most: int) -> Iterator[bytes]:
    """The pages of *follower* as a stream, *most* at the most, which ends after its life time."""
    said = time.monotonic()
    end = said + LIFE_SECONDS
    told = follower.page.tells
    yield _RETRY
    while True:
        if told:
            page = follower.page
            yield b"id: %s\ndata: %s\n\n" % (page.version.encode(), msgspec.json.encode(page))
            most -= 1
            if not most:
                return
            said = time.monotonic()
            if not page.more:
                time.sleep(PACE_SECONDS)
        elif time.monotonic() >= said + HEARTBEAT_SECONDS:
            yield _HEARTBEAT
            said = time.monotonic()
        follower.drain(end)
        if follower.over or time.monotonic() >= end:
            return
        told = _go_on(follower, min(said + HEARTBEAT_SECONDS, end))


def _go_on(follower: _Follower, until: float) -> bool:
    """Whether there is a page to tell, by *until*."""
    before = follower.page
    try:
        follower.follow(until)
    except StoreUnavailable:  # the client need not connect anew for that: heartbeats go on, and so do looks
        time.sleep(_LOOK_SECONDS)
    return follower.page is not before and follower.page.tells
