"""The `collections.Counter` face of a store, and `connect`, which gives one."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsInt

from .errors import CounterError, NotFound, OutcomeUnknown
from .fields import MAX_PAGE, OnBound, Sort, TtlMode, check_int
from .ops import AnyOp, Delete, Entry, Get, Increment, Info, List, Page, Request, Set
from .store import Store, open_store


class Reading(int):
    """A counter's value as it was read; `+=` and `-=` on it remember what is added.

    Assigned back to the same counter and name it sends that delta, once; anywhere else it is a plain number.
    """

    _counter: SharedCounter
    _name: str
    _delta: int | None

    @classmethod
    def of(cls, value: int, counter: SharedCounter, name: str, delta: int | None = None) -> Reading:
        """*value*, read from *name* of *counter*, with *delta* added since."""
        reading = cls(value)
        reading._counter, reading._name, reading._delta = counter, name, delta
        return reading

    def __iadd__(self, delta: int) -> Reading:
        if not isinstance(delta, int):  # a bool counts, as for every int
            return NotImplemented
        total = int(delta) + (self._delta or 0)
        return Reading.of(int(self) + int(delta), self._counter, self._name, total)

    def __isub__(self, delta: int) -> Reading:
        if not isinstance(delta, int):
            return NotImplemented
        return self.__iadd__(-int(delta))

    def take_delta(self, counter: SharedCounter, name: str) -> int | None:
        """What is to be added to *name* of *counter* for it; None if it is a plain value there."""
        if counter is not self._counter or name != self._name:
            return None
        delta, self._delta = self._delta, None
        return delta

    def give_back(self, delta: int) -> None:
        """*delta*, once taken, was not applied."""
        self._delta = delta

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)


class SharedCounter:
    """A `collections.Counter` that every process sharing its store sees.

    Every method is one atomic request and may raise `StoreUnavailable` (nothing was applied) and
    `OutcomeUnknown` (it was applied, or never will be). *timeout* is in seconds, the store's own if None.
    Safe to use from any number of threads and processes, and across forks.

    With an *idempotency_key* a change is made once, however often and by whomever the call is repeated: later
    calls with that key return, or raise, what the first one did. Keys are kept for 24 hours, the newest
    100,000 in up to 64 MiB, and for a minute in any case: a store full of younger ones raises `LimitExceeded`
    and does nothing. The same key for anything else raises `KeyReused`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

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
        op = Increment(name, _plain(delta), min, max, on_bound, ttl, ttl_mode, if_version)
        value: int = self._only(op, timeout, idempotency_key).value
        return value

    def decrement(self, name: str, delta: int = 1, **options: Any) -> int:  # noqa: ANN401
        """Subtract *delta*; as `increment` with ``-delta``, and with its options."""
        delta = _plain(delta)
        check_int("delta", delta)
        return self.increment(name, -delta, **options)

    def get(self, name: str, default: int | None = None, *, timeout: float | None = None) -> int | None:
        """The value of *name*, or *default* if there is no such counter."""
        try:
            return self.entry(name, timeout=timeout).value
        except NotFound:
            return default

    def entry(self, name: str, *, timeout: float | None = None) -> Entry:
        """All that is known of *name*: value, version, times, bounds.

        Raises:
            NotFound: there is no such counter.
        """
        entry: Entry = self._only(Get(name), timeout)
        return entry

    def set(
        self,
        name: str,
        value: int,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> int:
        """Give *name* the value *value*, creating it if need be, and return the value it has.

        Args:
            name: 1-250 bytes of UTF-8, no control characters.
            value: a signed 64-bit integer.
            idempotency_key: as for `increment`.
            timeout: seconds.
            settings: *min*, *max*, *on_bound*, *ttl* (seconds), *ttl_mode*, *if_version*, as for `increment`
                but remembered: one left out is kept, None clears it.

        Raises:
            OutOfBounds: outside the counter's bounds; nothing changed.
            VersionMismatch: *if_version* does not hold; nothing changed.
            LimitExceeded, KeyReused: as for `increment`.
        """
        result: int = self._only(Set(name, _plain(value), **settings), timeout, idempotency_key).value
        return result

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
        last: int = self._only(Delete(name, if_version), timeout, idempotency_key).value
        return last

    def update(
        self,
        names: Iterable[str] | Mapping[str, int] = (),
        /,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **deltas: int,
    ) -> None:
        """Add counts: of the elements of an iterable, or a mapping's values; all of them or none.

        With *idempotency_key* (as for `increment`) a repeated call has to give them in the same order.

        Raises:
            InvalidRequest: more than 10,000 different names, or a bad name, number or key.
            OutOfBounds, LimitExceeded: one of them is refused; nothing changed.
            KeyReused: as for `increment`.
        """
        pairs = names.items() if isinstance(names, Mapping) else collections.Counter(names).items()
        ops: list[AnyOp] = [Increment(name, _plain(delta)) for name, delta in (*pairs, *deltas.items())]
        if ops:
            self.store.execute(Request(ops, idempotency_key=idempotency_key), timeout).unwrap()

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

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __len__(self) -> int:
        counters: int = self._only(Info()).counters
        return counters

    def __iter__(self) -> Iterator[str]:
        """The names in order, fetched in pages."""
        return (entry.name for entry in self._entries("name"))

    def keys(self) -> list[str]:
        """The names in order; with it ``dict(counters)`` works, a round trip for each of them."""
        return list(self)

    def values(self) -> list[int]:
        """The values in the order of the names; no snapshot, as they are fetched in pages."""
        return [entry.value for entry in self._entries("name")]

    def items(self) -> list[tuple[str, int]]:
        """Names and values in the order of the names; no snapshot, as they are fetched in pages."""
        return [(entry.name, entry.value) for entry in self._entries("name")]

    def most_common(self, n: int | None = None) -> list[tuple[str, int]]:
        """The *n* greatest counters (None: all), the greatest first, equal ones by name; no snapshot."""
        found = itertools.islice(self._entries("-value", n), n)
        return [(entry.name, entry.value) for entry in found]

    def total(self) -> int:
        """The sum of all values; no snapshot."""
        return sum(self.values())

    def _entries(self, sort: Sort, most: int | None = None) -> Iterator[Entry]:
        """The counters, fetched in pages; none longer than *most*."""
        limit, cursor = MAX_PAGE if most is None else max(1, min(most, MAX_PAGE)), None
        while True:
            page: Page = self._only(List(sort=sort, limit=limit, cursor=cursor))
            yield from page.counters
            if page.next is None:
                return
            cursor = page.next

    def _only(self, op: AnyOp, timeout: float | None = None, key: str | None = None) -> Any:  # noqa: ANN401
        return self.store.execute(Request([op], idempotency_key=key), timeout).only()


Mapping.register(SharedCounter)  # so that collections.Counter(counters) and `update` take the values, too


def connect(url: str | None = None) -> SharedCounter:
    """The counters at *url*: `COUNTER_URL` if left out, else the manager in its usual home.

    Opens nothing yet, so it can stand at the top of a module, also where the server forks afterwards.

    Raises:
        InvalidRequest: no store's URL.
    """
    return SharedCounter(open_store(url))


def _plain(value: SupportsInt) -> int:
    """An int out of a `Reading`; everything else is left for the op to judge."""
    return int(value) if isinstance(value, Reading) else value  # type: ignore[return-value]
