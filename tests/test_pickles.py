"""The literal reader takes what a stock client sends, as the standard reader would, and nothing else."""

import gc
import math
import pickle
import pickletools
import random
import struct
import sys
import time
import tracemalloc
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counter import pickles
from counter.pickles import MAX_CONTAINERS, MAX_DEPTH, MAX_INT_BYTES, MAX_MEMO, MAX_PICKLE, PickleRefused

PROTOCOLS = (2, 3, 4, 5)
PICKLERS = {"C": pickle.dumps, "Python": pickle._dumps}
STOCK_CALL = ("counters", "increment", ("page",), {})

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
ints = st.integers(-(2**70), 2**70) | st.integers(-300, 70_000)
atoms = st.none() | st.booleans() | ints | st.floats() | texts


def containers_of(inner):
    return (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(texts, inner, max_size=5)
    )


values = atoms
for _ in range(MAX_DEPTH):
    values = atoms | containers_of(values)


def same(ours, theirs):
    """Equal, with equal types all the way down, and NaN like NaN."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, float):
        return struct.pack(">d", ours) == struct.pack(">d", theirs)
    if isinstance(ours, dict):
        return same(list(ours.items()), list(theirs.items()))
    if isinstance(ours, tuple | list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def refused(frame):
    with pytest.raises(PickleRefused) as caught:
        pickles.loads(frame)
    return str(caught.value)


def proto4(*parts):
    return b"\x80\x04" + b"".join(parts)


def shares_nothing(value):
    """A copy in which no two objects are one, so that its pickle fetches no list or dict from the memo."""
    if isinstance(value, dict):
        return {shares_nothing(key): shares_nothing(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([shares_nothing(item) for item in value])
    return value


# What is read


@pytest.mark.slow
@pytest.mark.parametrize("pickler", PICKLERS.values(), ids=PICKLERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(value=values)
@settings(max_examples=25, deadline=None)
def test_every_plain_value_comes_back_equal_with_equal_types(pickler, protocol, value):
    assert same(pickles.loads(pickler(shares_nothing(value), protocol)), value)


@pytest.mark.parametrize("pickler", PICKLERS.values(), ids=PICKLERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "call",
    [
        STOCK_CALL,
        (None, "create", ("counters",), {}),
        (None, "accept_connection", ("MainThread",), {}),
        (None, "dummy", ()),
        ("counters", "__setitem__", ("page", -5), {}),
        ("counters", "update", ({f"name {number}": number for number in range(2_000)},), {}),
        ("counters", "update", (["page"] * 5_000,), {}),
        ("counters", "update", ([("a", 1), ("b", 2), ("a", 1)],), {}),
        ("counters", "increment", ("größe €",), {"delta": 2**63 - 1, "ttl": 0.5, "on_bound": None}),
        ("counters", "get", ("x" * 300, -(2**63)), {}),
        ("counters", "update", ((),), {}),
    ],
    ids=lambda call: call[1],
)
def test_what_stock_clients_send_is_read(pickler, protocol, call):
    assert same(pickles.loads(pickler(call, protocol)), call)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "number",
    [0, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**63), 2**511 - 1],
)
def test_ints_are_read_at_every_change_of_opcode(protocol, number):
    assert same(pickles.loads(pickle.dumps(number, protocol)), number)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_odd_floats_are_read_bit_for_bit(number):
    assert same(pickles.loads(pickle.dumps(number, 4)), number)


def test_equal_constants_shared_by_cpython_are_read():
    """CPython makes equal constants of a function one object, which its pickler then sends once."""
    pair, texts_ = ("a", 1), ("b", 2.5, None)
    for protocol in PROTOCOLS:
        frame = pickle.dumps([pair, pair, texts_, texts_], protocol)
        assert pickles.loads(frame) == [pair, pair, texts_, texts_]


def test_repeats_past_memo_entry_255_are_read():
    names = [f"n{number}" for number in range(400)]
    for protocol in PROTOCOLS:
        assert pickles.loads(pickle.dumps(names * 2, protocol)) == names * 2


def test_every_call_gets_values_of_its_own():
    """Two identical frames never meet in one list or dict."""
    frame = pickle.dumps(("counters", "update", ({"a": 1}, ["b"]), {}), 4)
    first, second = pickles.loads(frame), pickles.loads(frame)
    first[2][0]["a"] = 99
    first[2][1].append("changed")
    first[3]["delta"] = 1
    assert second == ("counters", "update", ({"a": 1}, ["b"]), {})


def test_a_full_frame_of_names_is_read():
    """The frame's size is the only limit that an honest client meets."""
    pairs = [(f"{number:x}", 1) for number in range(6_000)]
    frame = pickle.dumps(pairs, 4)
    assert 60_000 < len(frame) <= MAX_PICKLE
    assert pickles.loads(frame) == pairs


