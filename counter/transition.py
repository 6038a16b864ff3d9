"""The rule: what one op makes of one counter. Pure; every store either calls it or is tested against it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from .errors import InvalidRequest, NotFound, OutOfBounds, VersionMismatch
from .fields import INT64_MAX, INT64_MIN, OnBound, TtlMode
from .ops import CounterOp, Delete, Get, Increment, Set
from .results import Change, Entry

T = TypeVar("T")


def transition(
    entry: Entry | None, op: CounterOp, now: datetime, version: str
) -> tuple[Entry | None, Entry | Change]:
    """What is there after *op*, and what its caller is told.

    Args:
        entry: the counter as it is, or None; one that has expired counts as None.
        op: what is asked.
        now: the time, aware, UTC.
        version: the version to give to what comes out, if it is a change.

    Raises:
        NotFound, OutOfBounds, VersionMismatch, InvalidRequest: as the op's rules say; nothing changes.
    """
    if entry is not None and entry.expires_at is not None and entry.expires_at <= now:
        entry = None
    if isinstance(op, Increment):  # first, as it is asked for most
        if op.if_version is not None:
            _check_version(entry, op.name, op.if_version)
        return _increment(entry, op, now, version)
    if isinstance(op, Get):
        found = _present(entry, op.name)
        return found, found
    if op.if_version is not None:
        _check_version(entry, op.name, op.if_version)
    if isinstance(op, Set):
        return _set(entry, op, now, version)
    return None, _delete(entry, op)


def _present(entry: Entry | None, name: str) -> Entry:
    if entry is None:
        raise NotFound(f"there is no counter {name!r}")
    return entry


def _check_version(entry: Entry | None, name: str, expected: str) -> None:
    if expected == "absent":
        if entry is not None:
            raise VersionMismatch(f"{name!r} exists already", entry)
    elif entry is None:
        raise VersionMismatch(f"there is no counter {name!r}")
    elif expected not in ("present", entry.version):
        raise VersionMismatch(f"{name!r} has changed since; read it again and decide anew", entry)


def _delete(entry: Entry | None, op: Delete) -> Change:
    gone = _present(entry, op.name)
    return _change(gone, previous=gone.value, delta=0, created=False)


def _increment(entry: Entry | None, op: Increment, now: datetime, version: str) -> tuple[Entry, Change]:
    before = entry or _zero(op, now, version)
    last = before.value
    value = last + op.delta
    unbound = before.min is None and before.max is None and op.min is None and op.max is None
    if not (unbound and INT64_MIN <= value <= INT64_MAX):  # to look for bounds takes as long as all the rest
        value = _bounded(before, op, entry)
    after = replace(before, value=value, version=version, updated_at=now)
    if before.ttl_mode == "sliding":
        after = replace(after, expires_at=_later(now, before.ttl))
    return after, _change(after, last, value - last, entry is None)


def _zero(op: Increment, now: datetime, version: str) -> Entry:
    """What a missing counter counts from; only here does an increment's ttl take effect."""
    if op.ttl is None:
        return Entry(op.name, 0, version, now, now)
    mode, end = op.ttl_mode or "fixed", _later(now, op.ttl)
    return Entry(op.name, 0, version, now, now, ttl=op.ttl, ttl_mode=mode, expires_at=end)


def _bounded(before: Entry, op: Increment, current: Entry | None) -> int:
    """The value after the step: bounds stop a step that leads out of the range, never one towards it."""
    value = before.value + op.delta
    low, high = _range(before, op)
    if op.delta > 0 and value > high:
        clamped, bound = max(before.value, high), f"the maximum of {high}"
    elif op.delta < 0 and value < low:
        clamped, bound = min(before.value, low), f"the minimum of {low}"
    else:
        return value
    if (op.on_bound or before.on_bound) == "clamp":
        return clamped
    raise OutOfBounds(f"{op.name!r} is {before.value}; adding {op.delta} would pass {bound}", current)


def _range(before: Entry, op: Increment) -> tuple[int, int]:
    """The bounds that hold for this call: the int64 range, the counter's own, the call's."""
    low, high = INT64_MIN, INT64_MAX
    for bounds in (before, op):
        low = low if bounds.min is None else max(low, bounds.min)
        high = high if bounds.max is None else min(high, bounds.max)
    return low, high


def _set(entry: Entry | None, op: Set, now: datetime, version: str) -> tuple[Entry, Change]:
    # Without a value it changes settings, and there must be something to change.
    wanted = _present(entry, op.name).value if isinstance(op.value, UnsetType) else op.value
    before = entry or Entry(op.name, 0, version, now, now)
    low, high = _merged(op.min, before.min), _merged(op.max, before.max)
    on_bound: OnBound | None = _merged(op.on_bound, before.on_bound)
    if low is not None and high is not None and low > high:
        raise InvalidRequest(f"min {low} must not be above max {high}")
    value = wanted if low is None else max(wanted, low)
    value = value if high is None else min(value, high)
    if value != wanted and on_bound != "clamp":
        side = "below the minimum" if wanted < value else "above the maximum"
        raise OutOfBounds(f"{wanted} is {side} of {op.name!r}, {value}", entry)
    ttl, ttl_mode, end = _lifetime(before, op, now)
    after = Entry(op.name, value, version, before.created_at, now, low, high, on_bound, ttl, ttl_mode, end)
    delta = value - before.value
    told = delta if INT64_MIN <= delta <= INT64_MAX else None
    return after, _change(after, before.value, told, created=entry is None)


def _lifetime(before: Entry, op: Set, now: datetime) -> tuple[int | None, TtlMode | None, datetime | None]:
    """ttl, its mode and the end after a set.

    A fixed ttl runs from the write that gives it (docs/decisions: not from the creation, or giving an old
    counter a ttl would delete it on the spot); a sliding one restarts with each write.
    """
    ttl = _merged(op.ttl, before.ttl)
    if ttl is None:
        if isinstance(op.ttl_mode, str):
            raise InvalidRequest(f"ttl_mode needs a ttl, and {op.name!r} has none")
        return None, None, None
    given: TtlMode | None = _merged(op.ttl_mode, before.ttl_mode)
    mode: TtlMode = given or "fixed"
    restarts = mode == "sliding" or op.ttl is not UNSET
    return ttl, mode, _later(now, ttl) if restarts else before.expires_at


def _merged(given: T | UnsetType, kept: T) -> T:
    """A field of a set: left out keeps, null clears, anything else sets."""
    return kept if isinstance(given, UnsetType) else given


def _later(now: datetime, ttl: int | None) -> datetime | None:
    return None if ttl is None else now + timedelta(seconds=ttl)


def _change(entry: Entry, previous: int, delta: int | None, created: bool) -> Change:
    return Change(
        entry.name,
        entry.value,
        entry.version,
        entry.created_at,
        entry.updated_at,
        entry.min,
        entry.max,
        entry.on_bound,
        entry.ttl,
        entry.ttl_mode,
        entry.expires_at,
        previous,
        delta,
        created,
    )
