"""Idempotency keys: the same key, the same answer, done once; for so long, so many, and in so many bytes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from counter import keys
from counter.errors import InvalidRequest, JournalFull, KeyReused, LimitExceeded
from counter.keys import OVERHEAD, Asked, Keys
from counter.ops import Delete, Get, Increment, List, Request, Set
from counter.results import Problem, Reply
from counter.state import Keyed, State
from counter.table import CounterTable
from counter.wire import as_replayed, decode_reply, decode_request, encode_reply

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
ANNA, BERT = b"anna" * 4, b"bert" * 4


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def refuse_to_write(outcomes):
    raise JournalFull("no space left")


def mark(reply):
    return replace(reply, replayed=True)


def size(reply):
    """Counters' values are what a test sets the size of a reply by."""
    return max((getattr(result, "value", 0) for result in reply.results), default=0)


@pytest.fixture
def table():
    return CounterTable("run", 1_000_000, mark, size)


@pytest.fixture
def few(monkeypatch):
    """Room for three keys."""
    monkeypatch.setattr(keys, "MAX_KEYS", 3)


def do(table, *ops, now=NOW, append=lambda outcomes: None, sweep=False, **fields):
    """The reply to one request in a turn of its own."""
    atomic = fields.pop("atomic", True)
    key = fields.pop("key", None)
    with table.turn(now) as turn:
        if sweep:
            turn.sweep(0.0)
        request = Request(list(ops), atomic, idempotency_key=key, **fields)
        reply = turn.execute(request, 0.0, lambda reply: reply)
        turn.commit(append)
        return reply


def signed(caller, seq):
    return {"caller": caller, "seq": seq, "deadline": 10.0}


def kept(table):
    return [key.rpartition("\n")[2] for key in table.keys.items]


# -- the same key


def test_the_same_key_gets_the_same_reply_marked_and_nothing_is_done_again(table):
    first = do(table, Increment("a"), key="k")
    do(table, Increment("a"))
    again = do(table, Increment("a"), key="k", now=at(3600))
    assert (first.replayed, again) == (False, mark(first))
    assert table.entries["a"].value == 2


def test_a_key_is_known_to_the_requests_after_it_in_the_same_turn(table):
    request = Request([Increment("a")], idempotency_key="k")
    with table.turn(NOW) as turn:
        first, second = (turn.execute(request, 0.0, lambda reply: reply) for _ in range(2))
        turn.commit(lambda outcomes: None)
    assert second == mark(first)
    assert table.entries["a"].value == 1


def test_other_keys_and_other_scopes_are_other_keys(table):
    for key, scope in (("k", ""), ("K", ""), ("k", "token"), ("k", "token2")):
        assert not do(table, Increment("a"), key=key, scope=scope).replayed
    assert table.entries["a"].value == 4
    assert do(table, Increment("a"), key="k", scope="token").only().value == 3


REFUSED = [
    (Increment("full"), "out-of-bounds"),
    (Set("full", 1, if_version="absent"), "version-mismatch"),
    (Delete("none"), "not-found"),
    (Get("none"), "not-found"),
    (Set("full", ttl_mode="fixed"), "invalid-request"),
]


@pytest.mark.parametrize(("op", "code"), REFUSED)
def test_refusals_are_kept_too(table, op, code):
    do(table, Set("full", 5, max=5))
    first = do(table, op, key="k")
    assert first.problem.code == code
    do(table, Set("none", 1), Delete("full"))
    assert do(table, op, key="k") == mark(first)


def test_a_full_table_is_a_refusal_that_is_kept():
    table = CounterTable("run", 1, mark, size)
    do(table, Set("a", 1))
    first = do(table, Set("b", 1), key="k")
    assert first.problem.code == "limit-exceeded"
    do(table, Delete("a"))
    assert do(table, Set("b", 1), key="k") == mark(first)


def test_a_read_under_a_key_is_kept_as_it_was(table):
    do(table, Set("a", 1))
    do(table, Get("a"), key="k")
    do(table, Set("a", 2))
    again = do(table, Get("a"), key="k")
    assert (again.only().value, again.replayed) == (1, True)


def test_what_is_not_atomic_is_kept_as_a_whole(table):
    first = do(table, Increment("a"), Delete("none"), key="k", atomic=False)
    assert isinstance(first.results[1], Problem)
    assert do(table, Increment("a"), Delete("none"), key="k", atomic=False) == mark(first)
    assert table.entries["a"].value == 1


# -- something else under the same key


OTHERS = [
    ([Increment("a", 2)], True),
    ([Increment("b")], True),
    ([Increment("a")], False),
    ([Increment("a"), Increment("a")], True),
    ([Set("a", 1)], True),
    ([Get("a")], True),
    ([Increment("a", if_version="present")], True),
    ([Increment("a", ttl=5)], True),
]


