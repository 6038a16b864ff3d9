"""The turn: seen from inside, unseen until it is written down, all or nothing, and once."""

import copy
import math
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counter import callers as callers_module
from counter import keys
from counter.callers import LONGEST_DEADLINE, OVERHEAD
from counter.errors import CounterError, InvalidRequest, JournalFull, LimitExceeded, OutcomeUnknown
from counter.ops import Delete, Get, Increment, List, Request, Set
from counter.results import Entry, Problem, Reply
from counter.state import Outcome, State
from counter.table import SWEEP, CounterTable

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
ANNA, BERT = b"anna" * 4, b"bert" * 4


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def seal(reply):
    """A new object for each reply, so that "the very same" can be told."""
    return copy.copy([reply])


def refuse_to_write(outcomes):
    raise JournalFull("no space left")


class Journal(list):
    """An `append` that remembers what was handed to it."""

    def append(self, outcomes):
        self.extend(outcomes)


def ask(turn, *ops, caller=None, seq=0, deadline=10.0, ticks=0.0, atomic=True, key=None):
    """The reply to one request in *turn*."""
    return turn.execute(Request(list(ops), atomic, caller, seq, deadline, key), ticks, seal)[0]


def do(table, *ops, now=NOW, append=lambda outcomes: None, **how):
    """The reply to one request in a turn of its own."""
    with table.turn(now) as turn:
        reply = ask(turn, *ops, **how)
        turn.commit(append)
        return reply


def values(table):
    return {name: entry.value for name, entry in table.entries.items()}


def names(table):
    return list(table.names.after("", inclusive=True))


def state(table):
    """Everything of a table, to be compared."""
    return (
        dict(table.entries),
        names(table),
        dict(table.ends._second_of),
        dict(table.callers.records.items()),
        dict(table.callers.ends._second_of),
        table.callers.bytes,
        dict(table.keys.items),
        table.keys.bytes,
    )


EMPTY = ({}, [], {}, {}, {}, 0, {}, 0)


def one(sealed):
    """The bytes that each sealed reply counts for here."""
    return 1


@pytest.fixture
def table():
    return CounterTable("run", 1_000_000, size_of=one)


@pytest.fixture
def small_table():
    return CounterTable("run", 3, size_of=one)


# -- the overlay


def test_what_a_turn_did_is_seen_inside_it_and_by_nobody_else_before_the_commit(table):
    with table.turn(NOW) as turn:
        assert ask(turn, Increment("a", 5)).only().value == 5
        assert ask(turn, Increment("a", 5)).only().value == 10
        assert ask(turn, Get("a")).only().value == 10
        ask(turn, Set("b", 1))
        ask(turn, Delete("b"))
        assert ask(turn, Get("b")).results == [] and ask(turn, Get("b")).problem.code == "not-found"
        assert state(table) == EMPTY
        turn.commit(lambda outcomes: None)
    assert values(table) == {"a": 10}
    assert names(table) == ["a"]


def test_nothing_is_merged_before_it_is_written(table):
    seen = []

    def append(outcomes):
        seen.append((dict(table.entries), [*dict(table.callers.records.items())], len(outcomes)))

    do(table, Increment("a"), caller=ANNA, seq=1, append=append)
    assert seen == [({}, [], 1)]
    assert values(table) == {"a": 1}


def test_a_turn_that_only_reads_writes_nothing(table):
    do(table, Increment("a"))
    before = state(table)
    assert do(table, Get("a"), caller=ANNA, seq=1, append=refuse_to_write).only().value == 1
    assert do(table, Get("b"), append=refuse_to_write).problem.code == "not-found"
    assert state(table) == before


def test_a_turn_without_a_commit_did_nothing(table):
    with table.turn(NOW) as turn:
        ask(turn, Increment("a"), caller=ANNA, seq=1)
    assert state(table) == EMPTY


def test_a_turn_holds_the_lock_from_beginning_to_end_whatever_happens(table):
    with pytest.raises(ZeroDivisionError), table.turn(NOW) as turn:
        assert table.lock.locked()
        ask(turn, Increment("a"))
        assert not table.lock.acquire(blocking=False)
        raise ZeroDivisionError
    assert not table.lock.locked()


def test_threads_with_turns_of_their_own_lose_nothing_and_are_told_each_number_once(table):
    told, together = [], threading.Barrier(4)

    def work():
        together.wait()
        for _ in range(100):
            told.append(do(table, Increment("a")).only().value)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [*range(1, 401)]


