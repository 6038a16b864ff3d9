"""The counters of a store whose names begin with a prefix, under what is left of their names."""

from __future__ import annotations

from urllib.parse import quote

from msgspec import structs

from .errors import InvalidRequest
from .fields import check_name
from .ops import AnyOp, Changes, List, Request
from .results import ChangesPage, Entry, Page, Problem, Reply, Result
from .store import Store


class PrefixStore(Store):
    """A view of *store*: each name that is asked for gets *prefix* in front, each that is told loses it.

    The two together are the counter's name, so they share its 250 bytes, and the sentence of an error names
    both. A counter whose name is *prefix* and no more would have none here, and is left out. Everything else
    is as in *store*, which it shares: `Info` and idempotency keys are of the whole.

    Raises:
        InvalidRequest: *prefix* cannot begin a name.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        check_name(prefix, least=0)
        self._base: Store = store
        self.prefix = prefix
        if isinstance(store, PrefixStore):  # a view of a view is one of the whole
            self._base, self.prefix = store._base, store.prefix + prefix

    @property
    def capabilities(self) -> frozenset[str]:  # type: ignore[override]
        """Those of the whole store."""
        return self._base.capabilities

    @property
    def whole(self) -> Store:
        """The one that this is a view of."""
        return self._base

    @property
    def url(self) -> str:  # type: ignore[override]
        """The whole store's, with the prefix as an option; empty if that has none."""
        base = self._base.url
        joint = "&" if "?" in base else "?"
        return f"{base}{joint}prefix={quote(self.prefix, safe='')}" if base else ""

    def execute(self, request: Request, timeout: float | None = None) -> Reply:
        """As every store does."""
        several = len(request.ops) > 1
        ops = [self._put_in_front(op, index if several else None) for index, op in enumerate(request.ops)]
        reply = self._base.execute(structs.replace(request, ops=ops), timeout)
        problem = reply.problem and self._without(reply.problem)
        return Reply([self._strip(result) for result in reply.results], problem, reply.replayed)

    def close(self) -> None:
        """As of the whole store."""
        self._base.close()

    def __repr__(self) -> str:
        return self.url or f"{self._base!r} from {self.prefix!r}"

    def _put_in_front(self, op: AnyOp, index: int | None) -> AnyOp:
        try:
            if isinstance(op, List | Changes):
                return structs.replace(op, prefix=self.prefix + op.prefix)
            return structs.replace(op, name=self.prefix + op.name) if op.on_counter else op  # type: ignore[union-attr]
        except InvalidRequest as error:
            raise InvalidRequest(f"with the prefix {self.prefix!r}: {error.detail}", index=index) from None

    def _strip(self, result: Result) -> Result:
        if isinstance(result, Entry):
            return self._renamed(result)
        if isinstance(result, Page):
            inside = [self._renamed(entry) for entry in result.counters if entry.name != self.prefix]
            return structs.replace(result, counters=inside)
        if isinstance(result, ChangesPage):
            there = [self._renamed(entry) for entry in result.counters if entry.name != self.prefix]
            gone = [name.removeprefix(self.prefix) for name in result.gone if name != self.prefix]
            return structs.replace(result, counters=there, gone=gone)
        return self._without(result) if isinstance(result, Problem) else result

    def _renamed(self, entry: Entry) -> Entry:
        return structs.replace(entry, name=entry.name.removeprefix(self.prefix))

    def _without(self, problem: Problem) -> Problem:
        current = problem.current and self._renamed(problem.current)
        return problem._replace(current=current)
