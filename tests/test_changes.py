"""What changed is told in its order, and once: by every store, from any version on."""

import random
import threading
import time

import pytest
from support import wait_until

from counter import Changes, Delete, Increment, InvalidRequest, Request, SharedCounter
from counter.fields import HIDDEN

EVER = 30.0


def ask(store, since=None, **options):
    return store.execute(Request([Changes(since, **options)])).only()


def names(page):
    return [entry.name for entry in page.counters]


def follow(store, known, since=None, **options):
    """Bring the dict *known* up to date; the version that it has then."""
    while True:
        page = ask(store, since, **options)
        if page.complete:
            known.clear()
        known |= {entry.name: entry.value for entry in page.counters}
        for name in page.gone:
            known.pop(name, None)
        since = page.version
        if not page.more:
            return since


def test_the_first_answer_is_everything_and_the_next_what_is_new(store, counters):
    counters.update({"a": 1, "b": 2})
    first = ask(store)
    assert (names(first), first.gone, first.more, first.complete) == (["a", "b"], [], False, True)
    assert first.counters == [counters.entry("a"), counters.entry("b")]
    assert (ask(store, first.version).counters, ask(store, first.version).version) == ([], first.version)
    counters.increment("a")
    del counters["b"]
    counters.increment("c")
    second = ask(store, first.version)
    assert (names(second), second.gone, second.complete) == (["a", "c"], ["b"], False)
    assert second.version > first.version or len(second.version) > len(first.version)
    assert not ask(store, second.version).tells


def test_only_the_latest_change_of_each_is_told(store, counters):
    since = ask(store).version
    for _ in range(5):
        counters.increment("a")
        counters.increment("b")
    counters.increment("a")
    del counters["b"]
    page = ask(store, since)
    assert ([(entry.name, entry.value) for entry in page.counters], page.gone) == ([("a", 6)], ["b"])
    counters.increment("b")
    page = ask(store, since)
    assert ([(entry.name, entry.value) for entry in page.counters], page.gone) == ([("a", 6), ("b", 1)], [])


def test_it_comes_in_pages_that_go_on_where_the_last_one_ended(store, counters):
    counters.update({f"n{number:03}": number for number in range(250)})
    page, told = ask(store, limit=100), []
    assert page.complete
    while True:
        told += names(page)
        if not page.more:
            break
        counters.increment("n000")  # told again at the end, as it is then
        page = ask(store, page.version, limit=100)
        assert not page.complete
    assert told[:250] == [f"n{number:03}" for number in range(250)]
    assert told[250:] == ["n000"]


@pytest.mark.parametrize("since", ["", "x", "another-run.5", "9" * 30, ".", "1e3", "é.1"])
def test_a_version_of_another_run_means_everything(store, counters, since):
    counters.increment("a")
    page = ask(store, since)
    assert (page.complete, names(page)) == (True, ["a"])


def test_a_version_that_was_never_given_means_everything(store, counters):
    counters.increment("a")
    run, _, revision = ask(store).version.rpartition(".")
    for text in (f"{run}.{int(revision) + 10**9}", f"{run}.{'9' * 25}", f"{run}.-1", f"{run}.", f"{run}.٣"):
        assert ask(store, text).complete
    assert ask(store, f"{run}.0").complete is False or ask(store, f"{run}.0").counters


def test_a_prefix_shows_its_own_alone(store, counters):
    counters.update({"shop:a": 1, "blog:a": 2, "shop:b": 3})
    page = ask(store, prefix="shop:")
    assert names(page) == ["shop:a", "shop:b"]
    del counters["blog:a"]
    counters.increment("blog:b")
    later = ask(store, page.version, prefix="shop:")
    assert (later.counters, later.gone) == ([], [])
    del counters["shop:a"]
    assert ask(store, later.version, prefix="shop:").gone == ["shop:a"]


def test_a_view_tells_the_names_without_their_prefix(counters):
    view = counters.view("shop:")
    counters.update({"shop:": 9, "shop:a": 1, "blog": 2})
    page = ask(view.store)
    assert names(page) == ["a"]
    view.clear()
    counters.delete("shop:")
    assert ask(view.store, page.version).gone == ["a"]
    assert ask(view.store, prefix="b").counters == []


def test_a_failed_request_changes_nothing_that_is_told(store, counters):
    since = ask(store).version
    store.execute(Request([Increment("a"), Increment("a", max=1)]))
    store.execute(Request([Delete("nothing")]))
    assert not ask(store, since).tells


def test_whoever_waits_is_told_when_something_happens(store, counters):
    since, told = ask(store).version, []
    begun = time.monotonic()
    waiting = threading.Thread(target=lambda: told.append(ask(store, since, prefix="w", wait=EVER)))
    waiting.start()
    counters.increment("other")
    time_out = ask(store, ask(store).version, wait=0.2)
    assert (time_out.tells, told) == (False, [])
    counters.increment("wanted")
    waiting.join(20)
    assert [(entry.name, entry.value) for entry in told[0].counters] == [("wanted", 1)]
    assert 0.2 <= time.monotonic() - begun < EVER


def test_whoever_waits_is_told_of_what_ends(store, counters):
    counters.increment("short", ttl=1)
    page = ask(store)
    assert names(page) == ["short"]
    assert ask(store, page.version, wait=EVER).gone == ["short"]


def test_many_may_wait_and_none_of_them_keeps_others_from_counting(store, counters):
    since, told = ask(store).version, []
    waiting = [
        threading.Thread(target=lambda: told.append(ask(store, since, prefix="w", wait=EVER)))
        for _ in range(40)
    ]
    for each in waiting:
        each.start()
    assert [counters.increment("n") for _ in range(100)] == [*range(1, 101)]
    counters.increment("wanted")
    for each in waiting:
        each.join(20)
    assert [names(page) for page in told] == [["wanted"]] * 40


@pytest.mark.parametrize("seed", range(5))
def test_who_follows_has_what_is_there(store, counters, seed):
    chance, known, since = random.Random(seed), {}, None
    for _ in range(30):
        for _ in range(chance.randrange(40)):
            name = f"n{chance.randrange(30)}"
            if chance.random() < 0.3:
                counters.pop(name, None)
            else:
                counters.increment(name, chance.randrange(5))
        since = follow(store, known, since, limit=chance.choice([1, 3, 1000]))
        assert known == counters


def test_a_question_that_cannot_be_asked_is_refused(store):
    for options in ({"wait": -1}, {"wait": 61}, {"wait": float("nan")}, {"limit": 0}, {"limit": 1001}):
        with pytest.raises(InvalidRequest):
            Changes(**options)
    for options in ({"since": 5}, {"prefix": "\n"}, {"wait": "1"}, {"limit": True}, {"wait": True}):
        with pytest.raises(InvalidRequest):
            Changes(**options)
    with pytest.raises(InvalidRequest):
        Request([Changes(), Increment("a")])
    assert wait_until(lambda: SharedCounter(store) == {})


def test_nobody_is_told_of_hidden_counters_nor_that_they_are_gone(store, counters):
    hidden = f"{HIDDEN}rate"
    counters.update({"a": 1, hidden: 1})
    first = ask(store)
    assert (names(first), first.gone) == (["a"], [])
    counters.increment(hidden)
    counters.increment("b")
    del counters[hidden]
    second = ask(store, first.version)
    assert (names(second), second.gone, second.complete) == (["b"], [], False)
    counters.increment(hidden)
    assert not ask(store, second.version).tells
    began = time.monotonic()
    assert not ask(store, second.version, wait=0.2).tells
    assert time.monotonic() - began >= 0.2