def test_a_turn_that_waited_for_the_lock_counts_what_came_in_between(small_table):
    waiting = small_table.turn(NOW)
    do(small_table, Set("a", 1), Set("b", 1), Set("c", 1))
    with waiting as turn:
        assert ask(turn, Set("d", 1)).problem.code == "limit-exceeded"


# -- append fails


def fill(table):
    do(table, Set("a", 1, ttl=10), Set("b", 2), Set("c", 3, ttl=20), caller=ANNA, seq=1, deadline=5.0)


def test_if_the_append_fails_nothing_of_the_turn_has_happened(small_table):
    fill(small_table)
    before = state(small_table)
    with pytest.raises(JournalFull), small_table.turn(at(5)) as turn:
        ask(turn, Increment("a"), caller=ANNA, seq=2)
        ask(turn, Delete("b"), caller=BERT, seq=1)
        ask(turn, Set("d", 4, ttl=5))
        ask(turn, Set("c", 9, ttl=None))
        turn.commit(refuse_to_write)
    assert state(small_table) == before
    assert not small_table.lock.locked()


def test_if_the_append_fails_the_sweep_has_not_happened_either(small_table):
    fill(small_table)
    before = small_table.entries.copy(), names(small_table), small_table.ends._second_of.copy()
    with pytest.raises(JournalFull), small_table.turn(at(30)) as turn:
        assert turn.sweep(0.0)
        assert ask(turn, Set("d", 1), Set("e", 1)).problem is None
        turn.commit(refuse_to_write)
    assert (small_table.entries, names(small_table), small_table.ends._second_of) == before
    assert do(small_table, Set("d", 1), Set("e", 1), now=at(5)).problem.code == "limit-exceeded"


def test_after_a_failed_append_the_repeated_request_is_executed_once(table):
    for _ in range(3):
        with pytest.raises(JournalFull):
            do(table, Increment("a"), caller=ANNA, seq=1, append=refuse_to_write)
    assert [do(table, Increment("a"), caller=ANNA, seq=1).only().value for _ in range(3)] == [1, 1, 1]
    assert values(table) == {"a": 1}


# -- exactly once


def test_a_repeated_request_gets_the_very_same_sealed_answer(table):
    request = Request([Increment("a")], True, ANNA, 7, 10.0)
    with table.turn(NOW) as turn:
        first = turn.execute(request, 0.0, seal)
        assert turn.execute(request, 1.0, seal) is first  # in the same turn
        turn.commit(lambda outcomes: None)
    with table.turn(at(5)) as turn:
        assert turn.execute(request, 2.0, seal) is first
        assert turn.execute(request, 10.0, seal) is first  # late, but known
        turn.commit(refuse_to_write)  # and not written down again
    assert values(table) == {"a": 1}


def test_a_repeated_request_gets_the_recorded_refusal_too(table):
    do(table, Set("a", 1, max=1))
    first = do(table, Increment("a"), caller=ANNA, seq=1)
    assert first.problem.code == "out-of-bounds"
    do(table, Set("a", 0))
    assert do(table, Increment("a"), caller=ANNA, seq=1) is first
    assert values(table) == {"a": 0}


def test_a_higher_seq_is_executed_and_a_lower_one_refused(table):
    assert do(table, Increment("a"), caller=ANNA, seq=5).only().value == 1
    assert do(table, Increment("a"), caller=ANNA, seq=6).only().value == 2
    assert do(table, Increment("a"), caller=ANNA, seq=100).only().value == 3
    for seq in (99, 6, 5, 0, -1):
        refused = do(table, Increment("a"), caller=ANNA, seq=seq, append=refuse_to_write)
        assert (refused.results, refused.problem.code) == ([], "invalid-request")
    assert values(table) == {"a": 3}
    assert table.callers.records[ANNA].seq == 100


def test_a_lower_seq_is_refused_within_the_turn_too(table):
    with table.turn(NOW) as turn:
        ask(turn, Increment("a"), caller=ANNA, seq=2)
        assert ask(turn, Increment("a"), caller=ANNA, seq=1).problem.code == "invalid-request"
        turn.commit(lambda outcomes: None)
    assert values(table) == {"a": 1}