@pytest.mark.parametrize(("ops", "atomic"), OTHERS)
def test_other_ops_under_the_same_key_are_refused_and_change_nothing(table, ops, atomic):
    first = do(table, Increment("a"), key="k")
    refused = do(table, *ops, key="k", atomic=atomic, append=refuse_to_write)
    assert type(refused.problem.error()) is KeyReused
    assert "'k'" in refused.problem.detail
    assert table.entries["a"].value == 1
    assert do(table, Increment("a"), key="k") == mark(first)


def test_a_set_that_keeps_a_field_is_not_one_that_clears_it(table):
    do(table, Set("a", 1), key="k")
    assert do(table, Set("a", 1, max=None), key="k").problem.code == "key-reused"


def test_requests_that_mean_the_same_have_one_digest_however_they_are_written():
    one = b"\x82\xa3ops\x91\x83\xa2op\xa9increment\xa4name\xa1a\xa5delta\x01\xafidempotency_key\xa1k"
    other = (
        b"\x83\xafidempotency_key\xa1k\xa6atomic\xc3\xa3ops\x91\x84\xa3max\xc0\xa5delta\xd3\0\0\0\0\0\0\0\x01"
        b"\xa4name\xa1a\xa2op\xa9increment"
    )
    made = Request([Increment("a", 1, None)], True, ANNA, 7, 3.0, "k")
    digests = {Asked.by(request) for request in (decode_request(one), decode_request(other), made)}
    assert len(digests) == 1
    assert Asked.by(Request([Increment("a")])) is None


@pytest.mark.parametrize("key", ["", "a b", "a\n", "é", "a\x7f", "\t", "k" * 256, 5, b"k", "😀"])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(InvalidRequest, match="visible ASCII"):
        Request([Increment("a")], idempotency_key=key)


@pytest.mark.parametrize("key", ["!", "~", "k" * 255, '"', "a,b", "\\"])
def test_every_visible_ascii_character_can_be_in_a_key(key):
    assert Request([Increment("a")], idempotency_key=key).mutates


def test_a_listing_takes_no_key():
    with pytest.raises(InvalidRequest, match="with a key"):
        Request([List()], idempotency_key="k")


# -- keys and callers


def test_a_replay_is_what_its_caller_is_remembered_by(table, few):
    do(table, Increment("a"), key="k")
    written = []
    replayed = do(table, Increment("a"), key="k", append=written.extend, **signed(ANNA, 1))
    (outcome,) = written
    assert (outcome.changed, outcome.reply, outcome.caller, outcome.key) == ({}, replayed, ANNA, None)
    for number in range(3):
        do(table, Increment("b"), key=f"{number}", now=at(100))
    assert kept(table) == ["0", "1", "2"]
    assert do(table, Increment("a"), key="k", now=at(100), **signed(ANNA, 1)) is replayed
    assert not do(table, Increment("a"), key="k", now=at(200), **signed(ANNA, 2)).replayed


def test_a_callers_own_repetition_is_no_replay(table):
    first = do(table, Increment("a"), key="k", **signed(ANNA, 1))
    assert do(table, Increment("a"), key="k", **signed(ANNA, 1)) is first
    assert do(table, Increment("a"), key="k", **signed(BERT, 1)) == mark(first)
    assert do(table, Increment("a"), key="k", **signed(ANNA, 2)) == mark(first)


def test_past_its_deadline_a_request_is_told_so_whatever_its_key_and_nothing_is_kept(table):
    late = {"caller": ANNA, "seq": 1, "deadline": -1.0}
    assert do(table, Increment("a"), key="k", **late).problem.code == "outcome-unknown"
    assert kept(table) == []
    do(table, Increment("a"), key="k")
    assert do(table, Increment("a"), key="k", **late).problem.code == "outcome-unknown"


def test_a_reused_key_is_refused_anew_each_time(table):
    """It is not the outcome of the key, nor of the caller's request: nothing was decided."""
    do(table, Increment("a"), key="k")
    for _ in range(2):
        refused = do(table, Increment("b"), key="k", append=refuse_to_write, **signed(ANNA, 1))
        assert refused.problem.code == "key-reused"
    assert not table.callers


def test_after_a_failed_append_keys_of_before_are_answered_and_new_ones_were_never_used(table):
    old = Request([Increment("a")], True, idempotency_key="old", **signed(BERT, 1))
    new = Request([Increment("a")], True, idempotency_key="new", **signed(ANNA, 1))
    first = do(table, *old.ops, key="old")
    with pytest.raises(JournalFull), table.turn(NOW) as turn:
        turn.execute(new, 0.0, lambda reply: reply)
        turn.commit(refuse_to_write)
    with table.turn(NOW) as turn:
        assert turn.settled(new, 0.0, lambda reply: reply) is None
        assert turn.settled(old, 0.0, lambda reply: reply) == mark(first)
        assert (
            turn.settled(Request([Get("a")], idempotency_key="old"), 0.0, mark).problem.code == "key-reused"
        )
    assert (kept(table), len(table.callers), table.entries["a"].value) == (["old"], 0, 1)
    assert do(table, Increment("a"), key="new").only().value == 2


