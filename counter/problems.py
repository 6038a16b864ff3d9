"""Errors as documents (RFC 9457): what an HTTP client is told, and what the page behind `type` explains."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from .errors import HTTP_PROBLEMS, STORE_ERRORS, CounterError, OutOfBounds, VersionMismatch
from .results import Entry

MEDIA_TYPE = "application/problem+json"

ADVICE = {
    "invalid-request": "The detail names the field and what it may hold. Sending the same again fails again.",
    "not-found": "Check the name. The first increment creates a counter, and so does PUT; an expired one is "
    "gone.",
    "out-of-bounds": "The field current is the counter as it is. Take a smaller step, ask for on_bound: "
    "clamp, or move the bounds.",
    "version-mismatch": "Somebody was faster. The field current is the counter as it is now (null: there is "
    "none): decide anew and send its version.",
    "key-reused": "The key stands for what was asked under it first. Repeat a request unchanged, and take a "
    "new key for each thing to be done once.",
    "unsupported": "This store cannot do it; another one may. The detail says what was missing.",
    "limit-exceeded": "Nothing is ever evicted to make room: delete counters, or raise the limit that the "
    "detail names.",
    "store-unavailable": "Nothing was applied: repeat it, after as many seconds as Retry-After says. If it "
    "lasts, look whether the manager runs.",
    "journal-full": "Nothing was applied. Reads go on; writes resume by themselves once the disk has space.",
    "outcome-unknown": "The answer is lost, not necessarily the change. A read is safe to repeat, and so is "
    "a change sent with an Idempotency-Key: repeat it with the same key. Before you repeat any other change, "
    "read the counter; one sent with If-Match is applied once at the most.",
    "unauthorized": "Send Authorization: Bearer, and a token that the service's owner gave you; never in a "
    "URL.",
    "forbidden": "The token may read and not write: ask the owner of the service for one that may.",
    "cross-site": "A browser sent this for a page of another site, or in advance. Open the address itself, "
    "or ask from a program.",
    "no-such-route": "Counters are at /v1/counters/{name}; look for a typing error.",
    "method-not-allowed": "The Allow header lists the methods of this address; a GET never changes anything.",
    "too-large": "Send less, or cut it into several requests; /v1/info tells the limits.",
    "media-type": "Send JSON and say so: Content-Type: application/json. With curl that is --json.",
    "host-not-allowed": "Ask by IP address or as localhost, or allow the name: --allow-host NAME, or "
    "COUNTER_ALLOW_HOSTS.",
    "rate-limited": "Nothing was applied: repeat it, after as many seconds as Retry-After says. The fields "
    "RateLimit and RateLimit-Policy of every answer tell what is left.",
    "overloaded": "Nothing was applied: repeat it, after as many seconds as Retry-After says.",
    "internal": "This is our mistake; the log of the server says more.",
}
"""What to do about each error, by its code."""


class HttpError(Exception):
    """An error that only the HTTP face knows.

    Attributes:
        code: a key of `HTTP_PROBLEMS`.
        detail: one sentence: what happened, and what to do.
        headers: what goes with it, such as `Allow`.
    """

    def __init__(self, code: str, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(code, detail, headers)
        self.code = code
        self.detail = detail
        self.headers = headers


class ProblemDocument(Struct, frozen=True):
    """What a client reads: *current* where it is about a counter's state, null if there is none."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    current: Entry | None | UnsetType = UNSET
    index: int | UnsetType = UNSET


def document(error: CounterError | HttpError, base: str = "") -> ProblemDocument:
    """What *error* is told as; *base* is the path that the API is mounted under."""
    kind = f"{base}/problems/{error.code}"
    if isinstance(error, HttpError):
        status, title = HTTP_PROBLEMS[error.code]
        return ProblemDocument(kind, title, status, error.detail, error.code)
    return ProblemDocument(
        kind,
        error.title,
        error.status,
        error.detail,
        error.code,
        error.current if isinstance(error, OutOfBounds | VersionMismatch) else UNSET,
        UNSET if error.index is None else error.index,
    )


class Meaning(Struct, frozen=True):
    """What the page of an error says."""

    code: str
    status: int
    title: str
    advice: str


def meaning(code: str) -> Meaning | None:
    """What the error *code* means, None if there is no such error."""
    if code in STORE_ERRORS:
        error = STORE_ERRORS[code]
        return Meaning(code, error.status, error.title, ADVICE[code])
    if code in HTTP_PROBLEMS:
        return Meaning(code, *HTTP_PROBLEMS[code], ADVICE[code])
    return None
