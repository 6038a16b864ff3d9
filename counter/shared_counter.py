"""The `collections.Counter` face of a store, and `connect`, which gives one."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Self, TypedDict, TypeVar, Unpack, overload

from msgspec import UNSET, UnsetType

from .buffered import FLUSH_EVERY, MAX_PENDING, BufferedCounter
from .errors import CounterError, InvalidRequest, NotFound, OutcomeUnknown, VersionMismatch
from .fields import MAX_OPS, MAX_PAGE, OnBound, TtlMode, check_int
from .multiset import Multiset, made, plain
from .ops import AnyOp, Changes, Delete, Increment, Request, Set
from .prefix import PrefixStore
from .reading import Reading
from .results import ChangesPage, Problem
from .store import open_store
from .watch import follow

T = TypeVar("T")
Counts = Iterable[str] | Mapping[str, int]
_MISSING: Any = object()


class StepOptions(TypedDict, total=False):
    """What `increment` and `decrement` take by name."""

    min: int | None
    max: int | None
    on_bound: OnBound | None
    ttl: int | None
    ttl_mode: TtlMode | None
    if_version: str | None
    idempotency_key: str | None
    timeout: float | None


class SharedCounter(Multiset):
    """A `collections.Counter` that every process sharing its store sees.

    Every change is one atomic request; what goes through many counters asks for a page at a time. Methods may
    raise `StoreUnavailable` (nothing was applied), and those that change something `OutcomeUnknown` (it was
    applied, or never will be). *timeout* is in seconds, the store's own if None. Safe to use from any number
    of threads and processes, and across forks.

    With an *idempotency_key* a change is made once, however often and by whomever the call is repeated: later
    calls with that key return, or raise, what the first one did. Keys are kept for 24 hours, the newest
    100,000 in up to 64 MiB, and for a minute in any case: a store full of younger ones raises `LimitExceeded`
    and does nothing. The same key for anything else raises `KeyReused`.
    """

    def increment(
        self,
        name: str,
        delta: int = 1,
        *,
        min: int | None = None,
        max: int | None = None,
        on_bound: OnBound | None = None,
        ttl: int | None = None,
        ttl_mode: TtlMode | None = None,
        if_version: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Add *delta* to the counter *name* and return the value after exactly this call.

        Atomic across threads, processes and retries: with positive deltas no two calls return the same value.
        A missing or expired counter counts from 0.

        Args:
            name: 1-250 bytes of UTF-8, no control characters.
            delta: signed 64-bit step.
            min: least value for this call, besides the counter's own bounds.
            max: greatest value for this call, likewise.
            on_bound: "reject" (default) or "clamp": stop at the bound instead.
            ttl: seconds to live, if this call creates the counter.
            ttl_mode: "fixed" (default): from the creation; "sliding": from the last write.
            if_version: "present", "absent" or the version that the counter must have.
            idempotency_key: 1-255 visible ASCII characters: done once under this key, however often it is
                called within a day (see the class).
            timeout: seconds.

        Raises:
            OutOfBounds: the bounds or the 64-bit range forbid it; nothing changed.
            VersionMismatch: *if_version* does not hold; nothing changed.
            LimitExceeded: the store is full; nothing changed.
            KeyReused: the key was used for something else; nothing changed.
            InvalidRequest: a bad name, number or key.
        """
        op = made(Increment, name, delta, min, max, on_bound, ttl, ttl_mode, if_version)
        value: int = self._only(op, timeout, idempotency_key).value
        return value

    def decrement(self, name: str, delta: int = 1, **options: Unpack[StepOptions]) -> int:
        """Subtract *delta*; as `increment` with ``-delta``, and with its options."""
        return self.increment(name, _negated(delta), **options)

    def set(
        self,
        name: str,
        value: int,
        *,
        min: int | None | UnsetType = UNSET,
        max: int | None | UnsetType = UNSET,
        on_bound: OnBound | None | UnsetType = UNSET,
        ttl: int | None | UnsetType = UNSET,
        ttl_mode: TtlMode | None | UnsetType = UNSET,
        if_version: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Give *name* the value *value*, creating it if need be, and return the value it has.

        *min*, *max*, *on_bound*, *ttl* (seconds, from this call on) and *ttl_mode* are remembered: one left
        out stays as it was, None clears it. The others are as for `increment`.

        Raises:
            OutOfBounds: outside the counter's bounds; nothing changed.
            VersionMismatch: *if_version* does not hold; nothing changed.
            LimitExceeded, KeyReused: as for `increment`.
        """
        op = made(Set, name, value, min, max, on_bound, ttl, ttl_mode, if_version)
        result: int = self._only(op, timeout, idempotency_key).value
        return result

    def setdefault(self, name: str, default: int = 0, *, timeout: float | None = None) -> int:
        """The value of *name*, which is created with *default* if there is no such counter.

        Raises:
            LimitExceeded: the store is full; nothing changed.
        """
        try:
            value: int = self._only(made(Set, name, default, if_version="absent"), timeout).value
        except VersionMismatch as error:
            if error.current is None:
                raise
            return error.current.value
        return value

    def delete(
        self,
        name: str,
        *,
        if_version: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Remove *name* and return its last value; *idempotency_key* as for `increment`.

        Raises:
            NotFound: there is no such counter.
            VersionMismatch: *if_version* does not hold; nothing changed.
            LimitExceeded, KeyReused: of the key, as for `increment`.
        """
        last: int = self._only(made(Delete, name, if_version), timeout, idempotency_key).value
        return last

    @overload
    def pop(self, name: str, *, timeout: float | None = None) -> int: ...
    @overload
    def pop(self, name: str, default: T, *, timeout: float | None = None) -> int | T: ...
    def pop(self, name: str, default: object = _MISSING, *, timeout: float | None = None) -> object:
        """Remove *name* and return its last value, or *default* if there is no such counter.

        Raises:
            NotFound: there is none, and no *default*.
        """
        try:
            return self.delete(name, timeout=timeout)
        except NotFound:
            if default is _MISSING:
                raise
            return default

    def update(
        self,
        counts: Counts | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **deltas: int,
    ) -> None:
        """Add counts: of the elements of an iterable, or a mapping's values; all of them or none.

        A counter named `timeout` or `idempotency_key` goes into a mapping. With an *idempotency_key* (as for
        `increment`) a repeated call has to give the counts in the same order.

        Raises:
            InvalidRequest: more than 10,000 different names, or a bad name, number or key.
            OutOfBounds, LimitExceeded: one of them is refused; nothing changed.
            KeyReused: as for `increment`.
        """
        self._add_all(plain, counts, deltas, timeout, idempotency_key)

    def subtract(
        self,
        counts: Counts | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **deltas: int,
    ) -> None:
        """As `update`, but subtract; values below 0 are as good as any."""
        self._add_all(_negated, counts, deltas, timeout, idempotency_key)

    def clear(self, *, timeout: float | None = None) -> None:
        """Remove every counter that is there when it is called, all at one instant.

        What others create in the meantime may stay. *timeout* is for each page of names, too. For more than
        10,000 counters, delete each by itself: ``for name in counters: del counters[name]``.

        Raises:
            InvalidRequest: there are more than 10,000; nothing changed.
            LimitExceeded: their names together are over the manager's `--max-frame`; nothing changed.
        """
        names = [entry.name for entry in itertools.islice(self.entries(timeout=timeout), MAX_OPS + 1)]
        if len(names) > MAX_OPS:
            raise InvalidRequest(f"clear removes at most {MAX_OPS} counters at once; delete each by itself")
        if not names:
            return
        request = Request([Delete(name) for name in names], atomic=False)
        for result in self.store.execute(request, timeout).unwrap():
            if isinstance(result, Problem) and result.code != NotFound.code:  # gone already: as it should be
                raise result.error()

    def watch(
        self,
        prefix: str = "",
        *,
        since: str | None = None,
        wait: float | None = None,
        limit: int = MAX_PAGE,
        timeout: float | None = None,
    ) -> Generator[ChangesPage, None, None]:
        """What there is and then what changes, page after page, until the caller stops.

        A page is *complete* if what it and those after it do not list is not there: the first one, and
        another when the store cannot tell what was missed, as after the manager's restart. That is waited
        for, a minute at least. A page's *version* is what to go on from.

        Args:
            prefix: only counters whose names begin so.
            since: the version of the last page seen; None tells everything.
            wait: after so many seconds without a change an empty page comes (None: none ever does).
            limit: most counters in a page.
            timeout: seconds for each page, besides *wait*.
        """
        op = made(Changes, since, prefix, limit=limit)
        return follow(self.store, op, wait, timeout)

    def view(self, prefix: str) -> SharedCounter:
        """The counters whose names begin with *prefix*, under what is left of their names.

        `counters.view("shop:").increment("cart")` counts ``shop:cart``. The same as the option `prefix` of
        a URL. A view's `len` goes through its names, in pages.

        Raises:
            InvalidRequest: *prefix* cannot begin a name.
        """
        return SharedCounter(PrefixStore(self.store, plain(prefix)))

    def buffered(self, flush_every: float = FLUSH_EVERY, max_pending: int = MAX_PENDING) -> BufferedCounter:
        """Counts that need no answer, sent together, *flush_every* seconds later; see `BufferedCounter`."""
        return BufferedCounter(self.store, flush_every, max_pending)

    def close(self) -> None:
        """Give back the connections, which equal URLs of this process share; the next call opens new ones."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> Reading:
        return Reading.of(self.get(name) or 0, self, name)

    def __setitem__(self, name: str, value: int) -> None:
        delta = value.take_delta(self, name) if isinstance(value, Reading) else None
        if not isinstance(value, Reading) or delta is None:
            self.set(name, value)
            return
        try:
            self.increment(name, delta)
        except OutcomeUnknown:
            raise
        except CounterError:  # nothing was applied: assigning it again sends it again
            value.give_back(delta)
            raise

    def __delitem__(self, name: str) -> None:
        try:
            self.delete(name)
        except NotFound:
            return  # as in collections.Counter

    def __repr__(self) -> str:
        """Asks the store for nothing: it is read where things have gone wrong, too."""
        return f"{type(self).__name__}({self.store!r})"

    def __reduce__(self) -> tuple[Callable[[str], SharedCounter], tuple[str]]:
        """Travels as its URL; a copy counts in the same store.

        Raises:
            TypeError: its store has none.
        """
        if not self.store.url:
            raise TypeError(f"{self!r} cannot be pickled: its store was not opened by a URL")
        return connect, (self.store.url,)

    def _add_all(
        self,
        signed: Callable[[int], int],
        counts: Counts | None,
        deltas: Mapping[str, int],
        timeout: float | None,
        key: str | None,
    ) -> None:
        """Add what *signed* makes of each count, in one atomic request."""
        if isinstance(counts, Multiset):  # in pages: a Counter would ask for each name by itself
            counts = counts.copy()
        pairs = (*collections.Counter(counts).items(), *deltas.items())
        ops: list[AnyOp] = [made(Increment, name, signed(delta)) for name, delta in pairs]
        if ops:
            self.store.execute(Request(ops, idempotency_key=plain(key)), timeout).unwrap()


def connect(url: str | None = None) -> SharedCounter:
    """The counters at *url*: `COUNTER_URL` if left out, else the manager in its usual home.

    Opens nothing yet, so it can stand at the top of a module, also where the server forks afterwards.

    Raises:
        InvalidRequest: no store's URL.
    """
    return SharedCounter(open_store(url))


def _negated(value: int) -> int:
    value = plain(value)
    check_int("delta", value)
    return -value
