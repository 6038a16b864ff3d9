"""CPython's own tests of `collections.Counter`, run as they are against SharedCounter.

They are imported, with `Counter` replaced by a SharedCounter that can be made as a Counter is. An assertion
that fails is noted and its method goes on; any other exception ends it. DIFFERENT has the lines that ask for
what is different on purpose, which are seen to be these and no others, and what tries the lines after an end.
"""

import inspect
import itertools
import linecache
import os
import sys
import traceback
import unittest

import pytest
import test_counter_parity
import test_multiset

from counter import InvalidRequest, SharedCounter, open_store
from counter.prefix import PrefixStore

try:
    import test.test_collections as theirs
except ModuleNotFoundError:  # Debian has it in a package of its own, as libpython3.11-testsuite
    theirs = None

PYTHON = theirs and theirs.__file__
METHODS = unittest.defaultTestLoader.getTestCaseNames(theirs.TestCounter) if theirs else ()
NUMBERS = itertools.count()

FAILS = AssertionError
NO_DICT = (FAILS, "a Mapping; no dict shows what others change")
NO_NONE = (InvalidRequest, "counts are integers, None is not one")
BY_NAME = (FAILS, "the order is by name, for everybody")
NOT_COUNTS = (FAILS, "repr says where the counters are, and asks for none")
NOT_OURS = "nothing: it is up to Python, or to the constructor in `run`"
DIFFERENT = {
    "test_basics": {
        "self.assertIsInstance(c, dict)": NO_DICT,
        "self.assertTrue(issubclass(Counter, dict))": NO_DICT,
        """self.assertEqual(repr(c), "Counter({'a': 3, 'b': 2, 'c': 1})")""": NOT_COUNTS,
        "elem, cnt = c.popitem()": (AttributeError, "it would be two steps"),
        "self.assertNotIn(elem, c)": "popitem",
        "c.clear()": "clear",
        "self.assertEqual(c, {})": "clear",
        "self.assertEqual(repr(c), 'Counter()')": "repr",
        "self.assertRaises(NotImplementedError, Counter.fromkeys, 'abc')": "fromkeys",
        "self.assertRaises(TypeError, hash, c)": "hash",
        "c.update(dict(a=5, b=3))": "update a mapping",
        "c.update(c=1)": "update names",
        "c.update(Counter('a' * 50 + 'b' * 30))": "update a SharedCounter",
        "c.update()          # test case with no args": "update nothing",
        "c.__init__('a' * 500 + 'b' * 300)": NOT_OURS,
        "c.__init__('cdc')": NOT_OURS,
        "c.__init__()": NOT_OURS,
        "self.assertEqual(c, dict(a=555, b=333, c=3, d=1))": "eq dict left",
        "self.assertEqual(c.setdefault('d', 5), 1)": "setdefault",
        "self.assertEqual(c['d'], 1)": "[]",
        "self.assertEqual(c.setdefault('e', 5), 5)": "setdefault",
        "self.assertEqual(c['e'], 5)": "[]",
    },
    "test_init": {
        "self.assertEqual(list(Counter(iterable=None).items()), [('iterable', None)])": NO_NONE,
        "self.assertRaises(TypeError, Counter, 42)": "update a number",
        "self.assertRaises(TypeError, Counter, (), ())": NOT_OURS,
        "self.assertRaises(TypeError, Counter.__init__)": NOT_OURS,
    },
    "test_update": {
        "c.update(iterable=None)": NO_NONE,
        "self.assertEqual(list(c.items()), [('iterable', None)])": "None",
        "self.assertRaises(TypeError, Counter().update, 42)": "update a number",
        "self.assertRaises(TypeError, Counter().update, {}, {})": "update two",
        "self.assertRaises(TypeError, Counter.update)": NOT_OURS,
    },
    "test_repr_nonsortable": {
        "c = Counter(a=2, b=None)": NO_NONE,
        "r = repr(c)": "test_repr_asks_for_nothing_and_says_where",
        """self.assertIn("'a': 2", r)""": "repr",
        """self.assertIn("'b': None", r)""": "None",
    },
    "test_order_preservation": {
        "self.assertEqual(list(Counter('abracadabra').items()),": BY_NAME,
        "self.assertEqual(list(Counter('xyzpdqqdpzyx').items()),": BY_NAME,
        "self.assertEqual(list(Counter('abracadabra simsalabim').elements()),": BY_NAME,
        "p += q": (TypeError, "not one step for everybody, and so refused"),
        "self.assertTrue(correctly_ordered(p))": "order",
        "p, q = Counter(ps), Counter(qs)": "update a list",
        "p -= q": "- in place",
        "p |= q": "| in place",
        "p &= q": "& in place",
        "p.update(q)": "update a SharedCounter",
        "p.subtract(q)": "subtract a SharedCounter",
    },
    "test_copying": {
        "check(eval(repr(words)))": (SyntaxError, NOT_COUNTS[1]),
        "update_test = Counter()": NOT_OURS,
        "update_test.update(words)": "update a SharedCounter",
        "check(update_test)": "eq SharedCounter left",
        "check(Counter(words))": "update a SharedCounter",
    },
    "test_copy_subclass": {"self.assertEqual(type(d), type(c))": (FAILS, "a copy is a plain Counter")},
    "test_inplace_operations": {
        "regular_result = regular_op(c, q)": (AttributeError, "a copy is plain, and has no method of ours"),
        "inplace_result = inplace_op(c, q)": "test_a_plain_counter_takes_shared_ones_in_place",
        "self.assertEqual(inplace_result, regular_result)": "test_a_plain_counter_takes_shared_ones_in_place",
        "self.assertEqual(id(inplace_result), c_id)": "+ in place",
    },
}
"""Methods that ask for more, by line: what it raises, and why; any error but FAILS ends the method. Of a line
that is not reached: the row of test_counter_parity, or the test of test_multiset, that tries the same."""
LONG = {"test_multiset_operations", "test_multiset_operations_equivalent_to_set_operations"}
"""Methods that take up to 80,000 requests."""
NOT_ABOUT_COUNTER = {"test_helper_function": "tries a function that SharedCounter has no part in"}
ALIKE = [
    pytest.param(name, marks=[pytest.mark.long] if name in LONG else [])
    for name in METHODS
    if name not in DIFFERENT and name not in NOT_ABOUT_COUNTER
]


