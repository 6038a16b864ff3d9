"""The rule: every corner of it in a table, and what always holds in properties."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import asdict

from counter.errors import CounterError, InvalidRequest, NotFound, OutOfBounds, VersionMismatch
from counter.fields import INT64_MAX, INT64_MIN, MAX_TTL
from counter.ops import Delete, Get, Increment, Set
from counter.results import Change, Entry
from counter.transition import transition

THEN = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOW = THEN + timedelta(seconds=30)
LOW, HIGH = INT64_MIN, INT64_MAX


def entry(value=5, name="a", **fields):
    return Entry(name, value, "r.1", THEN, THEN, **fields)


def do(before, op, now=NOW):
    """The entry after *op* and the change told, which must agree; or the error's class, and nothing else."""
    try:
        after, told = transition(before, op, now, "r.2")
    except CounterError as error:
        return type(error), error.current
    if isinstance(op, Increment | Set):
        assert Entry(**{field: getattr(told, field) for field in Entry.__struct_fields__}) == after
    return after, told


# (value before or None, delta, options of the call, the counter's settings) -> value after, or OutOfBounds
STEPS = [
    (None, 1, {}, {}, 1),
    (None, 0, {}, {}, 0),
    (5, 3, {}, {}, 8),
    (5, -8, {}, {}, -3),
    # the counter's own bounds
    (9, 1, {}, {"max": 10}, 10),
    (10, 1, {}, {"max": 10}, OutOfBounds),
    (1, -1, {}, {"min": 0}, 0),
    (0, -1, {}, {"min": 0}, OutOfBounds),
    (8, 5, {}, {"max": 10, "on_bound": "clamp"}, 10),
    (3, -5, {}, {"min": 0, "on_bound": "clamp"}, 0),
    (10, 5, {}, {"max": 10, "on_bound": "clamp"}, 10),
    (8, 5, {}, {"max": 10, "on_bound": "reject"}, OutOfBounds),
    # the call's bounds narrow, and never widen
    (8, 5, {"max": 10}, {}, OutOfBounds),
    (8, 2, {"max": 10}, {}, 10),
    (8, 5, {"max": 10, "on_bound": "clamp"}, {}, 10),
    (8, 5, {"max": 100}, {"max": 10}, OutOfBounds),
    (8, 5, {"max": 9, "on_bound": "clamp"}, {"max": 10}, 9),
    (3, -5, {"min": 1, "on_bound": "clamp"}, {"min": 0}, 1),
    (3, -5, {"min": -9}, {"min": 0}, OutOfBounds),
    (8, 5, {"on_bound": "clamp"}, {"max": 10}, 10),
    (8, 5, {"on_bound": "reject"}, {"max": 10, "on_bound": "clamp"}, OutOfBounds),
    # on the first insert
    (None, 1, {"max": 0}, {}, OutOfBounds),
    (None, 5, {"max": 3, "on_bound": "clamp"}, {}, 3),
    (None, -1, {"min": 0}, {}, OutOfBounds),
    (None, -5, {"min": -3, "on_bound": "clamp"}, {}, -3),
    # outside the range: a step towards it is never refused, one away from it is, clamp stays
    (20, -1, {"max": 10}, {}, 19),
    (20, -15, {"max": 10}, {}, 5),
    (20, 1, {"max": 10}, {}, OutOfBounds),
    (20, 1, {"max": 10, "on_bound": "clamp"}, {}, 20),
    (-20, 1, {"min": -10}, {}, -19),
    (-20, -1, {"min": -10}, {}, OutOfBounds),
    (-20, -1, {"min": -10, "on_bound": "clamp"}, {}, -20),
    (None, 1, {"min": 5}, {}, 1),
    (20, 0, {"max": 10}, {}, 20),
    # a step over the whole range
    (20, -100, {"min": 0, "max": 10}, {}, OutOfBounds),
    (20, -100, {"min": 0, "max": 10, "on_bound": "clamp"}, {}, 0),
    (-20, 100, {"min": 0, "max": 10, "on_bound": "clamp"}, {}, 10),
    # the 64-bit range bounds everybody
    (HIGH, 1, {}, {}, OutOfBounds),
    (HIGH - 1, 1, {}, {}, HIGH),
    (LOW, -1, {}, {}, OutOfBounds),
    (LOW + 1, -1, {}, {}, LOW),
    (HIGH, HIGH, {"on_bound": "clamp"}, {}, HIGH),
    (5, LOW, {"on_bound": "clamp"}, {}, LOW + 5),
    (-5, LOW, {"on_bound": "clamp"}, {}, LOW),
    (LOW, HIGH, {}, {}, -1),
    # bounds of the call and the counter that leave nothing
    (5, 1, {"min": 20}, {"max": 10}, 6),
    (10, 1, {"min": 20, "on_bound": "clamp"}, {"max": 10}, 10),
    (10, 1, {"min": 20}, {"max": 10}, OutOfBounds),
]


