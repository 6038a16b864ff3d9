"""What can be asked of a store, and what it answers: the one vocabulary of every face.

Ops are valid from the moment they exist: building one with a bad name or number raises `InvalidRequest`,
whether a program wrote it or a frame or an HTTP body was decoded into it.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from .errors import STORE_ERRORS, CounterError, InvalidRequest

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
MAX_NAME = 250
"""Longest name, in bytes of UTF-8."""
MAX_OPS = 10_000
"""Most ops in one request."""
MAX_PAGE = 1000
"""Most counters in one page of a `List`."""
MAX_TTL = 100 * 366 * 86_400
"""Longest time to live, in seconds: a hundred years."""
CALLER_BYTES = 16

Int64 = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
Ttl = Annotated[int, Meta(ge=1, le=MAX_TTL)]
Name = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME, description="1-250 bytes, no control characters")
]
ShortText = Annotated[str, Meta(max_length=64)]
OnBound = Literal["reject", "clamp"]
TtlMode = Literal["fixed", "sliding"]
Sort = Literal["name", "-value", "-updated"]


def check_name(name: object, least: int = 1) -> None:
    """Refuse what is no counter's name.

    Raises:
        InvalidRequest: not a str of *least* to 250 bytes of UTF-8, or with a control character or surrogate.
    """
    if type(name) is not str:
        raise InvalidRequest(f"a counter's name is a str, not {_kind(name)}")
    if name.isascii():
        size = len(name)
    else:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidRequest("a counter's name cannot hold surrogates; use valid Unicode") from None
    if not least <= size <= MAX_NAME:
        raise InvalidRequest(f"a counter's name has {least} to {MAX_NAME} bytes of UTF-8, not {size}")
    # isprintable() is the fast way out: it is False for every control character, and for some harmless ones.
    if not name.isprintable() and any(c < " " or "\x7f" <= c <= "\x9f" for c in name):
        raise InvalidRequest("a counter's name cannot hold control characters (U+0000-1F, U+007F-9F)")


def check_int(field: str, value: object, least: int = INT64_MIN, most: int = INT64_MAX) -> None:
    """Refuse what is no exact integer from *least* to *most*; True, 1.0 and "1" are none.

    Raises:
        InvalidRequest: naming *field*.
    """
    if type(value) is not int:
        raise InvalidRequest(f"{field} is an integer, not {_kind(value)}")
    if not least <= value <= most:
        raise InvalidRequest(f"{field} goes from {least} to {most}")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if type(value) is not str or value not in choices:
        raise InvalidRequest(f"{field} is one of {', '.join(choices)}")


def _check_condition(if_version: object) -> None:
    if if_version is not None and (type(if_version) is not str or not if_version):
        raise InvalidRequest('if_version is "present", "absent" or a version that the store gave you')


def _given(value: object) -> bool:
    return value is not None and value is not UNSET


def _check_settings(op: Increment | Set) -> None:
    """The fields that an increment and a set have in common."""
    for field in ("min", "max"):
        if _given(bound := getattr(op, field)):
            check_int(field, bound)
    if _given(op.min) and _given(op.max) and op.min > op.max:  # type: ignore[operator]
        raise InvalidRequest("min must not be above max")
    if _given(op.on_bound):
        _check_choice("on_bound", op.on_bound, ("reject", "clamp"))
    if _given(op.ttl):
        check_int("ttl (seconds)", op.ttl, 1, MAX_TTL)
    if _given(op.ttl_mode):
        _check_choice("ttl_mode", op.ttl_mode, ("fixed", "sliding"))


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
        _check_condition(self.if_version)
        if not any(map(_given, (self.min, self.max, self.on_bound, self.ttl, self.ttl_mode))):
            return  # the common case costs no more than this line
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
        _check_condition(self.if_version)
        _check_settings(self)


class Delete(Op, frozen=True, gc=False):
    """Remove *name*; the answer holds its last value."""

    on_counter = mutates = True

    name: Name
    if_version: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_condition(self.if_version)


class List(Op, frozen=True, gc=False):
    """A page of counters whose names begin with *prefix*."""

    prefix: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    sort: Sort = "name"
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: str | None = None

    def __post_init__(self) -> None:
        check_name(self.prefix, least=0)
        _check_choice("sort", self.sort, ("name", "-value", "-updated"))
        check_int("limit", self.limit, 1, MAX_PAGE)
        if self.cursor is not None and type(self.cursor) is not str:
            raise InvalidRequest("cursor is what the page before gave as next")


class Info(Op, frozen=True, gc=False):
    """Identity, limits and figures of the store."""


class Hello(Op, frozen=True, gc=False):
    """A client's first frame on a connection: who it is."""

    role: ShortText
    pid: Int64
    version: ShortText


