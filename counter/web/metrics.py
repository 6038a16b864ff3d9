"""`/metrics`: the counters, and how the service is, for Prometheus; the same from every worker."""

from __future__ import annotations

from ..prometheus import exposition
from .call import Answer, Call, by_method


def metrics(call: Call) -> Answer:
    """`/metrics`: status 200 also without a store, with `counter_up` 0."""
    return by_method(call, {"GET": _metrics})


def _metrics(call: Call) -> Answer:
    call.query()
    call.report()
    body, content_type = exposition(call.api.store, call.header("ACCEPT") or "")
    return Answer(body, 200, (("Vary", "Accept"),), content_type)
