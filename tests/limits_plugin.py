"""Loaded into a run of the limits package's own tests: their storage is the one at `LIMITS_TEST_URL`.

Their tables of storages are replaced by that one; their tests stay as they are. Nothing but pytest is needed:
what they import only for the storages of others is put in their place. Outcomes go to `LIMITS_TEST_REPORT`,
a line of JSON for each test: its id, outcome, and how often they allow it to be tried.
"""

import json
import os
import sys
import time
from types import ModuleType
from unittest.mock import MagicMock

import pytest

import counter
from counter.limits import CounterStorage

URL = os.environ["LIMITS_TEST_URL"]
STORAGE = pytest.mark.parametrize("uri, args, fixture", [pytest.param(URL, {}, None, id="counter")])
CONCRETE = pytest.mark.parametrize(
    "uri, args, expected_instance, fixture",
    [pytest.param(URL, {}, CounterStorage, None, id="counter")],
)


def pytest_configure():
    lazy = sys.modules["pytest_lazy_fixtures"] = ModuleType("pytest_lazy_fixtures")
    lazy.lf = lambda name: None  # names a server's fixture, of which there are none
    sys.modules["redis"] = MagicMock()  # asked for a cluster's node, in a table that is replaced
    from tests import utils  # theirs

    utils.all_storage = utils.sliding_window_counter_storage = STORAGE


def pytest_pycollect_makeitem(name, obj):
    if name == "TestConcreteStorages":
        obj.pytestmark = [CONCRETE.mark]


@pytest.fixture(autouse=True)
def as_their_servers_fixtures_do(request):
    """Empty the store before each test; begin what counts by the minute well within one."""
    counter.connect(URL).clear()
    while request.cls.__name__ == "TestConcurrency" and time.time() % 60 > 55:
        time.sleep(0.1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call" or report.outcome != "passed":
        flaky = item.get_closest_marker("flaky")
        tries = flaky.kwargs.get("max_runs", 2) if flaky else 1
        with open(os.environ["LIMITS_TEST_REPORT"], "a") as file:
            print(json.dumps([item.nodeid, report.outcome, tries]), file=file)
    return report