@pytest.fixture(scope="module", autouse=True)
def installed():
    if theirs is None and os.environ.get("CI"):
        pytest.fail("this Python has no test.test_collections; install its tests (libpython3.11-testsuite)")
    if theirs is None:
        pytest.skip("this Python was installed without its own tests")


class GoesOn:
    """A test case whose failed assertions are noted in `raised`, by the number of their line."""

    def __getattribute__(self, name):
        if not name.startswith("assert"):
            return super().__getattribute__(name)
        check = getattr(unittest.TestCase(), name)  # another's: one that asks others for help fails once

        def noted(*args, **kwargs):
            try:
                return check(*args, **kwargs)
            except AssertionError as error:
                self.raised[sys._getframe(1).f_lineno] = error

        return noted


@pytest.fixture
def run(shared_store, monkeypatch):
    """Run one of CPython's methods, with each counter of it in a view of its own: what its lines raise."""
    base = shared_store if shared_store.url else open_store("memory://test-counter-cpython")

    class Counter(SharedCounter):
        def __init__(self, counts=None, /, **more):
            if "store" not in vars(self):  # __init__ is called once more on what is there
                super().__init__(PrefixStore(base, f"{next(NUMBERS)}:"))
            self.update(counts, **more)

    def run(method):
        case = type("Case", (GoesOn, theirs.TestCounter), {"raised": {}})(method)
        first = next(NUMBERS)
        try:
            case.debug()
        except Exception as error:  # noqa: BLE001 - whichever it is, the test compares it
            lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == PYTHON]
            case.raised[lines[-1]] = error
        assert next(NUMBERS) > first + 1, "it tried no SharedCounter"
        return case.raised

    monkeypatch.setattr(theirs, "Counter", Counter)
    return run


@pytest.mark.parametrize("method", ALIKE)
def test_it_is_as_cpython_says(run, method):
    for error in run(method).values():
        raise error


@pytest.mark.parametrize("method", DIFFERENT)
def test_it_is_different_in_these_lines_alone(run, method):
    raised = run(method)
    found = [(linecache.getline(PYTHON, number).strip(), type(raised[number])) for number in sorted(raised)]
    assert found == [(line, said[0]) for line, said in DIFFERENT[method].items() if type(said) is tuple]


@pytest.mark.parametrize("method", DIFFERENT)
def test_every_line_after_an_end_is_tried_elsewhere(method):
    source = [line.strip() for line in inspect.getsourcelines(getattr(theirs.TestCounter, method))[0]]
    ends = [line for line, said in DIFFERENT[method].items() if type(said) is tuple and said[0] is not FAILS]
    after = source[source.index(*ends) + 1 :] if ends else []
    elsewhere = {line: said for line, said in DIFFERENT[method].items() if type(said) is str}
    assert [*elsewhere] == [*dict.fromkeys(line for line in after if line and line[0] != "#")]
    rows = {*test_counter_parity.CALLS, *test_counter_parity.DIFFERENT}
    assert {*elsewhere.values()} <= {*rows, *vars(test_multiset), NOT_OURS}


def test_every_method_is_run_or_left_out_by_name():
    assert {*METHODS} >= {*DIFFERENT, *LONG, *NOT_ABOUT_COUNTER}
    assert len(METHODS) - len(DIFFERENT) - len(NOT_ABOUT_COUNTER) >= 12
