"""The `collections.Counter` face of every store: what a user of Counter expects, and where it is more."""

import collections
import copy
import json
import pickle
import uuid
from enum import IntEnum

import pytest
from msgspec import UNSET

from counter import (
    Increment,
    InvalidRequest,
    KeyReused,
    List,
    NotFound,
    OutOfBounds,
    Reply,
    Request,
    Set,
    SharedCounter,
    Store,
    StoreUnavailable,
    VersionMismatch,
    connect,
)
from counter.reading import Reading
from counter.stores.memory import MemoryStore


class Recorder(Store):
    """A store that remembers what it was asked, and with which timeout."""

    def __init__(self, store):
        self.store, self.asked, self.timeouts = store, [], []

    def execute(self, request, timeout=None):
        self.asked.append(request.ops)
        self.timeouts.append(timeout)
        return self.store.execute(request, timeout)

    def close(self):
        self.store.close()


@pytest.fixture
def recorder(store):
    return Recorder(store)


@pytest.fixture
def recorded(recorder):
    return SharedCounter(recorder)


# -- what each call gives


def test_increment_decrement_and_set_give_the_new_value(counters):
    assert counters.increment("a") == 1
    assert counters.increment("a", 5) == 6
    assert counters.decrement("a") == 5
    assert counters.decrement("a", 7) == -2
    assert counters.decrement("a", -3) == 1
    assert counters.set("a", 100) == 100
    assert type(counters.increment("a")) is int


def test_delete_gives_the_last_value(counters):
    counters["a"] = 7
    assert counters.delete("a") == 7
    with pytest.raises(NotFound):
        counters.delete("a")
    with pytest.raises(KeyError):
        counters.delete("a")


def test_get_gives_the_value_or_the_default(counters):
    assert counters.get("a") is None
    assert counters.get("a", 9) == 9
    counters["a"] = 0
    assert counters.get("a", 9) == 0


def test_entry_gives_everything(counters):
    with pytest.raises(NotFound):
        counters.entry("a")
    counters.set("a", 5, min=0, max=9, on_bound="clamp", ttl=60, ttl_mode="sliding")
    entry = counters.entry("a")
    assert (entry.value, entry.min, entry.max, entry.on_bound) == (5, 0, 9, "clamp")
    assert (entry.ttl, entry.ttl_mode) == (60, "sliding")


def test_every_option_of_an_increment_arrives(recorded, recorder):
    recorded.increment(
        "a", 3, min=0, max=9, on_bound="clamp", ttl=60, ttl_mode="sliding", if_version="absent"
    )
    recorded.decrement(
        "a", 2, min=0, max=9, on_bound="clamp", ttl=60, ttl_mode="sliding", if_version="present"
    )
    assert recorder.asked == [
        [Increment("a", 3, 0, 9, "clamp", 60, "sliding", "absent")],
        [Increment("a", -2, 0, 9, "clamp", 60, "sliding", "present")],
    ]


def test_a_setting_left_out_of_a_set_is_kept_and_none_clears_it(recorded, recorder):
    recorded.set("a", 3, max=9)
    recorded.set("a", 4, max=None, if_version="present")
    (first,), (second,) = recorder.asked
    assert (first.value, first.min, first.max, first.if_version) == (3, UNSET, 9, None)
    assert (second.max, second.if_version) == (None, "present")
    with pytest.raises(TypeError):
        recorded.set("a", 5, colour="red")


def test_conditions_are_checked(counters):
    counters.increment("a", if_version="absent")
    version = counters.entry("a").version
    counters.set("a", 5, if_version=version)
    for call in (
        counters.increment,
        counters.delete,
        lambda name, if_version: counters.set(name, 1, if_version=if_version),
    ):
        with pytest.raises(VersionMismatch) as caught:
            call("a", if_version=version)
        assert caught.value.current == counters.entry("a")


def test_each_call_passes_its_timeout_on(recorded, recorder):
    recorded.increment("a", timeout=1.0)
    recorded.decrement("a", timeout=2.0)
    recorded.get("a", timeout=3.0)
    recorded.entry("a", timeout=4.0)
    recorded.set("a", 1, timeout=5.0)
    recorded.update("ab", timeout=6.0)
    recorded.delete("a", timeout=7.0)
    assert recorder.timeouts == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    recorded.increment("a")
    assert recorder.timeouts[-1] is None


# -- as in collections.Counter


def test_a_missing_counter_reads_0_and_is_not_created(counters):
    assert counters["a"] == 0
    assert "a" not in counters
    assert len(counters) == 0
    assert [*counters] == []


