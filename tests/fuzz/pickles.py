"""The reader of literal pickles: what it reads, the standard one reads alike, and all else is refused."""

import pickle

from hostile_frames import ARGUMENTS, BOMBS, CALLS, pickled_call

from counter import pickles
from counter.pickles import MAX_CONTAINERS, MAX_DEPTH, MAX_PICKLE, PickleRefused

WORDS = [
    *sorted(pickles._ALLOWED),
    *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)),
    *(pickle.dumps(text, 4)[11:-2] for text in ("counters", "increment", "page")),
    *(b"\x8c\x01a", b"K\x01", b"\x85R", b"\x93", b"cposix\nsystem\n", b"\x8a\x09", b"q\x00h\x00"),
]
PLAIN = frozenset({type(None), bool, int, float, str, tuple, list, dict})


def one_input(data):
    try:
        ours = pickles.loads(data)
    except PickleRefused as refusal:
        assert len(str(refusal)) < 200
        return
    assert len(data) <= MAX_PICKLE
    count, depth = measure(ours)
    assert count <= MAX_CONTAINERS
    assert depth <= MAX_DEPTH
    # It names no code, or ours would have refused it. The memo of the reader in C is an array up to the
    # highest index, of which LONG_BINPUT makes 32 GiB; the one in Python has a dict.
    theirs = (pickle._loads if pickle.LONG_BINPUT in data else pickle.loads)(data)
    assert repr(ours) == repr(theirs)  # so types are compared, and NaN equals NaN


def measure(value):
    """How many containers *value* has, itself included, and how deep they are in each other."""
    assert type(value) in PLAIN
    if not isinstance(value, tuple | list | dict):
        return 0, 0
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        value = value.values()
    inner = [measure(each) for each in value]
    return 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)


def seeds():
    values = [None, 1.5, -1, 2**40, "x" * 300, [1, [2, (3, {"a": None})]], {"a": (1, 2), "b": ("a", 1)}]
    calls = [call for call in CALLS if isinstance(call, tuple)]
    for protocol in range(2, 6):
        for value in [*values, *calls]:
            yield pickle.dumps(value, protocol)
        for method in ARGUMENTS:
            yield pickled_call(method.split()[0], *ARGUMENTS[method][-1], protocol=protocol)
    yield from (bomb for bomb in BOMBS.values() if len(bomb) < 500)
