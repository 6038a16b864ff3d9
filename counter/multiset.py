"""All counters at once, as `collections.Counter` has them: going through them, comparison, arithmetic.

They are fetched in pages: what comes out shows the counts of about that moment, and is no snapshot. So what
an operator would change in place cannot be one step for everybody, and is refused.
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, overload

from .errors import InvalidRequest, NotFound
from .fields import MAX_PAGE, Sort
from .ops import AnyOp, Get, Info, List, Request
from .results import Entry, Page
from .store import Store

Plain = collections.Counter[str]
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def plain(value: T) -> T:
    """The str or int that *value* is by inheritance, such as a StrEnum's member, but a bool stays one."""
    if isinstance(value, str):
        return str.__str__(value)  # type: ignore[return-value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)  # type: ignore[return-value]
    return value


def made(kind: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """An op of *kind*. Ops take exact types alone: *args* that inherit from them are made plain for it."""
    try:
        return kind(*args, **kwargs)
    except InvalidRequest:  # tried first as it is, since it mostly is right
        pass
    return kind(*map(plain, args), **kwargs)  # type: ignore[arg-type]


class Values(ValuesView[int]):
    """The values, fetched each time they are gone through."""

    _mapping: Multiset

    def __contains__(self, value: object) -> bool:
        return any(value == other for other in self)

    def __iter__(self) -> Iterator[int]:
        return (value for _name, value in self._mapping.pairs())


class Items(ItemsView[str, int]):
    """Names and values, fetched each time they are gone through."""

    _mapping: Multiset

    def __contains__(self, item: object) -> bool:
        match item:
            case (str(name), value) if isinstance(item, tuple):
                found = self._mapping._find(name)
                return found is not None and found == value
        return False

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return self._mapping.pairs()


class Multiset(Mapping[str, int]):
    """The counters of *store*; what operators make of them are plain Counters, which nobody shares."""

    def __init__(self, store: Store) -> None:
        if not isinstance(store, Store):
            raise TypeError("a SharedCounter is made of a store: counter.connect() opens one")
        self.store = store

    @overload
    def get(self, name: str, default: None = None, *, timeout: float | None = None) -> int | None: ...
    @overload
    def get(self, name: str, default: int, *, timeout: float | None = None) -> int: ...
    @overload
    def get(self, name: str, default: T, *, timeout: float | None = None) -> int | T: ...
    def get(self, name: str, default: object = None, *, timeout: float | None = None) -> object:
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
        entry: Entry = self._only(made(Get, name), timeout)
        return entry

    def __getitem__(self, name: str) -> int:
        """The value of *name*, 0 if there is no such counter."""
        return self.get(name) or 0

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def __len__(self) -> int:
        if self.store.prefix:
            return sum(1 for _ in self)
        counters: int = self._only(Info()).counters
        return counters

    def __bool__(self) -> bool:
        return next(self.entries(most=1), None) is not None

    def __iter__(self) -> Iterator[str]:
        """The names in order, fetched in pages."""
        return (entry.name for entry in self.entries())

    def entries(
        self, sort: Sort = "name", most: int | None = None, *, timeout: float | None = None
    ) -> Iterator[Entry]:
        """All that is known of each counter, in the order of *sort*, fetched in pages.

        Args:
            sort: "name", "-value" (the greatest first) or "-updated" (the latest change first).
            most: how many are wanted, if not all: no page is longer.
            timeout: seconds, for each page.
        """
        limit, cursor = MAX_PAGE if most is None else max(1, min(operator.index(most), MAX_PAGE)), None
        while True:
            page: Page = self._only(List(sort=sort, limit=limit, cursor=cursor), timeout)
            yield from page.counters
            if page.next is None:
                return
            cursor = page.next

    def pairs(self) -> Iterator[tuple[str, int]]:
        """As `items`, to be gone through once."""
        return ((entry.name, entry.value) for entry in self.entries())

    def keys(self) -> KeysView[str]:
        """The names in order, as a dict shows them.

        With it ``dict(counters)`` works, a round trip for each of them; ``dict(counters.items())`` is faster.
        """
        return KeysView(self)

    def values(self) -> ValuesView[int]:
        """The values in the order of the names."""
        return Values(self)

    def items(self) -> ItemsView[str, int]:
        """Names and values in the order of the names."""
        return Items(self)

    def elements(self) -> Iterator[str]:
        """Each name as often as its value says, in the order of the names; none for values below 1."""
        return (name for name, value in self.pairs() for _ in range(value))

    def most_common(self, n: int | None = None) -> list[tuple[str, int]]:
        """The *n* greatest counters (None: all), the greatest first, equal ones by name."""
        entries = self.entries("-value", n)
        found = entries if n is None else (entry for _, entry in zip(range(n), entries, strict=False))
        return [(entry.name, entry.value) for entry in found]

    def total(self) -> int:
        """The sum of all values."""
        return sum(value for _name, value in self.pairs())

    def copy(self) -> Plain:
        """All counts as a plain `collections.Counter`, which nobody shares."""
        return collections.Counter(dict(self.pairs()))

    __copy__ = copy

    def __deepcopy__(self, _memo: object) -> Plain:
        return self.copy()

    def __eq__(self, other: object) -> bool:
        """Whether the counts are equal; with a Counter a missing one is 0, with another mapping it is not."""
        if isinstance(other, Multiset):
            return self.copy() == other.copy()
        return self.copy() == other if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as every container whose contents change

    def __le__(self, other: object) -> bool:
        return self._with(other, Plain.__le__)

    def __lt__(self, other: object) -> bool:
        return self._with(other, Plain.__lt__)

    def __ge__(self, other: object) -> bool:
        return self._with(other, Plain.__ge__)

    def __gt__(self, other: object) -> bool:
        return self._with(other, Plain.__gt__)

    def __add__(self, other: object) -> Plain:
        return self._with(other, Plain.__add__)

    def __sub__(self, other: object) -> Plain:
        return self._with(other, Plain.__sub__)

    def __or__(self, other: object) -> Plain:
        return self._with(other, Plain.__or__)

    def __and__(self, other: object) -> Plain:
        return self._with(other, Plain.__and__)

    def __radd__(self, other: object) -> Plain:
        return self._behind(other, Plain.__add__)

    def __rsub__(self, other: object) -> Plain:
        return self._behind(other, Plain.__sub__)

    def __ror__(self, other: object) -> Plain:
        return self._behind(other, Plain.__or__)

    def __rand__(self, other: object) -> Plain:
        return self._behind(other, Plain.__and__)

    def __pos__(self) -> Plain:
        return +self.copy()

    def __neg__(self) -> Plain:
        return -self.copy()

    def _only(self, op: AnyOp, timeout: float | None = None, key: str | None = None) -> Any:  # noqa: ANN401
        request = Request([op]) if key is None else Request([op], idempotency_key=plain(key))
        return self.store.execute(request, timeout).only()

    def _find(self, name: object) -> int | None:
        """The value of *name*; None if there is no such counter, or it cannot be one's name."""
        try:
            return self.get(name) if isinstance(name, str) else None
        except InvalidRequest:
            return None

    def _with(self, other: object, do: Callable[[Plain, Plain], R]) -> R:
        counts = other.copy() if isinstance(other, Multiset) else other
        if not isinstance(counts, collections.Counter):
            return NotImplemented  # type: ignore[no-any-return]
        return do(self.copy(), counts)

    def _behind(self, other: object, do: Callable[[Plain, Plain], R]) -> R:
        if not isinstance(other, collections.Counter):
            return NotImplemented  # type: ignore[no-any-return]
        return do(other, self.copy())

    def _in_place(self, other: object) -> NoReturn:
        """Without these, Python would put a plain Counter into the variable, and nobody would share it."""
        raise TypeError(
            "no operator changes shared counters in place, as it would not be one step for everybody: "
            "use update() to add, subtract() to subtract, or an operator such as + on a copy()"
        )

    if not TYPE_CHECKING:  # so that checkers see the plain Counter that would get into the variable
        __iadd__ = __isub__ = __ior__ = __iand__ = _in_place
