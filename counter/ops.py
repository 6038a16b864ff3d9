"""What can be asked of a store: with `results`, the one vocabulary of every face.

Ops are valid from the moment they exist: building one with a bad name or number raises `InvalidRequest`,
whether a program wrote it or a frame or an HTTP body was decoded into it.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, Struct, UnsetType

from .errors import InvalidRequest
from .fields import (
    MAX_NAME,
    MAX_OPS,
    MAX_PAGE,
    MAX_TTL,
    MAX_WAIT,
    Int64,
    Key,
    Name,
    OnBound,
    ShortText,
    Sort,
    Ttl,
    TtlMode,
    check_choice,
    check_condition,
    check_int,
    check_key,
    check_name,
    check_request_id,
)
from .information import LATENCY_BOUNDS, Count, Information, Latencies, Limits, StatusClass
from .results import Change, ChangesPage, Entry, Page

CALLER_BYTES = 16
MAX_ROUTES = 100
"""Most routes in one report."""


def _given(value: object) -> bool:
    return value is not None and value is not UNSET


def _check_settings(op: Increment | Set) -> None:
    """The fields that an increment and a set have in common."""
    if _given(op.min):
        check_int("min", op.min)
    if _given(op.max):
        check_int("max", op.max)
    if _given(op.min) and _given(op.max) and op.min > op.max:  # type: ignore[operator]
        raise InvalidRequest("min must not be above max")
    if _given(op.on_bound):
        check_choice("on_bound", op.on_bound, ("reject", "clamp"))
    if _given(op.ttl):
        check_int("ttl (seconds)", op.ttl, 1, MAX_TTL)
    if _given(op.ttl_mode):
        check_choice("ttl_mode", op.ttl_mode, ("fixed", "sliding"))


class Op(
    Struct,
    frozen=True,
    tag_field="op",
    tag=str.lower,
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
):
    """Base of everything that can be asked.

    `on_counter`: it is about one counter, so a batch can hold it; `mutates`: it may change that counter. Both
    are looked up for every op of every batch, where `isinstance` with a union costs five times as much.
    """

    on_counter: ClassVar[bool] = False
    mutates: ClassVar[bool] = False


class Get(Op, frozen=True, gc=False):
    """The `Entry` of *name*, or `NotFound`."""

    on_counter = True

    name: Name

    def __post_init__(self) -> None:
        check_name(self.name)


class Increment(Op, frozen=True, gc=False):
    """Add *delta* to *name*, which counts from 0 if there is none.

    *min*, *max* and *on_bound* narrow the counter's own for this call; *ttl* (seconds) and *ttl_mode* take
    effect only if this call creates the counter.
    """

    on_counter = mutates = True

    name: Name
    delta: Int64 = 1
    min: Int64 | None = None
    max: Int64 | None = None
    on_bound: OnBound | None = None
    ttl: Ttl | None = None
    ttl_mode: TtlMode | None = None
    if_version: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_int("delta", self.delta)
        if self.if_version is not None:
            check_condition(self.if_version)
        plain = self.min is None and self.max is None and self.on_bound is None
        if plain and self.ttl is None and self.ttl_mode is None:
            return  # the common case costs no more than this
        _check_settings(self)
        if self.ttl_mode is not None and self.ttl is None:
            raise InvalidRequest("ttl_mode needs a ttl")


class Set(Op, frozen=True, gc=False):
    """Give *name* a value or settings: what is left out is kept, null clears, anything else sets."""

    on_counter = mutates = True

    name: Name
    value: Int64 | UnsetType = UNSET
    min: Int64 | None | UnsetType = UNSET
    max: Int64 | None | UnsetType = UNSET
    on_bound: OnBound | None | UnsetType = UNSET
    ttl: Ttl | None | UnsetType = UNSET
    ttl_mode: TtlMode | None | UnsetType = UNSET
    if_version: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.value is not UNSET:
            check_int("value", self.value)
        check_condition(self.if_version)
        _check_settings(self)


class Delete(Op, frozen=True, gc=False):
    """Remove *name*; the answer holds its last value."""

    on_counter = mutates = True

    name: Name
    if_version: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_condition(self.if_version)


class List(Op, frozen=True, gc=False):
    """A page of counters whose names begin with *prefix*."""

    prefix: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    sort: Sort = "name"
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None

    def __post_init__(self) -> None:
        check_name(self.prefix, least=0)
        check_choice("sort", self.sort, ("name", "-value", "-updated"))
        check_int("limit", self.limit, 1, MAX_PAGE)
        if self.cursor is not None and type(self.cursor) is not str:
            raise InvalidRequest("cursor is what the page before gave as next")


class Changes(Op, frozen=True, gc=False):
    """What changed since the version *since*, of counters whose names begin with *prefix*.

    Without *since*, or with one of another run or from too long ago, everything that is there. Where there is
    nothing, the answer waits for something, *wait* seconds at the most.
    """

    since: str | None = None
    prefix: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT)] = 0.0
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100

    def __post_init__(self) -> None:
        if self.since is not None and type(self.since) is not str:
            raise InvalidRequest("since is the version that the changes before were told with")
        check_name(self.prefix, least=0)
        if type(self.wait) not in (int, float) or not 0 <= self.wait <= MAX_WAIT:
            raise InvalidRequest(f"wait goes from 0 to {MAX_WAIT:.0f} seconds")
        check_int("limit", self.limit, 1, MAX_PAGE)


class Info(Op, frozen=True, gc=False):
    """Identity, limits and figures of the store."""


class Hello(Op, frozen=True, gc=False):
    """A client's first frame on a connection: who it is. It is told the `Limits`."""

    role: ShortText
    pid: Int64
    version: ShortText