def test_deleting_a_missing_counter_is_silent(counters):
    del counters["a"]
    counters["a"] = 1
    del counters["a"]
    del counters["a"]
    assert "a" not in counters


def test_a_counter_at_0_is_there(counters):
    counters["a"] = 0
    assert "a" in counters
    assert len(counters) == 1


@pytest.mark.parametrize("name", [5, None, b"a", ("a",)])
def test_what_is_no_name_is_not_in_it(counters, name):
    assert name not in counters


def test_names_come_in_order_and_all_of_them(counters):
    names = [f"{number:04}" for number in range(2001)]
    counters.update(names)
    assert [*counters] == names
    assert len(counters) == 2001


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("abac",), {}),
        ((["a", "b", "a"],), {}),
        ((iter("aab"),), {}),
        (({"a": 5, "b": -2, "c": 0},), {}),
        ((collections.Counter("aab"),), {}),
        (((name for name in "ab"),), {"a": 3}),
        (({"a": 1},), {"a": 2, "b": 3}),
        ((), {"a": 1}),
        ((), {"names": 2, "self": 3}),
    ],
)
def test_update_adds_as_collections_counter_does(counters, args, kwargs):
    before = {"a": 10, "z": 1}
    args = [[*arg] if not isinstance(arg, dict | str) else arg for arg in args]
    wanted = collections.Counter(before)
    wanted.update(*args, **kwargs)
    for name, value in before.items():
        counters[name] = value
    counters.update(*args, **kwargs)
    assert {name: counters[name] for name in counters} == wanted


def test_update_is_one_request_and_nothing_is_none(recorded, recorder):
    recorded.update(["a", "b", "a"])
    assert recorder.asked == [[Increment("a", 2), Increment("b", 1)]]
    recorded.update([])
    recorded.update({})
    recorded.update()
    assert len(recorder.asked) == 1


@pytest.mark.parametrize(
    ("bad", "refused"),
    [
        ({"a": 1, "b": 1, "full": 1}, OutOfBounds),
        ({"a": 1, "b": 1.0}, InvalidRequest),
        ({"a": 1, "b": True}, InvalidRequest),
        ({"a": 1, "": 1}, InvalidRequest),
        (["a", 5], InvalidRequest),
        ({f"{number}": 1 for number in range(10_001)}, InvalidRequest),
    ],
    ids=["bounds", "float", "bool", "empty name", "no name", "too many"],
)
def test_an_update_that_is_refused_adds_nothing(counters, bad, refused):
    counters.set("full", 1, max=1)
    with pytest.raises(refused):
        counters.update(bad)
    assert {name: counters[name] for name in counters} == {"full": 1}


# -- readings: += loses nothing


def test_adding_to_a_counter_in_place_sends_the_delta_once(recorded, recorder):
    recorded["a"] = 5
    recorded["a"] += 2
    recorded["a"] -= 4
    writes = [op for ops in recorder.asked for op in ops if op.mutates]
    assert writes == [Set("a", 5), Increment("a", 2), Increment("a", -4)]


def test_what_others_added_in_between_is_not_lost(counters):
    reading = counters["a"]
    counters.increment("a", 100)
    reading += 1
    counters["a"] = reading
    assert counters["a"] == 101


def test_several_additions_are_one_delta(counters):
    reading = counters["a"]
    counters["a"] = 10
    reading += 5
    reading -= 2
    reading += counters["a"]
    counters["a"] = reading
    assert counters["a"] == 10 + 5 - 2 + 10


def test_a_delta_is_sent_once(counters):
    reading = counters["a"]
    reading += 1
    counters["a"] = reading
    counters["a"] += 10
    counters["a"] = reading
    assert counters["a"] == 1


def test_assigned_elsewhere_it_is_a_plain_number(counters):
    counters["a"], counters["b"] = 5, 100
    reading = counters["a"]
    reading += 1
    counters["b"] = reading
    assert counters["b"] == 6
    assert counters["a"] == 5


def test_a_delta_that_was_not_applied_is_sent_again_when_it_is_assigned_again(monkeypatch):
    counters = SharedCounter(MemoryStore())
    reading = counters["a"]
    reading += 2

    def unavailable(request, timeout=None):
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
        patch.setattr(counters.store, "execute", unavailable)
        counters["a"] = reading
    counters.increment("a", 10)
    counters["a"] = reading
    assert counters["a"] == 12


