"""How often one address may ask: counted in the store, so that it holds across all workers.

The counters have names that nobody else can have and no list shows (`fields.HIDDEN`). The first request of an
address begins its window; of any number of concurrent ones exactly as many get through as the limit says, and
what is refused is not counted. A store that does not answer refuses nobody: the request itself will see.
"""

from __future__ import annotations

import ipaddress
import logging
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, cast

from .. import request_ids
from ..errors import CounterError, OutOfBounds
from ..fields import HIDDEN
from ..ops import Increment, Request
from ..problems import HttpError
from ..results import Entry
from ..settings import SETTINGS, RateLimit
from ..store import Store

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

UNLIMITED = frozenset(("/livez", "/readyz"))
"""Routes that whoever watches over the service may ask as often as it likes."""
_CHECK_SECONDS = 1.0  # that a request waits for this, while the store does not answer
_NETWORK = 64  # bits of an IPv6 address: who has one address has all that begin so

Headers = tuple[tuple[str, str], ...]

log = logging.getLogger(__name__)


def check(environ: WSGIEnvironment, store: Store, limit: RateLimit, timeout: float) -> Headers:
    """Count a request; the fields that tell its client how many more there may be.

    Raises:
        HttpError: `rate-limited`, there were too many.
    """
    name = f"{HIDDEN}rate:{limit.seconds}:{address(environ.get('REMOTE_ADDR', ''))}"
    seconds = max(min(_CHECK_SECONDS, timeout), SETTINGS["timeout"].least)
    try:
        hit = Request(
            [Increment(name, max=limit.most, ttl=limit.seconds)], request_id=request_ids.of(environ)
        )
        entry: Entry = store.whole.execute(hit, seconds).only()
    except OutOfBounds as error:
        left = _left(cast(Entry, error.current), limit)
        raise HttpError(
            "rate-limited",
            f"one address may ask {limit.most} times in {limit.seconds} s; repeat it in {left} s",
            (("Retry-After", str(left)), *_fields(limit, 0, left)),
        ) from None
    except CounterError as error:
        log.warning("a request was not counted for the rate limit: %s", error.code)
        return ()
    return _fields(limit, limit.most - entry.value, _left(entry, limit))


@lru_cache(maxsize=1024)
def address(remote: str) -> str:
    """Whom *remote* stands for: a host's IPv4 address, or the network of an IPv6 one; - for all others."""
    try:
        found = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return "-"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _NETWORK), strict=False))


def _left(entry: Entry, limit: RateLimit) -> int:
    """Seconds until the window ends, whole ones: after that many it has."""
    if entry.expires_at is None:
        return limit.seconds
    return min(max(ceil((entry.expires_at - datetime.now(UTC)).total_seconds()), 1), limit.seconds)


def _fields(limit: RateLimit, remaining: int, left: int) -> Headers:
    """As draft-ietf-httpapi-ratelimit-headers-10 has them."""
    return (
        ("RateLimit-Policy", f'"address";q={limit.most};w={limit.seconds}'),
        ("RateLimit", f'"address";r={remaining};t={left}'),
    )
