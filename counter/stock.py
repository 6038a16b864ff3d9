"""What a stock `multiprocessing.managers` client may call, and how it is answered.

Such a client sends a pickled ``(ident, method, args, kwds)``; without an ident it is a call to the server
itself. Its proxy has `SharedCounter`'s meanings, and errors reach it as builtins.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from .errors import CounterError, InvalidRequest, LimitExceeded, NotFound, builtin_of
from .listing import Job, count, everything
from .ops import AnyOp, Delete, Get, Increment, Request, Set
from .pickles import PickleRefused, dumps, loads
from .results import Entry, Problem, Reply
from .table import CounterTable
from .wire import MAX_REPLY

IDENT = "counters"
MAX_LISTED = 10_000
"""Above so many counters a stock client cannot list them: the answer would hold up everybody else."""

Work = Request | Callable[[CounterTable[bytes], datetime], Job[Any]]
"""Ops to decide in the turn, or a question that is answered in slices, changes perhaps later."""


class StockCall(NamedTuple):
    """A call as it came in; *ident* None is a call to the server itself."""

    ident: str | None
    method: str
    args: tuple[Any, ...]
    kwds: dict[str, Any]


class StockQuestion(NamedTuple):
    """What a stock call asks of the table, and what is made of the reply."""

    work: Work
    seal: Callable[[Reply], bytes]


def read_call(payload: bytes) -> StockCall:
    """The call in *payload*.

    Raises:
        InvalidRequest: it holds anything but a call with plain values.
    """
    try:
        call = loads(payload)
    except PickleRefused as error:
        raise InvalidRequest(f"only plain values can be sent: {error}") from None
    if type(call) is tuple and len(call) == 3:
        call = (*call, {})
    if type(call) is not tuple or len(call) != 4:
        raise InvalidRequest("not a call")
    ident, method, args, kwds = call
    # types before anything else: a container must be neither compared nor hashed
    if not (ident is None or isinstance(ident, str)) or not isinstance(method, str):
        raise InvalidRequest("not a call")
    if not isinstance(args, tuple | list) or not isinstance(kwds, dict):
        raise InvalidRequest("not a call")
    return StockCall(ident, method, tuple(args), kwds)


def answer_server_call(call: StockCall) -> bytes:
    """The answer to a call to the server itself: what making a proxy takes, and nothing more."""
    answers = {
        "dummy": None,
        "create": (IDENT, EXPOSED),
        "incref": None,
        "decref": None,
        "accept_connection": None,
    }
    if call.method not in answers:
        return refused(InvalidRequest("the manager does not do this; stop it with SIGTERM or `counter stop`"))
    if call.method == "create" and call.args[:1] != (IDENT,):
        return refused(InvalidRequest(f'there is one shared object: register("{IDENT}")'))
    return dumps(("#RETURN", answers[call.method]))


def question(call: StockCall) -> StockQuestion:
    """What *call* asks.

    Raises:
        InvalidRequest: no such object or method, or arguments that do not fit.
    """
    if call.ident != IDENT:
        raise InvalidRequest("there is no such shared object")
    method = _METHODS.get(call.method)
    if method is None:
        raise InvalidRequest(f"a shared counter's methods are {', '.join(EXPOSED)}")
    if not method.fits(call):
        raise InvalidRequest(f"call it as {method.usage}")
    return method.ask(*call.args, **call.kwds)


def refused(error: CounterError) -> bytes:
    """The answer that raises the builtin which stands for *error*, with its code."""
    stand_in = builtin_of(error)(error.detail)
    stand_in.code = error.code  # type: ignore[attr-defined]
    return dumps(("#ERROR", stand_in))


class _Method(NamedTuple):
    ask: Callable[..., StockQuestion]
    usage: str
    parameters: tuple[str, ...] = ()
    required: int = 0
    """How many of the parameters must be given, the first ones."""
    any_name: bool = False
    """Whether it takes arguments of any name besides."""

    def fits(self, call: StockCall) -> bool:
        """Checked here, because Python's own TypeError would name what is ours."""
        given, left = self.parameters[: len(call.args)], self.parameters[len(call.args) :]
        if len(call.args) > len(given) or not set(self.parameters[: self.required]) <= {*given, *call.kwds}:
            return False
        return self.any_name or set(call.kwds) <= set(left)


def _sealed(shape: Callable[[list[Any]], Any]) -> Callable[[Reply], bytes]:
    """Pickles the return value that *shape* makes of the results, or the error."""

    def seal(reply: Reply) -> bytes:
        if reply.problem is not None:
            return refused(reply.problem.error())
        for result in reply.results:
            if isinstance(result, Problem):
                return refused(result.error())
        payload = dumps(("#RETURN", shape(reply.results)))
        if len(payload) > MAX_REPLY:
            raise LimitExceeded(f"the answer would have {len(payload)} bytes, and {MAX_REPLY} are allowed")
        return payload

    return seal