def test_callers_do_not_know_each_other(table):
    assert do(table, Increment("a"), caller=ANNA, seq=1).only().value == 1
    assert do(table, Increment("a"), caller=BERT, seq=1).only().value == 2


def test_a_read_is_never_answered_from_the_record(table):
    do(table, Increment("a"), caller=ANNA, seq=5)
    do(table, Increment("a"))
    for seq in (5, 4, 0):
        assert do(table, Get("a"), caller=ANNA, seq=seq).only().value == 2
    assert table.callers.records[ANNA].seq == 5


@pytest.mark.parametrize("ticks", [10.0, 10.001, 1e9])
def test_a_request_past_its_deadline_is_never_executed(table, ticks):
    refused = do(table, Increment("a"), caller=ANNA, seq=1, ticks=ticks, append=refuse_to_write)
    assert refused == Reply([], refused.problem)
    assert type(refused.problem.error()) is OutcomeUnknown
    assert state(table) == EMPTY
    assert do(table, Increment("a"), caller=ANNA, seq=1, ticks=9.999).only().value == 1


def test_a_deadline_further_than_an_hour_away_is_refused(table):
    assert LONGEST_DEADLINE == 3600
    refused = do(
        table, Increment("a"), caller=ANNA, seq=1, deadline=3700.001, ticks=100.0, append=refuse_to_write
    )
    assert refused.problem.code == "invalid-request"
    assert do(table, Increment("a"), caller=ANNA, seq=1, deadline=3700.0, ticks=100.0).only().value == 1


@pytest.mark.parametrize("deadline", [math.nan, math.inf])
def test_a_deadline_that_is_no_time_is_refused(table, deadline):
    with pytest.raises(InvalidRequest):
        do(table, Increment("a"), caller=ANNA, seq=1, deadline=deadline)
    assert not table.callers


def test_a_callers_record_is_kept_until_the_latest_deadline_it_carried(table):
    do(table, Increment("a"), caller=ANNA, seq=1, deadline=50.5)
    do(table, Increment("a"), caller=ANNA, seq=2, deadline=20.0)
    do(table, Increment("a"), caller=BERT, seq=1, deadline=20.0)
    assert table.callers.records[ANNA].deadline == 50.5
    with table.turn(NOW) as turn:
        assert not turn.sweep(19.9)
        assert {*dict(table.callers.records.items())} == {ANNA, BERT}
        assert turn.sweep(20.0)
        assert {*dict(table.callers.records.items())} == {ANNA}
        turn.sweep(50.5)
        assert {*dict(table.callers.records.items())} == {ANNA}  # at the earliest when it has passed
        assert turn.sweep(51.5)
        assert not table.callers
        assert not turn.sweep(51.5)
        turn.commit(refuse_to_write)  # forgetting needs no record
    assert not len(table.callers.ends)


def test_a_forgotten_request_is_past_its_deadline(table):
    do(table, Increment("a"), caller=ANNA, seq=1, deadline=20.3)
    with table.turn(NOW) as turn:
        turn.sweep(21.0)
    assert not table.callers
    assert (
        do(table, Increment("a"), caller=ANNA, seq=1, deadline=20.3, ticks=21.0).problem.code
        == "outcome-unknown"
    )
    assert values(table) == {"a": 1}


# -- all or nothing


def test_an_atomic_request_names_its_first_failure_and_does_nothing(table):
    do(table, Set("full", 1, max=1))
    before = state(table)
    reply = do(
        table,
        Increment("a"),
        Delete("full"),
        Increment("b"),
        Delete("none"),
        Get("none"),
        append=refuse_to_write,
    )
    assert (reply.results, reply.problem.code, reply.problem.op_index) == ([], "not-found", 3)
    assert state(table) == before


def test_what_an_atomic_request_did_before_it_failed_is_unseen_in_its_turn(table):
    with table.turn(NOW) as turn:
        ask(turn, Set("a", 1))
        ask(turn, Increment("a"), Set("b", 1), Delete("none"))
        assert ask(turn, Get("a")).only().value == 1
        assert ask(turn, Get("b")).problem.code == "not-found"
        turn.commit(lambda outcomes: None)
    assert values(table) == {"a": 1}


def test_the_failure_of_a_single_op_needs_no_index(table):
    assert do(table, Get("a")).problem.op_index is None
    assert do(table, Get("a"), Get("b")).problem.op_index == 0


