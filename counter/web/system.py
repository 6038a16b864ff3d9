"""How the service is: for people and load balancers."""

from __future__ import annotations

import msgspec

from ..errors import CounterError, JournalFull, StoreUnavailable
from ..information import Information
from ..ops import Info, Request
from .call import Answer, Call, by_method, json_answer

READY_SECONDS = 1.0
"""How long a readiness probe waits for the store."""


def info(call: Call) -> Answer:
    """`/v1/info`: what the store says of itself, with the limits of this face."""
    return by_method(call, {"GET": _info})


def _info(call: Call) -> Answer:
    call.query()
    call.report()
    told = msgspec.to_builtins(call.ask(Info()))
    config = call.api.config
    told["limits"] |= {"max_body": config.max_body, "threads": config.threads, "timeout": config.timeout}
    return json_answer(told)


def alive(call: Call) -> Answer:
    """`/livez`: this process answers. It never asks the store: restarting it would not help the store."""
    return by_method(call, {"GET": lambda _: json_answer({"status": "alive"})})


def ready(call: Call) -> Answer:
    """`/readyz`: the store answers too, and takes changes; else 503, whatever is wrong with it."""
    return by_method(call, {"GET": _ready})


def _ready(call: Call) -> Answer:
    try:
        asked = Request([Info()], request_id=call.id)
        told: Information = call.api.store.execute(asked, READY_SECONDS).only()
    except CounterError as error:
        raise StoreUnavailable(f"the store does not answer: {error.detail}") from error
    if told.journal is not None and not told.journal.writable:
        raise JournalFull("the journal cannot be written: changes are refused until it can, and reads go on")
    return json_answer({"status": "ready"})
