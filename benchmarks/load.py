"""Client processes that count, each in its own way, and the time that each call took."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import counter

NAMES = ("page", "visits", "downloads", "shop:cart")
BATCH = tuple(f"batch:{number:03}" for number in range(100))
"""The names of one batch: all different, so that nobody can add them up before they are sent."""
LONGEST = 600.0
"""Seconds after which clients end by themselves, should nobody have told them to."""
SETTLE = 0.02
"""Seconds between the last client's being ready and the start of all."""

# Each client is forked from a process that has imported what is here and has nothing else in it.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Client(NamedTuple):
    """What a client can be asked for, each by the one call that its library's documentation shows for it."""

    increment: Callable[[str], int]
    get: Callable[[str], int]
    update: Callable[[Sequence[str]], object] | None = None
    """Increment each of these counters, all in one request."""
    close: Callable[[], object] = lambda: None


class Target(NamedTuple):
    """Where clients count: *connect* makes one of an *address*. It is sent to them, and so picklable."""

    connect: Callable[[str], Client]
    address: str


class Calls(NamedTuple):
    """What one client did: when each call ended, on the monotonic clock, how long it took, what it returned.

    *cpu* is its share of the processor time of its process; all in seconds.
    """

    ends: array[float]
    seconds: array[float]
    values: Sequence[int] = ()
    cpu: float = 0.0

    def between(self, start: float, end: float) -> list[float]:
        """How long those took that ended between *start* and *end*."""
        return [took for at, took in zip(self.ends, self.seconds, strict=True) if start < at <= end]


class _Order(NamedTuple):
    target: Target
    verb: str
    pause: float
    threads: int


def ours(url: str) -> Client:
    """A client of the store at *url*, through the library."""
    hits = counter.connect(url)
    return Client(hits.increment, hits.__getitem__, hits.update)


class Clients:
    """So many processes; each makes one call after the other, on one target at a time. Use it in a `with`."""

    def __init__(self, number: int) -> None:
        self._until: Any = _processes.Value("d", 0.0, lock=False)  # read for every call: a lock would count
        self._pipes: list[Connection] = []
        self._processes = []
        self._busy: list[Connection] = []
        for _ in range(number):
            ours, theirs = _processes.Pipe()
            process = _processes.Process(target=_client, args=(theirs, self._until), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._until.value = 0.0
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()

    def start(
        self,
        target: Target | str,
        pause: float = 0.0,
        seconds: float = LONGEST,
        verb: str = "increment",
        processes: int | None = None,
        threads: int = 1,
    ) -> float:
        """Let them begin on *target*, or on the store with that URL; when that is.

        Before, each makes a call that is not counted among its `Calls`: it connects, and wakes up what slept.

        Args:
            target: where to count.
            pause: seconds after each call.
            seconds: until they end by themselves.
            verb: the call to make, a field of `Client`.
            processes: how many of the clients take part; all by default.
            threads: in each of them, sharing one client.
        """
        to = Target(ours, target) if isinstance(target, str) else target
        self._busy = self._pipes[:processes]
        for pipe in self._busy:
            pipe.send(_Order(to, verb, pause, threads))
        for pipe in self._busy:
            _receive(pipe)
        begin = time.monotonic() + SETTLE
        self._until.value = begin + seconds
        for pipe in self._busy:
            pipe.send(begin)
        return begin

    def stop(self) -> list[Calls]:
        """Let all of them end, and tell what they did."""
        self._until.value = 0.0
        return self._finish()

    def run(self, target: Target | str, seconds: float, **how: Any) -> tuple[float, list[Calls]]:  # noqa: ANN401
        """One turn, which takes what `start` does: when it began, and what they did until *seconds* later."""
        begin = self.start(target, seconds=seconds, **how)
        return begin, self._finish()

    def _finish(self) -> list[Calls]:
        return [calls for pipe in self._busy for calls in _receive(pipe)]


def _receive(pipe: Connection) -> Any:  # noqa: ANN401  whatever the client sent
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError) as error:
        raise RuntimeError("a client ended early; what it wrote to stderr says why") from error


def _client(orders: Connection, until: Any) -> None:  # noqa: ANN401  ctypes: it has no type to name
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C its parent alone makes an end of all
    clients: dict[Target, Client] = {}
    while True:
        try:
            order: _Order = orders.recv()
        except (EOFError, ConnectionResetError):  # whoever started it has ended, or needs it no more
            return
        if order.target not in clients:
            clients[order.target] = order.target.connect(order.target.address)
        call = getattr(clients[order.target], order.verb)
        call(_arguments(order.verb)[0])
        orders.send(True)
        begin = orders.recv()
        time.sleep(max(0.0, begin - time.monotonic()))
        orders.send(_turn(call, order, until))


def _arguments(verb: str) -> Sequence[Any]:
    return (BATCH,) if verb == "update" else NAMES


def _turn(call: Callable[[Any], Any], order: _Order, until: Any) -> list[Calls]:  # noqa: ANN401
    """The calls of each thread, until it is time to end."""
    found: list[Calls] = []

    def work() -> None:
        found.append(_calls(call, itertools.cycle(_arguments(order.verb)), order.pause, until))

    used = time.process_time()
    others = [threading.Thread(target=work) for _ in range(order.threads - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    share = (time.process_time() - used) / order.threads
    if len(found) < order.threads:
        raise RuntimeError("a thread ended early")
    return [calls._replace(cpu=share) for calls in found]


def _calls(call: Callable[[Any], Any], arguments: Iterable[Any], pause: float, until: Any) -> Calls:  # noqa: ANN401
    ends, seconds, parent = array("d"), array("d"), os.getppid()
    values: list[Any] = []
    before = time.monotonic()
    for argument in arguments:
        if before >= until.value:
            break
        value = call(argument)
        after = time.monotonic()
        ends.append(after)
        seconds.append(after - before)
        values.append(value)
        if len(ends) % 1000 == 0 and os.getppid() != parent:
            break  # nobody is there to end it
        if pause:
            time.sleep(pause)
            after = time.monotonic()
        before = after
    return Calls(ends, seconds, array("q", values) if values and isinstance(values[0], int) else ())