def test_the_ops_of_a_request_see_each_other(table):
    reply = do(table, Increment("a"), Get("a"), Increment("a"), Delete("a"), Increment("a", 7))
    assert [result.value for result in reply.results] == [1, 1, 2, 2, 7]
    assert values(table) == {"a": 7}


def test_otherwise_each_op_stands_for_itself(table):
    reply = do(table, Increment("a"), Delete("none"), Increment("b", max=0), Increment("a"), atomic=False)
    first, second, third, fourth = reply.results
    assert (first.value, fourth.value) == (1, 2)
    assert [second.code, third.code] == ["not-found", "out-of-bounds"]
    assert isinstance(second, Problem)
    assert reply.problem is None
    assert values(table) == {"a": 2}


def test_what_is_not_about_a_counter_is_refused_in_a_turn(table):
    assert do(table, List()).problem.code == "invalid-request"


def test_a_seal_that_refuses_leaves_nothing_done(table):
    def too_large(reply):
        if reply.results:
            raise InvalidRequest("too much to answer")
        return reply

    def once(caller):
        with table.turn(NOW) as turn:
            reply = turn.execute(Request([Set("a", 1), Set("b", 1)], True, caller, 1, 10.0), 0.0, too_large)
            assert ask(turn, Get("a")).problem.code == "not-found"
            turn.commit(written.append)
        return reply

    written = Journal()
    assert once(None).problem.code == "invalid-request"
    assert written == []
    refusal = once(ANNA)
    assert refusal.problem.detail == "too much to answer"
    assert values(table) == {}
    assert [outcome.changed for outcome in written] == [{}]  # that it was refused is remembered
    assert once(ANNA) is refusal


def test_a_seal_that_refuses_takes_no_room(small_table):
    def refuse(reply):
        if reply.results:
            raise InvalidRequest("no")
        return reply

    with small_table.turn(NOW) as turn:
        turn.execute(Request([Set(name, 1) for name in "abc"]), 0.0, refuse)
        assert ask(turn, Set("d", 1), Set("e", 1), Set("f", 1)).problem is None


# -- versions


def test_versions_are_new_with_each_change_and_never_given_twice(table):
    given_ = []
    for _ in range(3):
        for op in (Increment("a", 0), Set("a", 5), Set("b", 5), Increment("a")):
            given_.append(do(table, op).only().version)
        do(table, Delete("a"))
    with pytest.raises(JournalFull):
        do(table, Increment("a"), append=refuse_to_write)
    do(table, Increment("a"), Get("none"))
    given_.append(do(table, Increment("a")).only().version)
    assert len(given_) == len({*given_})
    assert do(table, Get("a")).only().version == given_[-1]


def test_versions_of_another_run_are_other_versions():
    one, other = (do(CounterTable(run, 9), Increment("a")).only().version for run in ("run1", "run2"))
    assert one != other


# -- the limit


def test_when_full_creating_is_refused_and_nothing_is_evicted(small_table):
    do(small_table, Set("a", 1), Set("b", 1), Set("c", 1))
    before = state(small_table)
    for op in (Increment("d"), Set("d", 1)):
        refused = do(small_table, op, append=refuse_to_write)
        assert type(refused.problem.error()) is LimitExceeded
    assert state(small_table) == before
    assert do(small_table, Increment("a")).only().value == 2
    assert do(small_table, Delete("a"), Set("d", 1)).problem is None
    assert do(small_table, Set("e", 1), Delete("b")).problem.op_index == 0
    assert names(small_table) == ["b", "c", "d"]


def test_a_request_that_would_overfill_is_refused_as_a_whole(small_table):
    do(small_table, Set("a", 1), Set("b", 1))
    refused = do(small_table, Set("c", 1), Set("d", 1))
    assert (refused.problem.code, refused.problem.op_index) == ("limit-exceeded", 1)
    assert names(small_table) == ["a", "b"]
    each = do(small_table, Set("c", 1), Set("d", 1), Delete("a"), Set("e", 1), atomic=False).results
    assert [type(result).__name__ for result in each] == ["Change", "Problem", "Change", "Change"]
    assert names(small_table) == ["b", "c", "e"]


def test_the_requests_of_one_turn_share_the_room(small_table):
    with small_table.turn(NOW) as turn:
        for name in "abc":
            assert ask(turn, Set(name, 1)).problem is None
        assert ask(turn, Set("d", 1)).problem.code == "limit-exceeded"
        ask(turn, Delete("b"))
        assert ask(turn, Set("d", 1)).problem is None
        assert ask(turn, Set("e", 1)).problem.code == "limit-exceeded"
        turn.commit(lambda outcomes: None)
    assert names(small_table) == ["a", "c", "d"]


