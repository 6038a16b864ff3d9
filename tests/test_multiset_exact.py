"""What SharedCounter does in one step is one for everybody: processes at once, and what they are told."""

import multiprocessing

import pytest
from support import wait_until

from counter import Get, Request, connect

pytestmark = pytest.mark.process


def begin_together(work, counters, gate, parties, number):
    gate.increment("here")
    wait_until(lambda: gate["here"] == parties)
    return work(counters, number)


def in_processes(manager, *works):
    """The counters, none at first, and what each of *works* gave with them: at once, a process for each."""
    counters, gate = (connect(f"counter://{manager.home}?prefix={part}:") for part in ("play", "gate"))
    counters.clear()
    gate.clear()
    with multiprocessing.get_context("spawn").Pool(len(works)) as pool:
        calls = [(work, counters, gate, len(works), number) for number, work in enumerate(works)]
        running = [pool.apply_async(begin_together, call) for call in calls]
        return counters, [one.get(60) for one in running]


def set_defaults(counters, number):
    """Those of its own values that it was told: with each it has created the counter, as it gave it once."""
    values = range(number * 10_000, number * 10_000 + 1000)
    return [value for value in values if counters.setdefault("x", value) == value]


def pop_them(counters, _number):
    popped = (counters.pop("x", None) for _ in range(1000))
    return [value for value in popped if value is not None]


def add(counters, _number):
    return [counters.increment("x") for _ in range(1000)]


def take(counters, _number):
    return [counters.pop("x", 0) for _ in range(1000)]


def add_both(counters, _number):
    for _ in range(1000):
        counters.update(a=1, b=1)


def clear(counters, _number):
    for _ in range(500):
        counters.clear()


def look(counters, _number):
    """Both values, each time they were looked at, None for a missing one."""
    request = Request([Get("a"), Get("b")], atomic=False)
    looks = (counters.store.execute(request).results for _ in range(1000))
    return [tuple(getattr(result, "value", None) for result in both) for both in looks]


def test_of_all_who_set_a_default_one_does_and_knows_it(manager):
    counters, (first, popped, second, also_popped) = in_processes(manager, *[set_defaults, pop_them] * 2)
    assert sorted(first + second) == sorted([*popped, *also_popped, *counters.values()])
    assert first and second, "they did not run at once"


def test_what_one_pops_nobody_else_does(manager):
    counters, (first, taken, second, also_taken) = in_processes(manager, add, take, add, take)
    assert sum(taken) + sum(also_taken) + counters.pop("x", 0) == 2000
    assert max(*first, *second) < 2000, "nothing was popped while they added"


def test_clear_and_update_are_each_at_one_instant(manager):
    _, (_, _, seen, _) = in_processes(manager, add_both, clear, look, clear)
    assert [both for both in seen if both[0] != both[1]] == []
    assert len({*seen}) > 1, "they did not run at once"
