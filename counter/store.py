"""START HERE. What a store of counters promises, and how one is opened by its URL.

Everything above asks a store with one call, `execute`: the library's `SharedCounter`, the HTTP API, the
command line. `stores/manager.py` sends it to the manager process, `stores/memory.py` keeps it in this one.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from .errors import InvalidRequest
from .ops import Request
from .results import Reply

STORES = {
    "counter": "counter.stores.manager:ManagerStore",
    "memory": "counter.stores.memory:MemoryStore",
}
"""Who serves which scheme; imported when first asked for."""
_VIEW = "counter.prefix:PrefixStore"
"""What serves the option `prefix`, which every URL may have."""


class Store(ABC):
    """Named 64-bit integers that change one request at a time.

    Linearizable: a request takes effect once, at one instant between its call and its return, and what it
    returns is what was there at that instant. N x M concurrent increments by 1 return exactly 1 to N x M.
    """

    capabilities: frozenset[str] = frozenset()
    """What this store can do beyond ops on counters: "list", "info"."""
    url: str = ""
    """What `open_store` takes to open it again, in another process too; empty where nothing can."""
    prefix: str = ""
    """What the names of all its counters begin with, in the store that they are really in."""

    @abstractmethod
    def execute(self, request: Request, timeout: float | None = None) -> Reply:
        """Carry *request* out and return its reply; refusals are in the reply.

        Args:
            request: one op or several; the store signs it with a caller of its own.
            timeout: seconds for connecting, waiting and repeating together; the store's own if None.

        Raises:
            StoreUnavailable: nothing was applied; safe to repeat.
            OutcomeUnknown: sent, no answer by the deadline: it was applied or never will be.
        """

    @property
    def whole(self) -> Store:
        """The store that all names of its counters are in: itself, unless it is a view."""
        return self

    @abstractmethod
    def close(self) -> None:
        """Give back connections; the next call may open new ones."""

    def __repr__(self) -> str:
        return self.url or f"{type(self).__name__}()"


class StoreUrl(NamedTuple):
    """A store's URL, taken apart."""

    url: str
    scheme: str
    host: str
    path: str
    options: dict[str, str]

    @classmethod
    def parse(cls, url: str) -> StoreUrl:
        """Take *url* apart.

        Raises:
            InvalidRequest: it is no URL of a store, or gives an option twice.
        """
        try:
            parts = urlsplit(url)
            strict = bool(parts.query)
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=strict, errors="strict")
            host, path = unquote(parts.netloc, errors="strict"), unquote(parts.path, errors="strict")
        except ValueError:
            raise InvalidRequest(f"not a store's URL: {url!r}") from None
        options = dict(pairs)
        if len(options) < len(pairs):
            raise InvalidRequest(f"an option is given twice in {url!r}")
        if parts.fragment:
            raise InvalidRequest(f"write # as %23 in a store's URL: {url!r}")
        return cls(url, parts.scheme, host, path, options)

    def only_options(self, *known: str) -> None:
        """Refuse every option but the *known* ones.

        Raises:
            InvalidRequest: naming those that this store understands.
        """
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            knows = ", ".join((*known, "prefix"))
            raise InvalidRequest(f"{self.scheme}:// has no option {unknown[0]!r} (it has: {knows})")


_open: dict[str, Store] = {}


def open_store(url: str | None = None) -> Store:
    """The store at *url*: `COUNTER_URL` if left out, else `counter://`, the manager in its usual home.

    Nothing is connected yet. Equal URLs in one process share one store and its connections, also those that
    differ in the option `prefix` alone: that one makes it a view of the counters whose names begin so.

    Raises:
        InvalidRequest: no store's URL.
    """
    url = url if url is not None else os.environ.get("COUNTER_URL") or "counter://"
    if not isinstance(url, str):
        raise InvalidRequest(f"a store's URL is a str such as counter:///srv/shop, not {type(url).__name__}")
    store = _open.get(url)
    if store is None:  # no lock, which a fork or a signal's handler could find held for ever
        store = _open.setdefault(url, _make(StoreUrl.parse(url)))
    return store


def _make(url: StoreUrl) -> Store:
    if (prefix := url.options.pop("prefix", None)) is not None:
        whole = url.url.partition("?")[0] + (f"?{urlencode(url.options)}" if url.options else "")
        view: Store = _load(_VIEW)(open_store(whole), prefix)
        return view
    target = STORES.get(url.scheme)
    if target is None or not url.url.startswith(f"{url.scheme}://"):
        schemes = ", ".join(f"{scheme}://" for scheme in STORES)
        raise InvalidRequest(f"{url.url!r} is no store's URL; known: {schemes}")
    store: Store = _load(target).from_url(url)
    return store


def _load(target: str) -> Any:  # noqa: ANN401  (a class that is known by name only)
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
