"""Owns what is read of a pickle: plain values, by a reader that knows no opcode able to name code.

A stock multiprocessing client pickles its calls. The standard reader runs whatever a pickle names; this one
is a small stack machine for protocols 2 to 5 that can only build None, bool, int, float, str, tuple, list
and dict with str keys.

What a frame can cost is bounded by its own length: `MAX_PICKLE` comes first, a length field is compared with
what is there before anything is made of it, and the budgets below bound the rest. Three rules keep its values
harmless for the code that gets them:

- The memo gives back only atoms and flat tuples of at most three atoms, which CPython really shares between
  equal constants. So a value is a tree: no cycles, nothing multiplied.
- Only exact str is ever hashed; hashing a deep enough tuple crashes CPython 3.11 to 3.13.
- Nothing nested deeper than a call needs comes out, so recursive code may handle it.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeAlias

Literal: TypeAlias = (
    "None | bool | int | float | str | tuple[Literal, ...] | list[Literal] | dict[str, Literal]"
)
"""What `loads` can return, in exactly these types."""

MAX_PICKLE = 64 * 1024
"""Bytes of one pickled frame. The worst one holds the event loop for some 25 ms."""

MAX_DEPTH = 4
"""Containers inside each other: the call (ident, method, args, kwds), its args, a list in them, its pairs."""

MAX_CONTAINERS = 8_192
"""Tuples, lists and dicts in one frame: more than the pairs that fit in, so an honest call never meets it."""

MAX_MEMO = 16_384
"""Memo entries in one frame: picklers memoize each text and each container, so two for each pair."""

MAX_INT_BYTES = 64
"""Bytes of one int: far over 64 bits, so that a number out of range is refused where that range is known."""

_HIGHEST_PROTOCOL = 5
_ANSWER_PROTOCOL = 4
_FRAME_HEADER = 9
_STOP = pickle.STOP[0]
_ATOMS = frozenset({type(None), bool, int, float, str})
_CONTAINERS = frozenset({tuple, list, dict})
_DOUBLE = struct.Struct(">d")
_TOO_DEEP = f"Values are nested at most {MAX_DEPTH} deep, the call itself included."


class PickleRefused(Exception):
    """A frame this reader does not read: one sentence that says why, and repeats nothing of its content."""


def looks_like_pickle(frame: bytes) -> bool:
    """Tell a pickle of protocol 2 to 5 from our own frames.

    In msgpack the first byte would be an empty map, complete in itself, so the two never meet.
    """
    return frame.startswith(pickle.PROTO) and len(frame) > 1 and 2 <= frame[1] <= _HIGHEST_PROTOCOL


def loads(frame: bytes) -> Literal:
    """Read one pickled value; it is new, and shared with no other call.

    Args:
        frame: the whole pickle, protocols 2 to 5, at most `MAX_PICKLE` bytes.

    Returns:
        A tree of at most `MAX_DEPTH` containers inside each other. Its texts are free of surrogates; its ints
        have at most `MAX_INT_BYTES` bytes, its floats may be NaN or infinite.

    Raises:
        PickleRefused: anything else, whatever the bytes are.
    """
    if len(frame) > MAX_PICKLE:
        raise PickleRefused(f"A pickled call has at most {MAX_PICKLE} bytes; send fewer names at once.")
    if not looks_like_pickle(frame):
        raise PickleRefused("Only pickles of protocols 2 to 5 are read.")
    reader = _Reader(frame, _body_start(frame))
    try:
        value = reader.read()
    except (IndexError, KeyError, UnicodeDecodeError):
        raise PickleRefused("The pickle is incomplete or malformed.") from None
    # No chain is longer than the number of its links: most calls need no look at their shape.
    if reader.containers > MAX_DEPTH:
        _check_depth(value)
    return value


def dumps(value: object) -> bytes:
    """Pickle an answer of ours so that the stock client of every Python from 3.9 on can read it.

    Raises:
        Exception: whatever pickling *value* raises; encode answers where that is caught.
    """
    return pickle.dumps(value, protocol=_ANSWER_PROTOCOL)


def _body_start(frame: bytes) -> int:
    """Check the FRAME that protocols 4 and 5 begin with (unless tiny), and say where the opcodes start.

    A pickler cuts frames at 64 KiB, so within `MAX_PICKLE` there is one, as long as the rest.
    """
    start = 2
    if frame[start : start + 1] != pickle.FRAME:
        return start
    start += _FRAME_HEADER
    if frame[1] < 4 or int.from_bytes(frame[start - 8 : start], "little") != len(frame) - start:
        raise PickleRefused("The pickle's FRAME does not fit its length.")
    return start


def _check_depth(value: Literal) -> None:
    """Look at the containers level by level, without recursion, no further than anything may be nested."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if type(child) in _CONTAINERS]
        if not level:
            return
    raise PickleRefused(_TOO_DEEP)


def _children(value: Literal) -> Iterable[Literal]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, tuple | list) else ()


def _is_shareable(value: Literal) -> bool:
    if type(value) is tuple:
        return len(value) <= 3 and _ATOMS.issuperset(map(type, value))
    return type(value) in _ATOMS


