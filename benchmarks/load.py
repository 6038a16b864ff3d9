"""Client processes that increment counters through the library, and the time that each call took."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import time
from array import array
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import counter

NAMES = ("page", "visits", "downloads", "shop:cart")
LONGEST = 600.0
"""Seconds after which clients end by themselves, should nobody have told them to."""
SETTLE = 0.05
"""Seconds between an order and its start: by then every client has its connection."""

_spawn = multiprocessing.get_context("spawn")


class Calls(NamedTuple):
    """When each call of one client ended, on the monotonic clock, and how long it took; in seconds."""

    ends: array[float]
    seconds: array[float]

    def between(self, start: float, end: float) -> list[float]:
        """How long those took that ended between *start* and *end*."""
        return [took for at, took in zip(self.ends, self.seconds, strict=True) if start < at <= end]


class Clients:
    """So many processes; each makes one call after the other, on one store at a time. Use it in a `with`."""

    def __init__(self, number: int) -> None:
        self._until: Any = _spawn.Value("d", 0.0, lock=False)  # read for every call: a lock would count
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(number):
            ours, theirs = _spawn.Pipe()
            process = _spawn.Process(target=_client, args=(theirs, self._until, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()

    def start(self, url: str, pause: float = 0.0, seconds: float = LONGEST) -> float:
        """Let all of them begin on the store at *url*, with *pause* seconds after each call; when that is."""
        begin = time.monotonic() + SETTLE
        self._until.value = begin + seconds
        for pipe in self._pipes:
            pipe.send((url, begin, pause))
        return begin

    def stop(self) -> list[Calls]:
        """Let all of them end, and tell what they did."""
        self._until.value = 0.0
        return self._finish()

    def run(self, url: str, seconds: float) -> tuple[float, list[Calls]]:
        """One turn on the store at *url*: when it began, and what they did until *seconds* later."""
        begin = self.start(url, seconds=seconds)
        return begin, self._finish()

    def _finish(self) -> list[Calls]:
        found = []
        for pipe in self._pipes:
            calls = Calls(array("d"), array("d"))
            for column in calls:
                column.frombytes(pipe.recv_bytes())
            found.append(calls)
        return found


def _client(orders: Connection, until: Any, parent: int) -> None:  # noqa: ANN401  ctypes: it has no type to name
    stores: dict[str, counter.SharedCounter] = {}
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # whoever started it has ended
        while True:
            url, begin, pause = orders.recv()
            if url not in stores:
                stores[url] = counter.connect(url)
            hits = stores[url]
            hits.increment(NAMES[0])  # connects, and wakes up what slept since the last turn
            time.sleep(max(0.0, begin - time.monotonic()))
            for column in _calls(hits, pause, until, parent):
                orders.send_bytes(column.tobytes())


def _calls(hits: counter.SharedCounter, pause: float, until: Any, parent: int) -> Calls:  # noqa: ANN401
    calls = Calls(array("d"), array("d"))
    names = itertools.cycle(NAMES)
    before = time.monotonic()
    while before < until.value:
        hits.increment(next(names))
        after = time.monotonic()
        calls.ends.append(after)
        calls.seconds.append(after - before)
        if len(calls.ends) % 1000 == 0 and os.getppid() != parent:
            break  # nobody is there to end it
        if pause:
            time.sleep(pause)
            after = time.monotonic()
        before = after
    return calls
