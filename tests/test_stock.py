"""What a stock client's calls mean, one by one: no sockets, a table and its turn.

`call` does what the manager does with a pickled frame, so the pickles of both directions are the real ones.
"""

import pickle

import pytest
from msgspec import structs

from counter import stock
from counter.errors import CounterError, InvalidRequest, JournalFull, LimitExceeded, OutcomeUnknown
from counter.fields import INT64_MAX, INT64_MIN
from counter.ops import Request, Set
from counter.results import Problem, Reply
from counter.run import Run
from counter.table import CounterTable
from counter.wire import MAX_REPLY

RUN = Run()


class Proxy:
    """A stock proxy without the connection."""

    def __init__(self, max_counters=1_000_000, protocol=4):
        self.table = CounterTable(RUN.id, max_counters)
        self.protocol = protocol

    def __call__(self, method, *args, **kwds):
        """The return value, or the raised builtin."""
        payload = pickle.dumps(("counters", method, args, kwds), self.protocol)
        kind, value = pickle.loads(self.answer(payload))
        assert kind in ("#RETURN", "#ERROR")
        if kind == "#ERROR":
            raise value
        return value

    def answer(self, payload):
        try:
            question = stock.question(stock.read_call(payload))
        except CounterError as error:
            return stock.refused(error)
        if isinstance(question.work, Request):
            with self.table.turn(RUN.now()) as turn:
                sealed = turn.execute(question.work, RUN.ticks(), question.seal)
                turn.commit(lambda outcomes: None)
            return sealed
        return self._finished(question)

    def _finished(self, question):
        job = question.work(self.table, RUN.now())
        try:
            while True:
                next(job)
        except StopIteration as end:
            return question.seal(Reply([end.value]))
        except CounterError as error:
            return question.seal(Reply([], Problem.of(error)))

    def fill(self, number):
        with self.table.turn(RUN.now()) as turn:
            for first in range(0, number, 10_000):
                names = range(first, min(first + 10_000, number))
                turn.execute(Request([Set(f"{name:06}", name) for name in names]), 0.0, lambda reply: reply)
            turn.commit(lambda outcomes: None)


@pytest.fixture
def proxy():
    return Proxy()


# What each method means


def test_increment_and_decrement_return_the_new_value(proxy):
    assert proxy("increment", "a") == 1
    assert proxy("increment", "a", 5) == 6
    assert proxy("increment", "a", delta=-2) == 4
    assert proxy("decrement", "a") == 3
    assert proxy("decrement", "a", 10) == -7
    assert proxy("decrement", "a", delta=-7) == 0
    assert type(proxy("increment", "a")) is int


def test_increment_and_decrement_take_the_options_of_an_increment(proxy):
    assert proxy("increment", "a", 5, max=3, on_bound="clamp") == 3
    assert proxy("decrement", "a", 9, min=-1, on_bound="clamp") == -1
    with pytest.raises(ValueError, match="would pass the"):
        proxy("increment", "a", 5, None, 3)
    assert proxy("increment", "b", 1, None, None, None, 60, "sliding") == 1
    assert proxy.table.entries["b"].ttl == 60
    assert proxy.table.entries["b"].ttl_mode == "sliding"
    assert proxy("decrement", "c", ttl=5) == -1
    assert proxy.table.entries["c"].ttl_mode == "fixed"


def test_arguments_can_be_given_by_name(proxy):
    assert proxy("increment", name="a", delta=5) == 5
    assert proxy("set", value=3, name="a") == 3
    assert proxy("get", name="b", default=7) == 7
    assert proxy("delete", name="a") == 3


def test_get_of_a_missing_counter_is_the_default_and_creates_nothing(proxy):
    assert proxy("get", "a") is None
    assert proxy("get", "a", 7) == 7
    assert proxy("get", "a", default="none") == "none"
    proxy("set", "a", 3)
    assert proxy("get", "a", 7) == 3
    assert proxy("__len__") == 1


def test_set_and_delete_return_the_value(proxy):
    assert proxy("set", "a", 3) == 3
    assert proxy("set", "a", INT64_MIN) == INT64_MIN
    assert proxy("delete", "a") == INT64_MIN
    with pytest.raises(KeyError, match="no counter 'a'"):
        proxy("delete", "a")


