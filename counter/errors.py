"""THE error table: what can go wrong, and how every face says it.

Two failures concern the way to the store and never the value: `StoreUnavailable` (nothing was applied, safe
to repeat) and `OutcomeUnknown` (sent, no answer by the deadline: it was applied, or never will be).
All others are the store's own answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from .results import Entry


class CounterError(Exception):
    """Base of every error of this package.

    Attributes:
        detail: one sentence: what happened, and what to do.
        current: the counter as it is now, where the error is about its state.
        index: which op of an atomic request failed, counted from 0.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, current: Entry | None = None, index: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.current = current
        self.index = index

    def __str__(self) -> str:
        return self.detail

    def __reduce__(self) -> tuple[type[CounterError], tuple[str, Entry | None, int | None]]:
        return type(self), (self.detail, self.current, self.index)


class InvalidRequest(CounterError, ValueError):
    """What was asked cannot be asked: a bad name, number, field or combination. Nothing changed."""

    code, status, exit_code, title = "invalid-request", 400, 2, "Invalid request"


class NotFound(CounterError, KeyError):
    """There is no counter of that name, or it has expired."""

    code, status, title = "not-found", 404, "No such counter"


class OutOfBounds(CounterError, ValueError):
    """The counter's bounds, or the signed 64-bit range, forbid the new value. Nothing changed."""

    code, status, title = "out-of-bounds", 409, "Out of bounds"


class VersionMismatch(CounterError, RuntimeError):
    """`if_version` does not hold. Nothing changed; `current` is what is there."""

    code, status, title = "version-mismatch", 412, "Version mismatch"


class KeyReused(CounterError, ValueError):
    """The idempotency key was used before, for something else. Nothing changed."""

    code, status, title = "key-reused", 422, "Idempotency key reused"


class Unsupported(CounterError, NotImplementedError):
    """This store, or this way of using it, cannot do what was asked."""

    code, status, title = "unsupported", 501, "Not supported"


class LimitExceeded(CounterError, RuntimeError):
    """A configured limit is reached, such as `--max-counters`. Nothing changed, no counter was evicted."""

    code, status, title = "limit-exceeded", 507, "Limit exceeded"


class StoreFailure(Exception):
    """The store gave no answer: what both failures of the way to it have in common.

    Their last base, so that whoever handles `CounterError`, or either of them, comes first.
    """


class StoreUnavailable(CounterError, ConnectionError, StoreFailure):
    """The store could not be reached, or refused for now. Nothing was applied: safe to repeat."""

    code, status, exit_code, title = "store-unavailable", 503, 3, "Store unavailable"


class JournalFull(StoreUnavailable):
    """The change could not be written down. Nothing was applied; reads go on, writes resume with space."""

    code, title = "journal-full", "Journal full"


class OutcomeUnknown(CounterError, TimeoutError, StoreFailure):
    """Sent, and no answer by the deadline: it was applied, or it never will be."""

    code, status, exit_code, title = "outcome-unknown", 504, 4, "Outcome unknown"


STORE_ERRORS: dict[str, type[CounterError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        NotFound,
        OutOfBounds,
        VersionMismatch,
        KeyReused,
        Unsupported,
        LimitExceeded,
        StoreUnavailable,
        JournalFull,
        OutcomeUnknown,
    )
}
"""Every error a store can answer with, by its code."""


class HttpProblem(NamedTuple):
    """An error that only the HTTP face knows."""

    status: int
    title: str


HTTP_PROBLEMS: dict[str, HttpProblem] = {
    "unauthorized": HttpProblem(401, "Not authorized"),
    "forbidden": HttpProblem(403, "Not allowed by this token"),
    "cross-site": HttpProblem(403, "Request from another site"),
    "no-such-route": HttpProblem(404, "No such address"),
    "method-not-allowed": HttpProblem(405, "Method not allowed"),
    "too-large": HttpProblem(413, "Body too large"),
    "media-type": HttpProblem(415, "Unsupported media type"),
    "host-not-allowed": HttpProblem(421, "Host not allowed"),
    "rate-limited": HttpProblem(429, "Too many requests"),
    "overloaded": HttpProblem(503, "Overloaded"),
    "internal": HttpProblem(500, "Internal error"),
}
"""The HTTP face's own errors, by code."""


def builtin_of(error: CounterError) -> type[Exception]:
    """The builtin that stands for *error* where this package is not installed (a stock client)."""
    for base in type(error).__mro__:
        if base.__module__ == "builtins" and base not in (Exception, BaseException, object):
            return base
    return RuntimeError