@pytest.mark.parametrize(("value", "delta", "options", "settings", "expected"), STEPS)
def test_a_step_in_every_corner_of_the_bounds(value, delta, options, settings, expected):
    before = None if value is None else entry(value, **settings)
    after, told = do(before, Increment("a", delta, **options))
    if expected is OutOfBounds:
        assert (after, told) == (OutOfBounds, before)
        return
    assert after.value == expected
    assert (told.previous, told.delta, told.created) == (value or 0, expected - (value or 0), value is None)
    kept = {"min": None, "max": None, "on_bound": None} | settings
    assert {field: getattr(after, field) for field in kept} == kept  # the call's own are not remembered


def test_an_increment_is_a_change_even_by_nothing():
    after, told = do(entry(5), Increment("a", 0))
    assert (after.version, after.updated_at, after.created_at) == ("r.2", NOW, THEN)
    assert (told.previous, told.delta) == (5, 0)


def test_a_first_increment_creates_at_now():
    after, told = do(None, Increment("a", 4))
    assert after == Entry("a", 4, "r.2", NOW, NOW)
    assert told == Change("a", 4, "r.2", NOW, NOW, previous=0, delta=4, created=True)


def test_get_tells_what_is_there_and_changes_nothing():
    assert do(entry(7), Get("a")) == (entry(7), entry(7))
    assert do(None, Get("a"))[0] is NotFound


def test_delete_tells_the_entry_as_it_was():
    before = entry(7, min=0, max=9)
    after, told = do(before, Delete("a"))
    assert after is None
    assert asdict(told) == asdict(before) | {"previous": 7, "delta": 0, "created": False}
    assert do(None, Delete("a"))[0] is NotFound


SETS = [  # (value before or None, settings before, the set) -> (value, min, max, on_bound), or an error
    (None, {}, {"value": 3}, (3, None, None, None)),
    (None, {}, {"max": 3}, NotFound),
    (None, {}, {}, NotFound),
    (5, {}, {}, (5, None, None, None)),
    (5, {"min": 0, "max": 9}, {"value": 9}, (9, 0, 9, None)),
    (5, {"min": 0, "max": 9}, {"value": 10}, OutOfBounds),
    (5, {"min": 0, "max": 9}, {"value": -1}, OutOfBounds),
    (5, {"min": 0, "max": 9, "on_bound": "clamp"}, {"value": 10}, (9, 0, 9, "clamp")),
    (5, {"min": 0, "max": 9}, {"value": -1, "on_bound": "clamp"}, (0, 0, 9, "clamp")),
    (5, {"min": 0, "max": 9, "on_bound": "clamp"}, {"value": 10, "on_bound": None}, OutOfBounds),
    (5, {"min": 0, "max": 9}, {"value": 10, "max": None}, (10, 0, None, None)),
    (5, {"min": 0, "max": 9}, {"min": None, "max": None}, (5, None, None, None)),
    (5, {}, {"max": 5}, (5, None, 5, None)),
    (5, {}, {"max": 4}, OutOfBounds),
    (5, {}, {"max": 4, "on_bound": "clamp"}, (4, None, 4, "clamp")),
    (5, {}, {"min": 6, "on_bound": "clamp"}, (6, 6, None, "clamp")),
    (5, {"max": 9}, {"min": 10}, InvalidRequest),
    (5, {"max": 9}, {"min": 9, "value": 9}, (9, 9, 9, None)),
    (5, {"min": 3}, {"max": 2}, InvalidRequest),
    (None, {}, {"value": 3, "max": 2}, OutOfBounds),
    (None, {}, {"value": 3, "max": 2, "on_bound": "clamp"}, (2, None, 2, "clamp")),
    (None, {}, {"value": 1, "min": 2}, OutOfBounds),
    (None, {}, {"value": HIGH}, (HIGH, None, None, None)),
    (5, {}, {"ttl_mode": "sliding"}, InvalidRequest),
    (5, {}, {"ttl_mode": None}, (5, None, None, None)),
]


