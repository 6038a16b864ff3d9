"""A `collections.Counter` that every process of your app shares.

import counter
hits = counter.connect()
hits.increment("page")      # 1, 2, 3 …: this call's own number, never given twice
"""

from __future__ import annotations

from .errors import (
    CounterError,
    InvalidRequest,
    JournalFull,
    KeyReused,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    OutOfBounds,
    StoreUnavailable,
    Unsupported,
    VersionMismatch,
)
from .ops import Batch, Changes, Delete, Get, Increment, Info, List, Request, Set
from .results import Change, ChangesPage, Entry, Page, Reply
from .shared_counter import SharedCounter, connect
from .store import Store, open_store

__all__ = [
    "Batch",
    "Change",
    "Changes",
    "ChangesPage",
    "CounterError",
    "Delete",
    "Entry",
    "Get",
    "Increment",
    "Info",
    "InvalidRequest",
    "JournalFull",
    "KeyReused",
    "LimitExceeded",
    "List",
    "NotFound",
    "OutOfBounds",
    "OutcomeUnknown",
    "Page",
    "Reply",
    "Request",
    "Set",
    "SharedCounter",
    "Store",
    "StoreUnavailable",
    "Unsupported",
    "VersionMismatch",
    "connect",
    "open_store",
]
