"""A plain multiprocessing.managers client of any Python from 3.9 on is served: `stock_client.py` is one.

It is run by the interpreter of this run, by each python3.N that is on PATH, and by those that
COUNTER_TEST_PYTHONS names.
"""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from itertools import chain, pairwise
from pathlib import Path

import pytest
from manager_process import start_manager
from support import start_process

from counter import Get, Increment, Info, Set
from counter.fields import MAX_OPS

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).with_name("stock_client.py")
VERSIONS = range(9, 15)
MOST_LISTED = 10_000
WHO = "import multiprocessing, sys; print('python' + sys.version.split()[0])"
OWN_CLIENT = """
import json, sys
import counter

c = counter.connect(sys.argv[1])
while "go" not in c:
    pass
print(json.dumps([c.increment("together") for _ in range(int(sys.argv[2]))]))
"""


@functools.cache
def pythons():
    """The interpreters that really start, by version: what is on PATH may be a shim for something else."""
    named = os.environ.get("COUNTER_TEST_PYTHONS", "").split(os.pathsep)
    found = [shutil.which(f"python3.{minor}") for minor in VERSIONS]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    paths = [sys.executable, *filter(None, named), *filter(None, found)]
    asked = [(path, subprocess.Popen([path, "-c", WHO], **streams)) for path in paths]
    by_version = {}
    for path, process in asked:
        version = process.communicate()[0].strip()
        if process.returncode == 0:
            by_version.setdefault(version, path)
    return by_version


def pytest_generate_tests(metafunc):
    """Each test that takes `python` runs with every interpreter; the unit part does not look for them."""
    if "python" in metafunc.fixturenames:
        is_unit = "not process" in metafunc.config.option.markexpr
        found = {"unit": sys.executable} if is_unit else pythons()
        metafunc.parametrize("python", found.values(), ids=found)


@pytest.fixture
def manager(tmp_path):
    with start_manager(tmp_path / "home") as manager:
        yield manager
        assert manager.stderr == ""


@pytest.fixture
def start(manager):
    """Starts a stock client: give the interpreter, the task and its arguments."""
    with contextlib.ExitStack() as stack:
        address = [manager.home / "manager.sock", manager.home / "authkey"]
        yield lambda python, *task: stack.enter_context(start_process([python, SCRIPT, *address, *task]))


def finish(client):
    """What the client printed."""
    assert client.wait(60) == 0, client.describe()
    assert client.stderr == ""
    return json.loads(client.stdout)


VERBS = {
    "empty": [0, [], [], [], False, 0, None, 7],
    "increment": [1, 6, 5],
    "decrement": [4, 2, 0],
    "increment by name": [9, 9],
    "set": [5, -(2**63), 2**63 - 1],
    "items": [5, 0, True, False],
    "delete": [2**63 - 1, False],
    "del": [False],
    "listings": [
        6,
        ["a", "v", "w", "x", "y", "z"],
        ["z", "y", "x", "w", "v", "a"],
        ["a", "v", "w", "x", "y", "z"],
        [["a", 9], ["v", 2], ["w", 1], ["x", 14], ["y", -3], ["z", 2]],
        {"a": 9, "v": 2, "w": 1, "x": 14, "y": -3, "z": 2},
    ],
    "text": ["<shared counter of 6 names>", "<shared counter of 6 names>", 0, True],
    "unicode": [2, 1, True, "\U0001f600"],
}
ERRORS = {
    "missing": ("KeyError", "no counter 'nope'"),
    "overflow": ("ValueError", "would pass the"),
    "too large": ("ValueError", "delta goes from"),
    "no int": ("ValueError", "delta is an integer, not float"),
    "bool": ("ValueError", "value is an integer, not bool"),
    "no name": ("ValueError", "1 to 250 bytes"),
    "control": ("ValueError", "control characters"),
    "number as name": ("ValueError", "a str, not int"),
    "too long": ("ValueError", "1 to 250 bytes"),
    "unknown option": ("ValueError", "call it as increment(name, delta=1,"),
    "too few": ("ValueError", "call it as set(name, value)"),
    "too many": ("ValueError", "call it as get(name, default=None)"),
    "an object": ("ValueError", "only plain values can be sent"),
    "a set": ("ValueError", "only plain values can be sent"),
    "half an update": ("ValueError", "maximum"),
    "bad update": ("ValueError", "delta is an integer, not str"),
}


