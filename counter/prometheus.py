"""A store's counters as metrics of Prometheus, for a registry of one's own; and those of the HTTP API."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .errors import OutcomeUnknown, StoreUnavailable
from .fields import MAX_PAGE
from .information import LATENCY_BOUNDS, Http, Information, JournalFigures, ManagerFigures, WorkerFigures
from .ops import AnyOp, Info, List, Request
from .results import Entry, Page
from .settings import SETTINGS
from .shared_counter import SharedCounter
from .store import Store

SCRAPE_SECONDS = 3.0
"""The longest that a scrape waits for the store: Prometheus itself waits 10, the library's calls as well."""
MOST_COUNTED = 100_000
"""Up to how many names of a view are gone through to say how many are left out."""

UP = "counter_up", "Whether the counters could be read: 1, or 0 and nothing else is told of them."
VALUE = "counter_value", "The value of a counter, which can go down."
COUNTERS = "counter_counters", "How many counters there are."
LEFT_OUT = "counter_left_out", "How many of them are left out here, the last by name."


class CounterCollector(Collector):
    """The *counters* as gauges; each scrape reads them anew, so every worker tells the same.

    ``registry.register(CounterCollector(counter.connect()))`` adds it to a registry, which takes one of them.
    Nothing is asked before the first scrape.

    ======================  ====================================================
    counter_up              1, or 0 if the store did not answer within 3 seconds
    counter_value{name=…}   a counter's value
    counter_counters        how many counters there are
    counter_left_out        how many of them are not among the values; of a view
                            at most about 100,000 are counted
    ======================  ====================================================

    A value is a float there: beyond 2**53 its last digits are rounded.

    Args:
        counters: those to show; ``hits.view("shop:")`` shows the names below a prefix, without it.
        most: so many at most, the first by name. Each name is a time series that Prometheus keeps.
    """

    def __init__(self, counters: SharedCounter, most: int = 1000) -> None:
        self._counters = counters
        self._most = most

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values: whoever registers it makes no call."""
        return [GaugeMetricFamily(*metric) for metric in (UP, VALUE, COUNTERS, LEFT_OUT)]

    def collect(self) -> Iterator[Metric]:
        """The metrics; of a store that cannot be reached, `counter_up` alone."""
        try:
            metrics = self._metrics(time.monotonic() + SCRAPE_SECONDS)
        except (StoreUnavailable, OutcomeUnknown):
            yield GaugeMetricFamily(*UP, 0)
            return
        yield GaugeMetricFamily(*UP, 1)
        yield from metrics

    def _metrics(self, deadline: float) -> list[Metric]:
        """All but `counter_up`."""
        entries, counters = self._read(deadline)
        values = GaugeMetricFamily(*VALUE, labels=["name"])
        for entry in entries:
            values.add_metric([entry.name], entry.value)
        return [
            GaugeMetricFamily(*COUNTERS, counters),
            GaugeMetricFamily(*LEFT_OUT, counters - len(entries)),
            values,
        ]

    def _read(self, deadline: float) -> tuple[list[Entry], int]:
        """The first counters by name, and how many there are."""
        whole = not self._counters.store.prefix
        enough = self._most if whole else self._most + MOST_COUNTED
        entries: list[Entry] = []
        seen, cursor = 0, None
        while seen < enough:
            page: Page = self._ask(List(limit=MAX_PAGE, cursor=cursor), deadline)
            entries += page.counters[: self._most - len(entries)]
            seen, cursor = seen + len(page.counters), page.next
            if cursor is None:
                return entries, seen
        return entries, max(seen, self._ask(Info(), deadline).counters) if whole else seen

    def _ask(self, op: AnyOp, deadline: float) -> Any:  # noqa: ANN401  (RESULT_TYPES tells by the op)
        left = deadline - time.monotonic()
        if left < SETTINGS["timeout"].least:
            raise StoreUnavailable(f"the counters were not read within {SCRAPE_SECONDS:.0f} s")
        return self._counters.store.execute(Request([op]), left).only()


class _ServiceCollector(CounterCollector):
    """The counters, and what the manager knows of itself and of all workers."""

    def _metrics(self, deadline: float) -> list[Metric]:
        return [*super()._metrics(deadline), *_service(self._ask(Info(), deadline))]


def exposition(store: Store, accept: str) -> tuple[bytes, str]:
    """What `/metrics` of the HTTP API says of *store*, in the format that *accept* asks for, and its type."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        encode, content_type = choose_encoder("")
    return encode(_ServiceCollector(SharedCounter(store))), content_type


def _service(told: Information) -> Iterator[Metric]:
    build = {"version": told.version, "store": told.store, "durability": told.durability}
    yield InfoMetricFamily("counter_build", "The version of the store, its kind and durability.", build)
    operations = CounterMetricFamily(
        "counter_operations", "Operations by what came of them.", labels=["op", "outcome"]
    )
    for op, outcomes in told.operations.items():
        for outcome, count in outcomes.items():
            operations.add_metric([op, outcome], count)
    yield operations
    yield _latencies(told.http)
    if told.manager is not None:
        yield from _manager(told.manager, told.workers)
    if told.journal is not None:
        yield from _journal(told.journal)


def _latencies(http: Http) -> Metric:
    metric = HistogramMetricFamily(
        "counter_http_request_duration_seconds",
        "How long HTTP requests took until the answer began.",
        labels=["route", "status"],
    )
    bounds = [*map(str, LATENCY_BOUNDS), "+Inf"]
    for route, by_status in http.items():
        for status, each in by_status.items():
            buckets = list(zip(bounds, accumulate(each.counts), strict=True))
            metric.add_metric([route, status], buckets, each.seconds)
    return metric


def _manager(manager: ManagerFigures, workers: list[WorkerFigures]) -> Iterator[Metric]:
    yield GaugeMetricFamily("counter_manager_uptime_seconds", "Since the manager started.", manager.uptime)
    yield CounterMetricFamily("counter_manager_requests", "What the manager was asked.", manager.requests)
    yield GaugeMetricFamily("counter_manager_connections", "Connections to the manager.", manager.connections)
    yield GaugeMetricFamily(
        "counter_manager_waiting", "Questions that wait at the manager for changes.", manager.waiting
    )
    yield GaugeMetricFamily("counter_workers", "Workers that are connected.", len(workers))
    slots, used = sum(each.slots for each in workers), sum(each.slots_used for each in workers)
    yield GaugeMetricFamily("counter_watch_slots", "How many HTTP clients can wait for changes.", slots)
    yield GaugeMetricFamily("counter_watch_slots_used", "How many HTTP clients wait for changes.", used)


def _journal(journal: JournalFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily("counter_journal_bytes", "What the journal's files hold.", journal.bytes)
    yield GaugeMetricFamily(
        "counter_journal_writable", "Whether changes can be written down: 1 or 0.", journal.writable
    )
    if journal.synced_at is not None:
        yield GaugeMetricFamily(
            "counter_journal_synced_timestamp_seconds",
            "When the journal was last known to be on the disk; while nothing changes, it stays.",
            journal.synced_at.timestamp(),
        )