@pytest.mark.parametrize("protocol", range(8))
def test_pickles_are_told_from_our_own_frames(protocol):
    assert pickles.looks_like_pickle(bytes([0x80, protocol]) + b"N.") == (2 <= protocol <= 5)


@pytest.mark.parametrize("frame", [b"", b"\x80", b"\x81\x04", b"\x94\x01\x02", b"(dp0\n.", b"N."])
def test_other_frames_are_no_pickles(frame):
    assert not pickles.looks_like_pickle(frame)
    refused(frame)


def test_a_small_call_is_read_quickly():
    """Some 6 us are measured; the bound is wide enough for a busy machine, and for no second reader."""
    frame = pickle.dumps(STOCK_CALL, 4)
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(100):
            pickles.loads(frame)
        best = min(best, (time.perf_counter() - start) / 100)
    assert best < 60e-6


# What is refused

READ_NAMES = """
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE
    MARK EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET STOP
"""
READ = READ_NAMES.split()
OTHERS = [opcode for opcode in pickletools.opcodes if opcode.name not in READ]


def test_no_opcode_is_read_besides_the_listed_ones():
    allowed = {code[0] for code in pickles._ALLOWED} | {pickle.STOP[0]}
    assert allowed == {ord(opcode.code) for opcode in pickletools.opcodes if opcode.name in READ}
    assert len(OTHERS) >= 40


@pytest.mark.parametrize("opcode", OTHERS, ids=lambda opcode: opcode.name)
def test_every_other_opcode_is_refused_as_such(opcode):
    """Wherever it stands, with operands or without, and whatever would follow it."""
    code = opcode.code.encode("latin-1")
    for before in (b"", b"N", b"NN", b"(", b"(NN", b"]", b"}", b"\x8c\x02os\x8c\x06system"):
        for after in (b"", b".", b"os\nsystem\n.", b"1\n.", b"\x01\x00\x00\x00\x00\x00\x00\x00N."):
            if code == pickle.FRAME and not before:
                continue
            assert "Only None, bool" in refused(proto4(before, code, after))


@pytest.mark.parametrize(
    "byte", sorted(set(range(256)) - {ord(opcode.code) for opcode in pickletools.opcodes})
)
def test_a_byte_that_is_no_opcode_is_refused(byte):
    assert "Only None, bool" in refused(proto4(bytes([byte]), b"N."))


