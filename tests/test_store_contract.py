"""The conformance suite: every promise about counters, asked of every store in `stores.py`."""

import contextlib
import itertools
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from counter import (
    CounterError,
    Delete,
    Entry,
    Get,
    Increment,
    Info,
    InvalidRequest,
    KeyReused,
    LimitExceeded,
    List,
    NotFound,
    OutOfBounds,
    Request,
    Set,
    SharedCounter,
    VersionMismatch,
)
from counter.fields import INT64_MAX, INT64_MIN, MAX_TTL
from counter.results import Change, Page, Problem
from counter.run import Run
from counter.stores.memory import MemoryStore

LOW, HIGH = INT64_MIN, INT64_MAX


@pytest.fixture
def do(store):
    """Ask the store one op: its result, or the error it raises."""
    return lambda op: store.execute(Request([op])).only()


@pytest.fixture
def batch(store):
    """Ask the store several ops."""
    return lambda *ops, atomic=True: store.execute(Request(list(ops), atomic))


def wall():
    return datetime.now(UTC)


# -- increments


def test_a_missing_counter_counts_from_0_and_is_created(do):
    before = wall()
    change = do(Increment("a"))
    assert (change.name, change.value, change.previous, change.delta, change.created) == ("a", 1, 0, 1, True)
    assert (change.min, change.max, change.on_bound) == (None, None, None)
    assert (change.ttl, change.ttl_mode, change.expires_at) == (None, None, None)
    assert change.created_at == change.updated_at
    assert abs(change.created_at - before) < timedelta(seconds=30)
    assert change.created_at.tzinfo is not None


def test_each_increment_tells_its_own_step(do):
    told = [do(Increment("a", delta)) for delta in (5, -8, 0, 3)]
    assert [(change.previous, change.delta, change.value) for change in told] == [
        (0, 5, 5),
        (5, -8, -3),
        (-3, 0, -3),
        (-3, 3, 0),
    ]
    assert [change.created for change in told] == [True, False, False, False]
    assert {change.created_at for change in told} == {told[0].created_at}
    assert [change.updated_at for change in told] == sorted(change.updated_at for change in told)


def test_what_is_told_is_what_is_there(do):
    for op in (
        Increment("a", 3, ttl=60),
        Set("a", 5, min=0, max=9, on_bound="clamp", ttl=90, ttl_mode="sliding"),
    ):
        change = do(op)
        assert type(change) is Change
        entry = do(Get("a"))
        assert type(entry) is Entry
        assert entry == Entry(*(getattr(change, field) for field in Entry.__struct_fields__))
    assert (entry.value, entry.min, entry.max, entry.on_bound) == (5, 0, 9, "clamp")
    assert (entry.ttl, entry.ttl_mode, entry.expires_at - entry.updated_at) == (
        90,
        "sliding",
        timedelta(seconds=90),
    )


@pytest.mark.parametrize("value", [LOW, LOW + 1, -(2**53) - 1, -1, 0, 1, 2**53 + 1, HIGH - 1, HIGH])
def test_values_of_64_bits_are_exact(do, value):
    assert do(Set("set", value)).value == value
    assert do(Increment("added", value)).value == value
    assert do(Get("set")).value == do(Get("added")).value == value
    assert {entry.value for entry in do(List()).counters} == {value}


@pytest.mark.parametrize(
    ("value", "delta"), [(HIGH, 1), (LOW, -1), (1, HIGH), (-2, LOW + 1), (HIGH, HIGH), (LOW, LOW)]
)
def test_what_overflows_is_refused_and_never_wraps(do, value, delta):
    there = do(Set("a", value))
    with pytest.raises(OutOfBounds) as caught:
        do(Increment("a", delta))
    assert caught.value.current.version == there.version
    assert do(Get("a")).value == value
    assert do(Increment("a", delta, on_bound="clamp")).value == (HIGH if delta > 0 else LOW)


# -- bounds

