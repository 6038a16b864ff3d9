"""Sorted names agree with a sorted list, whatever is added and removed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counter import names
from counter.names import SortedNames

few_names = st.text("ab/é😀", min_size=1, max_size=4)


@pytest.fixture(autouse=True, scope="module")
def short_chunks():
    """Chunks are split and emptied often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "_CHUNK", 3)
        yield


def everything(sorted_names):
    return list(sorted_names.after("", inclusive=True))


@pytest.mark.slow
@given(st.lists(st.tuples(st.booleans(), few_names), max_size=60), few_names)
def test_it_agrees_with_a_sorted_list_after_any_steps(steps, place):
    real, model = SortedNames(), set()
    for add, name in steps:
        if add and name not in model:
            real.add(name)
            model.add(name)
        elif not add and name in model:
            real.remove(name)
            model.remove(name)
    assert everything(real) == sorted(model)
    assert list(real.after(place)) == sorted(name for name in model if name > place)
    assert list(real.after(place, inclusive=True)) == sorted(name for name in model if name >= place)


@pytest.mark.parametrize("order", ["up", "down", "mixed"])
def test_many_names_come_and_go_in_any_order(order):
    wanted = [f"{number:04}" for number in range(500)]
    coming = {"up": wanted, "down": wanted[::-1], "mixed": random.Random(5).sample(wanted, len(wanted))}[
        order
    ]
    real = SortedNames()
    for name in coming:
        real.add(name)
    assert everything(real) == wanted
    for place in range(0, 500, 7):
        assert next(real.after(wanted[place], inclusive=True)) == wanted[place]
        assert list(real.after(wanted[place])) == wanted[place + 1 :]
    for count, name in enumerate(coming, 1):
        real.remove(name)
        if count % 50 == 0:
            assert everything(real) == sorted(coming[count:])
    assert everything(real) == []
    real.add("again")
    assert everything(real) == ["again"]


@given(st.sets(few_names), few_names)
def test_made_of_names_it_is_as_if_they_had_been_added(wanted, name):
    real = SortedNames(wanted)
    assert everything(real) == sorted(wanted)
    if name not in wanted:
        real.add(name)
    for other in wanted:
        real.remove(other)
    assert everything(real) == ([] if name in wanted else [name])


def test_no_chunk_grows_without_end():
    real = SortedNames()
    for number in range(200):
        real.add(f"{number:04}")
    assert max(map(len, real._chunks)) <= 6
