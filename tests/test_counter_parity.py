"""SharedCounter does what `collections.Counter` does: whatever is called, in whatever order, on every store.

Each sequence of calls is made on both. What they return, what they raise and what is there in the end are the
same, for all that both can take. What is different on purpose is in DIFFERENT, one by one.
"""

import json
import operator
from collections import Counter
from collections.abc import MutableMapping

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from counter import SharedCounter
from counter.fields import INT64_MAX, INT64_MIN
from counter.reading import Reading
from counter.stores.memory import MemoryStore

NAMES = ["a", "b", "ab", "A", "ä", "名前", "z z", "a/b?&%2F", "self", "counts", "n" * 200]
NAME = st.sampled_from(NAMES)
VALUE = st.integers(-4, 6)
COUNTS = st.dictionaries(NAME, VALUE, max_size=5)
WORDS = st.lists(NAME, max_size=6)
KEYWORDS = st.dictionaries(st.sampled_from(["a", "b", "self", "counts", "name"]), VALUE, max_size=2)
N = st.none() | st.integers(-1, 12)
REFUSALS = (KeyError, TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError)


def fresh(counts):
    """A SharedCounter in a store of its own, with *counts*."""
    counters = SharedCounter(MemoryStore())
    counters.update(counts)
    return counters


SHAPES = {"Counter": Counter, "SharedCounter": fresh, "dict": dict, "None": lambda _counts: None}
"""What stands on the other side of an operator; a Counter is compared with a Counter for a SharedCounter."""


def in_order(counter):
    """The same counts in the order of SharedCounter: by name."""
    return Counter(dict(sorted(counter.items())))


def ranked(counter):
    return sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))


def add_in_place(c, name, delta):
    c[name] += delta


def subtract_in_place(c, name, delta):
    c[name] -= delta


def matched(c):
    match c:
        case {"a": int(value), **rest}:
            return value, rest
        case {}:
            return None


def counting(method, of):
    """`update` or `subtract`, with each kind of thing that they take."""
    return {
        f"{method} {label}": (lambda c, *args, take=take: take(getattr(c, method), *args), *args)
        for label, (take, *args) in of.items()
    }


TAKEN = {
    "nothing": (lambda do: do(),),
    "None": (lambda do: do(None),),
    "a list": (lambda do, words: do(words), WORDS),
    "an iterator once": (lambda do, words: do(iter(words)), WORDS),
    "a mapping": (lambda do, counts: do(counts), COUNTS),
    "a Counter": (lambda do, counts: do(Counter(counts)), COUNTS),
    "a SharedCounter": (lambda do, counts: do(fresh(counts)), COUNTS),
    "names": (lambda do, more: do(**more), KEYWORDS),
    "both": (lambda do, counts, more: do(counts, **more), COUNTS, KEYWORDS),
    "a number": (lambda do: do(5),),
    "two": (lambda do: do({}, {}),),
}
CALLS = {
    "[]": (lambda c, name: c[name], NAME),
    "[] =": (operator.setitem, NAME, VALUE),
    "[] +=": (add_in_place, NAME, VALUE),
    "[] -=": (subtract_in_place, NAME, VALUE),
    "del": (operator.delitem, NAME),
    "in": (operator.contains, NAME | st.sampled_from(["", "\n", "x" * 251, None, 5, b"a", ()])),
    "get": (lambda c, name: c.get(name), NAME),
    "get with a default": (lambda c, name, default: c.get(name, default), NAME, VALUE),
    "pop": (lambda c, name: c.pop(name), NAME),
    "pop with a default": (lambda c, name, default: c.pop(name, default), NAME, VALUE | st.none()),
    "setdefault": (lambda c, name, value: c.setdefault(name, value), NAME, VALUE),
    "clear": (lambda c: c.clear(),),
    "len": (len,),
    "bool": (bool,),
    "iter": (list,),
    "keys": (lambda c: list(c.keys()),),
    "values": (lambda c: list(c.values()),),
    "items": (lambda c: list(c.items()),),
    "len of views": (lambda c: (len(c.keys()), len(c.values()), len(c.items())),),
    "views as sets": (lambda c, words: (c.keys() & words, c.keys() - words, c.keys() == {*words}), WORDS),
    "items as a set": (
        lambda c, counts: (
            c.items() & counts.items(),
            counts.items() <= c.items(),
            c.items() ^ counts.items(),
        ),
        COUNTS,
    ),
    "in items": (lambda c, name, value: (name, value) in c.items(), NAME, VALUE | st.none()),
    "other things in items": (lambda c, name: ([name, 1] in c.items(), name in c.items()), NAME),
    "in values": (lambda c, value: value in c.values(), VALUE),
    "total": (lambda c: c.total(),),
    "elements": (lambda c: list(c.elements()),),
    "most_common": (lambda c, n: ranked(c)[: None if n is None else max(n, 0)], N),
    "most_common of no number": (lambda c: c.most_common(2.5),),
    "copy": (lambda c: c.copy(),),
    "dict": (dict,),
    "**": (lambda c: {**c},),
    "Counter": (Counter,),
    "sorted": (lambda c: sorted(c, key=c.get),),
    "match": (matched,),
    "+ -": (lambda c: (+c, -c),),
    "added up": (lambda c: sum([c, c], Counter()),),
    "hash": (hash,),
    "update of itself": (lambda c: c.update(c),),
    "subtract of itself": (lambda c: c.subtract(c),),
    **counting("update", TAKEN),
    **counting("subtract", TAKEN),
}
HERE = {**CALLS, "most_common": (lambda c, n: c.most_common(n), N)}
for sign in ("add", "sub", "and_", "or_", "eq", "ne", "lt", "le", "gt", "ge"):
    do = getattr(operator, sign)
    shapes = (
        SHAPES if sign != "or_" else {name: SHAPES[name] for name in ("Counter", "SharedCounter", "None")}
    )
    for shape, make in shapes.items():
        model = Counter if shape == "SharedCounter" else make
        for where, turn in (("left", lambda c, x: (c, x)), ("right", lambda c, x: (x, c))):
            key = f"{sign} {shape} {where}"
            CALLS[key] = (lambda c, x, do=do, turn=turn, make=model: do(*turn(c, make(x))), COUNTS)
            HERE[key] = (lambda c, x, do=do, turn=turn, make=make: do(*turn(c, make(x))), COUNTS)