def _ask(op: AnyOp, shape: Callable[[list[Any]], Any]) -> StockQuestion:
    return StockQuestion(Request([op]), _sealed(shape))


def _value(results: list[Any]) -> Any:  # noqa: ANN401
    return results[0].value


def _nothing(results: list[Any]) -> None:
    return None


def _increment(name: str, delta: int = 1, *options: Any, **named: Any) -> StockQuestion:  # noqa: ANN401
    return _ask(Increment(name, delta, *options, **named), _value)


def _decrement(name: str, delta: int = 1, *options: Any, **named: Any) -> StockQuestion:  # noqa: ANN401
    negated = -delta if type(delta) is int else delta  # the op says what is wrong with it
    return _increment(name, negated, *options, **named)


def _get(name: str, default: Any = None) -> StockQuestion:  # noqa: ANN401
    return _on(Get(name), _value, default)


def _on(op: AnyOp, shape: Callable[[list[Any]], Any], missing: Any) -> StockQuestion:  # noqa: ANN401
    """As `_ask`, but *missing* is the return value where there is no such counter."""
    found = _sealed(shape)

    def seal(reply: Reply) -> bytes:
        if reply.problem is not None and reply.problem.code == NotFound.code:
            return dumps(("#RETURN", missing))
        return found(reply)

    return StockQuestion(Request([op]), seal)


def _update(names: Any = (), /, **deltas: int) -> StockQuestion:  # noqa: ANN401
    if type(names) is dict:
        pairs = list(names.items())
    elif type(names) in (list, tuple) and all(type(name) is str for name in names):
        pairs = list(collections.Counter(names).items())
    else:
        raise InvalidRequest("update takes a dict of names and numbers, or a list of names")
    ops: list[AnyOp] = [Increment(name, delta) for name, delta in (*pairs, *deltas.items())]
    if not ops:
        return StockQuestion(count, _sealed(_nothing))  # nothing to do: any harmless question
    return StockQuestion(Request(ops), _sealed(_nothing))


def _listed(shape: Callable[[list[Entry]], Any]) -> StockQuestion:
    return StockQuestion(
        lambda table, now: everything(table, now, MAX_LISTED), _sealed(lambda results: shape(results[0]))
    )


def _text() -> StockQuestion:
    return StockQuestion(count, _sealed(lambda results: f"<shared counter of {results[0]} names>"))


_STEP = ("name", "delta", "min", "max", "on_bound", "ttl", "ttl_mode")
_STEP_USAGE = "(name, delta=1, min=None, max=None, on_bound=None, ttl=None, ttl_mode=None)"
_NAME, _VALUE = ("name",), ("name", "value")
_METHODS = {
    "increment": _Method(_increment, f"increment{_STEP_USAGE}", _STEP, 1),
    "decrement": _Method(_decrement, f"decrement{_STEP_USAGE}", _STEP, 1),
    "get": _Method(_get, "get(name, default=None)", ("name", "default"), 1),
    "set": _Method(lambda name, value: _ask(Set(name, value), _value), "set(name, value)", _VALUE, 2),
    "delete": _Method(lambda name: _ask(Delete(name), _value), "delete(name)", _NAME, 1),
    "update": _Method(_update, "update(names, **deltas)", ("names",), any_name=True),
    "keys": _Method(lambda: _listed(lambda entries: [e.name for e in entries]), "keys()"),
    "items": _Method(lambda: _listed(lambda entries: [(e.name, e.value) for e in entries]), "items()"),
    "__getitem__": _Method(lambda name: _on(Get(name), _value, 0), "c[name]", _NAME, 1),
    "__setitem__": _Method(
        lambda name, value: _ask(Set(name, value), _nothing), "c[name] = value", _VALUE, 2
    ),
    "__delitem__": _Method(lambda name: _on(Delete(name), _nothing, None), "del c[name]", _NAME, 1),
    "__contains__": _Method(lambda name: _on(Get(name), lambda results: True, False), "name in c", _NAME, 1),
    "__len__": _Method(lambda: StockQuestion(count, _sealed(lambda results: results[0])), "len(c)"),
    "__iter__": _Method(lambda: _listed(lambda entries: iter([e.name for e in entries])), "iter(c)"),
}
EXPOSED = tuple(_METHODS)
"""What a proxy offers, in an order that stays the same: clients keep a class for each tuple they see."""

_METHODS["__repr__"] = _METHODS["__str__"] = _Method(_text, "str(c)")  # str() of a proxy asks for it