def test_update_adds_as_a_counter_does(proxy):
    assert proxy("update", ["a", "b", "a"]) is None
    assert proxy("update", ("b",)) is None
    assert proxy("update", {"a": 10, "c": -1}) is None
    assert proxy("update", a=100, d=1) is None
    assert proxy("update", ["a"], b=1, a=1) is None
    assert dict(proxy("items")) == {"a": 114, "b": 3, "c": -1, "d": 1}


def test_update_with_nothing_does_nothing(proxy):
    for nothing in ([], {}, ()):
        assert proxy("update", nothing) is None
    assert proxy("update") is None
    assert proxy("__len__") == 0


def test_update_is_all_or_nothing(proxy):
    proxy("set", "full", INT64_MAX)
    with pytest.raises(ValueError, match="would pass the"):
        proxy("update", ["a", "full"])
    with pytest.raises(ValueError, match="delta is an integer"):
        proxy("update", {"a": 1, "b": 1.0})
    assert proxy("keys") == ["full"]


@pytest.mark.parametrize("names", [5, "text", None, [1], [["a"]], [("a", 1)], True], ids=repr)
def test_update_takes_names_or_a_dict_of_numbers(proxy, names):
    with pytest.raises(ValueError, match=r"update takes|nested"):
        proxy("update", names)


def test_a_request_for_too_many_names_is_refused():
    call = stock.StockCall("counters", "update", ([f"{name}" for name in range(10_001)],), {})
    with pytest.raises(InvalidRequest, match="10000 ops"):
        stock.question(call)


def test_square_brackets_are_a_counters(proxy):
    assert proxy("__getitem__", "a") == 0
    assert proxy("__len__") == 0
    assert proxy("__setitem__", "a", 5) is None
    assert proxy("__getitem__", "a") == 5
    assert proxy("__delitem__", "a") is None
    assert proxy("__delitem__", "a") is None  # silent, as in collections.Counter
    assert proxy("__contains__", "a") is False
    proxy("__setitem__", "a", 0)
    assert proxy("__contains__", "a") is True


def test_listing_is_by_name_and_iter_is_an_iterator(proxy):
    proxy("update", ["b", "a", "c", "b"])
    assert proxy("keys") == ["a", "b", "c"]
    assert proxy("items") == [("a", 1), ("b", 2), ("c", 1)]
    found = proxy("__iter__")
    assert next(found) == "a"
    assert list(found) == ["b", "c"]
    assert proxy("__len__") == 3


@pytest.mark.parametrize("method", ["__repr__", "__str__"])
def test_its_text_is_one_harmless_line(proxy, method):
    proxy("update", ["a", "b"])
    assert proxy(method) == "<shared counter of 2 names>"


@pytest.mark.parametrize("method", ["keys", "items", "__iter__"])
def test_above_10000_counters_a_listing_is_a_value_error(proxy, method):
    proxy.fill(10_000)
    assert len(list(proxy(method))) == 10_000
    proxy("set", "one more", 1)
    with pytest.raises(ValueError, match="above 10000 counters ask for pages"):
        proxy(method)
    assert proxy("__len__") == 10_001
    assert proxy("__str__") == "<shared counter of 10001 names>"