class Weapon:
    def __reduce__(self):
        return (pytest.fail, ("code was run",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        Weapon(),
        Counter("aab"),
        OrderedDict(a=1),
        {1, 2},
        frozenset(),
        b"bytes",
        bytearray(),
        range(3),
        1j,
        len,
        Path("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_are_refused_at_any_place(protocol, value):
    for outer in (value, [value], ("counters", "get", ("page", value), {}), {"a": value}):
        refused(pickle.dumps(outer, protocol))


def test_keys_are_str_and_never_hashed_otherwise():
    """Hashing is quadratic for colliding ints, and crashes CPython 3.11 to 3.13 for a tuple deep enough."""
    step = sys.hash_info.modulus
    colliding = {number * step: None for number in range(300)}
    assert "keys" in refused(pickle.dumps(colliding, 4))
    for key in (1, None, True, 1.5, ("a",), ()):
        assert "keys" in refused(pickle.dumps({key: 1}, 4))
        assert "keys" in refused(pickle.dumps({"a": 1, key: 1}, 4))
    deep = b"N" + b"\x85" * 8_000
    assert "keys" in refused(proto4(b"}", deep, b"Ns."))
    assert "keys" in refused(proto4(b"}(", deep, b"Nu."))
    assert "keys" in refused(proto4(b"}]Ns."))


@pytest.mark.parametrize("text", [b"\xed\xa0\x80", b"\xff", b"\xc3", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_texts_are_strict_utf8(text):
    """The standard reader lets lone surrogates through; a name with one could never be named again."""
    refused(proto4(b"\x8c", bytes([len(text)]), text, b"."))
    refused(proto4(b"X", struct.pack("<I", len(text)), text, b"."))


def test_a_text_is_not_cut_short_by_the_end_of_the_frame():
    """Also when what is there would be a text of its own."""
    refused(proto4(b"\x8c\x05abc."))
    refused(proto4(b"X\x05\x00\x00\x00abc."))


@pytest.mark.parametrize("value", [STOCK_CALL, [1.5, 2**40, 70_000, -1, "x" * 300, {"a": None, "b": ()}]])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_anywhere_is_refused(protocol, value):
    frame = pickle.dumps(value, protocol)
    for end in range(len(frame)):
        refused(frame[:end])


def test_nothing_may_follow_the_end():
    for tail in (b"\x00", b".", b"N.", pickle.dumps(1)):
        assert "follow" in refused(proto4(b"N.", tail))


MALFORMED = {
    "nothing at all": [b".", b"(."],
    "more than one value": [b"NN.", b"N(.", b"(N."],
    "APPEND": [b"a.", b"]a.", b"Na.", b"NNa.", b"}Na.", b")Na."],
    "APPENDS": [b"]e.", b"(Ne.", b"N(Ne.", b"}(Ne.", b"(e."],
    "SETITEM": [b"s.", b"}s.", b"}Ns.", b"]\x8c\x01aNs.", b"N\x8c\x01aNs."],
    "SETITEMS": [b"u.", b"}u.", b"}(\x8c\x01au.", b"](\x8c\x01aNu.", b"(\x8c\x01aNu."],
    "TUPLE": [b"t.", b"Nt.", b"\x85.", b"N\x86.", b"NN\x87."],
    "operands before a MARK": [b"(\x85t.", b"N(\x86t.", b"](Na.", b"}(\x8c\x01aNs.", b"N(\x94t."],
    "memo": [
        b"\x94.",
        b"q\x00.",
        b"r\x00\x00\x00\x00.",
        b"h\x00.",
        b"Nq\x01h\x00\x86.",
        b"N\x94j\x01\x00\x00\x00\x86.",
    ],
}


@pytest.mark.parametrize("bodies", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_pickle_is_refused(bodies):
    """Operands that are missing, of another kind, beyond a MARK, left over, or not in the memo."""
    for body in bodies:
        refused(proto4(body))


def test_proto_and_frame_have_one_place_each():
    body = b"\x8c\x01aN\x86."
    frame = b"\x95" + struct.pack("<Q", len(body))
    assert pickles.loads(proto4(frame, body)) == ("a", None)
    for other in (
        proto4(b"\x80\x04", body),
        proto4(frame, frame, body),
        proto4(b"N0", frame, body),
        proto4(frame, b"\x80\x04", body),
        b"\x80\x02" + frame + body,
        b"\x80\x03" + frame + body,
        b"\x80\x06" + body,
        b"\x80\x01" + body,
        b"\x80\xc8" + body,
    ):
        refused(other)


@pytest.mark.parametrize("lie", [0, 1, 4, 6, 7, 2**31, 2**32, 2**63, 2**64 - 1])
def test_a_frame_that_lies_about_its_length_is_refused(lie):
    assert "FRAME" in refused(proto4(b"\x95", struct.pack("<Q", lie), b"\x8c\x01aN."))


def test_depth_is_that_of_a_call():
    """A call, its args, a list in them, pairs in that; counted the same however the levels were built."""
    builds = {
        "list": (b"]" * MAX_DEPTH + b"a" * (MAX_DEPTH - 1), b"]" * (MAX_DEPTH + 1) + b"a" * MAX_DEPTH),
        "marks": (b"(" * MAX_DEPTH + b"t" * MAX_DEPTH, b"(" * (MAX_DEPTH + 1) + b"t" * (MAX_DEPTH + 1)),
        "tuple1": (b"N" + b"\x85" * MAX_DEPTH, b"N" + b"\x85" * (MAX_DEPTH + 1)),
        "empty": (b")" + b"\x85" * (MAX_DEPTH - 1), b")" + b"\x85" * MAX_DEPTH),
        "memo": (b"N\x85\x94" + b"h\x00\x85\x85\x86", b"N\x85\x94" + b"h\x00\x85\x85\x85\x86"),
    }
    for fits, too_deep in builds.values():
        assert pickles.loads(proto4(fits, b".")) is not None
        assert "nested" in refused(proto4(too_deep, b"."))


def test_a_deep_value_hides_behind_no_wide_one():
    for position in range(3):
        items = [["a"], {"b": 1}, ("c", 2)]
        items[position] = [[[["deep"]]]]
        assert "nested" in refused(pickle.dumps(items, 4))
        assert "nested" in refused(pickle.dumps({"x": {"y": items}}, 4))


def test_numbers_stop_at_64_bytes():
    largest = 2 ** (8 * MAX_INT_BYTES - 1) - 1
    assert pickles.loads(pickle.dumps(largest, 4)) == largest
    assert "64 bytes" in refused(pickle.dumps(largest + 1, 4))
    refused(pickle.dumps(1 << 20_000, 4))


def test_only_atoms_and_small_flat_tuples_are_fetched_from_the_memo():
    for body in (b"]", b"}", b"N\x85\x85", b"]\x85", b"(NNNNt", b"}\x85"):
        assert "twice" in refused(proto4(b"(", body, b"\x94h\x00t."))
    for body in (
        b"N",
        b"\x88",
        b"K\x01",
        b"G" + b"\x00" * 8,
        b"\x8c\x01a",
        b")",
        b"N\x85",
        b"NN\x86",
        b"NNN\x87",
    ):
        first, second = pickles.loads(proto4(b"(", body, b"\x94h\x00t."))
        assert same(first, second)


def test_cycles_are_refused():
    loop = []
    loop.append(loop)
    ring = {}
    ring["self"] = (ring,)
    for value in (loop, ring, (loop,)):
        for protocol in PROTOCOLS:
            refused(pickle.dumps(value, protocol))


def nested_lists(depth):
    return b"]" * depth + b"a" * (depth - 1)


def laughs(first, build):
    """Each of 12 levels holds the one before it ten times, through the memo."""
    body = first + b"\x94"
    for level in range(12):
        body += build % ((b"h%c" % level) * 10) + b"\x94"
    return body + b"."


BOMBS = {
    "LONG_BINPUT 2^32-1": b"Nr\xff\xff\xff\xff" + b"h\x00.",
    "BINUNICODE 2^32-1": b"X\xff\xff\xff\xffabc.",
    "BINUNICODE -1 as text": b"X\xff\xff\xff\xff.",
    "BINUNICODE8 2^63": b"\x8d" + struct.pack("<Q", 2**63) + b"abc.",
    "BINBYTES 2^32-1": b"B\xff\xff\xff\xffabc.",
    "BINBYTES8 2^63": b"\x8e" + struct.pack("<Q", 2**63) + b"abc.",
    "BYTEARRAY8 2^40": b"\x96" + struct.pack("<Q", 2**40) + b"abc.",
    "LONG1 255": b"\x8a\xff" + b"\x7f" * 255 + b".",
    "LONG4 2^31-1": b"\x8b\xff\xff\xff\x7f\x01.",
    "LONG4 negative": b"\x8b\xff\xff\xff\xff\x01.",
    "LONG4 of the whole frame": b"\x8b" + struct.pack("<i", 60_000) + b"\x7f" * 60_000 + b".",
    "INT of 60,000 digits": b"I" + b"9" * 60_000 + b"\n.",
    "TUPLE1 x 60,000": b"N" + b"\x85" * 60_000 + b".",
    "TUPLE1 just under the budget": b"N" + b"\x85" * (MAX_CONTAINERS - 1) + b".",
    "nested lists": nested_lists(30_000) + b".",
    "nested lists just under the budget": nested_lists(MAX_CONTAINERS - 1) + b".",
    "nested dicts": b"}" + b"\x8c\x00}" * 8_000 + b"s" * 8_000 + b".",
    "MARK x 60,000": b"(" * 60_000 + b".",
    "MARK TUPLE nest": b"(" * 30_000 + b"t" * 30_000 + b".",
    "MARK TUPLE row": b"(" + b"(t" * 30_000 + b"t.",
    "EMPTY_LIST x 60,000": b"(" + b"]" * 60_000 + b"t.",
    "EMPTY_DICT x 60,000": b"(" + b"}" * 60_000 + b"t.",
    "MEMOIZE x 60,000": b"N" + b"\x94" * 60_000 + b".",
    "BINPUT of one more than the memo holds": b"N" + b"\x94" * MAX_MEMO + b"q\x00.",
    "billion laughs of lists": laughs(b"]\x8c\x03lola", b"](%be"),
    "billion laughs of tuples": laughs(b"(\x8c\x03loltt", b"(%bt"),
    "billion laughs of pairs": b"N" + b"\x94h%c\x86" * 30 % tuple(range(30)) + b".",
    "colliding keys": pickle.dumps({number * sys.hash_info.modulus: 1 for number in range(3_500)}, 4)[2:],
    "PROTO x 30,000": b"\x80\x04" * 30_000 + b"N.",
    "FRAME x 6,000": (b"\x95" + struct.pack("<Q", 1)) * 6_000 + b"N.",
    "floats, then nothing": b"(" + (b"G" + b"\x00" * 8) * 7_000,
    "too long by one": b"N" * (MAX_PICKLE - 2) + b".",
    "1 MiB": b"N" * 2**20 + b".",
}


@pytest.mark.slow
@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_in_little_memory_and_time(body):
    frame = proto4(body)
    refused(frame)
    gc.collect()
    start = time.perf_counter()
    refused(frame)
    assert time.perf_counter() - start < 0.5
    tracemalloc.start()
    try:
        refused(frame)
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()


def test_a_huge_memo_index_costs_nothing_where_it_is_harmless():
    assert pickles.loads(proto4(b"Nr\xff\xff\xff\xff.")) is None


def test_a_refusal_repeats_nothing_of_what_was_sent():
    secret = "s3cret"
    for value in ([secret] * 2 + [b"x"], {secret: {1: secret}}, [[[[[secret]]]]], {secret: 1 << 600}):
        assert secret not in refused(pickle.dumps(value, 4))
    with pytest.raises(PickleRefused) as caught:
        pickles.loads(proto4(b"\x8c\x07s3cret\xff."))
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_refusal_is_one_sentence():
    for body in (b"", b"c", b"N.N", b"NN.", b"]" * 9, b"(" * 9, b"N\x85.", *BOMBS.values()):
        try:
            pickles.loads(proto4(body))
        except PickleRefused as refusal:
            (sentence,) = refusal.args
            assert sentence[0].isupper()
            assert sentence.endswith(".")
            assert len(sentence) < 120


# Anything at all

OPCODE_BYTES = b"".join(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
READ_BYTES = b"".join(pickles._ALLOWED) + b"."


def loads_or_none(frame):
    """Read a frame, letting nothing but a refusal pass; the value in a tuple, or None."""
    try:
        return (pickles.loads(frame),)
    except PickleRefused:
        return None


def huge_memo_index(frame):
    """The standard reader in C allocates an array as long as the largest memo index."""
    return any(
        frame[at] == pickle.LONG_BINPUT[0] and int.from_bytes(frame[at + 1 : at + 5], "little") > 100_000
        for at in range(len(frame))
    )


def agrees_with_the_standard_reader(frame):
    """What is accepted means the same there; True if it was accepted and compared."""
    read = loads_or_none(frame)
    if read is None or huge_memo_index(frame):
        return False
    assert same(read[0], pickle.loads(frame))
    return True


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(body):
    loads_or_none(body)
    for protocol in PROTOCOLS:
        agrees_with_the_standard_reader(bytes([0x80, protocol]) + body)


@pytest.mark.slow
@given(st.lists(st.sampled_from(READ_BYTES) | st.integers(0, 3), max_size=60).map(bytes))
@settings(max_examples=150, deadline=None)
def test_any_row_of_opcodes_is_read_or_refused(body):
    agrees_with_the_standard_reader(proto4(body))
    agrees_with_the_standard_reader(proto4(body, b"."))


def mutated(frame, dice):
    """Change, drop, double, insert or move a few bytes, mostly to bytes that are opcodes."""
    data = bytearray(frame)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        at = dice.randrange(2, len(data))
        match dice.randrange(5):
            case 0:
                data[at] = dice.choice(READ_BYTES + OPCODE_BYTES)
            case 1:
                data[at] = dice.randrange(256)
            case 2:
                del data[at]
            case 3:
                data.insert(at, dice.choice(READ_BYTES))
            case _:
                start, size = dice.randrange(2, len(data)), dice.randrange(1, 6)
                data[at:at] = data[start : start + size]
    return bytes(data)


@pytest.mark.slow
def test_mutated_pickles_are_refused_or_mean_what_the_standard_reader_says():
    """A fixed seed; frames of protocol 4 also without their FRAME, whose length would betray most changes."""
    dice = random.Random(20_240)
    samples = [
        STOCK_CALL,
        ("counters", "update", ({"a": 1, "b": -70_000, "c": 2**40},), {"ttl": 1.5}),
        ("counters", "update", ([("a", 1), ("b", 300)],), {}),
        [("a", 1)] * 3 + ["a", None, True, False, (), [], {}],
    ]
    frames = []
    for value in samples:
        for protocol in PROTOCOLS:
            frame = pickle.dumps(value, protocol)
            frames.append(frame)
            if frame[2] == pickle.FRAME[0]:
                frames.append(frame[:2] + frame[11:])
    compared = sum(agrees_with_the_standard_reader(mutated(dice.choice(frames), dice)) for _ in range(30_000))
    assert compared > 500


# Answers, and the house rule


@pytest.mark.parametrize(
    "answer", [("#RETURN", 5), ("#RETURN", None), ("#ERROR", ValueError("no"))], ids=repr
)
def test_answers_are_readable_from_python_3_9_on(answer):
    frame = pickles.dumps(answer)
    assert frame[1] <= 4
    kind, value = pickle.loads(frame)
    assert kind == answer[0]
    assert repr(value) == repr(answer[1])


def test_a_list_of_names_can_be_walked_at_the_other_end():
    assert list(pickle.loads(pickles.dumps(("#RETURN", iter(["a", "b"]))))[1]) == ["a", "b"]


def test_the_standard_reader_appears_nowhere_in_the_package():
    package = Path(pickles.__file__).parent
    for path in package.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not any(word in source for word in ("pickle.load", "Unpickler", "import loads")), path.name
