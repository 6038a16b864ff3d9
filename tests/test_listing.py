"""Listings come in pages that fit together, and in slices that hold nobody up."""

import base64
import contextlib
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counter.errors import InvalidRequest
from counter.fields import HIDDEN, INT64_MAX, INT64_MIN
from counter.listing import SLICE, count, everything, page
from counter.ops import Delete, Increment, List, Request, Set
from counter.table import CounterTable

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SORTS = ["name", "-value", "-updated"]


def seal(reply):
    return reply.unwrap()


def write(table, *ops, now=NOW):
    with table.turn(now) as turn:
        for first in range(0, len(ops), 10_000):
            turn.execute(Request(list(ops[first : first + 10_000])), 0.0, seal)
        turn.commit(lambda outcomes: None)


def new_table(*ops, now=NOW):
    table = CounterTable("run", 1_000_000)
    if ops:
        write(table, *ops, now=now)
    return table


def finish(job):
    """The answer of *job*, and how many slices it took."""
    for slices in itertools.count():
        try:
            next(job)
        except StopIteration as end:
            return end.value, slices
    raise AssertionError


def answer(job):
    return finish(job)[0]


def all_pages(table, now=NOW, **fields):
    cursor, found = None, []
    while True:
        got = answer(page(table, List(**fields, cursor=cursor), now))
        found.append([entry.name for entry in got.counters])
        if got.next is None:
            return found
        assert found[-1], "an empty page has no next"
        assert got.next != cursor, "a page leads to the next one"
        cursor = got.next


def joined(pages):
    return [*itertools.chain(*pages)]


def test_pages_fit_together_without_an_empty_one_at_the_end():
    table = new_table(*(Set(name, 1) for name in "dbca"))
    assert all_pages(table, limit=1) == [["a"], ["b"], ["c"], ["d"]]
    assert all_pages(table, limit=2) == [["a", "b"], ["c", "d"]]
    assert all_pages(table, limit=3) == [["a", "b", "c"], ["d"]]
    assert all_pages(table, limit=4) == all_pages(table) == [["a", "b", "c", "d"]]
    assert all_pages(new_table()) == [[]]


def test_values_come_from_the_greatest_and_ties_by_name():
    table = new_table(Set("b", 2), Set("a", 2), Set("c", -5), Set("d", INT64_MAX), Set("e", INT64_MIN))
    for limit in range(1, 6):
        assert joined(all_pages(table, sort="-value", limit=limit)) == ["d", "a", "b", "c", "e"]


def test_values_are_compared_exactly():
    """As floats these are one number."""
    names = [f"{number:02}" for number in range(20)]
    table = new_table(*(Set(name, INT64_MAX - 19 + at) for at, name in enumerate(names)))
    assert joined(all_pages(table, sort="-value", limit=3)) == names[::-1]


def test_times_come_from_the_newest_to_the_microsecond():
    table = new_table()
    for place, name in enumerate("cab"):
        write(table, Increment(name), now=NOW + timedelta(microseconds=place))
    write(table, Increment("aa"), now=NOW)
    for limit in (1, 2, 9):
        assert joined(all_pages(table, sort="-updated", limit=limit)) == ["b", "a", "aa", "c"]


counters = st.dictionaries(
    st.text("ab/é😀", min_size=1, max_size=4),
    st.tuples(st.integers(-2, 2), st.integers(0, 3), st.none() | st.integers(1, 3)),
    max_size=25,
)


@pytest.mark.slow
@given(counters, st.sampled_from(SORTS), st.integers(1, 9), st.text("ab/é", max_size=2))
def test_all_pages_together_are_a_sorted_list_of_what_lives(found, sort, limit, prefix):
    table, now = new_table(), NOW + timedelta(seconds=4.5)
    for name, (value, second, ttl) in sorted(found.items(), key=lambda item: item[1][1]):
        op = Set(name, value) if ttl is None else Set(name, value, ttl=ttl)
        write(table, op, now=NOW + timedelta(seconds=second))
    alive = {
        name: (value, second)
        for name, (value, second, ttl) in found.items()
        if name.startswith(prefix) and (ttl is None or second + ttl > 4.5)
    }
    order = {
        "name": lambda name: name,
        "-value": lambda name: (-alive[name][0], name),
        "-updated": lambda name: (-alive[name][1], name),
    }[sort]
    pages = all_pages(table, now, prefix=prefix, sort=sort, limit=limit)
    assert joined(pages) == sorted(alive, key=order)
    assert all(len(each) == limit for each in pages[:-1])