def test_an_answer_over_the_cap_is_an_error_not_an_answer(proxy):
    """No listing that is allowed comes near: 10,000 of the longest names are 2.5 MB."""
    seal = stock.question(stock.StockCall("counters", "keys", (), {})).seal
    proxy.fill(1)
    (entry,) = proxy.table.entries.values()
    entries = [structs.replace(entry, name=f"{at:01000}") for at in range(MAX_REPLY // 1000)]
    assert len(pickle.loads(seal(Reply([entries[:-100]])))[1]) == len(entries) - 100
    with pytest.raises(LimitExceeded, match="bytes"):
        seal(Reply([entries]))


# Errors


def test_errors_are_builtins_with_their_code(proxy):
    with pytest.raises(KeyError) as caught:
        proxy("delete", "none")
    assert type(caught.value) is KeyError
    assert caught.value.code == "not-found"
    proxy("set", "a", INT64_MAX)
    with pytest.raises(ValueError, match="would pass") as caught:
        proxy("increment", "a")
    assert (type(caught.value), caught.value.code) == (ValueError, "out-of-bounds")
    with pytest.raises(RuntimeError) as caught:
        Proxy(max_counters=0)("increment", "a")
    assert (type(caught.value), caught.value.code) == (RuntimeError, "limit-exceeded")


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (JournalFull("full"), ConnectionError),
        (OutcomeUnknown("late"), TimeoutError),
        (InvalidRequest("no"), ValueError),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_what_the_whole_request_failed_with_is_an_error_too(error, builtin):
    for method, args in (("increment", ("a",)), ("get", ("a",)), ("__getitem__", ("a",)), ("keys", ())):
        seal = stock.question(stock.StockCall("counters", method, args, {})).seal
        kind, value = pickle.loads(seal(Reply([], Problem.of(error))))
        assert (kind, type(value), value.code, str(value)) == ("#ERROR", builtin, error.code, error.detail)


# Arguments that do not fit: a sentence of ours, never Python's, which would name what is ours

MISUSED = [
    ("increment", (), {}),
    ("increment", ("a", 1, 2, 3, "clamp", 5, "fixed", "r.1"), {}),
    ("increment", ("a", 1), {"delta": 2}),
    ("increment", ("a", 1, 2), {"min": 2}),
    ("increment", ("a",), {"by": 2}),
    ("increment", ("a",), {"if_version": "present"}),
    ("increment", ("a",), {"name": "a"}),
    ("increment", (), {"delta": 2}),
    ("decrement", (), {}),
    ("decrement", ("a", 1), {"delta": 2}),
    ("get", (), {}),
    ("get", ("a", 1, 2), {}),
    ("get", ("a", 1), {"default": 2}),
    ("get", ("a",), {"fallback": 2}),
    ("set", ("a",), {}),
    ("set", ("a", 1, 2), {}),
    ("set", ("a", 1), {"min": 2}),
    ("delete", (), {}),
    ("delete", ("a", "b"), {}),
    ("delete", ("a",), {"if_version": "present"}),
    ("update", (["a"], ["b"]), {}),
    ("keys", ("a",), {}),
    ("keys", (), {"prefix": "a"}),
    ("items", ("a",), {}),
    ("__getitem__", (), {}),
    ("__setitem__", ("a",), {}),
    ("__delitem__", (), {}),
    ("__contains__", (), {}),
    ("__len__", ("a",), {}),
    ("__iter__", ("a",), {}),
    ("__str__", ("a",), {}),
]


def test_every_parameter_can_be_given_by_name(proxy):
    assert proxy("increment", name="by name", delta=2) == 2
    assert proxy("get", name="by name", default=7) == 2
    assert proxy("set", name="by name", value=3) == 3


@pytest.mark.parametrize(("method", "args", "kwds"), MISUSED)
def test_arguments_that_do_not_fit_are_answered_with_the_usage(proxy, method, args, kwds):
    with pytest.raises(ValueError, match=r"^call it as ") as caught:
        proxy(method, *args, **kwds)
    assert "_increment" not in str(caught.value)
    assert proxy("__len__") == 0


def test_each_method_was_misused():
    assert {method for method, _, _ in MISUSED} | {"__repr__"} == set(stock._METHODS)


@pytest.mark.parametrize(
    "value", [None, 1, 1.0, True, b"x", [], ["a"], {}, ("a",), "", "a\n", "x" * 251], ids=repr
)
@pytest.mark.parametrize(
    "method", ["increment", "decrement", "get", "delete", "__getitem__", "__delitem__", "__contains__"]
)
def test_what_is_no_name_is_a_value_error(proxy, method, value):
    with pytest.raises(ValueError, match=r"name|plain values"):
        proxy(method, value)
    assert proxy("__len__") == 0


@pytest.mark.parametrize("value", [None, 1.0, True, "1", [], {}, INT64_MAX + 1, INT64_MIN - 1], ids=repr)
@pytest.mark.parametrize("method", ["increment", "decrement", "set", "__setitem__"])
def test_what_is_no_number_is_a_value_error(proxy, method, value):
    if method == "decrement" and value == INT64_MAX + 1:
        pytest.skip("what is added is in range")
    with pytest.raises(ValueError, match=r"delta|value"):
        proxy(method, "a", value)
    assert proxy("__len__") == 0


def test_the_edges_of_the_range(proxy):
    assert proxy("increment", "a", INT64_MAX) == INT64_MAX
    assert proxy("decrement", "b", INT64_MAX) == -INT64_MAX
    with pytest.raises(ValueError, match="delta goes from"):
        proxy("decrement", "c", INT64_MIN)
    with pytest.raises(ValueError, match="would pass the"):
        proxy("increment", "a")


@pytest.mark.parametrize(
    "method",
    [
        "shutdown",
        "debug_info",
        "number_of_objects",
        "#GETVALUE",
        "__reduce__",
        "__class__",
        "store",
        "_increment",
        "",
    ],
)
def test_names_that_are_not_listed_are_refused(proxy, method):
    with pytest.raises(ValueError, match="a shared counter's methods are increment, decrement, get"):
        proxy(method)


# The frames themselves


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_that_is_read_gets_the_same_answers(protocol):
    proxy = Proxy(protocol=protocol)
    assert proxy("increment", "é", 300, max=70_000) == 300
    assert proxy("update", {"é": -(2**40), "b": 1}) is None
    assert proxy("items") == [("b", 1), ("é", 300 - 2**40)]


def read(value):
    return stock.read_call(pickle.dumps(value, 4))


def test_a_call_has_three_or_four_parts():
    assert read(("counters", "keys", ())) == ("counters", "keys", (), {})
    assert read((None, "dummy", [], {})) == (None, "dummy", (), {})


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "increment",
        (),
        ("counters",),
        ("counters", "keys"),
        ("counters", "keys", (), {}, None),
        ["counters", "keys", (), {}],
        (5, "keys", (), {}),
        (True, "keys", (), {}),
        (("counters",), "keys", (), {}),
        ("counters", None, (), {}),
        ("counters", ["keys"], (), {}),
        ("counters", "keys", None, {}),
        ("counters", "keys", "args", {}),
        ("counters", "keys", {}, {}),
        ("counters", "keys", (), []),
        ("counters", "keys", (), None),
    ],
    ids=repr,
)
def test_what_is_no_call_is_refused(value):
    with pytest.raises(InvalidRequest, match="not a call"):
        read(value)


