"""A store's counters as metrics of Prometheus, for a registry of one's own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .errors import OutcomeUnknown, StoreUnavailable
from .fields import MAX_PAGE
from .ops import AnyOp, Info, List, Request
from .results import Entry, Page
from .settings import SETTINGS
from .shared_counter import SharedCounter

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
            entries, counters = self._read(time.monotonic() + SCRAPE_SECONDS)
        except (StoreUnavailable, OutcomeUnknown):
            yield GaugeMetricFamily(*UP, 0)
            return
        yield GaugeMetricFamily(*UP, 1)
        yield GaugeMetricFamily(*COUNTERS, counters)
        yield GaugeMetricFamily(*LEFT_OUT, counters - len(entries))
        values = GaugeMetricFamily(*VALUE, labels=["name"])
        for entry in entries:
            values.add_metric([entry.name], entry.value)
        yield values

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
