"""Changes between the slices of an answer, and beyond what is remembered, are told once and in the end."""

from datetime import UTC, datetime

import pytest

from counter import Changes, Delete, Request, Set
from counter.changes import changes
from counter.history import History
from counter.table import CounterTable

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
MANY = 5000
"""More names than a slice looks at."""


def table_of(*names, most_gone=100_000):
    table = CounterTable("run", 10**6, size_of=lambda reply: 1)
    table.history = History(most_gone)
    do(table, *(Set(name, 1) for name in names))
    return table


def do(table, *ops):
    with table.turn(NOW) as turn:
        turn.execute(Request(list(ops)), 0.0, lambda reply: reply)
        turn.commit(lambda outcomes: None)


def finish(job):
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def ask(table, since=None, **options):
    return finish(changes(table, Changes(since, **options), NOW))


def others(first=0):
    return [f"x{number}" for number in range(first, first + MANY)]


def told(page):
    return {entry.name: entry.value for entry in page.counters}, page.gone


def newest(table):
    return table.versions.of(table.versions.newest)


def test_what_goes_during_the_first_answer_is_told():
    table = table_of("a", *others())
    job = changes(table, Changes(prefix="a"), NOW)
    next(job)
    do(table, Delete("a"))
    page = finish(job)
    assert (told(page), page.complete) == (({}, ["a"]), True)
    table = table_of("b", *others(), "a")
    first = ask(table, limit=1000)
    do(table, Delete("b"))
    gone, page = [], first
    while page.more:
        page = ask(table, page.version, limit=1000)
        gone += page.gone
    assert gone == ["b"]


def test_what_comes_again_between_two_slices_is_there():
    table = table_of("a")
    since = newest(table)
    do(table, Delete("a"))
    do(table, *(Set(name, 1) for name in others()))
    job = changes(table, Changes(since, prefix="a"), NOW)
    next(job)
    do(table, Set("a", 7))
    assert told(finish(job)) == ({"a": 7}, [])


def test_what_changes_between_two_slices_is_told_once():
    table = table_of("a", *others())
    job = changes(table, Changes(prefix="a"), NOW)
    next(job)
    do(table, Set("a", 7))
    assert [entry.value for entry in finish(job).counters] == [7]


def test_what_is_forgotten_between_two_slices_means_everything():
    table = table_of("a", *(f"d{number}" for number in range(9)), most_gone=5)
    since = newest(table)
    do(table, *(Set(name, 1) for name in others()))
    do(table, Delete("a"))
    job = changes(table, Changes(since, prefix="a"), NOW)
    next(job)
    do(table, *(Delete(f"d{number}") for number in range(6)))
    page = finish(job)
    assert (told(page), page.complete) == (({}, []), True)


@pytest.mark.parametrize("limit", [1, 100, 700])
def test_a_listing_of_everything_comes_to_its_end_however_much_is_forgotten(limit):
    table = table_of(*(f"live{number}" for number in range(1500)), most_gone=10)
    for number in range(20):
        do(table, Set(f"gone{number}", 1))
        do(table, Delete(f"gone{number}"))
    found, since, pages = {}, None, 0
    while True:
        page = ask(table, since, limit=limit)
        assert page.complete is (since is None)
        pages += 1
        found |= told(page)[0]
        assert page.gone == []
        since = page.version
        if not page.more:
            break
    assert len(found) == 1500
    assert pages in (whole := -(-1500 // limit), whole + 1)
    assert not ask(table, since).tells


def test_a_listing_that_was_left_for_too_long_begins_anew():
    table = table_of(*(f"live{number}" for number in range(20)), most_gone=3)
    since = ask(table, limit=10).version
    do(table, *(Delete(f"live{number}") for number in range(5)))
    page = ask(table, since)
    assert (page.complete, len(page.counters)) == (True, 15)


@pytest.mark.parametrize("since", ["1-", "-1", "2-1", "1-2-3", "1-99", "1-x", "1--2"])
def test_a_version_that_nobody_gave_means_everything(since):
    assert ask(table_of("a", "b"), f"run.{since}").complete
