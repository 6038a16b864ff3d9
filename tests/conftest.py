"""Fixtures of all tests; `stores.py` says which stores there are."""

import gc
import os

import hypothesis
import pytest
from leaks import Leaks
from manager_process import start_manager
from stores import STORES

from counter import Delete, List, Request, SharedCounter
from counter.home import Home

hypothesis.settings.register_profile("home", deadline=None, max_examples=30, database=None)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("home"), derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "home")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    """No test sees the `COUNTER_…` settings of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("COUNTER_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module", params=STORES)
def shared_store(request, tmp_path_factory):
    """Each store in turn, one for a module; take `store`, which is empty."""
    with request.param(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def store(shared_store):
    """Each store in turn, empty."""
    while page := shared_store.execute(Request([List(limit=1000)])).only().counters:
        shared_store.execute(Request([Delete(entry.name) for entry in page], atomic=False)).unwrap()
    return shared_store


@pytest.fixture
def counters(store):
    """The library's face of each store in turn."""
    return SharedCounter(store)


@pytest.fixture(params=STORES)
def small_store(request, tmp_path):
    """Each store in turn, with room for three counters."""
    with request.param(tmp_path, max_counters=3) as store:
        yield store


@pytest.fixture
def home(tmp_path):
    """A home that a manager could start in."""
    home = Home(tmp_path / "home")
    home.prepare()
    home.ensure_key()
    return home


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """A real manager, one for a module."""
    with start_manager(tmp_path_factory.mktemp("manager") / "home") as manager:
        yield manager


def pytest_configure(config):
    """No log of the run holds a secret."""
    config.pluginmanager.register(Leaks(config), "leaks")


MEASURING = {"test_faults", "test_faults_storage", "test_planted", "test_hostile_http", "test_overload"}


def pytest_collection_modifyitems(items):
    """Runs that hurt a whole service take turns where tests run two at a time (`--dist loadgroup`)."""
    for item in items:
        if item.path.stem in MEASURING:
            item.add_marker(pytest.mark.xdist_group("faults"))


def pytest_collection_finish(session):
    """Thousands of tests live as long as the run: keep them out of every garbage collection."""
    gc.collect()
    gc.freeze()
