"""What a peer that means ill may send: pickles that no pickler writes, frames that no client of ours sends.

Cases are pairs of a name and a payload.
"""

import base64
import pickle
import pickletools
import struct
import time

import msgspec

from counter import Get, Increment, Info, List, Set
from counter.ops import Hello, Report, Request
from counter.pickles import MAX_CONTAINERS, MAX_MEMO, MAX_PICKLE
from counter.wire import encode_request

READABLE = range(2, 6)
"""The protocols that are read; a pickle of the others does not even look like one."""


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(body, protocol=4):
    return (bytes([0x80, protocol]) if protocol >= 2 else b"") + body + b"."


def as_argument(body, protocol=4, after=b""):
    """The call get("missing", *body*): whatever can be read comes back, so only a refusal is one."""
    return whole(b"(" + text("counters") + text("get") + text("missing") + body + b"\x86}t", protocol) + after


def pickled_call(method, *args, ident="counters", protocol=4, **kwds):
    return pickle.dumps((ident, method, args, kwds), protocol=protocol)


def programs(command):
    """Bodies of pickles that run *command* in a shell, one for each opcode that can lead there."""
    system, argument = b"cposix\nsystem\n", text(command)
    name = b"S'" + command.encode() + b"'\n"
    lazy = b"cbuiltins\nmap\n" + system + b"]" + argument + b"a" + b"\x86\x81"  # runs when it is looped over
    namespace = b"cargparse\nNamespace\n)\x81"
    return {
        "GLOBAL, REDUCE": system + argument + b"\x85R",
        "STACK_GLOBAL, REDUCE": text("posix") + text("system") + b"\x93" + argument + b"\x85R",
        "INST": b"(" + name + b"iposix\nsystem\n",
        "OBJ": b"(" + system + name + b"o",
        "NEWOBJ": b"cbuiltins\ntuple\n" + lazy + b"\x85\x81",
        "NEWOBJ_EX": b"cbuiltins\ntuple\n" + lazy + b"\x85}\x92",
        "BUILD": namespace + b"}" + text("__setstate__") + system + b"sb" + argument + b"b",
    }


PLAIN = """
NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE MARK EMPTY_TUPLE
TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS MEMOIZE BINPUT LONG_BINPUT
BINGET LONG_BINGET PROTO FRAME STOP
"""
OPCODES = [opcode for opcode in pickletools.opcodes if opcode.name not in PLAIN.split()]
"""All but those that plain values are made of."""


def operand(opcode):
    """A sound argument of *opcode*, as bytes."""
    if opcode.arg is None:
        return b""
    if opcode.arg.n > 0:
        return b"\x01" + bytes(opcode.arg.n - 1)
    lines = {"stringnl": b"'a'\n", "stringnl_noescape_pair": b"posix\nsystem\n"}
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        return lines.get(opcode.arg.name, b"1\n")
    widths = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}
    return (1).to_bytes(widths.get(opcode.arg.n, 4), "little") + b"a"


def opcode_cases(protocol):
    """Each of `OPCODES`, with something on the stack for it."""
    for opcode in OPCODES:
        code = opcode.code.encode("latin-1") + operand(opcode)
        yield f"{opcode.name} alone", whole(b"(" + text("a") + text("b") + code, protocol)
        yield f"{opcode.name} in a call", as_argument(text("a") + code, protocol)
        yield f"{opcode.name} in a tuple", as_argument(b"(" + text("a") + code + b"t", protocol)


def lasting(count, body):
    return (body * count)[: MAX_PICKLE - 64]


def colliding(number):
    """An int as a key, and None; all these ints have the same hash."""
    return b"\x8a\x0a" + (number * (2**61 - 1)).to_bytes(10, "little") + b"N"