def test_a_prefix_ends_where_it_ends():
    table = new_table(*(Set(name, 1) for name in ("a", "a/", "a/1", "a/2", "a0", "b", "A/1")))
    assert all_pages(table, prefix="a/", limit=1) == [["a/"], ["a/1"], ["a/2"]]
    assert all_pages(table, prefix="a") == [["a", "a/", "a/1", "a/2", "a0"]]
    for prefix in ("c", "a/1/", "\U0010ffff"):
        assert all_pages(table, prefix=prefix) == [[]]


@pytest.mark.slow
def test_a_listing_by_name_shows_once_what_is_there_all_along():
    table = new_table(*(Set(f"{number:05}", number) for number in range(0, 3 * SLICE, 2)))
    cursor, names = None, []
    for change in itertools.count(1, 2):
        got = answer(page(table, List(limit=700, cursor=cursor), NOW))
        names += [entry.name for entry in got.counters]
        write(table, Set("00000!", 1), Set(f"{change:05}", 1), Delete(names[-1]))
        if (cursor := got.next) is None:
            break
    wanted = [f"{number:05}" for number in range(0, 3 * SLICE, 2)]
    assert [name for name in names if name in {*wanted}] == wanted
    assert len(names) == len({*names})


@pytest.mark.parametrize("sort", ["-value", "-updated"])
def test_the_table_may_change_between_two_slices(sort):
    table = new_table(*(Set(f"{number:05}", number) for number in range(3 * SLICE)))
    job = page(table, List(sort=sort, limit=1000), NOW)
    next(job)
    gone = {f"{number:05}" for number in range(10, 3 * SLICE, 2)}
    write(table, *map(Delete, gone), Set("00000a", 10**6), Set("00011", 10**6))
    found = [entry.name for entry in answer(job).counters]
    assert len(found) == len({*found}) == 1000
    assert not {name for name in gone if name > f"{SLICE:05}"} & {*found}


def test_a_cursor_of_another_prefix_misses_nothing_under_the_new_one():
    table = new_table(*(Set(f"a{number:05}", 1) for number in range(SLICE + 10)), Set("b", 1), Set("c", 1))
    first = answer(page(table, List(limit=1), NOW))
    assert answer(page(table, List(prefix="b", cursor=first.next), NOW)).counters == [table.entries["b"]]
    assert answer(page(table, List(prefix="a", limit=1, cursor=first.next), NOW)).counters[0].name == "a00001"


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("other", SORTS)
def test_a_cursor_is_good_for_its_own_sort_only(sort, other):
    table = new_table(*(Set(name, 1) for name in "abc"))
    cursor = answer(page(table, List(sort=sort, limit=1), NOW)).next
    if sort == other:
        assert len(answer(page(table, List(sort=sort, cursor=cursor), NOW)).counters) == 2
    else:
        with pytest.raises(InvalidRequest, match="cursor"):
            answer(page(table, List(sort=other, cursor=cursor), NOW))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "\ud800",
        "AAAA",
        "bnVsbA",
        "WyJuYW1lIl0",
        "e30",
        "W251bGwsMCwiYSJd",
        "=" * 9,
        "WyJuYW1lIiwwLDVd",
    ],
)
def test_what_is_no_cursor_is_refused(cursor):
    with pytest.raises(InvalidRequest, match="cursor"):
        answer(page(new_table(), List(cursor=cursor), NOW))


@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_no_cursor_however_odd_is_more_than_refused(cursor):
    with contextlib.suppress(InvalidRequest):
        answer(page(new_table(Set("a", 1)), List(cursor=cursor), NOW))


# -- counting


def test_count_is_how_many_live_now_to_the_microsecond():
    table = new_table(Set("a", 1), Set("b", 1, ttl=1), Set("c", 1, ttl=2), now=NOW + timedelta(seconds=0.25))
    alive = {0.25: 3, 1.0: 3, 1.249999: 3, 1.25: 2, 1.5: 2, 2.0: 2, 2.249999: 2, 2.25: 1, 9.0: 1}
    assert {at: answer(count(table, NOW + timedelta(seconds=at))) for at in alive} == alive


