"""Questions that wait in the manager: a thousand are woken at once, cost nobody else, and end well."""

import contextlib
import resource
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manager_process import start_manager
from support import wait_until

from benchmarks.figures import percentile
from benchmarks.managers import cpu_seconds
from counter import Changes, Delete, Increment, Info, Request
from counter.fields import MAX_OPS
from counter.history import MOST_GONE
from counter.jobs import _Parked
from counter.wire import decode_reply, encode_request

MANY = 1000
QUIET = 60.0
"""Seconds: longer than any test waits."""


@pytest.fixture(scope="module")
def crowd():
    """A manager and `MANY` connections to it, with room for their descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if limits[1] == resource.RLIM_INFINITY else min(4096, limits[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        yield stack


@pytest.fixture(scope="module")
def service(crowd, tmp_path_factory):
    with start_manager(tmp_path_factory.mktemp("parked") / "home") as manager, manager.connect() as friend:
        watchers = [crowd.enter_context(manager.connect()) for _ in range(MANY)]
        yield SimpleNamespace(manager=manager, friend=friend, watchers=watchers)


def ask(client, since=None, **options):
    return client.request(Changes(since, **options)).only()


def now(client, since=None):
    """The version behind all that has happened."""
    while (page := ask(client, since, limit=1000)).more:
        since = page.version
    return page.version


def park(watchers, friend, ops):
    """Send each watcher's question, and return once every one of them waits.

    The manager begins questions in the order in which they came, so when a later one is answered they do.
    """
    for watcher, op in zip(watchers, ops, strict=True):
        watcher.send_frame(encode_request(Request([op])))
    friend.request(Info()).only()


def collect(watcher):
    return decode_reply(watcher.receive(), [Changes()]).only()


def told(page):
    return [(entry.name, entry.value) for entry in page.counters], page.gone


# -- who is woken


@given(
    st.lists(st.text("ab", max_size=3), max_size=20),
    st.lists(st.text("abc", min_size=1, max_size=4)).map(set),
)
def test_those_are_woken_whose_prefix_begins_a_name_that_changed(prefixes, changed):
    parked = _Parked()
    for number, prefix in enumerate(prefixes):
        parked.add(number, prefix)
    woken = {
        number for number, prefix in enumerate(prefixes) if any(name.startswith(prefix) for name in changed)
    }
    assert sorted(parked.take(changed)) == sorted(woken)
    assert bool(parked) == (len(woken) < len(prefixes))
    assert sorted(parked.take_all()) == sorted({*range(len(prefixes))} - woken)
    assert not parked


@pytest.mark.process
def test_one_increment_wakes_a_thousand_with_the_right_answer(service):
    friend, times = service.friend, []
    for _ in range(5):
        since = now(friend)
        park(service.watchers, friend, [Changes(since, "wake:", QUIET)] * MANY)
        friend.request(Increment("other"))
        began = time.monotonic()
        value = friend.request(Increment("wake:all")).only().value
        pages = [collect(watcher) for watcher in service.watchers]
        times.append(time.monotonic() - began)
        assert [told(page) for page in pages] == [([("wake:all", value)], [])] * MANY
    print(f"\n{MANY} woken in {1000 * sorted(times)[2]:.0f} ms (the longest {1000 * max(times):.0f} ms)")


@pytest.mark.process
def test_each_is_woken_by_its_own_names_alone(service):
    friend, since = service.friend, now(service.friend)
    park(service.watchers, friend, [Changes(since, f"own:{number}:", QUIET) for number in range(MANY)])
    friend.request(*(Increment(f"own:{number}:{number}") for number in range(0, MANY, 2)))
    for number in range(0, MANY, 2):
        assert told(collect(service.watchers[number])) == ([(f"own:{number}:{number}", 1)], [])
    friend.request(*(Increment(f"own:{number}:x", number) for number in range(1, MANY, 2)))
    for number in range(1, MANY, 2):
        assert told(collect(service.watchers[number])) == ([(f"own:{number}:x", number)], [])


@pytest.mark.process
def test_each_waits_as_long_as_it_said(service):
    """A thousand ends all over a second: nobody is answered early, and nobody much later."""
    friend, since = service.friend, now(service.friend)
    waits = [0.3 + number / MANY for number in range(MANY)]
    asked = time.monotonic()
    park(service.watchers, friend, [Changes(since, "silent:", wait) for wait in waits])
    late = []
    for watcher, wait in zip(service.watchers, waits, strict=True):
        page = collect(watcher)
        late.append(time.monotonic() - asked - wait)
        assert not page.tells
    assert min(late) > 0 and percentile(late, 0.5) < 0.25 and max(late) < 5
    print(f"\nanswered at most {1000 * max(late):.0f} ms after the wait, asking included")


# -- what it costs others


@pytest.mark.process
def test_increments_are_served_while_a_thousand_are_told_of_each(service):
    """Every watcher asks on from what it was told, as watchers do."""
    friend, stop, answers = service.friend, threading.Event(), []
    since = now(friend)
    park(service.watchers, friend, [Changes(since, "each:", QUIET)] * MANY)

    def watch():
        for number in range(200):  # many answers each, but not for ever
            last = stop.is_set() or number == 199
            for watcher in service.watchers:
                page = collect(watcher)
                answers.append(page.counters[-1].value)
                if not last:
                    watcher.send_frame(encode_request(Request([Changes(page.version, "each:", QUIET)])))
            if last:
                return

    watching = threading.Thread(target=watch)
    watching.start()
    times, values, end = [], [], time.monotonic() + 3
    with service.manager.connect() as client:
        while time.monotonic() < end:
            began = time.monotonic()
            values.append(client.request(Increment("each:one")).only().value)
            times.append(time.monotonic() - began)
        stop.set()
        while watching.is_alive():  # those who wait now are to be woken once more
            client.request(Increment("each:one"))
            watching.join(0.05)
    assert values == list(range(values[0], values[0] + len(values)))
    assert len(answers) >= MANY
    p50, p99 = (1000 * percentile(times, share) for share in (0.5, 0.99))
    print(f"\n{len(times)} increments, {len(answers)} answers: p50 {p50:.1f}, p99 {p99:.1f} ms")
    assert p99 < 500


@pytest.mark.process
def test_who_waits_for_other_names_costs_an_increment_nothing(service):
    """CPU time of the manager; a look at each of a thousand would be many times an increment."""
    friend = service.friend

    def cost():
        before = cpu_seconds(service.manager.pid)
        for _ in range(400):
            friend.request(Increment("cost:one"))
        return cpu_seconds(service.manager.pid) - before

    alone, crowded = [], []
    for round_ in range(5):
        alone.append(cost())
        since = now(friend)
        park(service.watchers, friend, [Changes(since, f"costs:{n % 7}", QUIET) for n in range(MANY)])
        crowded.append(cost())
        friend.request(*(Increment(f"costs:{n}", round_) for n in range(7)))
        assert {collect(watcher).counters[0].value is not None for watcher in service.watchers} == {True}
    ratio = percentile(crowded, 0.5) / percentile(alone, 0.5)
    print(f"\nan increment beside {MANY} who wait: {ratio:.2f} times the CPU")
    assert ratio < 2


@pytest.mark.process
def test_a_large_batch_beside_a_thousand_who_wait_is_no_stall(service):
    """Comparing 10,000 names with a thousand prefixes would take a second."""
    friend = service.friend
    batch = [Increment(f"batch:{number}") for number in range(MAX_OPS)]

    def cost():
        before = cpu_seconds(service.manager.pid)
        assert friend.request(*batch).problem is None
        return cpu_seconds(service.manager.pid) - before

    cost()
    alone, since = min(cost() for _ in range(3)), now(friend)
    park(service.watchers, friend, [Changes(since, f"wait:{number}", QUIET) for number in range(MANY)])
    crowded = min(cost() for _ in range(3))
    friend.request(*(Increment(f"wait:{number}") for number in range(MANY)))
    assert all(collect(watcher).counters for watcher in service.watchers)
    print(f"\na batch of {MAX_OPS}: {1000 * alone:.0f} ms alone, {1000 * crowded:.0f} ms beside {MANY}")
    assert crowded < 1.5 * alone + 0.1


@pytest.mark.process
def test_waiting_again_does_not_go_through_what_others_changed(service):
    """While 10,000 counters changed; going through them takes each of a thousand some milliseconds."""
    friend = service.friend
    batch = [Increment(f"again:{number}") for number in range(MAX_OPS)]
    park(service.watchers, friend, [Changes(now(friend), "woken:", QUIET)] * MANY)
    friend.request(*batch)
    before = cpu_seconds(service.manager.pid)
    friend.request(Increment("woken:one"))
    pages = [collect(watcher) for watcher in service.watchers]
    cost = cpu_seconds(service.manager.pid) - before
    assert {len(page.counters) for page in pages} == {1}
    print(f"\nwaking {MANY} after {MAX_OPS} other changes: {1000 * cost:.0f} ms of CPU")
    assert cost < 0.5
    park(service.watchers, friend, [Changes(now(friend), "woken:", 1)] * MANY)
    friend.request(*batch)
    before, newest = cpu_seconds(service.manager.pid), now(friend)
    pages = [collect(watcher) for watcher in service.watchers]
    assert {(page.tells, page.version) for page in pages} == {(False, newest)}
    assert cpu_seconds(service.manager.pid) - before < 0.5


# -- those who leave, and the end


@pytest.mark.process
def test_watchers_that_vanish_are_forgotten_within_seconds(service):
    friend, manager = service.friend, service.manager
    before = friend.request(Info()).only().manager.connections
    leaving = [manager.connect() for _ in range(20)]
    since = now(friend)
    park([*service.watchers, *leaving], friend, [Changes(since, "left:", QUIET)] * (MANY + 20))
    assert friend.request(Info()).only().manager.connections == before + 20
    for watcher in leaving:
        watcher.close()
    wait_until(lambda: friend.request(Info()).only().manager.connections == before, 5)
    friend.request(Increment("left:one"))
    assert all(collect(watcher).counters for watcher in service.watchers)


@pytest.mark.process
def test_a_thousand_that_vanish_at_once_are_forgotten_and_the_manager_ends_beside_others(tmp_path, crowd):
    with start_manager(tmp_path / "home") as manager, manager.connect() as friend:
        with contextlib.ExitStack() as stack:
            watchers = [stack.enter_context(manager.connect()) for _ in range(MANY)]
            since = now(friend)
            park(watchers, friend, [Changes(since, "", QUIET)] * MANY)
            assert friend.request(Info()).only().manager.connections == MANY + 1
        began = time.monotonic()
        wait_until(lambda: friend.request(Info()).only().manager.connections == 1, 10)
        print(f"\n{MANY} that vanished were forgotten in {time.monotonic() - began:.1f} s")
        with manager.connect() as staying:
            park([staying], friend, [Changes(now(friend), "", QUIET)])
            assert manager.stop() == 0
            assert staying.receive() is None


# -- what is gone


@pytest.mark.process
def test_a_watcher_that_was_away_is_told_what_ended_and_what_was_deleted(service):
    friend = service.friend
    friend.request(Increment("gone:stays"), Increment("gone:deleted"), Increment("gone:expires", ttl=1))
    since = ask(friend, prefix="gone:").version
    friend.request(Delete("gone:deleted"))
    page = wait_until(lambda: (p := ask(friend, since, prefix="gone:")) and len(p.gone) == 2 and p)
    assert (told(page), page.complete) == (([], ["gone:deleted", "gone:expires"]), False)
    friend.request(Increment("gone:deleted"))
    page = ask(friend, since, prefix="gone:")
    assert told(page) == ([("gone:deleted", 1)], ["gone:expires"])


@pytest.mark.process
def test_whoever_waits_is_told_of_an_expiry_that_nobody_else_causes(service):
    since = now(service.friend)
    service.friend.request(Increment("ends:soon", ttl=1))
    since = ask(service.friend, since).version
    assert told(ask(service.friend, since, prefix="ends:", wait=20)) == ([], ["ends:soon"])


@pytest.mark.process
def test_whoever_was_away_for_more_deletions_than_are_remembered_begins_anew(manager):
    with manager.connect() as friend:
        friend.request(Increment("kept"), Increment("dropped"))
        before = now(friend)
        friend.request(Delete("dropped"))
        after = ask(friend, before).version
        for first in range(0, MOST_GONE, MAX_OPS):
            names = [f"{number}" for number in range(first, first + MAX_OPS)]
            friend.request(*map(Increment, names))
            friend.request(*map(Delete, names))
        page = ask(friend, after)
        assert (page.complete, page.more, len(page.gone)) == (False, True, 100)
        page = ask(friend, before)
        assert (page.complete, told(page)) == (True, ([("kept", 1)], []))
