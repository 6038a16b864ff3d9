"""The storage of rate limits: windows and the edges between them, names, failures."""

import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
)

import counter
import counter.limits
from counter.errors import CounterError, InvalidRequest, OutcomeUnknown
from counter.fields import check_name
from counter.limits import CounterStorage
from counter.run import Run
from counter.stores.memory import MemoryStore

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
EXPIRY = 64
"""Of most windows here: a power of two, so that shares of it are exact. Noon is where one begins."""


class Clock(Run):
    """A run whose time is what we say, and the wall clock of the storage."""

    def __init__(self):
        super().__init__()
        self.at = NOON

    def now(self):
        return self.at

    def advance(self, seconds):
        self.at += timedelta(seconds=seconds)

    def time(self):
        return self.at.timestamp()


@contextmanager
def stopped_clock():
    """A storage in memory, and the clock that it goes by."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter.limits, "time", clock)
        patch.setattr(counter.limits, "open_store", lambda uri: MemoryStore(run=clock))
        yield CounterStorage("memory://"), clock


@pytest.fixture
def timed():
    with stopped_clock() as pair:
        yield pair


@pytest.fixture
def url():
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def storage(url):
    return CounterStorage(url)


@pytest.fixture
def names(url):
    """All names in the storage's store."""
    return lambda: list(counter.connect(url))


def limiter_at(store, strategy=FixedWindowRateLimiter):
    """A limiter that counts in *store*, with what its storage sends recorded."""
    storage = CounterStorage(f"memory://{uuid.uuid4().hex}")
    storage._store = storage._counters.store = store
    return strategy(storage)


class Recorder(MemoryStore):
    """Counts requests, and does something before a chosen one."""

    def __init__(self, run=None):
        super().__init__(run=run)
        self.requests, self.before = [], lambda request: None

    def execute(self, request, timeout=None):
        self.requests.append((request, timeout))
        self.before(request)
        return super().execute(request, timeout)


