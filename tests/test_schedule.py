"""A schedule tells what ends when; a dict and a scan over it would tell the same."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counter.schedule import Schedule

keys = st.integers(0, 7)
seconds = st.integers(-3, 12)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, seconds),
        st.tuples(st.just("drop"), keys),
        st.tuples(st.just("due"), seconds, st.integers(1, 4)),
    ),
    max_size=40,
)


@pytest.mark.slow
@given(steps)
def test_it_agrees_with_a_dict_after_any_steps(steps):
    schedule, model = Schedule(), {}
    for step in steps:
        match step:
            case "put", key, second:
                schedule.put(key, second)
                model[key] = second
            case "drop", key:
                schedule.drop(key)
                model.pop(key, None)
            case "due", second, most:
                due = list(schedule.due(second))
                assert sorted(due) == sorted(key for key, end in model.items() if end <= second)
                for key in due[:most]:
                    schedule.drop(key)
                    del model[key]
        assert len(schedule) == len(model)
        for second in range(-4, 14):
            assert {*schedule.at(second)} == {key for key, end in model.items() if end == second}
            assert schedule.count_due(second) == sum(end <= second for end in model.values())


def test_due_keys_stay_until_they_are_dropped():
    schedule = Schedule()
    schedule.put("a", 5)
    assert list(schedule.due(5)) == list(schedule.due(5)) == ["a"]
    assert list(schedule.due(4)) == []
    schedule.drop("a")
    assert list(schedule.due(5)) == []


def test_a_key_that_moves_often_leaves_nothing_behind():
    schedule = Schedule()
    for second in range(10_000):
        schedule.put("a", second)
    assert schedule.count_due(9_998) == 0
    assert list(schedule.due(9_998)) == []
    assert list(schedule.due(9_999)) == ["a"]


def test_moving_a_key_into_the_far_future_and_back_costs_no_memory():
    schedule = Schedule()
    schedule.put("a", 0)
    tracemalloc.start()
    try:
        for step in range(10_000):
            schedule.put("a", 10**9 - 1000 * step)
        kept, _most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 10_000