STEPS = [  # (value or None, the counter's settings, the increment) -> value, or None: refused
    (9, {"max": 10}, {"delta": 1}, 10),
    (10, {"max": 10}, {"delta": 1}, None),
    (1, {"min": 0}, {"delta": -1}, 0),
    (0, {"min": 0}, {"delta": -1}, None),
    (8, {"max": 10, "on_bound": "clamp"}, {"delta": 5}, 10),
    (2, {"min": 0, "on_bound": "clamp"}, {"delta": -5}, 0),
    (10, {"max": 10, "on_bound": "clamp"}, {"delta": 5}, 10),
    (8, {"max": 10, "on_bound": "clamp"}, {"delta": 5, "on_bound": "reject"}, None),
    (8, {"max": 10}, {"delta": 5, "on_bound": "clamp"}, 10),
    (8, {"max": 10}, {"delta": 5, "max": 100}, None),
    (8, {"max": 100}, {"delta": 5, "max": 10}, None),
    (8, {"max": 100}, {"delta": 5, "max": 10, "on_bound": "clamp"}, 10),
    (8, {}, {"delta": 2, "max": 10}, 10),
    (20, {}, {"delta": -1, "max": 10}, 19),
    (20, {}, {"delta": 1, "max": 10}, None),
    (20, {}, {"delta": 1, "max": 10, "on_bound": "clamp"}, 20),
    (20, {}, {"delta": 0, "max": 10}, 20),
    (20, {}, {"delta": -100, "min": 0, "max": 10, "on_bound": "clamp"}, 0),
    (-20, {}, {"delta": 1, "min": -10}, -19),
    (-20, {}, {"delta": -1, "min": -10}, None),
    (-20, {}, {"delta": -1, "min": -10, "on_bound": "clamp"}, -20),
    (None, {}, {"delta": 1, "max": 1}, 1),
    (None, {}, {"delta": 2, "max": 1}, None),
    (None, {}, {"delta": 2, "max": 1, "on_bound": "clamp"}, 1),
    (None, {}, {"delta": -2, "min": -1}, None),
    (None, {}, {"delta": 1, "min": 5}, 1),
    (HIGH - 1, {}, {"delta": 9, "on_bound": "clamp"}, HIGH),
    (LOW + 1, {}, {"delta": -9, "on_bound": "clamp"}, LOW),
    (HIGH - 1, {"max": HIGH}, {"delta": 1}, HIGH),
    (LOW + 1, {"min": LOW}, {"delta": -1}, LOW),
]


@pytest.mark.parametrize(("value", "settings", "step", "expected"), STEPS)
def test_bounds_stop_what_leads_out_and_never_what_leads_in(do, value, settings, step, expected):
    there = None if value is None else do(Set("a", value, **settings))
    if expected is None:
        with pytest.raises(OutOfBounds) as caught:
            do(Increment("a", **step))
        if value is None:
            assert caught.value.current is None
            with pytest.raises(NotFound):
                do(Get("a"))
        else:
            assert caught.value.current == do(Get("a"))
            assert do(Get("a")).version == there.version
        return
    change = do(Increment("a", **step))
    assert (change.value, change.delta) == (expected, expected - (value or 0))
    entry = do(Get("a"))
    assert (entry.min, entry.max, entry.on_bound) == tuple(map(settings.get, ("min", "max", "on_bound")))


def test_a_rate_limit_in_one_call(counters):
    took = [counters.increment("ip:1.2.3.4", max=3, ttl=60) for _ in range(3)]
    assert took == [1, 2, 3]
    for _ in range(3):
        with pytest.raises(OutOfBounds):
            counters.increment("ip:1.2.3.4", max=3, ttl=60)
    assert counters["ip:1.2.3.4"] == 3


# -- set


def test_a_set_keeps_what_is_left_out_clears_what_is_null_and_sets_the_rest(do):
    do(Set("a", 5, min=0, max=9, on_bound="clamp", ttl=60, ttl_mode="sliding"))

    def settings():
        entry = do(Get("a"))
        return entry.value, entry.min, entry.max, entry.on_bound, entry.ttl, entry.ttl_mode

    do(Set("a"))
    assert settings() == (5, 0, 9, "clamp", 60, "sliding")
    do(Set("a", 7))
    assert settings() == (7, 0, 9, "clamp", 60, "sliding")
    do(Set("a", min=None, max=8))
    assert settings() == (7, None, 8, "clamp", 60, "sliding")
    do(Set("a", on_bound=None, ttl_mode="fixed"))
    assert settings() == (7, None, 8, None, 60, "fixed")
    do(Set("a", max=None, ttl=None))
    assert settings() == (7, None, None, None, None, None)
    assert do(Get("a")).expires_at is None


