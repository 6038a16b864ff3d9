"""What idle connections cost: the server's memory, and the time of those who count beside them."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import resource
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from benchmarks.figures import percentile
from benchmarks.homes import increments
from benchmarks.load import NAMES, Client, Clients, Target
from benchmarks.managers import memory
from benchmarks.peers import Missing, Start, counters, redis_py, stock
from benchmarks.row import OURS, Aim, Case, Found, Options, Row, expect_total

MANY = 1000
"""Idle connections; fewer in a run with fewer counters."""
FILES = 4096
"""Descriptors that whoever serves or holds as many connections may have."""
ALONE, BESIDE = "alone", "beside idle connections"
WARM_UP = 0.2
_spawn = multiprocessing.get_context("spawn")


class Subject(NamedTuple):
    """Who is compared: how it is *start*ed, and how an idle client *connect*s."""

    start: Start
    connect: Callable[[str], Client]


def own(url: str) -> Client:
    """A client of the manager at *url* with a connection that it shares with nobody."""
    from counter import SharedCounter
    from counter.stores.manager import ManagerStore

    hits = SharedCounter(ManagerStore(Path(unquote(urlsplit(url).path)), 10.0))
    return Client(hits.increment, hits.__getitem__)


SUBJECTS = {
    OURS: Subject(counters.everysec, own),
    stock.OBJECT: Subject(stock.stock_object, stock.connect_object),
    redis_py.EVERYSEC: Subject(redis_py.everysec, redis_py.connect),
}


def measure(options: Options) -> Found:
    """Count alone and beside idle connections, on servers that are new in each turn."""
    many = min(MANY, options.counters)
    cases = {name: (Case(name, ALONE, {}), Case(name, BESIDE, {})) for name in SUBJECTS}
    notes = [f"{many:,} idle connections, and one process that counts"]
    order = list(SUBJECTS)
    with _many_files(), Clients(1) as clients:
        for number in range(options.rounds):
            folder = options.folder / str(number)
            folder.mkdir()
            for name in order:
                try:
                    turn = _turn(name, folder, clients, options.seconds, many)
                except Missing as error:
                    notes += [f"{error}: not compared"] if number == 0 else []
                    continue
                for case, figures in zip(cases[name], turn, strict=True):
                    for figure, found in figures.items():
                        case.figures.setdefault(figure, []).append(found)
            order.append(order.pop(0))
    return Found([case for pair in cases.values() for case in pair if case.figures], notes)


def _turn(
    name: str, folder: Path, clients: Clients, seconds: float, many: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The figures alone, and beside *many* idle connections."""
    made = 0
    subject = SUBJECTS[name]

    def p50(target: Target, turn: float) -> float:
        nonlocal made
        _, calls = clients.run(target, turn)
        made += increments(calls)
        return percentile(calls[0].seconds, 0.5)

    with subject.start(folder) as peer:
        (pid,) = peer.pids
        p50(peer.target, WARM_UP)
        alone, before = p50(peer.target, seconds), memory(pid)
        with _idle(Target(subject.connect, peer.target.address), many):
            grown = memory(pid) - before
            beside = p50(peer.target, seconds)
        client = peer.target.connect(peer.target.address)
        expect_total(name, sum(map(client.get, NAMES)), made)
        client.close()
    return {"p50": alone}, {"p50": beside, "bytes": grown / many}


@contextlib.contextmanager
def _idle(target: Target, many: int) -> Iterator[None]:
    """So *many* connections, each of which was used once, in another process."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_hold, args=(target, many, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        try:
            ours.recv()
        except EOFError as error:
            raise RuntimeError("idle connections could not be made; stderr says why") from error
        yield
    finally:
        ours.close()
        process.join(10)
        process.kill()


def _hold(target: Target, many: int, orders: Connection) -> None:
    """Connect from a thread for each, because a stock proxy has one connection a thread, and stay."""
    connected: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    ended = threading.Event()

    def stay() -> None:
        try:
            client = target.connect(target.address)
            client.get(NAMES[0])
        except Exception as error:  # noqa: BLE001  whatever it is, it is raised where it ends the process
            connected.put(error)
            return
        connected.put(None)
        ended.wait()

    with _many_files():
        for _ in range(many):
            threading.Thread(target=stay, daemon=True).start()
            if (error := connected.get()) is not None:
                raise error
        orders.send(many)
        with contextlib.suppress(EOFError):
            orders.recv()


@contextlib.contextmanager
def _many_files() -> Iterator[None]:
    """Descriptors for so many connections, here and in processes that are started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


ROW = Row(
    "connections",
    "What idle connections take, and what they cost others.",
    measure,
    (
        Aim("bytes", OURS, "", BESIDE, 4000, 2000),
        Aim("p50", OURS, OURS, BESIDE, 1.5, 1.1, ALONE),
    ),
)