class Away(MemoryStore):
    """Fails each request with *error*."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def execute(self, request, timeout=None):
        raise self.error


# -- a storage of limits


def test_noon_begins_a_window():
    assert NOON.timestamp() % EXPIRY == 0


def test_the_package_limits_opens_it_by_its_url_and_opens_nothing(tmp_path):
    storage = storage_from_string(f"counter://{tmp_path}/nowhere?timeout=2&prefix=shop:")
    assert isinstance(storage, CounterStorage)
    assert storage.check() is False


@pytest.mark.parametrize(
    "uri", ["counter:///srv/shop?colour=red", "counter://host/x", "counter:/srv", "x://"]
)
def test_a_url_that_is_no_stores_is_refused_at_once(uri):
    with pytest.raises(counter.InvalidRequest):
        CounterStorage(uri)


def test_an_option_beside_the_url_is_refused_and_shown_its_place():
    with pytest.raises(counter.InvalidRequest, match=r"no option timeout: .* counter://\?timeout=2"):
        storage_from_string("counter://", timeout=2)


def test_without_a_url_it_is_where_the_counters_of_this_program_are(url, monkeypatch):
    monkeypatch.setenv("COUNTER_URL", url)
    CounterStorage().incr("a", 60)
    assert counter.connect().total() == 1


def test_there_is_no_moving_window(storage):
    with pytest.raises(NotImplementedError, match="CounterStorage"):
        MovingWindowRateLimiter(storage)


# -- fixed windows


def test_a_fixed_window_lasts_from_its_first_hit_and_not_from_later_ones(timed):
    storage, clock = timed
    assert storage.get_expiry("a") == clock.time()
    assert storage.incr("a", 60) == 1
    clock.advance(59)
    assert storage.incr("a", 60, 5) == 6
    assert storage.get_expiry("a") == NOON.timestamp() + 60
    assert storage.get("a") == 6
    clock.advance(1)
    assert storage.get("a") == 0
    assert storage.get_expiry("a") == clock.time()
    assert storage.incr("a", 60) == 1


def test_a_counter_that_somebody_made_endless_ends_now(storage, url):
    counter.connect(url).increment("LIMITS:fixed:a")
    assert storage.get_expiry("a") == pytest.approx(time.time(), abs=5)


def test_a_hit_in_a_fixed_window_is_one_round_trip():
    store = Recorder()
    limiter, item = limiter_at(store), RateLimitItemPerMinute(2)
    assert [limiter.hit(item) for _ in range(3)] == [True, True, False]
    assert len(store.requests) == 3


def test_clearing_forgets_one_key(storage):
    storage.incr("a", 60)
    storage.incr("b", 60)
    storage.clear("a")
    storage.clear("nothing")
    assert (storage.get("a"), storage.get("b")) == (0, 1)


# -- sliding windows


def test_the_window_before_weighs_less_and_less(timed):
    storage, clock = timed
    assert all(storage.acquire_sliding_window_entry("a", 8, EXPIRY) for _ in range(8))
    assert not storage.acquire_sliding_window_entry("a", 8, EXPIRY)
    assert storage.get_sliding_window("a", EXPIRY) == (0, 0.0, 8, 2 * EXPIRY)
    clock.advance(EXPIRY)
    assert storage.get_sliding_window("a", EXPIRY) == (8, EXPIRY, 0, 2 * EXPIRY)
    assert not storage.acquire_sliding_window_entry("a", 8, EXPIRY)
    clock.advance(EXPIRY / 4)  # three quarters of 8 are left
    assert [storage.acquire_sliding_window_entry("a", 8, EXPIRY) for _ in range(3)] == [True, True, False]
    assert storage.get_sliding_window("a", EXPIRY) == (8, 48.0, 2, 112.0)
    clock.advance(2 * EXPIRY)
    assert storage.get_sliding_window("a", EXPIRY)[::2] == (0, 0)


def test_a_window_weighs_to_the_end_of_the_next_one(timed):
    """Also if the first hit came last in its window, or first."""
    storage, clock = timed
    for late in (0, EXPIRY - 1):
        clock.at = NOON + timedelta(seconds=late)
        assert storage.acquire_sliding_window_entry(str(late), 1, EXPIRY)
        clock.at = NOON + timedelta(seconds=2 * EXPIRY - 0.001)
        assert storage.get_sliding_window(str(late), EXPIRY)[0] == 1


def test_what_is_refused_leaves_nothing_behind(storage, names):
    assert not storage.acquire_sliding_window_entry("a", 10, 60, amount=11)
    assert names() == []
    assert storage.acquire_sliding_window_entry("a", 10, 60, amount=10)


def test_clearing_forgets_both_windows(timed):
    storage, clock = timed
    storage.acquire_sliding_window_entry("a", 5, EXPIRY)
    clock.advance(EXPIRY)
    storage.acquire_sliding_window_entry("a", 5, EXPIRY)
    storage.clear_sliding_window("a", EXPIRY)
    assert storage.get_sliding_window("a", EXPIRY)[::2] == (0, 0)


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 4 * EXPIRY), st.integers(1, 3)), max_size=30))
def test_each_decision_is_the_estimates(limit, hits):
    """Against the formula in exact fractions; the steps of time are sixteenths of a second."""
    with stopped_clock() as (storage, clock):
        counts, sixteenths = {}, 0
        for step, amount in hits:
            sixteenths += step * 4
            clock.at = NOON + timedelta(seconds=sixteenths / 16)
            window, inside = divmod(Fraction(sixteenths, 16), EXPIRY)
            weighs = counts.get(window - 1, 0) * (EXPIRY - inside) / EXPIRY
            fits = floor(weighs) + counts.get(window, 0) + amount <= limit
            assert storage.acquire_sliding_window_entry("a", limit, EXPIRY, amount) == fits
            counts[window] = counts.get(window, 0) + amount * fits


def test_a_hit_that_is_late_over_the_edge_is_the_only_one_too_many():
    """What the class says of the edge: it counts in its own window, which others had read before."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter.limits, "time", clock)
        store = Recorder(clock)
        storage = limiter_at(store, SlidingWindowCounterRateLimiter).storage

        def hit():
            return storage.acquire_sliding_window_entry("a", 4, EXPIRY)

        assert [hit(), hit()] == [True, True]
        clock.advance(EXPIRY - 1)
        inner = []

        def over_the_edge(request):
            if isinstance(request.ops[0], counter.Increment):
                store.before = lambda request: None
                clock.advance(1)
                inner.extend(hit() for _ in range(4))  # sees 2 of the window before, so 2 are left

        store.before = over_the_edge
        assert hit()  # reads the clock before the edge, is carried out after it
        assert inner == [True, True, False, False]
        assert storage.get_sliding_window("a", EXPIRY)[::2] == (3, 2)  # 5 for a limit of 4: one too many
        assert not hit()  # from here on it is seen
        clock.advance(EXPIRY / 3 + 1)
        assert [hit(), hit()] == [True, False]  # floor(3 * 0.65) + 2 are taken


# -- names


def test_the_names_can_be_read(timed):
    storage, _clock = timed
    item = RateLimitItemPerMinute(10)
    FixedWindowRateLimiter(storage).hit(item, "192.0.2.7", "index")
    SlidingWindowCounterRateLimiter(storage).hit(item, "192.0.2.7", "index")
    key = "LIMITER/192.0.2.7/index/10/1/minute"
    window = int(NOON.timestamp()) // 60
    assert list(storage._counters) == [f"LIMITS:fixed:{key}", f"LIMITS:sliding:{key}/{window}"]


EPOCHS = 1_500_000_000
"""A window of about 48 years, which does not end while a test runs."""
ODD_KEYS = [
    "",
    "a",
    "x" * 237,
    "x" * 238,
    "x" * 10_000,
    "ä" * 119,
    "a\nb",
    "\x9f",
    "\ud800",
    "\udfff",
    "a/b",
    "a:b",
]
ODD_KEYS += ["fixed:a", "#a", "sliding:a/0", " ", "a ", "A", "a#b"]