class Report(Op, frozen=True, gc=False):
    """A worker's figures since its last report; the manager adds them up, nothing else depends on them."""

    requests: Annotated[int, Meta(ge=0, le=INT64_MAX)]


CounterOp = Get | Increment | Set | Delete
"""The ops on one counter: the only ones that a batch can hold, and all that `transition` knows."""
AnyOp = Get | Increment | Set | Delete | List | Info | Hello | Report


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
    """

    ops: Annotated[list[AnyOp], Meta(min_length=1, max_length=MAX_OPS)]
    atomic: bool = True
    caller: Annotated[bytes, Meta(min_length=CALLER_BYTES, max_length=CALLER_BYTES)] | None = None
    seq: Int64 = 0
    deadline: float = 0.0

    def __post_init__(self) -> None:
        ops = self.ops
        if not 1 <= len(ops) <= MAX_OPS:
            raise InvalidRequest(f"a request has 1 to {MAX_OPS} ops, not {len(ops)}")
        if len(ops) > 1 and not all(op.on_counter for op in ops):
            raise InvalidRequest("a batch holds get, increment, set and delete only")
        if not math.isfinite(self.deadline):
            raise InvalidRequest("deadline is a finite number of seconds")

    @property
    def mutates(self) -> bool:
        """Whether it may change a counter."""
        return any(op.mutates for op in self.ops)


class Entry(Struct, frozen=True, gc=False):
    """A counter's record. Times are UTC; *version* is new with each change and never used twice."""

    name: str
    value: int
    version: str
    created_at: datetime
    updated_at: datetime
    min: int | None = None
    max: int | None = None
    on_bound: OnBound | None = None
    ttl: int | None = None
    ttl_mode: TtlMode | None = None
    expires_at: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether it is gone at *now*, swept or not."""
        return self.expires_at is not None and self.expires_at <= now


class Change(Entry, frozen=True, gc=False):
    """An entry after a call, and what the call did; of a `Delete`, the entry as it was."""

    previous: int = 0
    """The value before; 0 where there was none."""
    delta: int | None = 0
    """What was really added; null where a `Set` moved the value by more than an int64 holds."""
    created: bool = False


class Page(Struct, frozen=True):
    """A page of counters; *next* is the cursor of the page after it, or null."""

    counters: list[Entry]
    next: str | None


class Limits(Struct, frozen=True):
    """What is allowed: bytes, seconds and numbers of things."""

    max_counters: int
    max_frame: int
    max_name: int = MAX_NAME
    max_ops: int = MAX_OPS
    max_page: int = MAX_PAGE


class ManagerFigures(Struct, frozen=True):
    """The manager process. *uptime* in seconds; *requests* since it started."""

    pid: int
    uptime: float
    connections: int
    requests: int


class WorkerFigures(Struct, frozen=True):
    """A process that said hello and reports what it served."""

    pid: int
    role: str
    requests: int


class Information(Struct, frozen=True):
    """The answer to `Info`. *durability* tells what an acknowledgement means."""

    version: str
    store: str
    durability: str
    run: str
    counters: int
    limits: Limits
    manager: ManagerFigures | None = None
    workers: list[WorkerFigures] = []


class Problem(NamedTuple):
    """An error as data: what crosses the wire for a `CounterError`.

    A NamedTuple, because a msgspec union holds one untagged Struct and one array-like type besides.
    """

    code: str
    detail: str
    current: Entry | None = None
    op_index: int | None = None

    @classmethod
    def of(cls, error: CounterError, op_index: int | None = None) -> Problem:
        """What stands for *error*."""
        return cls(error.code, error.detail, error.current, op_index)

    def error(self) -> CounterError:
        """The exception that it stands for."""
        return STORE_ERRORS.get(self.code, CounterError)(self.detail, self.current, self.op_index)


Result = Entry | Change | Page | Information | Problem | None

RESULT_TYPES: dict[type[Op], Any] = {
    Get: Entry,
    Increment: Change,
    Set: Change,
    Delete: Change,
    List: Page,
    Info: Information,
    Hello: None,
    Report: None,
}
"""What each op is answered with when it succeeds; None: nothing to tell."""


class Reply(NamedTuple):
    """The answer to a `Request`: one result an op, or the one *problem* for which nothing was done."""

    results: list[Result]
    problem: Problem | None = None

    def unwrap(self) -> list[Result]:
        """The results.

        Raises:
            CounterError: the request was refused as a whole.
        """
        if self.problem is not None:
            raise self.problem.error()
        return self.results

    def only(self) -> Any:  # noqa: ANN401  (RESULT_TYPES tells by the op)
        """The result of a request with one op.

        Raises:
            CounterError: the op failed.
        """
        (result,) = self.unwrap()
        if isinstance(result, Problem):
            raise result.error()
        return result
