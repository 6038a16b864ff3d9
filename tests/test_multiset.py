"""What sequences of calls alone do not show: how many requests a method is, what travels, what is told apart.

`test_counter_parity.py` and `test_counter_cpython.py` compare with `collections.Counter`.
"""

import collections
import copy
import pickle
import types
import uuid
from enum import IntEnum, StrEnum

import pytest
from markupsafe import Markup
from test_shared_counter import Away, Recorder

from counter import (
    Delete,
    Get,
    Increment,
    InvalidRequest,
    LimitExceeded,
    List,
    OutOfBounds,
    Reply,
    Request,
    Set,
    SharedCounter,
    connect,
    open_store,
)
from counter.results import Problem
from counter.stores.memory import MemoryStore


@pytest.fixture
def recorder(store):
    return Recorder(store)


@pytest.fixture
def recorded(recorder):
    return SharedCounter(recorder)


# -- one request each


@pytest.mark.parametrize(
    ("call", "told", "asked"),
    [
        (lambda c: c.setdefault("a", 5), 3, [Set("a", 5, if_version="absent")]),
        (lambda c: c.setdefault("x", 5), 5, [Set("x", 5, if_version="absent")]),
        (lambda c: c.setdefault("x"), 0, [Set("x", 0, if_version="absent")]),
        (lambda c: c.pop("a"), 3, [Delete("a")]),
        (lambda c: c.pop("x", None), None, [Delete("x")]),
        (lambda c: c.pop("x", 7), 7, [Delete("x")]),
        (lambda c: c.update("aba", z=1), None, [Increment("a", 2), Increment("b"), Increment("z")]),
        (
            lambda c: c.subtract("aba", z=1),
            None,
            [Increment("a", -2), Increment("b", -1), Increment("z", -1)],
        ),
        (lambda c: c.subtract({"a": 1}, a=2), None, [Increment("a", -1), Increment("a", -2)]),
        (lambda c: "a" in c, True, [Get("a")]),
        (lambda c: ("a", 3) in c.items(), True, [Get("a")]),
        (lambda c: bool(c), True, [List(limit=1)]),
        (lambda c: bool(c.view("x")), False, [List("x", limit=1)]),
        (lambda c: c.most_common(1), [("a", 3)], [List(sort="-value", limit=1)]),
        (lambda c: [c.most_common(0), c.most_common(-1)], [[], []], None),
        (lambda c: c == None, False, None),  # noqa: E711
        (lambda c: ["" in c, "x" * 251 in c, 5 in c, ("\n", 1) in c.items()], [False] * 4, None),
        (lambda c: "x" * 50 in c.view("y" * 201), False, None),
    ],
)
def test_it_is_one_request(recorded, recorder, call, told, asked):
    recorded["a"] = 3
    recorder.asked.clear()
    assert call(recorded) == told
    assert recorder.asked == ([asked] if asked else [])


def test_an_element_is_given_before_all_are_counted(counters):
    counters["a"] = 2**63 - 1
    assert next(counters.elements()) == "a"


# -- clear


def test_clear_is_one_change_and_none_where_nothing_is(recorded, recorder):
    recorded.update("abc")
    recorder.asked.clear()
    recorded.clear()
    recorded.clear()
    assert recorder.asked == [[List(limit=1000)], [Delete("a"), Delete("b"), Delete("c")], [List(limit=1000)]]
    assert recorded == {}


class Meanwhile(Recorder):
    """A store of which others remove `gone` and create `new` before the counters are removed."""

    def execute(self, request, timeout=None):
        if type(request.ops[0]) is Delete:
            self.store.execute(Request([Delete("gone"), Set("new", 1)])).unwrap()
        return super().execute(request, timeout)


def test_what_is_gone_meanwhile_is_cleared_and_what_is_new_stays(store):
    counters = SharedCounter(Meanwhile(store))
    counters.update(["a", "gone", "z"])
    counters.clear()
    assert counters == {"new": 1}


def test_a_counter_that_cannot_be_removed_is_told(counters):
    class Refusing(Recorder):
        def execute(self, request, timeout=None):
            if type(request.ops[0]) is Delete:
                return Reply([Problem.of(LimitExceeded("no room to write it down"))])
            return super().execute(request, timeout)

    counters["a"] = 1
    with pytest.raises(LimitExceeded, match="no room"):
        SharedCounter(Refusing(counters.store)).clear()


