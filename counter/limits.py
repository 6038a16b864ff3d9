"""A storage of the package limits, which Flask-Limiter and slowapi count with; importing this registers it.

    import counter.limits
    limiter = Limiter(get_remote_address, app=app, storage_uri="counter://")

Every process of the host then counts against the same limits, with no server to install.
"""

from __future__ import annotations

import hashlib
import time
from math import floor

from .errors import InvalidRequest, LimitExceeded, NotFound, OutcomeUnknown, OutOfBounds, StoreUnavailable
from .extras import extra
from .fields import INT64_MAX, MAX_PAGE, check_name
from .ops import Delete, Get, List, Request
from .results import Change, Entry, Page
from .shared_counter import SharedCounter
from .store import open_store

with extra("limits", needed_by=__name__):
    from limits.storage.base import SlidingWindowCounterSupport, Storage, TimestampedSlidingWindow

PREFIX = "LIMITS:"
"""What the name of every counter of a rate limit begins with."""
_CHECK_SECONDS = 1.0  # Flask-Limiter asks in the middle of a visitor's request


class CounterStorage(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Rate limits in the counters of a store, for the strategies fixed-window and sliding-window-counter.

    Fixed window: a hit is one atomic increment, of which the first creates the counter for the window's
    length. Of any number of concurrent hits exactly as many get through as the limit says.

    Sliding window: windows begin where the wall clock, which all processes of a host share, is a multiple of
    their length. A hit reads the count of the window before, which no longer changes, and what of it still
    weighs; then one atomic increment of the current window is let through or refused by what the limit leaves
    over. So no window ever lets through more than the limit says, and of concurrent hits within one window
    exactly as many get through as the estimate allows.

    At the edge between two windows a hit that began before it and is carried out after it counts in the
    window that it began in. Hits of the new window that had read that one earlier did not see it: over both
    windows, as many hits too many can get through as were under way at that edge, and no more. A wall clock
    that is set makes the current window shorter or longer.

    There is no moving window: the strategy refuses this storage with `NotImplementedError`.

    Counters are named `LIMITS:fixed:KEY` and `LIMITS:sliding:KEY/WINDOW`. Of a key that no counter can be
    named after, such as a very long one, there is its SHA-256 instead: `LIMITS:fixed#DIGEST`.
    """

    STORAGE_SCHEME = ["counter"]  # noqa: RUF012  (limits' own type)

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: float | str | bool
    ) -> None:
        """Take the store at *uri*, as `counter.open_store` does; nothing is opened yet.

        Args:
            uri: `counter:///srv/shop?timeout=2`, or the URL of any other store; `counter://`, as it is, means
                COUNTER_URL, else the manager in its usual home.
            wrap_exceptions: raise the store's failures as `limits.errors.StorageError`.
            options: none; they go into *uri*.

        Raises:
            InvalidRequest: no store's URL, one with too long a prefix, or there are *options*.
        """
        if options:
            unknown = ", ".join(options)
            raise InvalidRequest(
                f"this storage has no option {unknown}: options go into the URL, as in counter://?timeout=2"
            )
        super().__init__(uri, wrap_exceptions)
        # Flask-Limiter takes no storage without a URL, so the shortest one means what `connect()` means.
        self._counters = SharedCounter(open_store(None if uri == "counter://" else uri))
        self._store = self._counters.store
        check_name(self._store.prefix + f"{PREFIX}sliding#{'0' * 64}")  # the longest that every key has

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """What the store fails with; everything else is a mistake in a program."""
        return StoreUnavailable, OutcomeUnknown, LimitExceeded

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add *amount* to the fixed window of *key* and return the count after exactly this call.

        The first call begins the window, which lasts *expiry* seconds.
        """
        return self._counters.increment(self._fixed(key), amount, ttl=expiry)

    def get(self, key: str) -> int:
        """The count of the fixed window of *key*."""
        return self._counters.get(self._fixed(key), 0)

    def get_expiry(self, key: str) -> float:
        """When the fixed window of *key* ends, in seconds since the epoch; now, if there is none."""
        try:
            ends = self._counters.entry(self._fixed(key)).expires_at
        except NotFound:
            ends = None
        return time.time() if ends is None else ends.timestamp()

    def clear(self, key: str) -> None:
        """Forget the fixed window of *key*."""
        del self._counters[self._fixed(key)]

    def check(self) -> bool:
        """Whether the store answers within a second; never raises."""
        try:
            self._counters.get(PREFIX, timeout=_CHECK_SECONDS)
        except Exception:  # noqa: BLE001  (Flask-Limiter asks unguarded: it would answer 500)
            return False
        return True

    def reset(self) -> int:
        """Forget all rate limits of the store, and nothing else in it; return how many counters that were."""
        removed, cursor = 0, None
        while True:
            listing = List(PREFIX, limit=MAX_PAGE, cursor=cursor)
            page: Page = self._store.execute(Request([listing])).only()
            if page.counters:
                deletes = Request([Delete(entry.name) for entry in page.counters], atomic=False)
                removed += sum(isinstance(result, Change) for result in self._store.execute(deletes).unwrap())
            if page.next is None:
                return removed
            cursor = page.next

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add *amount* to the current window of *key*, unless that would take its estimate over *limit*.

        The window before weighs as much as it did when the call began.
        """
        now = time.time()
        previous, current = self._windows(key, expiry, now)
        weight = floor(self._counters.get(previous, 0) * _remaining(expiry, now) / expiry)
        try:
            self._counters.increment(current, amount, max=min(limit - weight, INT64_MAX), ttl=2 * expiry)
        except OutOfBounds:
            return False
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds left of the previous window of *key*, then the same of the current one.

        The seconds of the current one go on to the end of the next, in which it still weighs.
        """
        now = time.time()
        reads = Request([Get(name) for name in self._windows(key, expiry, now)], atomic=False)
        results = self._store.execute(reads).unwrap()
        previous, current = (result.value if isinstance(result, Entry) else 0 for result in results)
        remaining = _remaining(expiry, now)
        return previous, remaining if previous else 0.0, current, remaining + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget the previous and the current window of *key*."""
        for name in self._windows(key, expiry, time.time()):
            del self._counters[name]

    def _fixed(self, key: str) -> str:
        return self._name("fixed", key)

    def _windows(self, key: str, expiry: int, now: float) -> tuple[str, str]:
        """The names of the previous window and of the one at *now*."""
        previous, current = self.sliding_window_keys(key, expiry, now)
        return self._name("sliding", previous), self._name("sliding", current)

    def _name(self, kind: str, key: str) -> str:
        """The counter's name for *key*, which no other has: the sign after *kind* tells key from digest."""
        name = f"{PREFIX}{kind}:{key}"
        try:
            check_name(self._store.prefix + name)
        except InvalidRequest:
            digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
            return f"{PREFIX}{kind}#{digest}"
        return name


def _remaining(expiry: int, now: float) -> float:
    """Seconds until the next window begins; for as much of its length the previous one still weighs."""
    return (1 - (now / expiry) % 1) * expiry
