"""An op is valid from the moment it exists, and exact: no name or number that is not one gets in."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from counter.errors import InvalidRequest, NotFound, OutOfBounds
from counter.fields import INT64_MAX, INT64_MIN, MAX_OPS, MAX_TTL, check_name
from counter.information import Latencies
from counter.ops import (
    RESULT_TYPES,
    AnyOp,
    Batch,
    CounterOp,
    Delete,
    Get,
    Hello,
    Increment,
    Info,
    List,
    Report,
    Request,
    Set,
)
from counter.results import Problem, Reply

GOOD_NAMES = {
    "one byte": "a",
    "path": "/about",
    "space": "New York",
    "colon": "shop:cart",
    "dots": "..",
    "verb": "a/increment",
    "percent": "100%",
    "250 ASCII bytes": "x" * 250,
    "250 bytes of two": "é" * 125,
    "emoji": "👩‍👩‍👧‍👦",
    "right to left": "\u202eمرحبا",
    "no-break space": "a\u00a0b",
    "line separator": "a\u2028b",
    "soft hyphen": "\u00ad",
    "last code point": "\U0010ffff",
    "private use": "\ue000",
}
BAD_NAMES = {
    "empty": "",
    "251 ASCII bytes": "x" * 251,
    "251 bytes, 126 letters": "é" * 125 + "x",
    "252 bytes, 63 emoji": "😀" * 63,
    "NUL": "a\x00",
    "newline": "a\nb",
    "last of C0": "\x1f",
    "DEL": "a\x7f",
    "first of C1": "\x80",
    "NEL": "a\x85b",
    "last of C1": "a\x9f",
    "lone surrogate": "a\ud800",
    "surrogate pair": "\ud83d\ude00",
    "bytes": b"a",
    "None": None,
    "int": 5,
    "str subclass": type("Name", (str,), {})("a"),
}
NO_INT64 = {
    "bool": True,
    "float": 1.0,
    "digits": "1",
    "over": INT64_MAX + 1,
    "under": INT64_MIN - 1,
    "huge": 10**400,
    "nan": math.nan,
    "int subclass": type("Number", (int,), {})(1),
}


def table(cases):
    return pytest.mark.parametrize("value", cases.values(), ids=cases.keys())


@table(GOOD_NAMES)
def test_a_name_is_any_text_of_1_to_250_bytes_without_control_characters(value):
    for op in (Get(value), Increment(value), Set(value), Delete(value)):
        assert op.name == value
    assert List(value).prefix == value


@table(BAD_NAMES)
@pytest.mark.parametrize("kind", [Get, Increment, Set, Delete])
def test_a_bad_name_is_refused_by_every_op(kind, value):
    with pytest.raises(InvalidRequest, match="counter's name"):
        kind(value)


@table({what: name for what, name in BAD_NAMES.items() if what != "empty"})
def test_a_prefix_is_the_beginning_of_a_name_or_empty(value):
    assert List("").prefix == ""
    with pytest.raises(InvalidRequest, match="counter's name"):
        List(value)


@given(st.text(max_size=260))
def test_names_are_judged_by_bytes_and_characters_alone(name):
    try:
        good = 1 <= len(name.encode()) <= 250 and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name)
    except UnicodeEncodeError:
        good = False
    if good:
        check_name(name)
    else:
        with pytest.raises(InvalidRequest):
            check_name(name)


def test_every_control_character_is_refused_and_no_neighbour_is():
    refused = set()
    for point in range(0x200):
        try:
            check_name(f"a{chr(point)}b")
        except InvalidRequest:
            refused.add(point)
    assert refused == {*range(0x20), *range(0x7F, 0xA0)}


@table(NO_INT64 | {"null": None})
@pytest.mark.parametrize(
    "build", [lambda v: Increment("a", v), lambda v: Set("a", v)], ids=["delta", "value"]
)
def test_delta_and_value_are_exact_64_bit_integers(build, value):
    with pytest.raises(InvalidRequest, match=r"delta|value"):
        build(value)


@table(NO_INT64)
@pytest.mark.parametrize("kind", [Increment, Set])
@pytest.mark.parametrize("field", ["min", "max"])
def test_bounds_are_exact_64_bit_integers(kind, field, value):
    with pytest.raises(InvalidRequest, match=field):
        kind("a", **{field: value})


@pytest.mark.parametrize("number", [INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX])
def test_the_whole_64_bit_range_is_allowed(number):
    assert Increment("a", number, min=number, max=number).delta == number
    assert Set("a", number, min=number, max=number).value == number


@pytest.mark.parametrize("kind", [Increment, Set])
def test_min_above_max_is_refused(kind):
    kind("a", min=3, max=3)
    with pytest.raises(InvalidRequest, match="min must not be above max"):
        kind("a", min=4, max=3)


@table({"zero": 0, "negative": -1, "bool": True, "float": 1.5, "str": "60", "too long": MAX_TTL + 1})
@pytest.mark.parametrize("kind", [Increment, Set])
def test_a_ttl_is_a_positive_number_of_seconds(kind, value):
    assert kind("a", ttl=1).ttl == 1
    assert kind("a", ttl=MAX_TTL).ttl == MAX_TTL
    with pytest.raises(InvalidRequest, match="ttl"):
        kind("a", ttl=value)


@pytest.mark.parametrize("value", ["wrap", "", 1, True, ["clamp"]])
@pytest.mark.parametrize("kind", [Increment, Set])
@pytest.mark.parametrize("field", ["on_bound", "ttl_mode"])
def test_choices_are_one_of_a_few_words(kind, field, value):
    with pytest.raises(InvalidRequest, match=f"{field} is one of"):
        kind("a", ttl=5, **{field: value})


def test_an_increments_ttl_mode_needs_its_ttl():
    with pytest.raises(InvalidRequest, match="ttl_mode needs a ttl"):
        Increment("a", ttl_mode="sliding")


@pytest.mark.parametrize("value", ["", 5, True, b"present"])
@pytest.mark.parametrize("kind", [Increment, Set, Delete])
def test_a_condition_is_a_word_or_a_version(kind, value):
    assert kind("a", if_version="present").if_version == "present"
    with pytest.raises(InvalidRequest, match="if_version"):
        kind("a", if_version=value)


def test_a_set_tells_a_field_left_out_from_one_that_is_null():
    assert Set("a").min is UNSET
    assert Set("a", min=None, max=None, on_bound=None, ttl=None, ttl_mode=None).min is None
    for null in (Set("a", min=None), Set("a", ttl=None), Set("a", on_bound=None)):
        assert msgspec.json.decode(msgspec.json.encode(null), type=Set) == null != Set("a")


def test_a_page_has_1_to_1000_counters_100_by_default():
    assert List().limit == 100
    assert (List(limit=1).limit, List(limit=1000).limit) == (1, 1000)
    for limit in (0, -1, 1001, True, 5.0, "5", None):
        with pytest.raises(InvalidRequest, match="limit"):
            List(limit=limit)


@pytest.mark.parametrize("sort", ["value", "updated", "-name", "", None, 1])
def test_a_list_is_sorted_by_name_value_or_time(sort):
    with pytest.raises(InvalidRequest, match="sort is one of name, -value, -updated"):
        List(sort=sort)


def test_a_cursor_is_a_str():
    with pytest.raises(InvalidRequest, match="cursor"):
        List(cursor=5)


@pytest.mark.parametrize("kind", [Request, Batch])
def test_a_request_has_1_to_10000_ops(kind):
    op = Increment("a")
    assert len(kind([op] * MAX_OPS).ops) == MAX_OPS == 10_000
    for ops in ([], [op] * 10_001):
        with pytest.raises(InvalidRequest, match="1 to 10000 ops"):
            kind(ops)


@pytest.mark.parametrize(
    "op", [List(), Info(), Hello("web", 1, "0"), Report(1, 5)], ids=lambda op: type(op).__name__
)
def test_what_is_not_about_one_counter_is_not_allowed_in_a_batch(op):
    assert Request([op]).ops == [op]
    with pytest.raises(InvalidRequest, match="a batch holds"):
        Request([Get("a"), op])


@pytest.mark.parametrize("deadline", [math.nan, math.inf, -math.inf])
def test_a_deadline_is_a_finite_time(deadline):
    with pytest.raises(InvalidRequest, match="deadline"):
        Request([Increment("a")], deadline=deadline)


def test_a_request_mutates_if_any_of_its_ops_does():
    assert not Request([Get("a"), Get("b")]).mutates
    assert Request([Get("a"), Delete("b")]).mutates
    assert Request([Get("a")], idempotency_key="k").mutates, "its outcome is to be remembered"
    assert [op for op in RESULT_TYPES if op.mutates] == [Increment, Set, Delete]


def test_every_op_is_known_with_its_result():
    assert {*RESULT_TYPES} == {*AnyOp.__args__}
    assert {*CounterOp.__args__} < {*RESULT_TYPES}


OPS = [
    Get("a"),
    Increment("a", -3, 0, 9, "clamp", 60, "sliding", "present"),
    Increment("a"),
    Set("a", 5, max=None),
    Set("a", ttl=5, ttl_mode=None),
    Delete("a", "r.1"),
    List("a", "-value", 7, "c"),
    Info(),
    Hello("web", 1, "0"),
    Report(1, 5, 4, 2, {"/livez": {"2xx": Latencies(0.5, [1, 0, 2, 0, 0, 0, 0])}}),
]


@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
@pytest.mark.parametrize("op", OPS, ids=repr)
def test_ops_travel_and_come_back_equal(op, codec):
    request = Request([op], False, b"c" * 16, 7, 9.5)
    assert codec.decode(codec.encode(request), type=Request) == request


@pytest.mark.parametrize(
    "text",
    [
        '{"op":"increment","name":"a","delta":true}',
        '{"op":"increment","name":"a","delta":1.0}',
        '{"op":"increment","name":"a","delta":"1"}',
        '{"op":"increment","name":"a","delta":null}',
        '{"op":"increment","name":"a","delta":9223372036854775808}',
        '{"op":"increment","name":"a","extra":1}',
        '{"op":"increment","name":""}',
        '{"op":"increment","name":"a\\u0000"}',
        '{"op":"increment"}',
        '{"op":"set","name":"a","min":2,"max":1}',
        '{"op":"set","name":"a","ttl":0}',
        '{"op":"explode","name":"a"}',
        '{"name":"a"}',
        "[]",
    ],
)
def test_what_is_decoded_is_as_strict_as_what_is_built(text):
    with pytest.raises((InvalidRequest, msgspec.ValidationError)):
        msgspec.json.decode(text, type=AnyOp)


def test_a_reply_gives_its_results_or_raises_its_problem():
    assert Reply([None]).unwrap() == [None]
    assert Reply([5]).only() == 5
    with pytest.raises(OutOfBounds) as caught:
        Reply([], Problem("out-of-bounds", "why", None, 3)).unwrap()
    assert caught.value.index == 3
    with pytest.raises(NotFound):
        Reply([Problem("not-found", "why")]).only()
    assert Reply([Problem("not-found", "why")]).unwrap() == [Problem("not-found", "why")]