def test_a_set_without_a_value_needs_a_counter(do):
    with pytest.raises(NotFound):
        do(Set("a", max=5))
    change = do(Set("a", 0))
    assert (change.created, change.previous, change.delta) == (True, 0, 0)


def test_a_set_tells_what_was_before(do):
    do(Set("a", 5))
    change = do(Set("a", 2))
    assert (change.previous, change.value, change.delta, change.created) == (5, 2, -3, False)


def test_a_set_further_than_64_bits_tells_no_delta(do):
    do(Set("a", LOW))
    change = do(Set("a", HIGH))
    assert (change.previous, change.value, change.delta) == (LOW, HIGH, None)


@pytest.mark.parametrize(
    ("before", "op", "refused"),
    [
        (Set("a", 5, min=0, max=9), Set("a", 10), OutOfBounds),
        (Set("a", 5, min=0, max=9), Set("a", -1), OutOfBounds),
        (Set("a", 5), Set("a", max=4), OutOfBounds),
        (Set("a", 5), Set("a", min=6), OutOfBounds),
        (Set("a", 5, max=9), Set("a", min=10), InvalidRequest),
        (Set("a", 5), Set("a", ttl_mode="sliding"), InvalidRequest),
        (Set("a", 5), Set("a", 6, ttl_mode="sliding"), InvalidRequest),
    ],
)
def test_a_refused_set_changes_nothing(do, before, op, refused):
    do(before)
    entry = do(Get("a"))
    with pytest.raises(refused) as caught:
        do(op)
    assert do(Get("a")) == entry
    assert caught.value.current == (entry if refused is OutOfBounds else None)


def test_a_set_is_held_by_the_bounds_it_brings(do):
    with pytest.raises(OutOfBounds):
        do(Set("a", 10, max=9))
    assert do(Set("a", 10, max=9, on_bound="clamp")).value == 9
    assert do(Set("a", 100)).value == 9
    assert do(Set("a", max=4)).value == 4


# -- get and delete


def test_get_of_what_is_not_there_is_not_found(do):
    with pytest.raises(NotFound) as caught:
        do(Get("a"))
    assert caught.value.current is None
    assert isinstance(caught.value, KeyError)


def test_delete_answers_the_entry_as_it_was(do):
    do(Set("a", 7, max=9))
    there = do(Get("a"))
    change = do(Delete("a"))
    assert Entry(*(getattr(change, field) for field in Entry.__struct_fields__)) == there
    assert (change.previous, change.delta, change.created) == (7, 0, False)
    for op in (Get("a"), Delete("a")):
        with pytest.raises(NotFound):
            do(op)
    again = do(Increment("a"))
    assert (again.value, again.max, again.created) == (1, None, True)


# -- versions


def test_versions_are_new_with_each_change_re_creation_included(do):
    told = []
    for _ in range(3):
        told += [
            do(op).version
            for op in (Increment("a", 0), Set("a", 0), Set("a"), Increment("b"), Increment("a"))
        ]
        do(Delete("a"))
    assert len({*told}) == len(told)
    assert all(type(version) is str and version for version in told)


def test_what_does_not_change_a_counter_leaves_its_version(do):
    version = do(Set("a", 1, max=1)).version
    for op in (Increment("a"), Set("a", 2), Delete("a", "no.such"), Increment("a", if_version="absent")):
        with pytest.raises(CounterError):
            do(op)
    do(Increment("b"))
    do(List())
    assert do(Get("a")).version == version