NESTED = 8_000
"""So many containers are still read."""
BOMBS = {
    "a memo index of 2^32 - 1": as_argument(text("a") + b"r\xff\xff\xff\xff" + b"j\xff\xff\xff\xff0"),
    "a memo of everything": as_argument(text("a") + b"\x94" * (MAX_MEMO + 1)),
    "a memo that is empty": as_argument(b"h\x00"),
    "a text of 2^32 - 1": as_argument(b"X\xff\xff\xff\xff"),
    "a short text past the end": as_argument(b"\x8c\xff"),
    "a text of 2^64 - 1": as_argument(b"\x8d" + b"\xff" * 8),
    "bytes of 2^63": as_argument(b"\x8e" + bytes(7) + b"\x80"),
    "a bytearray of 2^63": as_argument(b"\x96" + bytes(7) + b"\x80"),
    "an int of 2^31 - 1 bytes": as_argument(b"\x8b\xff\xff\xff\x7f"),
    "an int of 255 bytes": as_argument(b"\x8a\xff" + b"\x7f" * 255),
    "an int of 60,000 digits": as_argument(b"I" + b"9" * 60_000 + b"\n"),
    "a long of 60,000 digits": as_argument(b"L" + b"9" * 60_000 + b"L\n"),
    "a FRAME of 2^63": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f" + as_argument(b"N")[2:],
    "a FRAME that is too short": b"\x80\x04\x95" + struct.pack("<Q", 4) + as_argument(b"N")[2:],
    "a FRAME within": as_argument(b"\x95" + struct.pack("<Q", 1) + b"N"),
    "PROTO again": as_argument(b"\x80\x04N"),
    "nested tuples": as_argument(b"N" + b"\x85" * NESTED),
    "nested lists": as_argument(b"]" * NESTED + b"a" * (NESTED - 1)),
    "nested dicts": as_argument(lasting(NESTED, b"}" + text("")) + b"N" + b"s" * 9_000),
    "nothing but MARK": whole(b"(" * (MAX_PICKLE - 10)),
    "containers without end": as_argument(b"](" + b")" * (MAX_CONTAINERS + 1) + b"e"),
    "a list in itself": as_argument(b"]\x94h\x00a"),
    "a dict in itself": as_argument(b"}\x94" + text("a") + b"h\x00s"),
    "a tuple in itself": as_argument(b"(]\x94h\x00at\x94"),
    "a billion laughs": as_argument(text("ha") + b"\x87q\x00" + b"h\x00h\x00h\x00\x87q\x00" * 30),
    "a long list a thousand times": as_argument(
        b"](](" + b"N" * 20_000 + b"eq\x00" + b"h\x00" * 20_000 + b"e"
    ),
    "int keys with one hash": as_argument(b"}(" + b"".join(map(colliding, range(1, 5_000))) + b"u"),
    "a deep tuple as a key": as_argument(b"}N" + b"\x85" * NESTED + b"Ns"),
    "a deep tuple as the object": whole(b"(N" + b"\x85" * NESTED + text("get") + b")}t"),
    "a deep tuple as the method": whole(b"(" + text("counters") + b"N" + b"\x85" * NESTED + b")}t"),
    "no STOP": as_argument(b"N")[:-1],
    "only PROTO": b"\x80\x04",
    "bytes behind STOP": as_argument(b"N", after=b"N."),
    "an empty stack": whole(b""),
    "two values": whole(b"NN"),
    "APPEND to nothing": whole(b"a"),
    "SETITEMS of a half pair": as_argument(b"}(" + text("a") + b"u"),
    "a surrogate": as_argument(b"X\x03\x00\x00\x00\xed\xa0\x80"),
    "broken UTF-8": as_argument(b"X\x02\x00\x00\x00\xff\xfe"),
    "over the cap": as_argument(text("a" * MAX_PICKLE)),
    "1 MiB of MEMOIZE": whole(b"N" + b"\x94" * (1_048_576 - 8)),
    "1 MiB of MARK": whole(b"(" * (1_048_576 - 8)),
    "protocol 6": as_argument(b"N", 6),
    "protocol 255": as_argument(b"N", 255),
}