@pytest.mark.parametrize("value", [{1, 2}, range(3), b"x", object, print, {5: 1}], ids=repr)
def test_a_call_with_more_than_plain_values_is_refused(value):
    with pytest.raises(InvalidRequest, match="only plain values can be sent"):
        read(("counters", "update", (value,), {}))


# The server itself


def server(method, *args, ident=None):
    return pickle.loads(stock.answer_server_call(stock.StockCall(ident, method, args, {})))


def test_what_making_a_proxy_takes_is_answered_and_nothing_more():
    assert server("dummy") == ("#RETURN", None)
    assert server("create", "counters") == ("#RETURN", ("counters", stock.EXPOSED))
    assert server("incref", "counters") == ("#RETURN", None)
    assert server("decref", "counters") == ("#RETURN", None)
    assert server("accept_connection", "Thread-1") == ("#RETURN", None)


def test_what_a_proxy_offers_is_constant_and_has_no_text_methods():
    """A client keeps a class for each tuple it sees; with __str__ in it, str() of a proxy would go wrong."""
    assert stock.EXPOSED == (
        "increment",
        "decrement",
        "get",
        "set",
        "delete",
        "update",
        "keys",
        "items",
        "__getitem__",
        "__setitem__",
        "__delitem__",
        "__contains__",
        "__len__",
        "__iter__",
    )


@pytest.mark.parametrize(
    "method", ["shutdown", "debug_info", "get_methods", "number_of_objects", "increment", ""]
)
def test_nothing_else_is_done_for_a_stock_client(method):
    kind, error = server(method)
    assert (kind, type(error)) == ("#ERROR", ValueError)
    assert "SIGTERM" in str(error)


@pytest.mark.parametrize(
    "args", [(), ("dict",), ("counter",), (None,), (["counters"],), ("other", "counters")]
)
def test_there_is_one_object_to_be_created(args):
    kind, error = server("create", *args)
    assert (kind, type(error)) == ("#ERROR", ValueError)
    assert 'register("counters")' in str(error)


def test_another_object_is_not_there():
    with pytest.raises(InvalidRequest, match="no such shared object"):
        stock.question(stock.StockCall("other", "increment", ("a",), {}))