def test_reading_takes_no_room(small_table):
    do(small_table, Set("a", 1), Set("b", 1))
    assert do(small_table, Get("a"), Get("b"), Set("c", 1)).problem is None


def test_reading_makes_no_room(small_table):
    do(small_table, Set("a", 1), Set("b", 1), Set("c", 1))
    for ops in ([Get("a"), Set("d", 1)], [Get("a"), Get("b"), Set("d", 1)]):
        assert do(small_table, *ops).problem.code == "limit-exceeded"
    do(small_table, Get("a"))
    assert do(small_table, Set("d", 1)).problem.code == "limit-exceeded"


def test_an_expired_counter_of_the_same_name_is_replaced_at_the_limit(small_table):
    do(small_table, Set("a", 1, ttl=1), Set("b", 1), Set("c", 1))
    assert do(small_table, Increment("a"), now=at(1)).only().value == 1
    assert names(small_table) == ["a", "b", "c"]


def test_expired_counters_make_room_at_the_limit(small_table):
    do(small_table, Set("a", 1, ttl=1), Set("b", 1, ttl=2), Set("c", 1))
    written = Journal()
    assert do(small_table, Set("d", 1), now=at(1), append=written.append).problem is None
    assert [outcome.changed.get("a", "-") for outcome in written] == [None, "-"]
    assert names(small_table) == ["b", "c", "d"]
    assert do(small_table, Set("e", 1), now=at(1)).problem.code == "limit-exceeded"


@pytest.mark.parametrize("swept_before", [True, False])
def test_all_expired_counters_make_room_in_one_turn_whenever_they_ended(small_table, swept_before):
    do(small_table, Set("a", 1, ttl=1), Set("b", 1, ttl=2), Set("c", 1, ttl=3))
    with small_table.turn(at(5)) as turn:
        if swept_before:
            turn.sweep(0.0)
        assert ask(turn, Set("d", 1), Set("e", 1)).problem is None
        assert ask(turn, Set("f", 1)).problem is None
        assert ask(turn, Set("g", 1)).problem.code == "limit-exceeded"
        turn.commit(lambda outcomes: None)
    assert values(small_table) == {"d": 1, "e": 1, "f": 1}
    assert names(small_table) == ["d", "e", "f"]
    assert len(small_table.ends) == 0


def test_requests_of_one_turn_that_create_one_each_find_all_the_room(small_table):
    do(small_table, Set("a", 1, ttl=1), Set("b", 1, ttl=1), Set("c", 1, ttl=1))
    with small_table.turn(at(5)) as turn:
        for name in "def":
            assert ask(turn, Set(name, 1)).problem is None
        turn.commit(lambda outcomes: None)
    assert names(small_table) == ["d", "e", "f"]


# -- the sweep


def test_a_sweep_takes_what_has_ended_and_nothing_else(table):
    do(table, Set("a", 1, ttl=10), Set("b", 1, ttl=11), Set("c", 1))
    written = Journal()
    for seconds, left in ((9, "abc"), (9.999, "abc"), (10, "bc"), (10.5, "bc"), (11, "c"), (99, "c")):
        with table.turn(at(seconds)) as turn:
            turn.sweep(0.0)
            turn.commit(written.append)
        assert names(table) == [*left]
        assert {*table.entries} == {*left}
    assert [(outcome.at, outcome.changed) for outcome in written] == [
        (at(10), {"a": None}),
        (at(11), {"b": None}),
    ]


def test_a_sweep_takes_so_many_at_once_and_says_whether_there_was_any(table):
    assert SWEEP == 1000
    do(table, *(Set(f"{number:04}", 1, ttl=1) for number in range(2500)))
    left = []
    for _ in range(4):
        with table.turn(at(2)) as turn:
            more = turn.sweep(0.0)
            turn.commit(lambda outcomes: None)
        left.append((more, len(table.entries)))
    assert left == [(True, 1500), (True, 500), (True, 0), (False, 0)]
    assert (names(table), len(table.ends)) == ([], 0)