STEP = st.sampled_from(sorted(CALLS)).flatmap(
    lambda label: st.tuples(st.just(label), *CALLS[label][1:]),
)


def outcome(call, c, args):
    """What *call* gave, with its type; of a refusal, which of Python's own it is."""
    try:
        value = call(c, *args)
    except REFUSALS as error:
        return next(kind for kind in REFUSALS if isinstance(error, kind))
    kind = int if isinstance(value, Reading) else type(value)
    return kind, dict(value) if isinstance(value, Counter) else value  # Counters are equal in spite of zeros


@pytest.fixture(params=["whole", "view"])
def face(request, counters):
    """All counters of each store in turn, empty; and those under a prefix, beside others that stay."""
    if request.param == "whole":
        yield counters
        return
    outside = {"%2F": 7, "%2F&=ä": 8, "a": 9}
    counters.update(outside)
    view = counters.view("%2F&=ä")
    yield view
    view.clear()
    assert counters == outside


def run_on_both(face, steps):
    face.clear()
    model = Counter()
    for label, *args in steps:
        wanted = outcome(CALLS[label][0], model, args)
        model = in_order(model)
        assert outcome(HERE[label][0], face, args) == wanted, label
        assert list(face.items()) == list(model.items()), label


of_both = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@of_both
@given(steps=st.lists(STEP, max_size=15))
def test_every_sequence_of_calls_does_the_same(face, steps):
    run_on_both(face, steps)


@pytest.mark.long
@settings(of_both, max_examples=200)
@given(steps=st.lists(STEP, min_size=10, max_size=40))
def test_many_long_sequences_of_calls_do_the_same(face, steps):
    run_on_both(face, steps)


@pytest.mark.parametrize("label", CALLS)
def test_each_call_does_the_same(counters, label):
    """With nothing there, and with something; so that none depends on being drawn."""

    @settings(of_both, max_examples=10, phases=[Phase.generate])
    @given(args=st.tuples(*CALLS[label][1:]), before=COUNTS)
    def check(args, before):
        run_on_both(counters, [("update a mapping", before), (label, *args)])

    check()


EDGES = st.sampled_from([INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX])
FITS = range(INT64_MIN, INT64_MAX + 1)