@pytest.mark.parametrize(("value", "settings", "fields", "expected"), SETS)
def test_a_set_keeps_clears_and_sets(value, settings, fields, expected):
    before = None if value is None else entry(value, **settings)
    after, told = do(before, Set("a", **fields))
    if isinstance(expected, type):
        assert after is expected
        assert told == (before if expected is OutOfBounds else None)
        return
    assert (after.value, after.min, after.max, after.on_bound) == expected
    assert (told.previous, told.created) == (value or 0, value is None)
    assert told.delta == expected[0] - (value or 0)
    assert (after.version, after.updated_at) == ("r.2", NOW)
    assert after.created_at == (NOW if value is None else THEN)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(0, "0 is below the minimum of 'a', 1"), (10, "10 is above the maximum of 'a', 9")],
)
def test_a_set_that_is_refused_says_which_bound_it_would_pass(value, sentence):
    with pytest.raises(OutOfBounds, match=sentence):
        transition(entry(5, min=1, max=9), Set("a", value), NOW, "r.2")


def test_a_set_that_moves_further_than_64_bits_tells_no_delta():
    assert do(entry(LOW), Set("a", HIGH))[1].delta is None
    assert do(entry(-1), Set("a", HIGH))[1].delta is None
    assert do(entry(0), Set("a", HIGH))[1].delta == HIGH
    assert do(entry(0), Set("a", LOW))[1].delta == LOW
    assert do(entry(1), Set("a", LOW))[1].delta is None


CONDITIONS = [  # (is there a counter, if_version, holds)
    (True, "present", True),
    (True, "absent", False),
    (True, "r.1", True),
    (True, "r.10", False),
    (True, "r.", False),
    (True, "R.1", False),
    (False, "present", False),
    (False, "absent", True),
    (False, "r.1", False),
]


@pytest.mark.parametrize(
    "make", [Increment, lambda n, **o: Set(n, 1, **o), Delete], ids=["increment", "set", "delete"]
)
@pytest.mark.parametrize(("there", "if_version", "holds"), CONDITIONS)
def test_a_condition_holds_or_the_current_entry_is_told(there, if_version, holds, make):
    before = entry() if there else None
    after, told = do(before, make("a", if_version=if_version))
    if not holds:
        assert (after, told) == (VersionMismatch, before)
    elif there or make is not Delete:
        assert isinstance(told, Change)
    else:
        assert after is NotFound  # deleting what must be absent, and is


def test_the_condition_is_judged_before_everything_else():
    full = entry(10, max=10)
    assert do(full, Increment("a", if_version="r.9"))[0] is VersionMismatch
    assert do(None, Set("a", max=3, if_version="present"))[0] is VersionMismatch


# -- time to live


def after_(seconds):
    return NOW + timedelta(seconds=seconds)


def living(mode, ttl=60, ends=None, **fields):
    return entry(5, ttl=ttl, ttl_mode=mode, expires_at=ends or THEN + timedelta(seconds=ttl), **fields)


def life(after):
    return after.ttl, after.ttl_mode, after.expires_at


def test_an_increments_ttl_is_given_at_the_creation():
    assert life(do(None, Increment("a", ttl=60))[0]) == (60, "fixed", after_(60))
    assert life(do(None, Increment("a", ttl=60, ttl_mode="sliding"))[0]) == (60, "sliding", after_(60))
    assert life(do(None, Increment("a"))[0]) == (None, None, None)


@pytest.mark.parametrize(
    "before", [entry(), living("fixed"), living("sliding")], ids=["none", "fixed", "sliding"]
)
def test_an_increments_ttl_has_no_effect_on_a_counter_that_exists(before):
    with_ttl, without = do(before, Increment("a", ttl=9)), do(before, Increment("a"))
    assert with_ttl == without


