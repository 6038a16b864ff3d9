"""A view of the names under a prefix is a store like any other; nothing outside of it is seen or changed."""

import collections

import pytest
from msgspec import structs

from counter import (
    Delete,
    Get,
    Increment,
    Info,
    InvalidRequest,
    List,
    OutOfBounds,
    Request,
    Set,
    SharedCounter,
    VersionMismatch,
    open_store,
)
from counter.prefix import PrefixStore
from counter.stores.memory import MemoryStore


@pytest.fixture
def shop(counters):
    """A view of the names that begin with `shop:`, beside counters outside of it."""
    counters.update({"cart": 100, "shoq": 5, "shop": 7})
    return counters.view("shop:")


def test_names_get_the_prefix_on_the_way_in_and_lose_it_on_the_way_out(counters, shop):
    assert shop.increment("cart", 2) == 2
    assert counters["shop:cart"] == 2
    assert shop["cart"] == 2
    assert shop.entry("cart") == structs.replace(counters.entry("shop:cart"), name="cart")
    assert shop.set("seats", 5, max=5) == 5
    change = shop.store.execute(Request([Increment("cart")])).only()
    assert (change.name, change.value, change.previous) == ("cart", 3, 2)
    assert dict(shop.items()) == {"cart": 3, "seats": 5}
    assert counters["cart"] == 100


def test_a_view_counts_and_lists_its_own_alone(counters, shop):
    assert (len(shop), list(shop), bool(shop)) == (0, [], False)
    shop.update({"a": 3, "b": 9, "c": 1})
    assert len(shop) == 3
    assert shop.most_common(2) == [("b", 9), ("a", 3)]
    assert shop.total() == 13
    assert "cart" not in shop
    shop.clear()
    assert shop == {}
    assert counters == {"cart": 100, "shoq": 5, "shop": 7}


def test_pages_of_a_view_go_on_where_the_page_before_ended(shop):
    shop.update({f"{number:02}": number for number in range(25)})
    names, cursor = [], None
    while True:
        page = shop.store.execute(Request([List(prefix="1", limit=3, cursor=cursor)])).only()
        names += [entry.name for entry in page.counters]
        if (cursor := page.next) is None:
            break
    assert names == [str(number) for number in range(10, 20)]


def test_a_view_of_a_view_is_one_of_the_whole(counters):
    inner = counters.view("a:").view("b:")
    inner.increment("c")
    assert counters["a:b:c"] == 1
    assert inner.store.prefix == "a:b:"
    assert len(inner) == 1


def test_what_is_refused_tells_of_the_counter_by_its_name_in_the_view(shop):
    shop.set("seats", 2, max=2)
    with pytest.raises(OutOfBounds, match=r"'shop:seats' is 2") as refused:
        shop.increment("seats")
    assert refused.value.current == shop.entry("seats")
    with pytest.raises(VersionMismatch) as refused:
        shop.increment("seats", -1, if_version="absent")
    assert refused.value.current.name == "seats"
    batch = Request([Increment("seats"), Get("none"), Increment("x")], atomic=False)
    full, missing, done = shop.store.execute(batch).results
    assert (full.code, full.current.name) == ("out-of-bounds", "seats")
    assert (missing.code, missing.current) == ("not-found", None)
    assert (done.name, done.value) == ("x", 1)


def test_every_op_stays_in_the_view(counters, shop):
    ops = [Set("a", 1), Increment("a"), Get("a"), Delete("a")]
    assert [result.name for result in shop.store.execute(Request(ops)).unwrap()] == ["a"] * 4
    assert "a" not in counters
    assert shop.store.execute(Request([Info()])).only().counters == len(counters)


def test_prefix_and_name_share_the_bytes_of_a_name(shop):
    assert shop.increment("n" * 245) == 1
    with pytest.raises(InvalidRequest, match=r"with the prefix 'shop:': .* 250 bytes") as refused:
        shop.increment("n" * 246)
    assert refused.value.index is None
    with pytest.raises(InvalidRequest, match="250 bytes") as refused:
        shop.update({"a": 1, "n" * 246: 1})
    assert refused.value.index == 1
    for bad in ("\n", "\ud800", "x" * 251, None):
        with pytest.raises(InvalidRequest, match="name"):
            shop.view(bad)


def test_a_key_in_a_view_is_replayed_there(shop):
    request = Request([Increment("paid")], idempotency_key="test-prefix-evt")
    first, again = shop.store.execute(request), shop.store.execute(request)
    assert (again.replayed, again.results) == (True, first.results)
    assert again.only().name == "paid"
    shop.store.execute(Request([Delete("paid")]))


def test_a_url_opens_a_view_that_shares_the_store():
    whole = SharedCounter(open_store("memory://test-prefix"))
    view = SharedCounter(open_store("memory://test-prefix?prefix=shop%3A"))
    view["cart"] = 3
    assert whole == {"shop:cart": 3}
    assert view.store.url == "memory://test-prefix?prefix=shop%3A"
    assert open_store(view.store.url) is view.store
    assert open_store("memory://test-prefix?prefix=shop:").execute(Request([Get("cart")])).only().value == 3
    assert whole.view("a").view("&b=").store.url == "memory://test-prefix?prefix=a%26b%3D"


def test_the_other_options_of_the_url_are_the_stores(tmp_path):
    view = open_store(f"counter://{tmp_path}?timeout=2&prefix=a&pool=3")
    assert isinstance(view, PrefixStore)
    assert view.url == f"counter://{tmp_path}?timeout=2&pool=3&prefix=a"
    assert view.capabilities == {"list", "info"}
    with pytest.raises(InvalidRequest, match="no option 'colour'"):
        open_store("memory://x?prefix=a&colour=red")
    with pytest.raises(InvalidRequest, match="no store's URL"):
        open_store("redis://x?prefix=a")


def test_a_view_of_a_store_without_a_url_has_none_and_says_what_it_is_of():
    store = PrefixStore(PrefixStore(MemoryStore(), "a:"), "b:")
    assert (store.url, repr(store)) == ("", "MemoryStore() from 'a:b:'")


def test_an_empty_prefix_is_a_view_of_everything(counters):
    counters.update("aab")
    assert counters.view("") == collections.Counter("aab")
    assert len(counters.view("")) == 2