def test_a_delta_that_was_refused_is_sent_again_when_it_is_assigned_again(counters):
    counters.set("a", 1, max=1)
    reading = counters["a"]
    reading += 1
    with pytest.raises(OutOfBounds):
        counters["a"] = reading
    counters.set("a", 1, max=None)
    counters.increment("a", 10)
    counters["a"] = reading
    assert counters["a"] == 12


def test_assigned_to_another_store_it_is_a_plain_number(counters):
    other = SharedCounter(MemoryStore())
    other["a"], counters["a"] = 100, 5
    reading = counters["a"]
    reading += 1
    other["a"] = reading
    assert other["a"] == 6


def test_a_reading_that_nothing_was_added_to_is_a_plain_number(counters):
    counters["a"] = 5
    reading = counters["a"]
    counters.increment("a")
    counters["a"] = reading
    assert counters["a"] == 5


def test_adding_nothing_is_still_adding(counters):
    counters["a"] = 5
    reading = counters["a"]
    reading += 0
    counters.increment("a")
    counters["a"] = reading
    assert counters["a"] == 6


def test_arithmetic_on_a_reading_gives_plain_numbers(counters):
    counters["a"] = 7
    reading = counters["a"]
    results = [reading + 1, 1 + reading, reading - 1, reading * 2, -reading, reading // 2, abs(reading)]
    assert results == [8, 8, 6, 14, -7, 3, 7]
    assert {type(result) for result in results} == {int}
    assert reading / 2 == 3.5
    reading *= 2
    assert type(reading) is int
    counters["a"] = reading
    assert counters["a"] == 14


def test_the_name_that_was_added_to_is_not_changed_under_others(counters):
    first = second = counters["a"]
    first += 1
    assert (first, second) == (1, 0)
    counters["a"] = second
    assert counters["a"] == 0


class Size(IntEnum):
    LARGE = 3


@pytest.mark.parametrize("delta", [True, Size.LARGE], ids=repr)
def test_whatever_is_an_int_is_added_and_not_set(counters, delta):
    counters["a"] = 5
    counters["a"] += delta
    counters.increment("a", 10)
    assert counters["a"] == 15 + int(delta)
    reading = counters["a"]
    counters.increment("a", 100)
    reading -= delta
    counters["a"] = reading
    assert counters["a"] == 115


@pytest.mark.parametrize("delta", [1.0, "1", None], ids=repr)
def test_what_is_no_int_is_not_added(counters, delta):
    counters["a"] = 5
    with pytest.raises((TypeError, InvalidRequest)):
        counters["a"] += delta
    with pytest.raises((TypeError, InvalidRequest)):
        counters["a"] -= delta
    assert counters["a"] == 5


def test_what_leads_out_of_bounds_is_refused_in_place_too(counters):
    counters.set("a", 5, max=5)
    with pytest.raises(OutOfBounds):
        counters["a"] += 1
    assert counters["a"] == 5


@pytest.mark.parametrize(
    "travel", [copy.copy, copy.deepcopy, *(lambda r, p=p: pickle.loads(pickle.dumps(r, p)) for p in range(6))]
)
def test_a_reading_travels_as_a_plain_int(counters, travel):
    counters["a"] = 5
    reading = counters["a"]
    reading += 1
    there = travel(reading)
    assert type(there) is int
    assert there == 6


def test_a_reading_is_a_number_for_everybody(counters):
    counters["a"] = 5
    reading = counters["a"]
    assert isinstance(reading, int)
    assert (str(reading), f"{reading:03}", json.dumps([reading])) == ("5", "005", "[5]")
    assert hash(reading) == hash(5)
    assert {5: "five"}[reading] == "five"
    assert [*range(10)][reading] == 5


def test_a_reading_is_taken_where_a_number_is(counters):
    counters["a"] = 5
    assert counters.increment("b", counters["a"]) == 5
    assert counters.decrement("b", counters["a"]) == 0
    assert counters.set("b", counters["a"]) == 5
    counters.update({"b": counters["a"]})
    assert counters["b"] == 10
    assert type(counters.set("b", counters["a"])) is int


# -- all of them


def test_all_counters_are_given_as_a_counter_gives_them(counters):
    model = collections.Counter({"ab": 3, "cd": -5, "e": 3, "f": 9})
    counters.update(model)
    assert list(counters.keys()) == sorted(model)
    assert list(counters.items()) == sorted(model.items())
    assert list(counters.values()) == [model[name] for name in sorted(model)]
    assert dict(counters) == collections.Counter(counters) == model
    assert counters.total() == model.total()
    assert counters.most_common() == model.most_common() == [("f", 9), ("ab", 3), ("e", 3), ("cd", -5)]
    for most in range(6):
        assert counters.most_common(most) == model.most_common(most)


def test_of_no_counters_there_is_nothing_to_give(counters):
    assert [*counters.keys(), *counters.values(), *counters.items()] == []
    assert (counters.most_common(), counters.most_common(3), counters.total()) == ([], [], 0)


def test_the_counts_of_other_counters_can_be_added(counters):
    counters.update({"a": 3, "b": 4})
    other = SharedCounter(MemoryStore())
    other.update(a=10)
    other.update(counters)
    assert list(other.items()) == [("a", 13), ("b", 4)]


def test_more_than_a_page_of_counters_is_given_and_a_few_cost_one_short_page(recorded, recorder):
    recorded.update({f"n{number:04}": number for number in range(2500)})
    recorder.asked.clear()
    assert recorded.most_common(2) == [("n2499", 2499), ("n2498", 2498)]
    assert recorder.asked == [[List(sort="-value", limit=2)]]
    assert recorded.total() == sum(range(2500))
    assert [value for _name, value in recorded.most_common(1001)] == [*range(2499, 1498, -1)]


# -- failures are never values


class Away(Store):
    def execute(self, request, timeout=None):
        raise StoreUnavailable("gone")

    def close(self):
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c["a"],
        lambda c: c.get("a", 5),
        lambda c: c.increment("a"),
        lambda c: c.update("a"),
        lambda c: "a" in c,
        lambda c: len(c),
        lambda c: list(c),
        lambda c: c.__delitem__("a"),
        lambda c: c.__setitem__("a", 1),
    ],
)
def test_no_failure_is_ever_a_value(call):
    with pytest.raises(StoreUnavailable):
        call(SharedCounter(Away()))