CALLS = [
    *(None, 1, "get", [], (), {}, ("counters",), ("counters", "get"), ["counters", "get", ("a",), {}]),
    ("counters", "get", ("a",), {}, None),
    (["counters"], "get", ("a",), {}),
    ({}, "get", ("a",), {}),
    (1, "get", ("a",), {}),
    (True, "get", ("a",), {}),
    ("counters", None, ("a",), {}),
    ("counters", ["get"], ("a",), {}),
    ("counters", 1.5, ("a",), {}),
    ("counters", "get", "a", {}),
    ("counters", "get", None, {}),
    ("counters", "get", {"a": 1}, {}),
    ("counters", "get", ("a",), [("default", 1)]),
    ("counters", "get", ("a",), None),
]
"""Plain values that are no calls, or are only nearly."""

ARGUMENTS = {
    "get": [
        (),
        ("a", 1, 2),
        (1,),
        (None,),
        (["a"],),
        ({"a": 1},),
        ("",),
        ("a\0",),
        ("x" * 251,),
        ("x" * 60_000,),
    ],
    "increment": [
        (),
        *(("a", delta) for delta in ("1", 1.0, True, None, [1], 2**63, -(2**400), float("nan"))),
    ],
    "increment with": [("a", 1, "x"), ("a", 1, 5, 3), ("a", 1, None, None, "drop"), ("a",) * 8],
    "increment for": [
        ("a", 1, None, None, None, *ttl) for ttl in ((0,), (2**40,), (None, "x"), (None, "fixed"))
    ],
    "decrement": [("a", -(2**63)), ("a", "1"), ("a", False), ("a", {})],
    "set": [("a",), ("a", None), ("a", "1"), ("a", 2**63), ("a", 1, 2)],
    "delete": [(), ("a", "b"), ("missing",), (1,)],
    "update": [(1,), ("abc",), (["a", 1],), ({"a": "1"},), ({"a": [1]},), ([["a", 1]],), (None,), ({"": 1},)],
    "keys": [("a",), (None,)],
    "items": [(1,)],
    "__getitem__": [(), (0,), ("a", "b"), ([],)],
    "__setitem__": [("a",), ("a", None), ("a", "x"), (1, 1)],
    "__delitem__": [(), (None,)],
    "__contains__": [(), (1,), ([],)],
    "__len__": [("a",)],
    "__iter__": [("a",)],
    "__str__": [("a",)],
}
"""Arguments that do not fit."""

NAMES = """
shutdown debug_info number_of_objects get_methods #GETVALUE #RETURN #PROXY _callmethod _getvalue __class__
__init__ __new__ __reduce__ __reduce_ex__ __getattribute__ __getattr__ __setattr__ __dict__ __call__ __del__
__globals__ __subclasses__ __enter__ __eq__ __hash__ serve_client handle_request stop append _table ask
popitem clear pop setdefault Increment
"""
METHODS = [*NAMES.split(), "", " ", "get ", "get\n", "GET", "g\u0435t", "x" * 60_000]
"""What a shared object of Python, or a careless server, would let a client call."""


def argument_cases():
    """Calls of what is offered, with arguments that do not fit."""
    for method, unfit in ARGUMENTS.items():
        for args in unfit:
            yield f"{method} {str(args)[:99]}", pickled_call(method.split()[0], *args)
    named = {"nonsense": 1, "name": "b", "self": 1, "__class__": 1, "if_version": "present", "op": "delete"}
    for key, value in named.items():
        yield f"increment with {key}", pickled_call("increment", "a", **{key: value})
    yield "delta twice", pickled_call("increment", "a", 1, delta=2)


