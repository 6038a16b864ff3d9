"""Turns of calls: every subject under every condition, one after the other, in another order each round.

What else the machine does meets all of them alike. The calls of a turn are made by the same loop for each
(`load`); servers and connections are there before. After each turn the subject's counters must add up to what
it has acknowledged since its start, and the values that it returned must all be different.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.figures import percentile
from benchmarks.load import BATCH, NAMES, Calls, Clients, Target
from benchmarks.managers import cpu_seconds
from benchmarks.peers import Peer, Start, started
from benchmarks.row import Case, Found, Options, WrongTotal, expect_total

WARM_UP = 0.3
"""Seconds, at most, for which each subject is called before anything counts: imports, connections, caches."""


class Crowd(NamedTuple):
    """Who calls at once."""

    processes: int = 1
    threads: int = 1
    """In each of the processes."""


def compare(
    options: Options, starts: Sequence[Start], crowds: Mapping[str, Crowd], verb: str = "increment"
) -> Found:
    """Let the clients of each subject make calls of *verb* under each condition, a key of *crowds*."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    most = max(crowd.processes for crowd in crowds.values())
    with started(starts, options.folder) as (peers, notes), Clients(most) as clients:
        subjects = [_Subject(peer, clients, verb) for peer in peers]
        for subject in subjects:
            for crowd in crowds.values():
                subject.turn(min(options.seconds, WARM_UP), crowd)
        for number in range(options.rounds):
            order = random.Random(number)  # noqa: S311  no secret, and the same in each run
            for condition, crowd in crowds.items():
                for subject in order.sample(subjects, len(subjects)):
                    for name, figure in subject.turn(options.seconds, crowd).items():
                        found[condition, subject.peer.subject][name].append(figure)
    cases = [
        Case(peer.subject, condition, dict(found[condition, peer.subject]))
        for condition in crowds
        for peer in peers
    ]
    return Found(cases, notes)


class _Subject:
    """A subject, and what it has acknowledged so far."""

    def __init__(self, peer: Peer, clients: Clients, verb: str) -> None:
        self.peer = peer
        self._clients = clients
        self._verb = verb
        self._each = len(BATCH) if verb == "update" else 1
        self._acknowledged = 0

    def turn(self, seconds: float, crowd: Crowd) -> dict[str, float]:
        """One turn of this subject: its figures, once its total was found to be right."""
        target = self.peer.shared if crowd.threads > 1 and self.peer.shared else self.peer.target
        used = self._server_cpu()
        begin, calls = self._clients.run(
            target, seconds, verb=self._verb, processes=crowd.processes, threads=crowd.threads
        )
        used = self._server_cpu() - used
        made = sum(len(each.ends) for each in calls)
        everything = made + crowd.processes  # which each made one to wake up
        self._check(target, everything, calls)
        took = [each for client in calls for each in client.between(begin, begin + seconds)]
        client = sum(each.cpu for each in calls) / max(1, made) / self._each
        server = used / everything / self._each
        return {
            "rate": len(took) * self._each / seconds,
            "p50": percentile(took, 0.5),
            "p99": percentile(took, 0.99),
            "client_cpu": client,
            "server_cpu": server,
            "cpu": client + server,
        }

    def _server_cpu(self) -> float:
        return sum(map(cpu_seconds, self.peer.pids))

    def _check(self, target: Target, everything: int, calls: Sequence[Calls]) -> None:
        if self._verb != "get":
            self._acknowledged += everything * self._each
        client = target.connect(target.address)
        total = sum(map(client.get, BATCH if self._verb == "update" else NAMES))
        client.close()
        expect_total(self.peer.subject, total, self._acknowledged)
        if self._verb == "increment":
            expect_unique(self.peer.subject, calls)


def expect_unique(subject: str, calls: Sequence[Calls]) -> None:
    """Raise `WrongTotal` if two *calls* returned the same value of the same counter."""
    for index, name in enumerate(NAMES):
        values = [value for client in calls for value in client.values[index :: len(NAMES)]]
        if len(set(values)) < len(values):
            raise WrongTotal(f"{subject} gave a number of {name!r} twice")
