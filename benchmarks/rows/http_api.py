"""What the HTTP API costs: an increment by its own address, beside a Flask view that counts nothing."""

from __future__ import annotations

import contextlib

import counter
from benchmarks.load import Target
from benchmarks.managers import manager
from benchmarks.row import OURS, Aim, Found, Options, Row
from benchmarks.web import view
from benchmarks.web.servers import server, workers
from benchmarks.web.turns import Site, compare

BARE = "bare Flask view"
NAME = "page"


def measure(options: Options) -> Found:
    """Both on the same workers of the same manager, which the bare view does not ask."""
    nothing = view.environ(Target(view.count_nothing, ""))
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(manager(options.folder / "home", "everysec"))
        hits = stack.enter_context(counter.connect(owner.url))
        api = stack.enter_context(server(workers(owner.home), "/livez", options.folder))
        bare = stack.enter_context(server(workers(owner.home, view.APP), view.PROBE, options.folder, nothing))
        path = f"/v1/counters/{NAME}/increment"
        sites = [
            Site(OURS, api, path, lambda: owner.cpu_seconds, lambda: hits[NAME]),
            Site(BARE, bare, view.PATH),
        ]
        return Found(compare(sites, options))


ROW = Row(
    "http-api",
    "POST /v1/counters/page/increment on 2 workers, beside a Flask view that asks no store.",
    measure,
    (Aim("rate", OURS, BARE, "", 0.65, 0.8),),
)