@pytest.mark.parametrize("op", [Increment("a"), Increment("a", 0), Set("a", 9), Set("a", max=99)], ids=repr)
def test_fixed_stays_and_sliding_restarts_with_each_write(op):
    assert life(do(living("fixed"), op)[0]) == (60, "fixed", THEN + timedelta(seconds=60))
    assert life(do(living("sliding"), op)[0]) == (60, "sliding", after_(60))


def test_a_read_restarts_nothing():
    assert do(living("sliding"), Get("a"))[0] == living("sliding")


def test_a_refused_write_tells_the_old_end():
    assert do(living("sliding", max=5), Increment("a")) == (OutOfBounds, living("sliding", max=5))


LIVES = [  # (ttl, mode before), the set -> (ttl, mode, seconds from now, or None: as it was)
    ((None, None), {"ttl": 10}, (10, "fixed", 10)),
    ((None, None), {"ttl": 10, "ttl_mode": "sliding"}, (10, "sliding", 10)),
    ((60, "fixed"), {"ttl": 10}, (10, "fixed", 10)),
    ((60, "fixed"), {"ttl": 60}, (60, "fixed", 60)),
    ((60, "sliding"), {"ttl": 10}, (10, "sliding", 10)),
    ((60, "sliding"), {"ttl_mode": "fixed"}, (60, "fixed", None)),
    ((60, "sliding"), {"ttl_mode": None}, (60, "fixed", None)),
    ((60, "fixed"), {"ttl_mode": "sliding"}, (60, "sliding", 60)),
    ((60, "fixed"), {"ttl": MAX_TTL}, (MAX_TTL, "fixed", MAX_TTL)),
]


@pytest.mark.parametrize(("before", "fields", "expected"), LIVES)
def test_a_set_gives_and_changes_a_ttl_from_now(before, fields, expected):
    ttl, mode = before
    old = living(mode, ttl) if ttl else entry()
    ttl, mode, seconds = expected
    assert life(do(old, Set("a", **fields))[0]) == (
        ttl,
        mode,
        old.expires_at if seconds is None else after_(seconds),
    )


@pytest.mark.parametrize("fields", [{"ttl": None}, {"ttl": None, "ttl_mode": None}])
def test_clearing_the_ttl_lets_a_counter_live_for_ever(fields):
    assert life(do(living("sliding"), Set("a", **fields))[0]) == (None, None, None)


def test_a_mode_without_a_ttl_is_refused():
    assert do(living("fixed"), Set("a", ttl=None, ttl_mode="sliding"))[0] is InvalidRequest


EXPIRED = living("sliding", ends=NOW, max=5, on_bound="clamp")


@pytest.mark.parametrize(
    "op",
    [
        Get("a"),
        Increment("a", 9),
        Increment("a", ttl=5),
        Increment("a", if_version="present"),
        Increment("a", if_version="absent"),
        Increment("a", if_version="r.1"),
        Set("a", 9),
        Set("a", max=9),
        Delete("a"),
        Delete("a", "r.1"),
    ],
    ids=repr,
)
def test_from_its_last_instant_on_an_expired_counter_is_a_missing_one(op):
    assert do(EXPIRED, op) == do(None, op)


def test_until_its_last_instant_a_counter_is_there():
    assert do(EXPIRED, Get("a"), NOW - timedelta(microseconds=1))[0] == EXPIRED


# -- what always holds

int64 = st.one_of(
    st.integers(-12, 12), st.integers(HIGH - 12, HIGH), st.integers(LOW, LOW + 12), st.integers(LOW, HIGH)
)
maybe_int = st.none() | int64
on_bounds = st.sampled_from([None, "reject", "clamp"])
modes = st.sampled_from(["fixed", "sliding"])
versions = st.sampled_from([None, None, None, "present", "absent", "r.1", "r.7"])


def pair(strategy):
    return st.tuples(strategy, strategy).map(
        lambda two: two if None in two or UNSET in two else (min(two), max(two))
    )


