"""What a store answers: counters as they are and after a change, pages of them, problems, and the reply."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from .errors import STORE_ERRORS, CounterError
from .fields import OnBound, TtlMode
from .information import Information, Limits

Time = Annotated[datetime, Meta(tz=True)]
"""Never without its zone: such a time can be compared with no other."""


class Entry(Struct, frozen=True, gc=False):
    """A counter's record. Times are UTC; *version* is new with each change and never used twice."""

    name: str
    value: int
    version: str
    created_at: Time
    updated_at: Time
    min: int | None = None
    max: int | None = None
    on_bound: OnBound | None = None
    ttl: int | None = None
    ttl_mode: TtlMode | None = None
    expires_at: Time | None = None

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


class ChangesPage(Struct, frozen=True):
    """What changed, the earliest first: counters as they are now, and the names of those that are gone.

    *version* is how far it goes, to be asked from next; *more*: there is more already. *complete*: this is
    the first page of all there is; what it and the pages after it do not list is not there.
    """

    counters: list[Entry]
    gone: list[str]
    version: str
    more: bool
    complete: bool

    @property
    def tells(self) -> bool:
        """Whether there is anything in it that was to be waited for."""
        return bool(self.counters or self.gone or self.more or self.complete)


class Problem(NamedTuple):
    """An error as data: what crosses the wire for a `CounterError`.

    A NamedTuple, because a msgspec union holds one untagged Struct and one array-like type besides.
    """

    code: str
    detail: str
    current: Entry | None = None
    op_index: int | None = None

    @classmethod
    def of(cls, error: CounterError) -> Problem:
        """What stands for *error*."""
        return cls(error.code, error.detail, error.current, error.index)

    def error(self) -> CounterError:
        """The exception that it stands for."""
        return STORE_ERRORS.get(self.code, CounterError)(self.detail, self.current, self.op_index)


Result = Entry | Change | Page | ChangesPage | Information | Limits | Problem | None


class Reply(Struct, frozen=True, array_like=True, gc=False):
    """The answer to a `Request`: one result an op, or the one *problem* for which nothing was done.

    *replayed*: it was given before, under the same idempotency key.
    """

    results: list[Result]
    problem: Problem | None = None
    replayed: bool = False

    @classmethod
    def refusing(cls, error: CounterError) -> Reply:
        """The answer to a request for which nothing was done because of *error*."""
        return cls([], Problem.of(error))

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