@pytest.mark.slow
def test_more_than_10_000_counters_are_not_cleared_and_the_docstring_says_how(counters):
    names = [f"{number:05}" for number in range(10_001)]
    counters.update(names[:10_000])
    counters.update(names[10_000:])
    with pytest.raises(InvalidRequest, match="at most 10000 counters at once"):
        counters.clear()
    assert len(counters) == 10_001
    del counters["00000"]
    counters.clear()
    assert len(counters) == 0
    counters.update("ab")
    for name in counters:
        del counters[name]
    assert counters == {}


# -- operators


@pytest.mark.parametrize("sign", ["+", "-", "|", "&"])
def test_what_would_change_all_in_place_is_refused_in_words(counters, sign):
    counters["a"] = 1
    names = {"hits": counters, "other": collections.Counter("ab")}
    with pytest.raises(TypeError, match=r"update\(\) to add, subtract\(\)"):
        exec(f"hits {sign}= other", names)
    assert names["hits"] is counters
    assert counters == {"a": 1}


def test_a_plain_counter_takes_shared_ones_in_place(counters):
    counters.update(a=2, b=-1)
    plain = collections.Counter(a=1, b=5)
    plain += counters
    assert plain == collections.Counter(a=3, b=4)
    plain -= counters
    plain |= counters
    assert plain == collections.Counter(a=2, b=5)
    plain &= counters
    assert plain == collections.Counter(a=2)


def test_a_counter_of_another_class_is_on_either_side(counters):
    class Words(collections.Counter):
        pass

    counters.update("ab")
    for total in (Words("bc") + counters, counters + Words("bc")):
        assert (type(total), total) == (collections.Counter, collections.Counter("abbc"))
    assert counters >= Words("a")
    assert Words("ab") == counters


@pytest.mark.parametrize(
    "same",
    [dict, collections.Counter, collections.UserDict, collections.ChainMap, types.MappingProxyType],
)
def test_it_equals_every_mapping_with_the_same_counts(counters, same):
    counts = {"a": 3, "b": 0}
    counters.update(counts)
    assert counters == same(counts)
    assert same(counts) == counters
    assert counters != same({"a": 4, "b": 0})
    assert (counters == same({"a": 3})) is (same is collections.Counter)  # to whom 0 is as good as missing


@pytest.mark.parametrize(
    "other", [None, 5, "a", ["a"], {"a"}, [("a", 1)], object()], ids=lambda other: type(other).__name__
)
def test_it_equals_nothing_else_and_is_not_compared_with_it(counters, other):
    counters["a"] = 1
    assert counters != other
    assert other != counters
    for compare in (lambda: counters < other, lambda: counters + other, lambda: other & counters):
        with pytest.raises(TypeError):
            compare()


# -- views


def test_views_ask_each_time(counters):
    keys, values, items = counters.keys(), counters.values(), counters.items()
    assert [len(view) for view in (keys, values, items)] == [0, 0, 0]
    counters.update(a=3, b=1)
    for _ in range(2):
        assert (list(keys), list(values), list(items)) == (["a", "b"], [3, 1], [("a", 3), ("b", 1)])
    assert (3 in values, 2 in values) == (True, False)


def test_what_is_no_item_is_not_in_items(counters):
    counters["a"] = 1
    for item in [("x", None), ["a", 1], "a", ("a",), ("a", 1, 1), ("a", 2), (5, 1), ("", 0), None]:
        assert item not in counters.items(), item


# -- copies and travel


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda c: c.copy()])
def test_a_copy_is_a_counter_that_nobody_shares(counters, duplicate):
    counters.update(a=2, b=-1)
    there = duplicate(counters)
    assert (type(there), dict(there)) == (collections.Counter, {"a": 2, "b": -1})
    there["a"] += 1
    assert counters["a"] == 2