def test_count_at_a_whole_second():
    table = new_table(Set("a", 1, ttl=1), Set("b", 1, ttl=2))
    alive = {0.0: 2, 0.5: 2, 1.0: 1, 1.5: 1, 2.0: 0}
    assert {at: answer(count(table, NOW + timedelta(seconds=at))) for at in alive} == alive


@given(
    st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 4)), max_size=20), st.integers(0, 8_000_000)
)
def test_count_agrees_with_looking_at_each(lives, at):
    table = new_table()
    for number, (start, ttl) in enumerate(sorted(lives)):
        write(table, Set(str(number), 1, ttl=ttl), now=NOW + timedelta(microseconds=start))
    now = NOW + timedelta(microseconds=at)
    assert answer(count(table, now)) == sum(not entry.expired(now) for entry in table.entries.values())


# -- slices: no operation holds the loop for long


class Counted(dict):
    """A dict that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, key):
        self.looks += 1
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.looks += 1
        return super().get(key, default)


def busiest_slice(table, job):
    """The most counters that *job* looked at without letting others in, and its answer."""
    table.entries = Counted(table.entries)
    most, before = 0, 0
    while True:
        try:
            next(job)
        except StopIteration as end:
            return max(most, table.entries.looks - before), end.value
        finally:
            most, before = max(most, table.entries.looks - before), table.entries.looks


@pytest.fixture(scope="module")
def big_table():
    """Counters that end at two instants of one second, half of them each."""
    names = [f"{number:05}" for number in range(4 * SLICE + 5)]
    table = new_table(*(Set(name, at, ttl=10) for at, name in enumerate(names[::2])))
    later = NOW + timedelta(seconds=0.5)
    write(table, *(Set(name, at, ttl=10) for at, name in enumerate(names[1::2])), now=later)
    return table


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("seconds", [0, 10.2, 11])
def test_a_listing_looks_at_2000_counters_at_most_between_two_yields(big_table, sort, seconds):
    job = page(big_table, List(sort=sort, limit=1000), NOW + timedelta(seconds=seconds))
    most, _ = busiest_slice(big_table, job)
    assert 0 < most <= 2000


@pytest.mark.parametrize(("seconds", "alive"), [(0.5, 8005), (10.2, 4002), (10.7, 0), (11, 0)])
def test_counting_looks_at_2000_counters_at_most_between_two_yields(big_table, seconds, alive):
    most, total = busiest_slice(big_table, count(big_table, NOW + timedelta(seconds=seconds)))
    assert most <= 2000
    assert total == alive


def test_counting_what_nobody_is_about_to_lose_is_as_sliced():
    """All end within the second that has begun, and none has ended."""
    table = new_table(
        *(Set(f"{number}", 1, ttl=10) for number in range(3 * SLICE)), now=NOW + timedelta(seconds=0.5)
    )
    most, total = busiest_slice(table, count(table, NOW + timedelta(seconds=10.2)))
    assert most <= 2000
    assert total == 3 * SLICE


def test_hidden_counters_are_in_no_list_and_no_number():
    """Nor when they end, however late they are swept; before, between and behind all others by name."""
    others = [Set(name, 1) for name in ("a", "\ufdcf", "\ufdd1", "\U0010ffff")]
    hidden = [Increment(f"{HIDDEN}{number}", ttl=1 + number % 3) for number in range(2 * SLICE + 10)]
    table = new_table(
        *others, Increment("ends", ttl=2), *hidden, *(Increment(f"{HIDDEN}{kind}") for kind in "xyz")
    )
    for seconds in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 100):
        now = NOW + timedelta(seconds=seconds)
        left = [op.name for op in others] + ["ends"] * (seconds < 2)
        assert answer(count(table, now)) == len(left)
        for sort in SORTS:
            assert sorted(itertools.chain(*all_pages(table, now, sort=sort, limit=2))) == sorted(left)
        assert {entry.name for entry in answer(everything(table, now, 10))} == {*left}
    assert all_pages(table, prefix=HIDDEN) == [[]]


def test_counting_many_hidden_counters_holds_nobody_up():
    table = new_table(*(Increment(f"{HIDDEN}{number}", ttl=1) for number in range(3 * SLICE)))
    assert finish(count(table, NOW)) == (0, 3)