def test_each_verb_does_what_it_does_on_a_shared_counter(start, python):
    assert finish(start(python, "verbs")) == VERBS


def test_errors_arrive_as_builtins_with_a_sentence(start, python):
    told = finish(start(python, "errors"))
    assert told.pop("after all") == [1, None, 1]
    for name, (kind, text) in ERRORS.items():
        arrived, sentence = told.pop(name)
        assert arrived == kind, (name, sentence)
        assert text in sentence and "\n" not in sentence, name
    assert not told


def test_options_are_keywords(manager, start, python):
    told = finish(start(python, "options"))
    refused = {name: told.pop(name) for name in ("min", "reject", "no mode", "no seconds")}
    refused["max"] = told["max"].pop()
    assert told == {"max": [1, 2], "clamp": [4, 1], "fixed": 1, "sliding": 2}
    assert {kind for kind, _ in refused.values()} == {"ValueError"}
    with manager.connect() as client:
        bounded, fixed, sliding = client.request(*map(Get, "mfs")).unwrap()
        counters = client.request(Info()).only().counters
    assert bounded.max is None, "an increment's bound is for that call alone"
    assert (fixed.ttl, fixed.ttl_mode, sliding.ttl, sliding.ttl_mode) == (60, "fixed", 60, "sliding")
    assert counters == 4, "what was refused created nothing"


def test_threads_and_children_can_share_a_proxy(start, python):
    in_threads = start(python, "threads", 200)
    assert finish(start(python, "children")) == {"fork": [1, True, 0], "spawn": [2, True, 0]}
    assert sorted(finish(in_threads)) == list(range(1, 201))


def test_more_counters_than_are_listed_are_counted_all_the_same(manager, start, python):
    create(manager, MOST_LISTED)
    listed = finish(start(python, "many"))
    assert listed["len"] == len(listed["keys"][1]) == len(listed["list"][1]) == MOST_LISTED
    create(manager, 1, "one more")
    told = finish(start(python, "many"))
    assert (told.pop("len"), told.pop("text")) == (
        MOST_LISTED + 1,
        f"<shared counter of {MOST_LISTED + 1} names>",
    )
    assert told.keys() == {"keys", "items", "list", "sorted"}
    for kind, sentence in told.values():
        assert kind == "ValueError" and "pages" in sentence


def create(manager, number, prefix="n"):
    ops = [Set(f"{prefix}{index}", value=index) for index in range(number)]
    with manager.connect() as client:
        for begin in range(0, number, MAX_OPS):
            client.request(*ops[begin : begin + MAX_OPS]).unwrap()


def test_stock_and_own_clients_together_lose_and_double_nothing(manager, start):
    """All begin at once, and each number is given to one of them."""
    each = 300
    own = [sys.executable, "-c", OWN_CLIENT, f"counter://{manager.home}", each]
    stock = [*pythons().values(), sys.executable]
    with contextlib.ExitStack() as stack, manager.connect() as client:
        clients = [start(python, "count", each) for python in stock]
        clients += [stack.enter_context(start_process(own)) for _ in stock]
        client.request(Increment("go")).unwrap()
        given = [finish(client) for client in clients]
    assert sorted(chain.from_iterable(given)) == list(range(1, each * len(clients) + 1))
    assert all(values == sorted(values) for values in given)
    switches = sum(later - earlier > 1 for values in given for earlier, later in pairwise(values))
    print(f"{len(clients)} clients, {switches} switches between them")
    assert switches, "they did run at the same time"