PREFIXES = [
    "",
    "shop:",
    "%",
    "%2F",
    "/",
    "//",
    "&timeout=1",
    "?",
    "#",
    "+",
    " ",
    "'\"",
    "=",
    "ä",
    "名前",
    "n" * 249,
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_it_travels_as_its_url_with_any_prefix(prefix):
    counters = connect("memory://test-multiset").view(prefix)
    for number, protocol in enumerate(range(pickle.HIGHEST_PROTOCOL + 1), 1):
        there = pickle.loads(pickle.dumps(counters, protocol))
        assert there.store is open_store(counters.store.url)
        there["x"] += 1
        assert counters["x"] == connect("memory://test-multiset")[f"{prefix}x"] == number
    assert list(counters) == ["x"]
    counters.clear()


def test_a_store_without_a_url_stays_here():
    with pytest.raises(TypeError, match="was not opened by a URL"):
        pickle.dumps(SharedCounter(Away()))


def test_repr_asks_for_nothing_and_says_where():
    assert repr(SharedCounter(Away())) == "SharedCounter(Away())"
    counters = connect("memory://test-multiset?prefix=a%26")
    assert repr(counters) == "SharedCounter(memory://test-multiset?prefix=a%26)"
    assert repr(counters.keys()) == f"KeysView({counters!r})"


def test_with_gives_back_its_connections_and_the_next_call_takes_new_ones(store):
    closed = []
    recorder = Recorder(store)
    recorder.close = lambda: closed.append(store.close())
    with pytest.raises(ZeroDivisionError), SharedCounter(recorder) as counters:
        assert counters.increment("a") == 1
        raise ZeroDivisionError
    assert counters.increment("a") == 2
    assert len(closed) == 1
    counters.view("a").close()
    assert len(closed) == 2


# -- what is a name or a number by inheritance


class Page(StrEnum):
    HOME = "home"


class Size(IntEnum):
    LARGE = 3


def test_what_inherits_from_str_is_a_name(counters):
    for name in (Page.HOME, Markup("home")):
        counters[name] += 1
        counters.increment(name)
        counters.update([name, "home"])
        assert name in counters
        assert (name, 4) in counters.items()
        assert (counters[name], counters.get(name), counters.entry(name).name) == (4, 4, "home")
        assert counters.setdefault(name) == counters.pop(name) == 4
        assert counters.set(name, 1) == counters.delete(name)
    counters.view(Page.HOME).update({Page.HOME: 1})
    assert [(name, type(name)) for name in counters] == [("homehome", str)]


def test_what_inherits_from_int_is_a_number_and_a_bool_is_none(counters):
    counters["limit"] = Size.LARGE
    limit = counters["limit"]
    assert counters.increment("a", Size.LARGE, min=-limit, max=limit, ttl=limit) == 3
    with pytest.raises(OutOfBounds):
        counters.increment("a", max=limit)
    counters.set("b", limit, max=limit)
    counters.subtract(b=limit)
    assert counters.decrement("b", Size.LARGE) == -3
    assert [type(counters.get(name)) for name in "ab"] == [int, int]
    for change in (counters.increment, counters.decrement, counters.set, counters.setdefault):
        with pytest.raises(InvalidRequest, match="is an integer, not bool"):
            change("a", True)


# -- views of a prefix


def test_a_counter_named_as_the_prefix_has_no_name_in_the_view(counters):
    counters.update({"a:": 9, "a:x": 1, "a:y": 2})
    view = counters.view("a:")
    assert dict(view) == {"x": 1, "y": 2}
    assert (len(view), view.total(), view.most_common(1)) == (2, 3, [("y", 2)])
    view.clear()
    assert (bool(view), counters) == (False, {"a:": 9})


def test_adding_in_place_is_sent_as_added_through_one_object_alone(counters):
    counters.view("a")["x"] += 1
    view = counters.view("a")
    reading = view["x"]
    counters.increment("ax", 10)
    reading += 1
    counters["ax"] = reading  # by another name, and so a plain number
    assert view["x"] == 2


def test_it_is_made_of_a_store_and_of_nothing_else():
    with pytest.raises(TypeError, match=r"counter\.connect\(\) opens one"):
        SharedCounter(["a", "b"])


def test_the_timeout_of_clear_is_for_the_names_too(recorded, recorder):
    recorded.update("abc")
    recorder.timeouts.clear()
    recorded.clear(timeout=0.5)
    assert recorder.timeouts == [0.5, 0.5]


def test_another_shared_counter_is_added_in_pages(recorded, recorder):
    recorded.update({f"n{number}": number for number in range(1500)})
    recorder.asked.clear()
    other = SharedCounter(MemoryStore())
    other.update(recorded)
    assert (other, len(recorder.asked)) == (recorded.copy(), 2)


def test_a_reading_says_how_many_and_a_text_by_inheritance_is_a_key(counters):
    counters.update("aab")
    assert counters.most_common(counters["a"]) == [("a", 2), ("b", 1)]
    key = Markup(f"key-{uuid.uuid4()}")
    assert [counters.increment("c", idempotency_key=key) for _ in range(2)] == [1, 1]
    counters.update("a", idempotency_key=Markup(f"key-{uuid.uuid4()}"))