WRITES = {
    "increment": lambda name, **fields: Increment(name, **fields),
    "set": lambda name, **fields: Set(name, 9, **fields),
    "delete": Delete,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_condition_that_holds_lets_a_write_through(do, write):
    version = do(Set("a", 1)).version
    assert do(Get("a")).version == version
    do(write("a", if_version=version))
    do(Set("a", 1))
    do(write("a", if_version="present"))
    if write is not Delete:
        assert do(write("b", if_version="absent")).created


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_condition_that_does_not_hold_tells_what_is_there(do, write):
    old = do(Set("a", 1)).version
    do(Increment("a"))
    entry = do(Get("a"))
    for if_version in (old, "absent", "no.such"):
        with pytest.raises(VersionMismatch) as caught:
            do(write("a", if_version=if_version))
        assert caught.value.current == entry
    for if_version in (old, "present"):
        with pytest.raises(VersionMismatch) as caught:
            do(write("b", if_version=if_version))
        assert caught.value.current is None
    assert do(Get("a")) == entry
    assert do(Info()).counters == 1


def test_a_version_from_before_a_re_creation_never_holds_again(do):
    version = do(Set("a", 1)).version
    do(Delete("a"))
    do(Set("a", 1))
    with pytest.raises(VersionMismatch):
        do(Set("a", 2, if_version=version))


# -- requests of several ops


def test_the_ops_of_a_request_take_effect_in_order_and_at_once(batch):
    told = batch(Increment("a"), Increment("a"), Get("a"), Delete("a"), Increment("a", 9)).unwrap()
    assert [result.value for result in told] == [1, 2, 2, 2, 9]
    assert [type(result) for result in told] == [Change, Change, Entry, Change, Change]


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        (Get("none"), "not-found"),
        (Delete("none"), "not-found"),
        (Increment("full"), "out-of-bounds"),
        (Set("full", 5), "out-of-bounds"),
        (Increment("a", if_version="absent"), "version-mismatch"),
    ],
)
def test_an_atomic_request_is_all_or_nothing_and_names_the_first_failure(do, batch, failing, code):
    do(Set("full", 1, max=1))
    before = do(List()).counters
    reply = batch(Increment("a"), Delete("full"), Set("full", 1, max=1), failing, Delete("none"))
    assert reply.results == []
    assert (reply.problem.code, reply.problem.op_index) == (code, 3)
    with pytest.raises(CounterError) as caught:
        reply.unwrap()
    assert (caught.value.code, caught.value.index) == (code, 3)
    assert do(List()).counters == before


def test_otherwise_each_op_stands_for_itself(do, batch):
    full = do(Set("full", 1, max=1))
    reply = batch(Increment("a"), Get("none"), Increment("full"), Increment("a"), atomic=False)
    assert reply.problem is None
    first, missing, over, last = reply.results
    assert (first.value, last.value) == (1, 2)
    assert [type(problem) for problem in (missing, over)] == [Problem, Problem]
    assert [missing.code, over.code] == ["not-found", "out-of-bounds"]
    assert over.current.version == full.version
    assert do(Get("a")).value == 2


def test_10000_ops_are_one_request(do, batch):
    told = batch(*(Increment("a") for _ in range(10_000))).unwrap()
    assert [change.value for change in told] == [*range(1, 10_001)]
    with pytest.raises(InvalidRequest):
        batch(*(Increment("a") for _ in range(10_001)))
    assert do(Get("a")).value == 10_000


# -- names