class Report(Op, frozen=True, gc=False):
    """A worker's figures since its last report; the manager adds them up, nothing else depends on them.

    *number* grows with each report of a process; one that comes again is counted once. *slots* is how many
    clients can wait for changes at once, *slots_used* how many do now.
    """

    number: Count
    requests: Count
    slots: Count = 0
    slots_used: Count = 0
    http: Annotated[dict[ShortText, dict[StatusClass, Latencies]], Meta(max_length=MAX_ROUTES)] = {}

    def __post_init__(self) -> None:
        for by_status in self.http.values():
            for each in by_status.values():
                if not 0 <= each.seconds < MAX_TTL or len(each.counts) != len(LATENCY_BOUNDS) + 1:
                    raise InvalidRequest("latencies are seconds, and a number for each bound and above")


CounterOp = Get | Increment | Set | Delete
"""The ops on one counter: the only ones that a batch can hold, and all that `transition` knows."""
AnyOp = Get | Increment | Set | Delete | List | Changes | Info | Hello | Report


class Batch(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Several ops on counters at once: all or nothing, or (not *atomic*) each for itself."""

    ops: Annotated[list[CounterOp], Meta(min_length=1, max_length=MAX_OPS)]
    atomic: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.ops) <= MAX_OPS:
            raise InvalidRequest(f"a request has 1 to {MAX_OPS} ops, not {len(self.ops)}")


class Request(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One round trip to a store.

    A request that may change something carries *caller* (16 random bytes of one connection slot), *seq*
    (grows with each request of that caller) and *deadline* (seconds on the host's monotonic clock): so it can
    be sent again and is executed once, and never after its deadline.

    One with an *idempotency_key* is executed once, whoever sends it: later ones with the same key and ops get
    the same reply. Each *scope* has keys of its own: the name of the token that a request came with, if any.

    *request_id* is that of the HTTP request which it is part of, for log lines and nothing else.
    """

    ops: Annotated[list[AnyOp], Meta(min_length=1, max_length=MAX_OPS)]
    atomic: bool = True
    caller: Annotated[bytes, Meta(min_length=CALLER_BYTES, max_length=CALLER_BYTES)] | None = None
    seq: Int64 = 0
    deadline: float = 0.0
    idempotency_key: Key | None = None
    scope: ShortText = ""
    request_id: str = ""

    def __post_init__(self) -> None:
        if len(self.ops) != 1 or self.idempotency_key is not None:  # most have one op and no key
            self._check_batch()
        if self.request_id:  # the library gives none
            check_request_id(self.request_id)
        if not isfinite(self.deadline):
            raise InvalidRequest("deadline is a finite number of seconds")

    def _check_batch(self) -> None:
        ops, key = self.ops, self.idempotency_key
        if not 1 <= len(ops) <= MAX_OPS:
            raise InvalidRequest(f"a request has 1 to {MAX_OPS} ops, not {len(ops)}")
        if not all(op.on_counter for op in ops):
            raise InvalidRequest("a batch holds get, increment, set and delete only; so does one with a key")
        if key is not None:
            check_key(key)

    @property
    def mutates(self) -> bool:
        """Whether its outcome is to be remembered: it may change a counter, or has an idempotency key."""
        for op in self.ops:  # a generator in any() takes three times as long
            if op.mutates:
                return True
        return self.idempotency_key is not None


RESULT_TYPES: dict[type[Op], Any] = {
    Get: Entry,
    Increment: Change,
    Set: Change,
    Delete: Change,
    List: Page,
    Changes: ChangesPage,
    Info: Information,
    Hello: Limits,
    Report: None,
}
"""What each op is answered with when it succeeds; None: nothing to tell."""
