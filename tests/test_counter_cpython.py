"""CPython's own tests of `collections.Counter`, run as they are against SharedCounter.

They are imported, with `Counter` replaced by a SharedCounter that can be made as a Counter is. A method that
asks for what is different on purpose is in STOPS, and is seen to stop at that line and no other.
"""

import itertools
import os
import unittest

import pytest

from counter import SharedCounter, open_store
from counter.prefix import PrefixStore

try:
    import test.test_collections as theirs
except ModuleNotFoundError:  # Debian has it in a package of its own, as libpython3.11-testsuite
    theirs = None

PYTHON = theirs and theirs.__file__
METHODS = unittest.defaultTestLoader.getTestCaseNames(theirs.TestCounter) if theirs else ()

STOPS = {
    "test_basics": ("self.assertIsInstance(c, dict)", "a Mapping; no dict shows what others change"),
    "test_init": ("list(Counter(iterable=None).items())", "counts are integers, None is none"),
    "test_update": ("c.update(iterable=None)", "counts are integers, None is none"),
    "test_repr_nonsortable": ("c = Counter(a=2, b=None)", "counts are integers, None is none"),
    "test_order_preservation": ("[('a', 5), ('b', 2), ('r', 2)", "the order is by name, for everybody"),
    "test_copying": ("check(eval(repr(words)))", "repr shows where the counters are and asks for none"),
    "test_copy_subclass": (
        "self.assertEqual(type(d), type(c))",
        "a copy is a plain Counter, shared by nobody",
    ),
    "test_inplace_operations": ("regular_op(c, q)", "+= is on a copy, which is plain; on all it is refused"),
}
"""Methods that ask for more: the line where each stops, and why that is so."""
LONG = {"test_multiset_operations", "test_multiset_operations_equivalent_to_set_operations"}
"""Methods that take up to 80,000 requests."""
NOT_ABOUT_COUNTER = {
    "test_helper_function": "tries a function of collections that SharedCounter has no part in"
}


@pytest.fixture(scope="module", autouse=True)
def installed():
    if theirs is None and os.environ.get("CI"):
        pytest.fail("this Python has no test.test_collections; install its tests (libpython3.11-testsuite)")
    if theirs is None:
        pytest.skip("this Python was installed without its own tests")


@pytest.fixture
def run(shared_store, monkeypatch):
    """Run one of CPython's methods, with each counter of it in a view of its own."""
    base = shared_store if shared_store.url else open_store("memory://test-counter-cpython")
    numbers = itertools.count()

    class Counter(SharedCounter):
        def __init__(self, counts=None, /, **more):
            if "store" not in vars(self):  # __init__ is called once more on what is there
                super().__init__(PrefixStore(base, f"{method} {next(numbers)}:"))
            self.update(counts, **more)

    def run(name):
        nonlocal method
        method = name
        result = unittest.TestResult()
        theirs.TestCounter(name).run(result)
        assert (result.testsRun, result.skipped) == (1, [])
        return [text for _test, text in result.failures + result.errors], next(numbers)

    method = ""
    monkeypatch.setattr(theirs, "Counter", Counter)
    return run


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in LONG else [])
        for name in METHODS
        if name not in STOPS and name not in NOT_ABOUT_COUNTER
    ],
)
def test_it_is_as_cpython_says(run, method):
    problems, made = run(method)
    assert problems == []
    assert made > 0, "it tried no SharedCounter"


@pytest.mark.parametrize("method", STOPS)
def test_it_is_different_in_that_line_alone(run, method):
    line, reason = STOPS[method]
    (problem,), _made = run(method)
    at = problem.rpartition(f'File "{PYTHON}"')[2]
    assert line in at, f"{method} stops elsewhere, not because {reason}"


def test_every_method_is_run_or_left_out_by_name():
    assert {*METHODS} >= {*STOPS, *LONG, *NOT_ABOUT_COUNTER}
    assert len(METHODS) - len(STOPS) - len(NOT_ABOUT_COUNTER) >= 12
