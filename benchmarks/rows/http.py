"""What a store costs in a web app: the same Flask view on the same workers, over one store or another."""

from __future__ import annotations

import contextlib
from functools import partial

from benchmarks.load import NAMES, Client, Target, ours
from benchmarks.managers import cpu_seconds, manager
from benchmarks.peers import Peer, memcached, redis_py, started, stock
from benchmarks.row import OURS, Aim, Found, Options, Row
from benchmarks.web import view
from benchmarks.web.servers import server, workers
from benchmarks.web.turns import Site, compare

STARTS = (view.no_store, redis_py.everysec, memcached.memcached, stock.stock_object)
"""Everything that is compared with ours."""


def measure(options: Options) -> Found:
    """All on workers of the same manager, which only ours asks."""
    folder = options.folder
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(manager(folder / "home", "everysec"))
        others, notes = stack.enter_context(started(STARTS, folder))
        sites = []
        for peer in [Peer(OURS, Target(ours, owner.url), [owner.pid]), *others]:
            target = peer.shared or peer.target
            command = workers(owner.home, view.APP)
            served = stack.enter_context(server(command, view.PROBE, folder, view.environ(target)))
            client = target.connect(target.address)
            stack.callback(client.close)
            total = None if peer.subject == view.NO_STORE else partial(_total, client)
            sites.append(Site(peer.subject, served, view.PATH, partial(_cpu_seconds, peer), total))
        return Found(compare(sites, options), notes)


def _cpu_seconds(peer: Peer) -> float:
    return sum(map(cpu_seconds, peer.pids))


def _total(client: Client) -> int:
    return sum(map(client.get, NAMES))


ROW = Row(
    "http",
    "A Flask view that increments, on 2 workers, over one store or another.",
    measure,
    (
        Aim("rate", OURS, view.NO_STORE, "", 0.75, 0.9),
        Aim("rate", OURS, redis_py.EVERYSEC, "", 1.1, 1.3),
        Aim("rate", OURS, memcached.SUBJECT, "", 1.0, 1.1),
    ),
)