def test_two_keys_never_meet(storage, names):
    """Nor do the two strategies, nor a key that spells another's digest."""
    digests = [
        name.partition("#")[2] for name in (storage._fixed(key) for key in ODD_KEYS) if "fixed#" in name
    ]
    assert len(digests) == 7
    keys = ODD_KEYS + [f"{start}{digest}" for digest in digests for start in ("", "#", "fixed#")]
    for times, key in enumerate(keys, 1):
        assert storage.incr(key, 600, times) == times
        for number in range(2):
            assert storage.acquire_sliding_window_entry(f"{key}/{number}", 10_000, EPOCHS, times)
    assert len(names()) == 3 * len(keys)
    for times, key in enumerate(keys, 1):
        assert storage.get(key) == times
        assert storage.get_sliding_window(f"{key}/0", EPOCHS)[2] == times


@given(st.text(max_size=300), st.sampled_from(["", "shop:", "p" * 100]))
def test_every_key_has_a_name(key, prefix):
    storage = CounterStorage(f"memory://{uuid.uuid4().hex}?prefix={prefix}" if prefix else "memory://names")
    for name in (storage._fixed(key), *storage._windows(key, 60, time.time())):
        check_name(prefix + name)
        assert name.startswith("LIMITS:")


def test_with_a_prefix_the_longest_names_still_fit(url):
    storage = CounterStorage(f"{url}?prefix=shop:")
    key = "x" * 235
    assert storage.incr(key, 60) == 1
    (name,) = counter.connect(url)
    assert name.startswith("shop:LIMITS:fixed#")


# -- all of them


def test_reset_forgets_every_limit_and_nothing_else(storage, url):
    """More of them than a request holds."""
    others = counter.connect(url)
    others.update({"LIMITS": 1, "LIMITSfixed": 2, "zebra": 3, "A": 4})
    for start in range(0, 10_500, 500):
        others.update({f"LIMITS:fixed:{number}": 1 for number in range(start, start + 500)})
    storage.acquire_sliding_window_entry("a", 5, 60)
    assert storage.reset() == 10_501
    assert dict(others.items()) == {"LIMITS": 1, "LIMITSfixed": 2, "zebra": 3, "A": 4}
    assert storage.reset() == 0


def test_reset_counts_what_it_forgot_itself():
    store = Recorder()
    storage = limiter_at(store).storage
    for key in "abc":
        storage.incr(key, 60)

    def another_is_faster(request):
        if isinstance(request.ops[0], counter.Delete):
            store.before = lambda request: None
            storage.clear("b")

    store.before = another_is_faster
    assert storage.reset() == 2


def test_reset_in_a_prefix_leaves_the_rest_alone(url):
    CounterStorage(url).incr("a", 60)
    mine = CounterStorage(f"{url}?prefix=shop:")
    mine.incr("a", 60)
    assert mine.reset() == 1
    assert CounterStorage(url).get("a") == 1


# -- failures

FAILURES = [counter.StoreUnavailable, counter.JournalFull, OutcomeUnknown, counter.LimitExceeded]
CALLS = [
    lambda storage: storage.incr("a", 60),
    lambda storage: storage.get("a"),
    lambda storage: storage.get_expiry("a"),
    lambda storage: storage.clear("a"),
    lambda storage: storage.reset(),
    lambda storage: storage.acquire_sliding_window_entry("a", 1, 60),
    lambda storage: storage.get_sliding_window("a", 60),
    lambda storage: storage.clear_sliding_window("a", 60),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_of_the_store_is_raised_as_the_user_wants_it(failure):
    storage = limiter_at(Away(failure("away"))).storage
    for call in CALLS:
        storage.wrap_exceptions = False
        with pytest.raises(failure):
            call(storage)
        storage.wrap_exceptions = True
        with pytest.raises(StorageError) as caught:
            call(storage)
        assert isinstance(caught.value.storage_error, failure)


def test_a_mistake_of_the_caller_is_no_failure_of_the_storage(url):
    storage = CounterStorage(url, wrap_exceptions=True)
    with pytest.raises(counter.InvalidRequest):
        storage.incr("a", -1)


@pytest.mark.parametrize("error", [CounterError("odd"), *[f("away") for f in FAILURES], ZeroDivisionError()])
def test_check_never_raises(error):
    assert limiter_at(Away(error)).storage.check() is False


def test_check_asks_for_a_second_at_most():
    store = Recorder()
    assert limiter_at(store).storage.check() is True
    assert [timeout for _request, timeout in store.requests] == [1.0]


def test_the_shortest_url_means_what_connect_means(monkeypatch):
    url = f"memory://{uuid.uuid4()}"
    monkeypatch.setenv("COUNTER_URL", url)
    storage_from_string("counter://").incr("key", 60)
    assert dict(counter.connect(url)) == {"LIMITS:fixed:key": 1}


def test_a_limit_above_all_integers_lets_everybody_through():
    storage = CounterStorage(f"memory://{uuid.uuid4()}")
    assert storage.acquire_sliding_window_entry("key", 10**20, 60)


def test_a_prefix_that_leaves_no_room_for_keys_is_refused_at_once():
    assert CounterStorage(f"memory://?prefix={'p' * 171}").incr("k" * 250, 60) == 1
    with pytest.raises(InvalidRequest, match="250 bytes"):
        CounterStorage(f"memory://?prefix={'p' * 172}")