class _Reader:
    """The stack machine: a method for each opcode; a missing operand or byte is an IndexError."""

    __slots__ = ("at", "containers", "frame", "marks", "memo", "stack")

    def __init__(self, frame: bytes, at: int) -> None:
        self.frame = frame
        self.at = at
        self.stack: list[Literal] = []
        self.marks: list[list[Literal]] = []
        self.memo: dict[int, Literal] = {}
        self.containers = 0

    def read(self) -> Literal:
        frame = self.frame
        while (code := frame[self.at]) != _STOP:
            self.at += 1
            _OPCODES[code](self)
        if self.at + 1 != len(frame):
            raise PickleRefused("Bytes follow the end of the pickle.")
        if self.marks or len(self.stack) != 1:
            raise PickleRefused("A pickle holds one value.")
        return self.stack[0]

    def take(self, size: int) -> bytes:
        start = self.at
        end = self.at = start + size
        if end > len(self.frame):
            raise IndexError
        return self.frame[start:end]

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def refuse(self) -> NoReturn:
        raise PickleRefused(
            "Only None, bool, int, float, str, tuple, list and dict are read; convert what you send to these."
        )

    def none(self) -> None:
        self.stack.append(None)

    def true(self) -> None:
        self.stack.append(True)

    def false(self) -> None:
        self.stack.append(False)

    def int8(self) -> None:
        self.stack.append(self.unsigned(1))

    def int16(self) -> None:
        self.stack.append(self.unsigned(2))

    def int32(self) -> None:
        self.push_signed(4)

    def long(self) -> None:
        size = self.unsigned(1)
        if size > MAX_INT_BYTES:
            raise PickleRefused(f"An int has at most {MAX_INT_BYTES} bytes.")
        self.push_signed(size)

    def push_signed(self, size: int) -> None:
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def double(self) -> None:
        self.stack.extend(_DOUBLE.unpack(self.take(_DOUBLE.size)))

    def short_text(self) -> None:
        self.stack.append(self.take(self.unsigned(1)).decode())

    def text(self) -> None:
        self.stack.append(self.take(self.unsigned(4)).decode())

    def mark(self) -> None:
        # Behind each open MARK a container is being filled: more of them than levels cannot end well.
        if len(self.marks) >= MAX_DEPTH:
            raise PickleRefused(_TOO_DEEP)
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Literal]:
        values = self.stack
        self.stack = self.marks.pop()
        return values

    def push_container(self, container: Literal) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise PickleRefused(f"A call has at most {MAX_CONTAINERS} containers; send fewer names at once.")
        self.stack.append(container)

    def empty_tuple(self) -> None:
        self.push_container(())

    def tuple1(self) -> None:
        self.push_container((self.stack.pop(),))

    def tuple2(self) -> None:
        second, first = self.stack.pop(), self.stack.pop()
        self.push_container((first, second))

    def tuple3(self) -> None:
        third, second, first = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.push_container((first, second, third))

    def tuple_since_mark(self) -> None:
        self.push_container(tuple(self.since_mark()))

    def empty_list(self) -> None:
        self.push_container([])

    def append(self) -> None:
        self.extend([self.stack.pop()])

    def appends(self) -> None:
        self.extend(self.since_mark())

    def extend(self, values: list[Literal]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise PickleRefused("Only a list is appended to.")
        target.extend(values)

    def empty_dict(self) -> None:
        self.push_container({})

    def setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def setitems(self) -> None:
        self.set_items(self.since_mark())

    def set_items(self, flat: list[Literal]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(flat) % 2:
            raise PickleRefused("Only pairs are set, and only in a dict.")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if type(key) is not str:
                raise PickleRefused("The keys of a dict are str.")
            target[key] = value

    def memoize(self) -> None:
        self.remember(len(self.memo))

    def put8(self) -> None:
        self.remember(self.unsigned(1))

    def put32(self) -> None:
        self.remember(self.unsigned(4))

    def remember(self, index: int) -> None:
        if len(self.memo) >= MAX_MEMO:
            raise PickleRefused(f"A call has at most {MAX_MEMO} memo entries; send fewer names at once.")
        self.memo[index] = self.stack[-1]

    def get8(self) -> None:
        self.recall(self.unsigned(1))

    def get32(self) -> None:
        self.recall(self.unsigned(4))

    def recall(self, index: int) -> None:
        value = self.memo[index]
        if not _is_shareable(value):
            raise PickleRefused("The same list, dict or long tuple is sent twice in one call; send a copy.")
        self.stack.append(value)


_ALLOWED: dict[bytes, Callable[[_Reader], None]] = {
    pickle.NONE: _Reader.none,
    pickle.NEWTRUE: _Reader.true,
    pickle.NEWFALSE: _Reader.false,
    pickle.BININT1: _Reader.int8,
    pickle.BININT2: _Reader.int16,
    pickle.BININT: _Reader.int32,
    pickle.LONG1: _Reader.long,
    pickle.BINFLOAT: _Reader.double,
    pickle.SHORT_BINUNICODE: _Reader.short_text,
    pickle.BINUNICODE: _Reader.text,
    pickle.MARK: _Reader.mark,
    pickle.EMPTY_TUPLE: _Reader.empty_tuple,
    pickle.TUPLE1: _Reader.tuple1,
    pickle.TUPLE2: _Reader.tuple2,
    pickle.TUPLE3: _Reader.tuple3,
    pickle.TUPLE: _Reader.tuple_since_mark,
    pickle.EMPTY_LIST: _Reader.empty_list,
    pickle.APPEND: _Reader.append,
    pickle.APPENDS: _Reader.appends,
    pickle.EMPTY_DICT: _Reader.empty_dict,
    pickle.SETITEM: _Reader.setitem,
    pickle.SETITEMS: _Reader.setitems,
    pickle.MEMOIZE: _Reader.memoize,
    pickle.BINPUT: _Reader.put8,
    pickle.LONG_BINPUT: _Reader.put32,
    pickle.BINGET: _Reader.get8,
    pickle.LONG_BINGET: _Reader.get32,
}
"""Every opcode that is read, besides PROTO, one FRAME and STOP, which have their fixed places."""

_OPCODES = [_ALLOWED.get(bytes([code]), _Reader.refuse) for code in range(256)]