# -- how long, how many, how much


def test_a_key_is_kept_for_24_hours_to_the_microsecond(table):
    do(table, Increment("a"), key="k")
    day = 24 * 3600
    assert do(table, Increment("a"), key="k", now=at(day - 0.000001)).replayed
    assert not do(table, Increment("a"), key="k", now=at(day)).replayed
    assert do(table, Increment("a"), key="k", now=at(day + 1)).replayed  # its day has begun anew
    assert (kept(table), table.keys.bytes) == (["k"], len("\nk") + 2 + OVERHEAD)


def test_a_key_that_is_over_and_used_again_counts_once(table, few):
    do(table, Increment("a"), key="0")
    do(table, Increment("a"), key="1", now=at(24 * 3600 - 1))
    with table.turn(at(24 * 3600)) as turn:
        for key, code in (("0", None), ("2", None), ("3", "limit-exceeded"), ("0", None)):
            request = Request([Increment("a")], idempotency_key=key)
            problem = turn.execute(request, 0.0, lambda reply: reply).problem
            assert (problem and problem.code) == code
        turn.commit(lambda outcomes: None)
    assert kept(table) == ["1", "0", "2"]
    assert table.keys.bytes == sum(table.keys.cost(key, keyed) for key, keyed in table.keys.items.items())


def test_a_sweep_forgets_old_keys_in_slices_and_writes_nothing(table):
    for number in range(5):
        do(table, Increment("a"), key=f"{number}", now=at(number))
    left = []
    for seconds in (0, 2, 2, 2):
        with table.turn(at(24 * 3600 + seconds)) as turn:
            more = turn.sweep(0.0, 2)
            turn.commit(refuse_to_write)
        left.append((more, kept(table)))
    assert left == [(True, [*"1234"]), (True, [*"34"]), (False, [*"34"]), (False, [*"34"])]
    assert table.keys.bytes == 2 * (2 + OVERHEAD) + 4 + 5


def test_a_sweep_that_is_not_committed_forgets_nothing(table):
    do(table, Increment("a"), key="k")
    with table.turn(at(24 * 3600)) as turn:
        assert turn.sweep(0.0)
    assert kept(table) == ["k"]


def test_the_oldest_key_makes_room_for_a_new_one(table, few):
    for number in range(5):
        do(table, Increment("a"), key=f"{number}", now=at(100 * number))
    assert kept(table) == ["2", "3", "4"]
    assert not do(table, Increment("a"), key="0", now=at(500)).replayed
    assert do(table, Increment("a"), key="3", now=at(500)).replayed


def test_a_key_younger_than_a_minute_is_never_forgotten(table, few):
    for number in range(3):
        do(table, Increment("a"), key=f"{number}", now=at(number))
    before = table.entries["a"]
    refused = do(table, Increment("a"), key="new", now=at(59.9), append=refuse_to_write, **signed(ANNA, 1))
    assert type(refused.problem.error()) is LimitExceeded
    assert "keys" in refused.problem.detail
    assert (table.entries["a"], kept(table), len(table.callers)) == (before, [*"012"], 0)
    assert do(table, Increment("a"), key="1", now=at(59.9)).replayed
    assert do(table, Increment("a"), now=at(59.9)).problem is None
    assert not do(table, Increment("a"), key="new", now=at(60)).replayed
    assert do(table, Increment("a"), key="newer", now=at(60)).problem.code == "limit-exceeded"
    assert kept(table) == ["1", "2", "new"]


def test_keys_of_one_turn_share_the_room(table, few):
    with table.turn(NOW) as turn:
        codes = [
            reply.problem and reply.problem.code
            for key in "abcda"
            for reply in [
                turn.execute(Request([Increment("a")], idempotency_key=key), 0.0, lambda reply: reply)
            ]
        ]
        turn.commit(lambda outcomes: None)
    assert codes == [None, None, None, "limit-exceeded", None]
    assert (kept(table), table.entries["a"].value) == ([*"abc"], 3)