def test_a_sweep_takes_counters_of_many_seconds_at_once(table):
    for second in range(20):
        do(table, Set(f"{second}", 1, ttl=1 + second))
    with table.turn(at(100)) as turn:
        turn.sweep(0.0)
        turn.commit(lambda outcomes: None)
    assert not table.entries


def test_a_sweep_looks_at_nothing_that_is_not_due(table):
    """A million counters that end within the second that has begun would hold every turn up."""

    class Unseen(dict):
        def get(self, name, default=None):
            raise AssertionError("looked at")

    do(table, *(Set(f"{number}", 1, ttl=1) for number in range(10)), now=at(0.5))
    table.entries = Unseen(table.entries)
    for seconds in (1, 1.4, 1.5):
        with table.turn(at(seconds)) as turn:
            assert not turn.sweep(0.0)


def test_a_counter_that_lives_again_is_not_swept(table):
    do(table, Set("a", 1, ttl=1), Set("b", 1, ttl=1))
    with table.turn(at(2)) as turn:
        assert ask(turn, Increment("a")).only().created
        turn.sweep(0.0)
        assert ask(turn, Get("a")).only().value == 1
        turn.commit(lambda outcomes: None)
    assert names(table) == ["a"]
    assert len(table.ends) == 0


def test_a_counter_whose_end_moved_ends_then(table):
    do(table, Increment("a", ttl=10, ttl_mode="sliding"))
    do(table, Increment("a"), now=at(8))
    for seconds, there in ((10, True), (17.9, True), (18, False)):
        with table.turn(at(seconds)) as turn:
            turn.sweep(0.0)
            turn.commit(lambda outcomes: None)
        assert ("a" in table.entries) is there


def test_a_counter_whose_end_was_cleared_stays(table):
    do(table, Set("a", 1, ttl=10))
    do(table, Set("a", ttl=None))
    assert len(table.ends) == 0
    with table.turn(at(1000)) as turn:
        assert not turn.sweep(0.0)


def test_an_expired_counter_is_gone_for_everyone_before_it_is_swept(table):
    do(table, Set("a", 5, ttl=1))
    assert do(table, Get("a"), now=at(1)).problem.code == "not-found"
    assert do(table, Delete("a"), now=at(1)).problem.code == "not-found"
    assert "a" in table.entries
    again = do(table, Increment("a"), now=at(1)).only()
    assert (again.value, again.created, again.created_at, again.ttl) == (1, True, at(1), None)


# -- outcomes


def replay(outcomes):
    """What a journal does: assign, and never decide."""
    state = State()
    for outcome in outcomes:
        state.assign(outcome)
    return state.entries, state.callers, state.keys


def test_an_outcome_tells_what_came_out_and_who_asked(table):
    written = Journal()
    reply = do(
        table,
        Increment("a"),
        Delete("a"),
        Set("b", 2),
        caller=ANNA,
        seq=3,
        deadline=7.5,
        append=written.append,
    )
    assert written == [
        Outcome(NOW, {"a": None, "b": table.entries["b"]}, [reply], ANNA, 3, 7.5),
    ]
    assert type(table.entries["b"]) is Entry