BILLIONS = {"array": b"\xdd", "map": b"\xdf", "str": b"\xdb", "bin": b"\xc6", "ext": b"\xc9"}
DEEP = {"arrays": b"\x91" * 500_000 + b"\xc0", "maps": b"\x81\xa1a" * 200_000 + b"\xc0"}
CALLER = bytes(range(16))


def packed(value):
    return msgspec.msgpack.encode(value)


def packed_map(**fields):
    """A map whose values are msgpack already."""
    return bytes([0x80 + len(fields)]) + b"".join(packed(key) + value for key, value in fields.items())


def packed_op(**fields):
    return packed({"ops": [{"op": "increment", "name": "a"} | fields]})


def packed_request(**fields):
    return packed({"ops": [{"op": "increment", "name": "a"}]} | fields)


def raw_cases():
    """Bytes that are no request, whatever stands in which place."""
    op = packed([{"op": "increment", "name": "a"}])
    bad = {f"2^32 - 1 of {kind}": code + b"\xff" * 4 for kind, code in BILLIONS.items()}
    bad |= {f"deep {kind}": data for kind, data in DEEP.items()}
    bad |= {"fixext": b"\xd4\x01\x00", "timestamp": b"\xd6\xff\x00\x00\x00\x00", "unused": b"\xc1"}
    for kind, data in bad.items():
        yield f"{kind} alone", data
        yield f"{kind} as ops", packed_map(ops=data)
        yield f"{kind} as op", packed_map(ops=b"\x91" + data)
        yield f"{kind} as name", packed_map(ops=b"\x91" + packed_map(op=packed("get"), name=data))
        yield (
            f"{kind} before op",
            packed_map(ops=b"\x91" + packed_map(zz=data, op=packed("get"), name=packed("a"))),
        )
        yield f"{kind} as caller", packed_map(ops=op, caller=data)
        yield f"{kind} as deadline", packed_map(ops=op, deadline=data)
        yield f"{kind} as an unknown field", packed_map(ops=op, zz=data)
        yield f"{kind} behind it all", packed_map(ops=op) + data
    yield from {
        "nothing": b"",
        "nil": b"\xc0",
        "one": b"\x01",
        "an empty map": b"\x80",
        "text": packed("ops"),
    }.items()
    honest = packed_map(ops=op)
    yield from ((f"cut at {end}", honest[:end]) for end in range(len(honest)))
    yield "two of them", honest * 2
    surrogate = packed_map(op=packed("increment"), name=b"\xa3\xed\xa0\x80")
    yield "a name of bad UTF-8", packed_map(ops=b"\x91" + surrogate)