NAMES = [
    "a",
    " ",
    "/about",
    "New York",
    "shop:cart",
    "..",
    "a/increment",
    "%2F",
    "?x=1&y#z",
    "x" * 250,
    "é" * 125,
    "\u202eمرحبا",
    "👩‍👩‍👧‍👦",
    "a\u00a0b\u2028c",
    "\U0010ffff",
    '"{}\\',
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_kept_to_the_byte(do, counters, name):
    counters.increment(name, 5)
    assert do(Get(name)).name == name
    assert [*counters] == [name]
    assert do(List(prefix=name)).counters[0].name == name
    assert name in counters
    assert counters.delete(name) == 5


def test_names_that_look_alike_are_different(counters):
    alike = ["é", "e\u0301", "E\u0301", "a", "A", "a ", " a", "ａ"]
    for number, name in enumerate(alike):
        counters[name] = number
    assert {name: counters[name] for name in counters} == {name: number for number, name in enumerate(alike)}


@pytest.mark.parametrize(
    "name",
    ["", "x" * 251, "é" * 125 + "x", "a\x00", "a\nb", "\x7f", "\x85", "\ud800", 5, None, b"a"],
    ids=ascii,
)
def test_what_is_no_name_is_refused_before_it_is_sent(counters, name):
    for call in (
        counters.increment,
        counters.get,
        counters.delete,
        counters.__getitem__,
        counters.__delitem__,
    ):
        with pytest.raises(InvalidRequest):
            call(name)
    with pytest.raises(InvalidRequest):
        counters[name] = 1
    assert len(counters) == 0


@pytest.mark.parametrize("number", [True, 1.0, "1", HIGH + 1, LOW - 1, None])
def test_what_is_no_exact_number_is_refused(counters, number):
    calls = [
        lambda: counters.increment("a", number),
        lambda: counters.decrement("a", number),
        lambda: counters.set("a", number),
        lambda: counters.update({"a": number}),
        lambda: counters.__setitem__("a", number),
    ]
    if number is not None:
        calls += [lambda: counters.increment("a", max=number), lambda: counters.set("a", 1, min=number)]
    for call in calls:
        with pytest.raises(InvalidRequest):
            call()
    assert len(counters) == 0


# -- time to live, as far as it can be seen without waiting


def test_a_ttl_is_fixed_from_the_creation_or_slides_with_each_write(do):
    created = do(Increment("fixed", ttl=60))
    assert (created.ttl, created.ttl_mode, created.expires_at) == (
        60,
        "fixed",
        created.created_at + timedelta(0, 60),
    )
    assert do(Increment("fixed", ttl=900)).expires_at == created.expires_at
    assert do(Set("fixed", 9)).expires_at == created.expires_at
    created = do(Increment("sliding", ttl=60, ttl_mode="sliding"))
    assert do(Get("sliding")).expires_at == created.expires_at
    for op in (Increment("sliding"), Set("sliding", 5)):
        written = do(op)
        assert written.expires_at == written.updated_at + timedelta(seconds=60) > created.expires_at


def test_a_ttl_has_no_effect_on_a_counter_that_exists(do):
    do(Set("a", 1))
    assert do(Increment("a", ttl=60)).expires_at is None


def test_the_longest_ttl_is_kept(do):
    change = do(Set("a", 1, ttl=MAX_TTL))
    assert change.expires_at - change.updated_at == timedelta(seconds=MAX_TTL)


# -- listings


def listed(do, **fields):
    """The names of all pages."""
    found, cursor = [], None
    while True:
        page = do(List(**fields, cursor=cursor))
        assert type(page) is Page
        assert len(page.counters) <= fields.get("limit", 100)
        found += [entry.name for entry in page.counters]
        if page.next is None:
            return found
        assert page.counters
        assert page.next != cursor
        cursor = page.next


@pytest.fixture
def some(batch):
    """Names in order, by value and by time; ties go by name."""
    values = {"b/2": 5, "a": -1, "b/1": 5, "c": 100, "b": 7, "é": HIGH, "😀": LOW}
    for name, value in values.items():
        batch(Set(name, value)).unwrap()
    return {
        "name": ["a", "b", "b/1", "b/2", "c", "é", "😀"],
        "-value": ["é", "c", "b", "b/1", "b/2", "a", "😀"],
        "-updated": [*reversed(values)],
    }


@pytest.mark.parametrize("sort", ["name", "-value", "-updated"])
@pytest.mark.parametrize("limit", [1, 2, 6, 7, 1000])
def test_pages_of_any_size_give_everything_once_in_order(do, some, sort, limit):
    assert listed(do, sort=sort, limit=limit) == some[sort]
    under_b = [name for name in some[sort] if name.startswith("b")]
    assert listed(do, sort=sort, limit=limit, prefix="b") == under_b


def test_a_listing_tells_whole_entries(do):
    do(Set("a", 1, min=0, max=5, on_bound="clamp", ttl=60))
    do(Set("b", 2))
    assert do(List()).counters == [do(Get("a")), do(Get("b"))]
    assert do(List()).next is None
    assert do(List(prefix="c")) == Page([], None)


def test_a_page_has_100_counters_by_default(do, batch):
    batch(*(Set(f"{number:03}", number) for number in range(101))).unwrap()
    page = do(List())
    assert [entry.value for entry in page.counters] == [*range(100)]
    assert [entry.value for entry in do(List(cursor=page.next)).counters] == [100]


def test_paging_by_name_shows_once_what_is_there_all_along(do, batch):
    batch(*(Set(f"{number:02}", 1) for number in range(40))).unwrap()
    found, cursor = [], None
    for step in range(100):
        page = do(List(limit=7, cursor=cursor))
        found += [entry.name for entry in page.counters]
        batch(
            Delete(found[0]), Set(found[0] + "!", 1), Delete(page.counters[-1].name), Set(f"!{step}", 1)
        ).unwrap()
        batch(Set(found[0], 1), Delete(found[0] + "!"), Set(page.counters[-1].name, 1)).unwrap()
        if (cursor := page.next) is None:
            break
    assert found == [f"{number:02}" for number in range(40)]


def test_a_cursor_is_good_for_its_sort_alone_and_nothing_else_is_one(do, some):
    cursor = do(List(sort="name", limit=2)).next
    for op in (
        List(sort="-value", cursor=cursor),
        List(cursor="nonsense"),
        List(cursor=""),
        List(cursor=cursor[:-2]),
    ):
        with pytest.raises(InvalidRequest, match="cursor"):
            do(op)


# -- info


def test_info_tells_identity_limits_and_the_number_of_counters(do, batch):
    batch(*(Set(f"{number}", 1) for number in range(5))).unwrap()
    info = do(Info())
    assert info.counters == 5
    assert all(type(text) is str and text for text in (info.version, info.store, info.durability, info.run))
    assert info.limits.max_counters == 1_000_000
    assert info.limits.max_frame == 1024 * 1024
    assert (info.limits.max_name, info.limits.max_ops, info.limits.max_page) == (250, 10_000, 1000)
    assert do(Info()).run == info.run


def test_every_version_of_a_run_is_unlike_those_of_others(do):
    """Told apart by the run's id, which nobody else can have."""
    assert len(do(Info()).run) >= 8


def test_every_store_here_can_do_everything(store):
    assert store.capabilities >= {"list", "info"}


# -- limits


def test_when_full_creating_is_an_error_and_nothing_is_evicted(small_store):
    counters = SharedCounter(small_store)
    for name in "abc":
        counters[name] = 1
    for create in (
        lambda: counters.increment("d"),
        lambda: counters.set("d", 1),
        lambda: counters.update("abcd"),
    ):
        with pytest.raises(LimitExceeded):
            create()
    assert {name: counters[name] for name in counters} == {"a": 1, "b": 1, "c": 1}
    assert counters.increment("a") == 2
    del counters["b"]
    assert counters.increment("d") == 1
    assert small_store.execute(Request([Info()])).only().limits.max_counters == 3


# -- at the same time


def at_once(threads, work):
    """*work* in so many threads at once; an error in one is an error here."""
    together, errors = threading.Barrier(threads), []

    def run(number):
        try:
            together.wait(20)
            work(number)
        except BaseException as error:
            errors.append(error)
            raise

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not errors
    assert not any(thread.is_alive() for thread in running)


def test_n_threads_with_m_increments_each_are_told_1_to_n_x_m(counters):
    told = [[] for _ in range(8)]

    def work(number):
        for _ in range(50):
            told[number].append(counters.increment("a"))

    at_once(8, work)
    assert sorted(itertools.chain(*told)) == [*range(1, 401)]
    assert all(mine == sorted(mine) for mine in told)
    assert counters["a"] == 400


def test_adding_to_a_reading_loses_nothing(counters):
    def work(number):
        for _ in range(25):
            counters["a"] += 1
            counters["a"] -= 3

    at_once(4, work)
    assert counters["a"] == 4 * 25 * -2


def test_a_limited_counter_is_taken_by_exactly_so_many(counters):
    took = []

    def work(number):
        for _ in range(20):
            with contextlib.suppress(OutOfBounds):
                took.append(counters.increment("seats", max=50))

    at_once(4, work)
    assert sorted(took) == [*range(1, 51)]


def test_compare_and_set_lets_one_of_many_win(counters):
    version = counters.store.execute(Request([Set("a", 0)])).only().version
    won = []

    def work(number):
        with contextlib.suppress(VersionMismatch):
            counters.set("a", number, if_version=version)
            won.append(number)

    at_once(8, work)
    assert len(won) == 1
    assert counters["a"] == won[0]


def test_nobody_sees_half_of_an_atomic_request(counters):
    store, wrong, done = counters.store, [], threading.Event()
    store.execute(Request([Set("from", 100), Set("to", 0)])).unwrap()

    def work(number):
        if number:
            while not done.is_set():
                one, other = store.execute(Request([Get("from"), Get("to")])).unwrap()
                if one.value + other.value != 100:
                    wrong.append((one.value, other.value))
            return
        try:
            for _ in range(100):
                store.execute(Request([Increment("from", -1, min=0), Increment("to")])).unwrap()
        finally:
            done.set()

    at_once(3, work)
    assert not wrong
    assert (counters["from"], counters["to"]) == (0, 100)


# -- time, told by a clock of ours: the store of this process alone takes one


class Clock(Run):
    """A run whose time is what we say."""

    def __init__(self):
        super().__init__()
        self.at = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def now(self):
        return self.at

    def advance(self, seconds):
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timed(clock):
    return SharedCounter(MemoryStore(max_counters=3, run=clock))


def test_a_fixed_ttl_ends_when_it_was_told_to_whatever_is_written(timed, clock):
    timed.increment("a", ttl=10)
    clock.advance(9.999)
    assert timed.increment("a", 5) == 6
    assert "a" in timed
    clock.advance(0.001)
    assert "a" not in timed
    assert timed["a"] == 0


def test_a_sliding_ttl_ends_so_long_after_the_last_write_and_no_read_holds_it_up(timed, clock):
    timed.increment("a", ttl=10, ttl_mode="sliding")
    for _ in range(3):
        clock.advance(9)
        timed.increment("a")
    clock.advance(9)
    assert (timed["a"], timed.get("a"), timed.entry("a").value, "a" in timed, [*timed]) == (
        4,
        4,
        4,
        True,
        ["a"],
    )
    clock.advance(1)
    assert "a" not in timed


@pytest.mark.parametrize("start", [0, 0.25])
def test_an_expired_counter_is_gone_for_everyone_at_once(timed, clock, start):
    clock.advance(start)
    timed.set("a", 5, ttl=10, max=9)
    timed["b"] = 1
    clock.advance(10)
    assert (timed["a"], timed.get("a"), "a" in timed, len(timed), [*timed]) == (0, None, False, 1, ["b"])
    for call in (timed.entry, timed.delete, lambda name: timed.increment(name, if_version="present")):
        with pytest.raises((NotFound, VersionMismatch)) as caught:
            call("a")
        assert caught.value.current is None
    with pytest.raises(NotFound):
        timed.store.execute(Request([Set("a", max=3)])).only()
    assert timed.increment("a", 100, if_version="absent") == 100
    entry = timed.entry("a")
    assert (entry.max, entry.ttl, entry.created_at) == (None, None, clock.at)


def test_a_counter_that_expired_makes_room(timed, clock):
    for name, ttl in (("a", 10), ("b", 11), ("c", 12)):
        timed.set(name, 1, ttl=ttl)
    with pytest.raises(LimitExceeded):
        timed.increment("d")
    clock.advance(12)
    timed.update(["d", "e", "f"])
    assert [*timed] == ["d", "e", "f"]


def test_what_expired_does_not_stay_in_memory(timed, clock):
    timed.set("a", 1, ttl=10)
    clock.advance(10)
    timed.get("b")
    assert not timed.store._table.entries


def test_a_rate_limit_opens_again_with_the_next_window(timed, clock):
    for _ in range(2):
        assert [timed.increment("ip", max=2, ttl=60) for _ in range(2)] == [1, 2]
        with pytest.raises(OutOfBounds):
            timed.increment("ip", max=2, ttl=60)
        clock.advance(60)


def test_later_changes_are_never_told_an_earlier_time():
    class Slow(Run):
        ticking = itertools.count()

        def now(self):
            at = datetime(2030, 1, 1, 12, tzinfo=UTC) + timedelta(microseconds=next(self.ticking))
            time.sleep(0)  # let another thread run between asking the time and using it
            return at

    store, told = MemoryStore(run=Slow()), []

    def work(number):
        for _ in range(50):
            told.append(store.execute(Request([Increment("a")])).only())

    at_once(4, work)
    told.sort(key=lambda change: change.value)
    times = [change.updated_at for change in told]
    assert times == sorted(times)


# -- idempotency keys


def keyed(store, *ops, key="k", scope="", atomic=True):
    """The reply to *ops* under *key*."""
    return store.execute(Request(list(ops), atomic, idempotency_key=key, scope=scope))


@pytest.fixture
def key():
    """One that no other test used: the stores live as long as the module."""
    return f"key-{uuid.uuid4()}"


def test_the_same_key_gets_the_same_reply_marked_as_replayed(store, key):
    first = keyed(store, Increment("a"), key=key)
    store.execute(Request([Increment("a")])).only()
    second = keyed(store, Increment("a"), key=key)
    assert (first.replayed, second.replayed) == (False, True)
    assert second == replace(first, replayed=True)
    assert store.execute(Request([Get("a")])).only().value == 2


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (Increment("a", 100), OutOfBounds),
        (Set("a", 1, if_version="absent"), VersionMismatch),
        (Delete("none"), NotFound),
        (Get("none"), NotFound),
    ],
)
def test_a_refusal_is_kept_under_its_key_with_all_its_data(store, key, op, error):
    store.execute(Request([Set("a", 5, max=9)])).only()
    first = keyed(store, op, key=key)
    store.execute(Request([Delete("a"), Set("none", 1)])).unwrap()
    second = keyed(store, op, key=key)
    assert type(second.problem.error()) is error
    assert second == replace(first, replayed=True)