small_names = st.sampled_from("abcdef")
counter_ops = st.one_of(
    st.builds(Increment, small_names, st.integers(-3, 3), ttl=st.none() | st.integers(1, 5)),
    st.builds(Set, small_names, st.integers(-3, 3), ttl=st.none() | st.integers(1, 5)),
    st.builds(Set, small_names, min=st.none() | st.integers(-2, 2)),
    st.builds(Delete, small_names),
    st.builds(Get, small_names),
)
requests = st.tuples(
    st.lists(counter_ops, min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([None, ANNA, BERT]),
    st.integers(0, 6),
    st.sampled_from([None, None, "k", "l"]),
)
turns = st.lists(
    st.tuples(st.lists(requests, max_size=4), st.booleans(), st.booleans(), st.floats(0, 3)), max_size=12
)


@pytest.mark.slow
@given(turns)
def test_what_was_written_down_is_enough_to_have_the_table_again(turns):
    table, written, now = CounterTable("run", 4, size_of=one), Journal(), NOW
    for requests, sweep, writes, seconds in turns:
        now += timedelta(seconds=seconds)
        before = state(table)
        try:
            with table.turn(now) as turn:
                if sweep:
                    turn.sweep(0.0)
                for ops, atomic, caller, seq, key in requests:
                    ask(turn, *ops, atomic=atomic, caller=caller, seq=seq, key=key)
                turn.commit(written.append if writes else refuse_to_write)
        except CounterError:
            assert state(table) == before
        assert replay(written) == (table.entries, dict(table.callers.records.items()), table.keys.items)
        assert table.callers.bytes == (OVERHEAD + 1) * len(table.callers)
        assert names(table) == sorted(table.entries)
        assert len(table.entries) <= 4
        assert table.ends._second_of == {
            name: math.ceil(entry.expires_at.timestamp())
            for name, entry in table.entries.items()
            if entry.expires_at is not None
        }
        assert {*table.callers.ends._second_of} == {*dict(table.callers.records.items())}


@pytest.mark.slow
@given(st.lists(requests, max_size=20))
def test_one_turn_of_many_requests_gives_what_many_turns_give(requests):
    together, apart = CounterTable("run", 4, size_of=one), CounterTable("run", 4, size_of=one)
    with together.turn(NOW) as turn:
        in_one = [ask(turn, *ops, atomic=a, caller=c, seq=s, key=k) for ops, a, c, s, k in requests]
        turn.commit(lambda outcomes: None)
    in_many = [do(apart, *ops, atomic=a, caller=c, seq=s, key=k) for ops, a, c, s, k in requests]
    # but for versions: what is made and gone in one turn takes one less
    assert unversioned(in_one) == unversioned(in_many)
    assert unversioned(state(together)) == unversioned(state(apart))


def unversioned(value):
    """*value* without the versions in it."""
    if isinstance(value, dict):
        return {key: unversioned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [unversioned(each) for each in value]
    if isinstance(value, msgspec.Struct):
        return [type(value), *(unversioned(each) for each in msgspec.structs.astuple(value))]
    return "" if isinstance(value, str) and value.startswith("run.") else value


# -- restored


def restored(state, run="run2", ticks=0.0):
    table = CounterTable(run, 1_000_000, size_of=one)
    table.restore(state, ticks)
    return table


def journal_of(*turns):
    """The state after *turns*, each of an op and how it is asked, a second apart."""
    table, journal = CounterTable("run", 1_000_000, size_of=one), State()
    for number, (op, how) in enumerate(turns):
        do(table, op, now=at(number), append=lambda outcomes: [journal.assign(o) for o in outcomes], **how)
    return table, journal


def test_a_restored_table_is_what_it_was():
    table, journal = journal_of(
        (Set("b", 2, ttl=10), {"caller": ANNA, "seq": 3, "deadline": 7.5}),
        (Set("a", 1, max=1), {"key": "k"}),
        (Increment("a"), {"key": "l", "caller": BERT, "seq": 1}),
        (Set("c", 1), {}),
    )
    again = restored(journal)
    unversioned = [
        {name: msgspec.structs.replace(entry, version="") for name, entry in each.entries.items()}
        for each in (table, again)
    ]
    assert unversioned[0] == unversioned[1]
    assert state(again)[1:] == state(table)[1:]
    assert again.entries is journal.entries, "a million entries are not copied"
    assert do(again, Set("b", 2, ttl=10), caller=ANNA, seq=3).only().value == 2  # the stored reply
    assert do(again, Increment("a"), key="l").problem.code == "out-of-bounds"
    with again.turn(at(30)) as turn:
        assert turn.sweep(0.0)
        turn.commit(lambda outcomes: None)
    assert names(again) == ["a", "c"]


def test_after_a_restore_every_version_is_one_of_this_run():
    _, journal = journal_of((Set("a", 1), {}), (Set("b", 1), {}))
    before = {entry.version for entry in journal.entries.values()}
    again = restored(journal)
    now = {entry.version for entry in again.entries.values()}
    assert len(now) == 2 and all(version.startswith("run2.") for version in now)
    for version in before:
        assert do(again, Set("a", 9, if_version=version)).problem.code == "version-mismatch"
    later = do(again, Set("a", 5, if_version=again.entries["a"].version)).only().version
    assert later not in now | before


def test_a_restore_forgets_callers_whose_deadline_is_past():
    _, journal = journal_of(
        (Set("a", 1), {"caller": ANNA, "seq": 1, "deadline": 5.0}),
        (Set("a", 1), {"caller": BERT, "seq": 1, "deadline": 5.001}),
    )
    again = restored(journal, ticks=5.0)
    assert {*dict(again.callers.records.items())} == {*again.callers.ends._second_of} == {BERT}
    assert again.callers.bytes == OVERHEAD + 1


def test_a_restore_forgets_callers_of_another_boots_clock():
    """No deadline of this boot is further away than a request may give."""
    journal = State()
    for caller, deadline in ((ANNA, 3605.0), (BERT, 3605.001)):
        journal.assign(Outcome(NOW, {}, "reply", caller, 1, deadline))
    assert {*dict(restored(journal, ticks=5.0).callers.records.items())} == {ANNA}


def test_a_restore_trims_keys_by_their_horizons(monkeypatch):
    monkeypatch.setattr(keys, "MAX_KEYS", 2)
    _, journal = journal_of(*((Set("a", 1), {"key": f"{number}"}) for number in range(2)))
    for number, hours in ((2, 23), (3, 24)):
        journal.assign(Outcome(at(hours * 3600), {}, [None], key=f"{number}", digest=b"x"))
    assert [*restored(journal).keys.items] == ["2", "3"]


def test_a_restored_table_is_in_order_whatever_order_its_names_came_in():
    wanted = [f"{number * 7919 % 5000:04}" for number in range(5000)]
    journal = State()
    journal.assign(Outcome(NOW, {name: Entry(name, 1, "run.1", NOW, NOW) for name in wanted}))
    again = restored(journal)
    assert names(again) == sorted(wanted)
    do(again, Set("0500x", 1), Delete("4000"))
    assert names(again) == sorted({*wanted, "0500x"} - {"4000"})


def test_nothing_is_restored_from_nothing(table):
    table.restore(State(), 0.0)
    assert state(table) == EMPTY


# -- the room for callers


@pytest.fixture
def two_callers(monkeypatch):
    """Room for the answers to two callers (a sealed one counts for 1 byte here)."""
    monkeypatch.setattr(callers_module, "MAX_BYTES", 2 * (OVERHEAD + 1))


def test_when_the_answers_of_callers_fill_their_room_a_new_signed_request_does_nothing(table, two_callers):
    for caller in (ANNA, BERT):
        do(table, Increment("a"), caller=caller, seq=1)
    before = state(table)
    refused = do(table, Increment("a"), caller=b"carl" * 4, seq=1, append=refuse_to_write, key="k")
    assert type(refused.problem.error()) is LimitExceeded
    assert state(table) == before
    assert do(table, Increment("a"), caller=ANNA, seq=2).only().value == 3  # in the place of its last
    assert do(table, Increment("a"), caller=BERT, seq=1).only().value == 2  # nobody is forgotten for another
    assert do(table, Increment("a")).only().value == 4
    assert do(table, Get("a"), caller=b"carl" * 4, seq=1).only().value == 4
    with table.turn(NOW) as turn:
        turn.sweep(11.0)
    assert table.callers.bytes == 0
    assert do(table, Increment("a"), caller=b"carl" * 4, seq=1).only().value == 5


def test_the_requests_of_one_turn_share_the_room_for_callers(table, two_callers):
    with table.turn(NOW) as turn:
        codes = [
            ask(turn, Increment("a"), caller=caller, seq=seq).problem
            for caller, seq in ((ANNA, 1), (ANNA, 2), (BERT, 1), (b"carl" * 4, 1), (ANNA, 3))
        ]
        turn.commit(lambda outcomes: None)
    assert [problem and problem.code for problem in codes] == [None, None, None, "limit-exceeded", None]
    assert (values(table), table.callers.bytes) == ({"a": 4}, 2 * (OVERHEAD + 1))


def test_whoever_is_remembered_already_goes_on_though_the_room_is_overfull(table, monkeypatch):
    do(table, Increment("a"), caller=ANNA, seq=1)
    monkeypatch.setattr(callers_module, "MAX_BYTES", 1)
    assert do(table, Increment("a"), caller=ANNA, seq=2).only().value == 2
    assert do(table, Increment("a"), caller=BERT, seq=1).problem.code == "limit-exceeded"


def test_a_key_that_nobody_signed_takes_no_room_for_callers(table, two_callers):
    for caller in (ANNA, BERT):
        do(table, Increment("a"), caller=caller, seq=1)
    assert do(table, Increment("a"), key="k").only().value == 3
    assert table.callers.bytes == 2 * (OVERHEAD + 1)


def test_the_promised_room_for_callers():
    assert callers_module.MAX_BYTES == 256 * 1024 * 1024
