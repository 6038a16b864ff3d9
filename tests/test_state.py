"""A state is what its outcomes add up to: assigned, never decided."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from counter.results import Entry
from counter.state import OUTCOME_ENTRIES, Caller, Keyed, Outcome, State

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def entry(name, value=1, seconds=0, **fields):
    return Entry(name, value, "run.1", NOW, at(seconds), **fields)


def everything(state):
    return state.entries, state.callers, list(state.keys.items()), state.at


def added(outcomes):
    state = State()
    for outcome in outcomes:
        state.assign(outcome)
    return state


def test_entries_are_put_replaced_and_taken_away():
    state = added(
        [Outcome(NOW, {"a": entry("a"), "b": entry("b")}), Outcome(NOW, {"a": entry("a", 5), "b": None})]
    )
    assert state.entries == {"a": entry("a", 5)}
    state.assign(Outcome(NOW, {"b": None}))
    assert state.entries == {"a": entry("a", 5)} and not state.callers and not state.keys


def test_the_latest_time_is_kept():
    state = State()
    assert state.at is None
    for seconds, latest in ((5, 5), (3, 5), (7, 7)):
        state.assign(Outcome(at(seconds), {}))
        assert state.at == at(latest)


def test_who_asked_is_remembered_with_what_was_told():
    state = added([Outcome(NOW, {}, b"reply", b"anna", 7, 9.5), Outcome(NOW, {}, b"other", b"bert", 1, 2.5)])
    assert state.callers == {b"anna": Caller(7, 9.5, b"reply"), b"bert": Caller(1, 2.5, b"other")}
    state.assign(Outcome(NOW, {}, b"newer", b"anna", 8, 10.5))
    assert state.callers[b"anna"] == Caller(8, 10.5, b"newer")
    assert not state.keys


def test_a_key_is_remembered_in_the_order_of_times():
    state = added(Outcome(at(n), {}, b"reply", key=key, digest=b"d") for n, key in enumerate(("k", "l", "m")))
    assert list(state.keys) == ["k", "l", "m"]
    state.assign(Outcome(at(5), {}, b"again", key="k", digest=b"e"))
    assert list(state.keys) == ["l", "m", "k"] and state.keys["k"] == Keyed(b"e", at(5), b"again")
    assert not state.callers


def test_an_outcome_that_nobody_was_told_is_remembered_for_nobody():
    state = added([Outcome(NOW, {"a": entry("a")}, None, b"anna", 1, 9.0, "k", b"d")])
    assert not state.callers and not state.keys and state.entries


outcomes = st.builds(
    Outcome,
    at=st.integers(0, 100).map(at),
    changed=st.dictionaries(
        st.sampled_from("abc"), st.none() | st.builds(entry, st.sampled_from("abc"), st.integers(-9, 9))
    ),
    reply=st.none() | st.binary(max_size=3),
    caller=st.none() | st.sampled_from([b"anna", b"bert"]),
    seq=st.integers(0, 9),
    deadline=st.floats(0, 99),
    key=st.none() | st.sampled_from("klm"),
    digest=st.binary(max_size=2),
)


@given(st.lists(outcomes))
def test_a_state_is_made_again_from_its_outcomes_and_twice_is_as_good_as_once(history):
    state = added(history)
    again = added(state.outcomes())
    assert everything(again) == everything(state)
    for outcome in list(state.outcomes()):
        again.assign(outcome)
    assert everything(again) == everything(state)


@given(outcomes)
def test_an_outcome_is_the_same_after_msgpack(outcome):
    data = msgspec.msgpack.encode(outcome)
    assert msgspec.msgpack.decode(data, type=Outcome[bytes]) == outcome


def test_an_empty_state_has_no_outcomes():
    assert list(State().outcomes()) == []


def test_a_state_comes_in_outcomes_of_a_bounded_size():
    names = [f"n{number}" for number in range(2 * OUTCOME_ENTRIES + 1)]
    state = added([Outcome(NOW, {name: entry(name) for name in names})])
    sizes = [len(outcome.changed) for outcome in state.outcomes()]
    assert [size for size in sizes if size] == [OUTCOME_ENTRIES, OUTCOME_ENTRIES, 1]
    assert everything(added(state.outcomes())) == everything(state)


def test_a_state_of_keys_and_callers_alone_has_its_time_again():
    state = added([Outcome(at(3), {}, b"reply", b"anna", 1, 9.0, "k", b"d"), Outcome(at(8), {})])
    assert everything(added(state.outcomes())) == everything(state)
