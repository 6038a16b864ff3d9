"""Following changes: one page after the other, for as long as somebody takes them."""

from __future__ import annotations

import time
from collections.abc import Generator

from msgspec import structs

from .errors import InvalidRequest, StoreUnavailable
from .ops import Changes, Request
from .results import ChangesPage
from .store import Store

AWAY_SECONDS = 60.0
"""How long a store that has answered before, and does not any more, is asked again."""
_WAIT = 20.0  # of one question, where the caller does not mind: a manager that hangs is noticed after it
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


def follow(
    store: Store, op: Changes, wait: float | None, timeout: float | None
) -> Generator[ChangesPage, None, None]:
    """The pages that *op* asks for, and after them those of what changes; see `SharedCounter.watch`.

    Raises:
        InvalidRequest: *wait* is 0, so that nothing would ever be waited for.
    """
    if wait is not None and wait <= 0:
        raise InvalidRequest("wait is more than 0 seconds, or None: watching goes on for ever")
    op = structs.replace(op, wait=_WAIT if wait is None else wait)
    return _pages(store, op, wait is not None, timeout)


def _pages(
    store: Store, op: Changes, empty_ones: bool, timeout: float | None
) -> Generator[ChangesPage, None, None]:
    patience = 0.0  # whoever was never answered is told at once what is wrong
    while True:
        page = _ask(store, op, timeout, patience)
        if page.tells or empty_ones:
            yield page
        op, patience = structs.replace(op, since=page.version), AWAY_SECONDS


def _ask(store: Store, op: Changes, timeout: float | None, patience: float) -> ChangesPage:
    """The answer to *op*, asked again and again until *patience* seconds after its *wait*."""
    until, pause = time.monotonic() + op.wait + patience, _SHORTEST_PAUSE
    while True:
        try:
            page: ChangesPage = store.execute(Request([op]), timeout).only()
        except StoreUnavailable:
            if not patience or time.monotonic() + pause >= until:
                raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return page