def test_a_batch_is_kept_under_its_key_as_it_came_out(store, key):
    ops = [Increment("a"), Get("a"), Get("none"), Set("b", 2)]
    first = keyed(store, *ops, key=key, atomic=False)
    assert [type(result) for result in first.results] == [Change, Entry, Problem, Change]
    assert keyed(store, *ops, key=key, atomic=False) == replace(first, replayed=True)
    assert keyed(store, *ops, key=key).problem.code == "key-reused"
    assert store.execute(Request([Get("a")])).only().value == 1


def test_a_key_belongs_to_its_ops_and_to_its_scope(store, key):
    keyed(store, Increment("a"), key=key).only()
    with pytest.raises(KeyReused):
        keyed(store, Increment("a", 2), key=key).only()
    assert keyed(store, Increment("a"), key=key + "x").only().value == 2
    assert keyed(store, Increment("a"), key=key, scope="shop").only().value == 3
    assert keyed(store, Increment("a"), key=key).only().value == 1


def test_many_who_use_one_key_at_once_are_one(store, key):
    told, together = [], threading.Barrier(8)

    def work():
        together.wait()
        told.append(keyed(store, Increment("a"), key=key))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.only().value for reply in told] == [1] * 8
    assert sorted(reply.replayed for reply in told) == [False] + [True] * 7


def test_when_full_a_refusal_is_kept_under_its_key(small_store):
    small_store.execute(Request([Set(name, 1) for name in "abc"])).unwrap()
    assert keyed(small_store, Set("d", 1)).problem.code == "limit-exceeded"
    small_store.execute(Request([Delete("a")])).only()
    assert keyed(small_store, Set("d", 1)).problem.code == "limit-exceeded"
    assert keyed(small_store, Set("d", 1), key="another").only().created