def wrong_values():
    """Requests that could be made, with one thing wrong."""
    now = time.monotonic()
    soon = now + 60
    for name in (1, None, b"a", ["a"], "", "a\0", "a\n", "\x80", "x" * 251, "\u20ac" * 84, "x" * 900_000):
        yield f"name {str(name)[:9]!r}", packed_op(name=name)
    for delta in (True, 1.0, float("nan"), "1", None, 2**63, 2**64 - 1, [], b"1"):
        yield f"delta {delta!r}", packed_op(delta=delta)
    for field in ("min", "max", "ttl"):
        for value in (True, 1.0, "1", 2**63, []):
            yield f"{field} {value!r}", packed_op(**{field: value})
    for fields in ({"ttl": 0}, {"ttl": -1}, {"ttl_mode": "fixed"}):
        yield f"{fields}", packed_op(**fields)
    yield "min above max", packed_op(min=2, max=1)
    for value in ("drop", "x" * 900_000, 1, True):
        yield f"on_bound {str(value)[:9]}", packed_op(on_bound=value)
    for tag in ("", "Increment", "shutdown", "x" * 900_000, 1, None, b"get", ["get"], {"a": 1}):
        yield f"op {str(tag)[:9]!r}", packed({"ops": [{"op": tag, "name": "a"}]})
    for ops in ([], {}, None, "get", [[]], [None], [1], [{}], [{"name": "a"}]):
        yield f"ops {ops!r}", packed({"ops": ops})
    yield "an unknown field of an op", packed_op(zz=1)
    for field in ("zz", "x" * 900_000, "__class__"):
        yield f"an unknown field {field[:9]}", packed_request(**{field: 1})
    for caller in (CALLER[:15], CALLER + b"x", b"", "x" * 16, 1, [1] * 16):
        yield f"caller {caller!r}", packed_request(caller=caller, seq=1, deadline=soon)
    for seq in (True, 1.5, "1", 2**63, 2**64 - 1, None):
        yield f"seq {seq!r}", packed_request(caller=CALLER, seq=seq, deadline=soon)
    for deadline in (*map(float, ("nan", "inf", "-inf", 1e308)), "1", None, [], now + 86_400):
        yield f"deadline {deadline!r}", packed_request(caller=CALLER, seq=1, deadline=deadline)
    for late in (0.0, -1e308, -1, now):
        yield f"past deadline {late!r}", packed_request(caller=CALLER, seq=1, deadline=late)
    for atomic in (1, "true", None):
        yield f"atomic {atomic!r}", packed_request(atomic=atomic)
    get = {"op": "get", "name": "a"}
    others = [{"op": "list"}, {"op": "info"}, {"op": "report", "requests": 1}]
    for other in [*others, {"op": "hello", "role": "x", "pid": 1, "version": "1"}]:
        for ops in ([get, other], [other, get], [other, other]):
            yield f"{other['op']} in a batch", packed({"ops": ops})
    page = [
        {"limit": 0},
        {"limit": 1001},
        {"limit": 2**40},
        {"sort": "x"},
        {"prefix": "x" * 251},
        {"prefix": 1},
    ]
    for fields in page:
        yield f"list {fields}", packed({"ops": [{"op": "list"} | fields]})
    deep = b"[" * 100_000
    texts = [encoded(data) for data in (b"[]", deep, b'["name",0,"a",' + deep, b'["name",0,"\\ud800"]')]
    for cursor in ("x", "=", "\u20ac", "A" * 900_000, 1, *texts):
        yield f"cursor {str(cursor)[:9]}", packed({"ops": [{"op": "list", "cursor": cursor}]})
    yield "a negative report", packed({"ops": [{"op": "report", "requests": -1}]})
    hello = {"op": "hello", "role": "x", "pid": 1, "version": "1"}
    for fields in (
        {"role": "x" * 65},
        {"version": "x" * 900_000},
        {"role": 1},
        {"pid": 2**63},
        {"pid": True},
    ):
        yield f"hello {list(fields)}", packed({"ops": [hello | fields]})


def encoded(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def noise(dice, count):
    """Random frames: some pure, most an honest one with a few bytes changed, cut out or doubled."""
    honest = [pickled_call("increment", "a", 1, ttl=5), pickled_call("update", ["a", "b"], c=1)]
    honest += [pickled_call("get", "a", protocol=protocol) for protocol in READABLE]
    ops = [Increment("a", 5, min=0, max=9, ttl=60), Get("b"), Set("c", value=1)]
    honest += [
        encode_request(Request(ops)),
        encode_request(Request(ops[:1], caller=CALLER, seq=1, deadline=1e9)),
    ]
    honest += [encode_request(Request([op])) for op in (List(), Info(), Report(1, 1), Hello("x", 1, "1"))]
    for _ in range(count):
        data = bytearray(dice.choice(honest))
        if dice.random() < 0.2:
            data[2:] = dice.randbytes(dice.randrange(200))
        for _ in range(dice.randrange(1, 5)):
            at = dice.randrange(len(data))
            how = dice.randrange(3)
            if how == 0:
                data[at] = dice.randrange(256)
            elif how == 1 and len(data) > 8:
                del data[at : at + dice.randrange(1, 8)]
            else:
                data[at:at] = data[at : at + dice.randrange(1, 20)]
        yield bytes(data)