@st.composite
def entries(draw):
    """Any counter that can be: within its own bounds."""
    low, high = draw(pair(maybe_int))
    value = draw(st.integers(LOW if low is None else low, HIGH if high is None else high) | int64)
    value = max(value, LOW if low is None else low)
    value = min(value, HIGH if high is None else high)
    ttl = draw(st.none() | st.integers(1, 100))
    mode, ends = (None, None) if ttl is None else (draw(modes), THEN + timedelta(seconds=ttl))
    return Entry("a", value, "r.1", THEN, THEN, low, high, draw(on_bounds), ttl, mode, ends)


@st.composite
def increments(draw):
    low, high = draw(pair(maybe_int))
    ttl = draw(st.none() | st.integers(1, 100))
    mode = None if ttl is None else draw(st.none() | modes)
    return Increment("a", draw(int64), low, high, draw(on_bounds), ttl, mode, draw(versions))


def or_left_out(strategy):
    return st.just(UNSET) | strategy


@st.composite
def sets(draw):
    low, high = draw(pair(or_left_out(maybe_int)))
    ttl = draw(or_left_out(st.none() | st.integers(1, 100)))
    fields = (draw(or_left_out(on_bounds)), ttl, draw(or_left_out(st.none() | modes)))
    return Set("a", draw(or_left_out(int64)), low, high, *fields, draw(versions))


maybe_entries = st.none() | entries()
any_op = st.one_of(increments(), sets(), st.builds(Delete, st.just("a"), versions), st.just(Get("a")))


@pytest.mark.slow
@given(maybe_entries, any_op)
def test_always_a_value_lies_within_its_counters_bounds_and_64_bits(before, op):
    after, _ = do(before, op)
    if isinstance(after, Entry):
        assert (LOW if after.min is None else after.min) <= after.value
        assert after.value <= (HIGH if after.max is None else after.max)
        assert (after.ttl is None) == (after.ttl_mode is None) == (after.expires_at is None)


@pytest.mark.slow
@given(maybe_entries, any_op)
def test_always_the_answer_adds_up(before, op):
    after, told = do(before, op)
    if not op.mutates or isinstance(after, type):
        return
    alive = before is not None and not before.expired(NOW)
    assert told.previous == (before.value if alive else 0)
    if after is None:
        assert (told.value, told.delta, told.created) == (before.value, 0, False)
        return
    assert told.created is not alive
    assert after.version == "r.2"
    assert after.updated_at == NOW
    assert after.created_at == (before.created_at if alive else NOW)
    moved = after.value - told.previous
    assert told.delta == (moved if LOW <= moved <= HIGH else None)


@pytest.mark.slow
@given(maybe_entries, increments())
def test_always_a_step_goes_the_way_of_its_delta_and_no_further(before, op):
    _, told = do(before, op)
    if isinstance(told, Change):
        assert 0 <= told.delta <= op.delta or op.delta <= told.delta <= 0


@pytest.mark.slow
@given(maybe_entries, increments())
def test_always_a_refused_step_would_have_left_the_range(before, op):
    after, _ = do(before, op)
    if after is OutOfBounds:
        start = before if before is not None and not before.expired(NOW) else entry(0)
        value = start.value + op.delta
        highs = [HIGH, *(b for b in (start.max, op.max) if b is not None)]
        lows = [LOW, *(b for b in (start.min, op.min) if b is not None)]
        assert value > min(highs) if op.delta > 0 else value < max(lows)
        assert (op.on_bound or start.on_bound) != "clamp"


@pytest.mark.slow
@given(entries(), sets())
def test_always_a_set_keeps_what_is_left_out_and_takes_what_is_given(before, op):
    if before.expired(NOW):
        return
    after, _ = do(before, op)
    if not isinstance(after, Entry):
        return
    for field in ("min", "max", "on_bound"):
        given_ = getattr(op, field)
        assert getattr(after, field) == (getattr(before, field) if given_ is UNSET else given_)
    if op.ttl is not UNSET:
        assert after.ttl == op.ttl
    elif after.ttl_mode == "fixed":
        assert (after.ttl, after.expires_at) == (before.ttl, before.expires_at)
    if op.value is not UNSET and (op.on_bound if op.on_bound is not UNSET else before.on_bound) != "clamp":
        assert after.value == op.value
