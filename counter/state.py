"""What a journal keeps of a table: outcomes, and the state they add up to by being assigned, not decided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Generic, TypeVar

from msgspec import Struct

from .results import Entry, Time

S = TypeVar("S")
OUTCOME_ENTRIES = 1000
"""Most counters in one outcome of a whole state."""


class Caller(Struct, Generic[S], frozen=True):
    """The last request of one caller: what a repeated one is answered with, until *deadline* has passed."""

    seq: int
    deadline: float
    reply: S


class Keyed(Struct, Generic[S], frozen=True):
    """What came out under an idempotency key, of ops with that *digest*."""

    digest: bytes
    at: Time
    reply: S


class Outcome(Struct, Generic[S], frozen=True, array_like=True):
    """What came out of one request, or of a sweep: all that is needed to have it again.

    *changed* holds the new entry of each counter, None for one that is gone. *reply* is what *caller* was
    told, and whoever used *key*; *deadline* is the latest that this caller gave.
    """

    at: Time
    changed: dict[str, Entry | None]
    reply: S | None = None
    caller: bytes | None = None
    seq: int = 0
    deadline: float = 0.0
    key: str | None = None
    digest: bytes = b""


class State(Generic[S]):
    """Counters, callers and keys (in the order of their times), and the latest time of an outcome."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.callers: dict[bytes, Caller[S]] = {}
        self.keys: dict[str, Keyed[S]] = {}
        self.at: datetime | None = None

    def assign(self, outcome: Outcome[S]) -> None:
        """Take over what came out. Twice is as good as once."""
        self.at = outcome.at if self.at is None else max(self.at, outcome.at)
        for name, entry in outcome.changed.items():
            if entry is None:
                self.entries.pop(name, None)
            else:
                self.entries[entry.name] = entry  # one string for both: a replay decodes two
        if outcome.reply is None:
            return
        if outcome.caller is not None:
            self.callers[outcome.caller] = Caller(outcome.seq, outcome.deadline, outcome.reply)
        if outcome.key is not None:
            self.keys.pop(outcome.key, None)
            self.keys[outcome.key] = Keyed(outcome.digest, outcome.at, outcome.reply)

    def outcomes(self) -> Iterator[Outcome[S]]:
        """The whole state as outcomes; assigned to an empty one they make it again."""
        if self.at is None:
            return
        yield Outcome(self.at, {})  # the time, whatever else there is
        entries = iter(self.entries.items())
        while chunk := dict(islice(entries, OUTCOME_ENTRIES)):
            yield Outcome(self.at, dict(chunk))
        for key, keyed in self.keys.items():
            yield Outcome(keyed.at, {}, keyed.reply, key=key, digest=keyed.digest)
        for caller, last in self.callers.items():
            yield Outcome(self.at, {}, last.reply, caller, last.seq, last.deadline)