@of_both
@given(
    before=st.dictionaries(NAME, EDGES, max_size=4),
    deltas=st.dictionaries(NAME, EDGES | st.sampled_from([INT64_MIN - 1, INT64_MAX + 1, 2**64]), max_size=3),
    method=st.sampled_from(["update", "subtract"]),
)
def test_what_would_leave_64_bits_is_refused_and_changes_nothing(face, before, deltas, method):
    face.clear()
    for name, value in before.items():
        face[name] = value
    model = Counter(before)
    getattr(model, method)(deltas)
    sign = 1 if method == "update" else -1
    sent = [number for delta in deltas.values() for number in (delta, sign * delta)]
    if all(number in FITS for number in (*sent, *model.values())):
        getattr(face, method)(deltas)
        before = model
    else:
        with pytest.raises(ValueError):  # InvalidRequest or OutOfBounds
            getattr(face, method)(deltas)
    assert dict(face.items()) == before
    assert face.total() == sum(before.values())
    assert face + face == Counter(before) + Counter(before)  # a plain Counter, which has more than 64 bits


def changed_while_iterated(c):
    for name in c:
        c[f"{name}{name}"] = 1
    return len(c)


REFUSED = ValueError
DIFFERENT = {
    # what: (call, of {"a": 3, "b": 1, "c": 3} as a Counter, as a SharedCounter, why)
    "order": (
        lambda c: [c.setdefault("B", 1), *c],
        [1, "a", "b", "c", "B"],
        [1, "B", "a", "b", "c"],
        "by name",
    ),
    "ties": (
        lambda c: [c.update(_first=3), c.most_common(2)],
        [None, [("a", 3), ("c", 3)]],
        [None, [("_first", 3), ("a", 3)]],
        "the order of insertion is another in each process",
    ),
    "reversed": (lambda c: [*reversed(c)], ["c", "b", "a"], TypeError, "pages go one way; use sorted()"),
    "repr": (lambda c: "'a': 3" in repr(c), True, False, "asks the store for nothing"),
    "a dict": (lambda c: isinstance(c, dict), True, False, "C code would read a dict's own memory"),
    "json": (lambda c: json.dumps(c)[:1], "{", TypeError, "is for dicts; use copy()"),
    "MutableMapping": (lambda c: isinstance(c, MutableMapping), True, False, "there is no popitem"),
    "popitem": (lambda c: c.popitem(), ("c", 3), AttributeError, "two requests; use most_common() and pop()"),
    "fromkeys": (lambda c: c.fromkeys("ab"), NotImplementedError, AttributeError, "of no use to either"),
    "floats": (lambda c: c.update(a=0.5), None, REFUSED, "exact integers"),
    "bools": (lambda c: c.update(a=True), None, REFUSED, "exact integers"),
    "None": (lambda c: c.__setitem__("a", None), None, REFUSED, "exact integers"),
    "big": (lambda c: c.__setitem__("a", 2**63), None, REFUSED, "64 bits"),
    "other keys": (lambda c: c[5], 0, REFUSED, "names are text; a mistake shows at once"),
    "no hash": (lambda c: c[[]], TypeError, REFUSED, "names are text; nothing is hashed here"),
    "empty names": (lambda c: c[""], 0, REFUSED, "no counter can have it"),
    "long names": (lambda c: c["x" * 251], 0, REFUSED, "250 bytes"),
    "setdefault alone": (lambda c: c.setdefault("x"), None, 0, "exact integers"),
    "options": (lambda c: [c.update(timeout=5), "timeout" in c][1], True, False, "goes into a mapping"),
    "copies": (lambda c: type(c) is type(c.copy()), True, False, "a copy is shared by nobody"),
    "changes meanwhile": (changed_while_iterated, RuntimeError, 6, "others change it all the time"),
    "a dict behind |": (
        lambda c: c | {"d": 1},
        {"a": 3, "b": 1, "c": 3, "d": 1},
        TypeError,
        "no union of counts",
    ),
    **{
        f"{sign} in place": (lambda c, do=do: do(c, Counter("ab")) is c, True, TypeError, "not one step")
        for sign, do in {
            "+": operator.iadd,
            "-": operator.isub,
            "|": operator.ior,
            "&": operator.iand,
        }.items()
    },
}


@pytest.mark.parametrize(("call", "there", "here", "why"), DIFFERENT.values(), ids=list(DIFFERENT))
def test_it_is_different_on_purpose(counters, call, there, here, why):
    counts = {"a": 3, "b": 1, "c": 3}
    counters.update(counts)
    for c, wanted in ((Counter(counts), there), (counters, here)):
        if isinstance(wanted, type):
            with pytest.raises(wanted):
                call(c)
        else:
            assert call(c) == wanted, why
    if isinstance(here, type):
        assert counters == counts
