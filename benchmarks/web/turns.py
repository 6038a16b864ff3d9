"""Sites under load in turns that follow each other closely, and what each of them counted and cost."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from benchmarks.figures import percentile
from benchmarks.row import Case, Options, expect_total
from benchmarks.web.load import Answers, Clients
from benchmarks.web.servers import Server

WARM_UP = 0.5
"""Of a turn before the first, whose figures do not count."""


class Site(NamedTuple):
    """What is compared: *subject*, on *server*, where each POST to *path* counts one.

    Attributes:
        store_cpu_seconds: what its store cost so far, besides the server.
        total: the sum of its counters, which nobody else changes; None where it only pretends to count.
    """

    subject: str
    server: Server
    path: str
    store_cpu_seconds: Callable[[], float] = lambda: 0.0
    total: Callable[[], int] | None = None

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all that serves it."""
        return self.server.cpu_seconds + self.store_cpu_seconds()


class Told(msgspec.Struct, frozen=True):
    """What every answer says, whatever else it says: the value that the counter *name* had then."""

    name: str
    value: int


_read = msgspec.json.Decoder(Told).decode


def compare(sites: Sequence[Site], options: Options) -> list[Case]:
    """A case for each of *sites*; in another order each round."""
    cases = [Case(site.subject, "", defaultdict(list)) for site in sites]
    seen: list[set[Told]] = [set() for _ in sites]
    before = [site.total() if site.total else 0 for site in sites]
    everyone = range(len(sites))
    with Clients() as clients:
        for each in everyone:
            warmed = clients.run(sites[each].server.port, sites[each].path, min(options.seconds, WARM_UP))
            check(sites[each], warmed, seen[each], before[each])
        for number in range(options.rounds):
            order = random.Random(number)  # noqa: S311  no secret, and the same in each run
            for each in order.sample(everyone, len(everyone)):
                _turn(clients, sites[each], options.seconds, cases[each].figures, seen[each], before[each])
    return [case._replace(figures=dict(case.figures)) for case in cases]


def _turn(
    clients: Clients,
    site: Site,
    seconds: float,
    figures: dict[str, list[float]],
    seen: set[Told],
    before: int,
) -> None:
    cpu = site.cpu_seconds
    answers = clients.run(site.server.port, site.path, seconds)
    cpu = site.cpu_seconds - cpu
    check(site, answers, seen, before)
    count = sum(each.answered for each in answers)
    took = [second for each in answers for second in each.seconds]
    found = {
        "rate": count / seconds,
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
        "client_cpu": sum(each.cpu_seconds for each in answers) / count,
        "server_cpu": cpu / sum(len(each.bodies) for each in answers),
    }
    found["cpu"] = found["client_cpu"] + found["server_cpu"]
    for name, value in found.items():
        figures[name].append(value)


def check(site: Site, answers: Sequence[Answers], seen: set[Told], before: int) -> None:
    """Look that *site* counted exactly what it answered, and gave no number twice; *seen* grows.

    Raises:
        WrongTotal: it did not.
    """
    told = [_read(body) for each in answers for body in each.bodies]
    if site.total is None:
        return
    known = len(seen)
    seen.update(told)
    expect_total(f"{site.subject}, by different numbers,", len(seen) - known, len(told))
    expect_total(site.subject, site.total() - before, len(seen))
