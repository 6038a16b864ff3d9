"""One URL is the whole configuration of a store; a wrong one is refused with a sentence."""

import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from counter import connect, open_store, store
from counter.errors import InvalidRequest
from counter.store import STORES, Store, StoreUrl
from counter.stores import memory
from counter.stores.memory import MemoryStore


@pytest.fixture
def name():
    """A store's name that no other test has: stores stay open as long as the process."""
    return uuid4().hex


def test_a_url_is_taken_apart_and_decoded():
    url = StoreUrl.parse("counter:///srv/my%20shop?prefix=shop%3A&timeout=2&flag=")
    assert url == (url.url, "counter", "", "/srv/my shop", {"prefix": "shop:", "timeout": "2", "flag": ""})
    assert StoreUrl.parse("memory://my%2Fname").host == "my/name"
    assert StoreUrl.parse("counter://")[1:] == ("counter", "", "", {})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "known: counter://, memory://"),
        ("/srv/shop", "known: counter://, memory://"),
        ("redis://localhost", "'redis://localhost' is no store's URL; known: counter://, memory://"),
        ("localhost:8000", "known:"),
        ("counter:shop", "'counter:shop' is no store's URL; known: counter://, memory://"),
        ("counter:/srv/shop", "known:"),
        ("memory:", "known:"),
        ("counter://[", "not a store's URL"),
        ("memory://a?b", "not a store's URL"),
        ("memory://a?timeout=1&timeout=2", "twice"),
        ("memory://a?prefix=%ff", "not a store's URL"),
        ("counter:///%ff", "not a store's URL"),
        ("counter:///srv/shop#1", "write # as %23"),
        ("memory://a?timeout=1", r"memory:// has no option 'timeout' \(it has: prefix\)"),
        ("memory://a/b", "memory:// takes a name and nothing more, not '/b'"),
    ],
)
def test_a_wrong_url_is_refused_with_a_sentence(url, says):
    for open_ in (open_store, connect):
        with pytest.raises(InvalidRequest, match=says):
            open_(url)


def test_an_unknown_option_is_refused_and_the_known_ones_are_named():
    url = StoreUrl.parse("counter:///srv?timeout=1&colour=red")
    url.only_options("timeout", "colour")
    with pytest.raises(
        InvalidRequest, match=r"counter:// has no option 'colour' \(it has: timeout, prefix\)"
    ):
        url.only_options("timeout")


def test_equal_urls_share_one_store(name):
    one, other = open_store(f"memory://{name}"), open_store(f"memory://{name}-other")
    assert one is open_store(f"memory://{name}")
    assert one is not other
    connect(f"memory://{name}").increment("a")
    assert connect(f"memory://{name}")["a"] == 1
    assert connect(f"memory://{name}-other")["a"] == 0


def test_threads_that_open_one_url_at_once_get_one_store(name, monkeypatch):
    together, made = threading.Barrier(8), []

    def slow(url):
        made.append(url)
        return MemoryStore()

    monkeypatch.setattr(MemoryStore, "from_url", slow)
    found = []

    def open_it():
        together.wait()
        found.append(open_store(f"memory://{name}"))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made
    assert len({*map(id, found)}) == 1 < len(found)


def test_a_store_can_be_opened_while_another_is_just_being_opened(name, monkeypatch):
    """As by a signal's handler, or in the child of a fork that came in between."""

    def opens_another(url):
        return open_store(f"memory://{name}-inner")

    monkeypatch.setitem(STORES, "outer", "counter.stores.memory:Outer")
    monkeypatch.setattr(memory, "Outer", type("Outer", (), {"from_url": opens_another}), raising=False)
    opening = threading.Thread(target=open_store, args=[f"outer://{name}"], daemon=True)
    opening.start()
    opening.join(10)
    assert not opening.is_alive()
    assert open_store(f"outer://{name}") is open_store(f"memory://{name}-inner")


def test_the_url_comes_from_the_environment_if_it_is_left_out(name, monkeypatch):
    monkeypatch.setenv("COUNTER_URL", f"memory://{name}")
    assert open_store() is open_store(f"memory://{name}")
    assert connect().store is open_store(f"memory://{name}")
    assert open_store(f"memory://{name}-other") is not open_store()


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_url_it_is_the_manager_in_its_usual_home(value, monkeypatch):
    if value is not None:
        monkeypatch.setenv("COUNTER_URL", value)
    asked = []
    monkeypatch.setattr(store, "_open", {})
    monkeypatch.setattr(store, "_make", asked.append)
    open_store()
    assert asked == [StoreUrl("counter://", "counter", "", "", {})]


def test_a_wrong_url_is_not_remembered(name, monkeypatch):
    monkeypatch.setitem(STORES, "later", "counter.stores.memory:MemoryStore")
    assert isinstance(open_store(f"later://{name}"), MemoryStore)
    monkeypatch.delitem(STORES, "later")
    with pytest.raises(InvalidRequest):
        open_store(f"later://{name}-2")


def test_a_store_that_promises_less_than_all_cannot_be_made():
    class Half(Store):
        def close(self):
            pass

    with pytest.raises(TypeError, match="abstract"):
        Half()


@pytest.mark.process
def test_connecting_imports_no_store_but_its_own():
    code = """
import sys, counter
assert not [name for name in sys.modules if name.startswith("counter.stores")]
counter.connect("memory://")
assert [name for name in sys.modules if name.startswith("counter.stores.")] == ["counter.stores.memory"]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_text_is_refused_too():
    with pytest.raises(InvalidRequest, match="is a str such as counter:///srv/shop, not PosixPath"):
        connect(Path("/srv/shop"))