def test_keys_take_so_many_bytes_at_the_most(table, monkeypatch):
    monkeypatch.setattr(keys, "MAX_BYTES", 3 * (2 + OVERHEAD) + 300)
    for number, value in enumerate((100, 100, 100)):
        do(table, Set("a", value), key=f"{number}", now=at(number))
    assert table.keys.bytes == keys.MAX_BYTES
    assert do(table, Set("a", 301), key="b", now=at(59)).problem.code == "limit-exceeded"
    assert do(table, Set("a", 20_000), key="b", now=at(600)).problem.code == "limit-exceeded"
    assert kept(table) == [*"012"], "what cannot fit drives nobody out"
    assert do(table, Set("a", 101), key="b", now=at(600)).problem is None
    assert kept(table) == ["2", "b"]
    assert table.entries["a"].value == 101


def test_keys_of_one_turn_share_the_bytes(table, monkeypatch):
    monkeypatch.setattr(keys, "MAX_BYTES", 2 * (2 + OVERHEAD) + 200)
    with table.turn(NOW) as turn:
        for key, code in (("a", None), ("b", None), ("c", "limit-exceeded")):
            request = Request([Set("a", 100)], idempotency_key=key)
            problem = turn.execute(request, 0.0, lambda reply: reply).problem
            assert (problem and problem.code) == code
        turn.commit(lambda outcomes: None)
    assert (kept(table), table.keys.bytes) == (["a", "b"], keys.MAX_BYTES)


def test_what_could_not_make_room_leaves_the_oldest_for_the_next(table, monkeypatch):
    monkeypatch.setattr(keys, "MAX_BYTES", 3 * (2 + OVERHEAD) + 300)
    for number in range(3):
        do(table, Set("a", 100), key=f"{number}", now=at(number))
    with table.turn(at(61)) as turn:  # two are old enough
        for key, value, code in (
            ("a", 900, "limit-exceeded"),
            ("b", 100, None),
            ("c", 1100, "limit-exceeded"),
            ("d", 100, None),
        ):
            request = Request([Set("a", value)], idempotency_key=key)
            problem = turn.execute(request, 0.0, lambda reply: reply).problem
            assert (problem and problem.code) == code
        turn.commit(lambda outcomes: None)
    assert (kept(table), table.keys.bytes) == (["2", "b", "d"], keys.MAX_BYTES)


def test_the_promised_horizons():
    assert keys.KEPT.total_seconds() == 24 * 3600
    assert keys.SURE.total_seconds() == 60
    assert keys.MAX_KEYS == 100_000
    assert keys.MAX_BYTES == 64 * 1024 * 1024


def test_a_journals_keys_are_trimmed_by_the_same_rules(few):
    items = {f"{number}": Keyed(b"", at(100 * number), b"reply") for number in range(6)}
    known = Keys(len, items)
    known.trim(at(24 * 3600 + 100))
    assert ([*items], known.bytes) == ([*"345"], 3 * (1 + 5 + OVERHEAD))


# -- all of it


class Model:
    """What is promised, with a dict."""

    def __init__(self):
        self.values, self.known = {}, {}

    def ask(self, name, delta, key):
        """Value or code, and whether it was given before."""
        if key in self.known:
            asked, told = self.known[key]
            return (told, True) if asked == (name, delta) else ("key-reused", False)
        value = self.values.get(name, 0) + delta
        told = value
        if abs(value) > 3:
            told = "out-of-bounds"
        else:
            self.values[name] = value
        if key is not None:
            self.known[key] = (name, delta), told
        return told, False


steps = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(-2, 2),
        st.none() | st.sampled_from("klm"),
        st.none() | st.sampled_from([ANNA, BERT]),
        st.sampled_from(["commit", "fail", "restart"]),
    ),
    max_size=30,
)


@given(steps)
def test_same_key_same_answer_done_once(steps):
    """Against a dict, with the manager's bytes, through failed appends and restarts."""
    table, model, journal = CounterTable("run0", 100, as_replayed, len), Model(), State()
    for number, (name, delta, key, caller, then) in enumerate(steps):
        op = Increment(name, delta, -3, 3)
        request = Request([op], True, caller, number, 10.0, key)
        outcomes = []
        with table.turn(at(number)) as turn:
            sealed = turn.execute(request, 0.0, encode_reply)
            reply = decode_reply(sealed, request.ops)
            told = reply.problem.code if reply.problem else reply.only().value
            if then == "fail":
                continue  # never told
            turn.commit(outcomes.extend)
        assert (told, reply.replayed) == model.ask(name, delta, key)
        for outcome in outcomes:
            journal.assign(outcome)
        if then == "restart":
            table = CounterTable(f"run{number + 1}", 100, as_replayed, len)
            table.restore(journal, 0.0)
        if caller is not None and told != "key-reused":
            with table.turn(at(number)) as turn:
                assert turn.execute(request, 0.0, encode_reply) == sealed
    assert {name: entry.value for name, entry in table.entries.items()} == model.values


def test_a_reply_is_made_for_a_key_though_nobody_signed_it(table):
    assert isinstance(do(table, Increment("a"), key="k"), Reply)
    assert not table.callers