def test_connect_asks_for_nothing_yet(monkeypatch):
    monkeypatch.setattr(MemoryStore, "execute", lambda *args: pytest.fail("it was asked"))
    counters = connect("memory://connect-asks-for-nothing")
    assert isinstance(counters, SharedCounter)
    assert isinstance(counters.store, MemoryStore)


def test_a_reading_knows_its_counter_until_its_delta_is_taken(counters):
    reading = Reading.of(5, counters, "a", 2)
    assert reading.take_delta(counters, "b") is None
    assert reading.take_delta(SharedCounter(counters.store), "a") is None
    assert reading.take_delta(counters, "a") == 2
    assert reading.take_delta(counters, "a") is None
    assert Reply([reading]).unwrap() == [5]
    assert counters.store.execute(Request([Increment("a", int(reading))])).only().value == 5


# -- idempotency keys


@pytest.fixture
def key():
    """One that no other test used."""
    return f"key-{uuid.uuid4()}"


CHANGES = {
    "increment": (lambda counters, key: counters.increment("a", 2, idempotency_key=key), 7),
    "decrement": (lambda counters, key: counters.decrement("a", 2, idempotency_key=key), 3),
    "set": (lambda counters, key: counters.set("a", 9, idempotency_key=key), 9),
    "delete": (lambda counters, key: counters.delete("a", idempotency_key=key), 5),
    "update": (lambda counters, key: counters.update(["a", "b"], idempotency_key=key), None),
}


@pytest.mark.parametrize(("change", "told"), CHANGES.values(), ids=list(CHANGES))
def test_each_change_is_made_once_under_its_key(counters, key, change, told):
    counters.set("a", 5)
    assert change(counters, key) == told
    after = dict(counters)
    for _ in range(2):
        assert change(counters, key) == told
    assert dict(counters) == after
    with pytest.raises(KeyReused):
        counters.increment("a", 1000, idempotency_key=key)
    assert dict(counters) == after


def test_a_refusal_is_raised_again_under_its_key(counters, key):
    for _ in range(2):
        with pytest.raises(NotFound):
            counters.delete("a", idempotency_key=key)
        counters.set("a", 1)


def test_an_update_of_nothing_uses_no_key(recorded, recorder):
    recorded.update([], idempotency_key="k")
    assert recorder.asked == []


@pytest.mark.parametrize("wrong", ["", "two words", "ü", 5])
def test_what_is_no_key_is_refused_before_it_is_sent(recorded, recorder, wrong):
    with pytest.raises(InvalidRequest):
        recorded.increment("a", idempotency_key=wrong)
    assert recorder.asked == []
