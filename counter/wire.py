"""Frames on the manager's socket, and what our own client puts into them: msgpack of the types in `ops`.

A frame is multiprocessing's: four bytes of length, big-endian, then the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec

from .errors import InvalidRequest, LimitExceeded
from .ops import RESULT_TYPES, AnyOp, Request
from .results import Problem, Reply

MAX_REPLY = 4 * 1024 * 1024
"""Largest answer, in bytes."""

_LENGTH = struct.Struct("!I")  # multiprocessing's is signed; a negative length is a huge one here
_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_set = msgspec.structs.force_setattr
_MOST_TOLD = 200
_REPLAYED = _encoder.encode(True)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # the last: a deep unknown field


class FrameRefused(ValueError):
    """The peer announced a frame longer than is allowed; nothing after it can be read."""


def frame(payload: bytes) -> bytes:
    """*payload* as it goes over the wire."""
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Cuts what arrives on a connection into frames; *most* is the longest allowed now, in bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.begun = bytearray()  # what has arrived and was not taken

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self.begun += data

    def take(self, data: bytes) -> bytes | None:
        """Take what arrived, and give the next whole frame, None if it has not arrived.

        Raises:
            FrameRefused: as `next`.
        """
        size = len(data) - 4
        if size >= 0 and not self.begun and _LENGTH.unpack_from(data)[0] == size <= self.most:
            return data[4:]  # most often it is one frame and nothing else
        self.feed(data)
        return self.next()

    def next(self) -> bytes | None:
        """The next whole frame, None if it has not arrived.

        Raises:
            FrameRefused: it will be longer than `most`.
        """
        buffer = self.begun
        if len(buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if length > self.most:
            raise FrameRefused(f"a frame of {length} bytes is announced, and {self.most} are allowed")
        end = 4 + length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[4:end])
        del buffer[:end]
        return payload


def encode_request(request: Request) -> bytes:
    """What is sent for *request*."""
    return _encoder.encode(request)


def encode_signed(request: Request, caller: bytes, seq: int, deadline: float) -> bytes:
    """What is sent for *request* with this signature; *request* stays as it is."""
    # A copy by replace() would check again, for each call, what was checked when it was made.
    signed: Request = request.__copy__()  # type: ignore[attr-defined]  # the stubs leave it out
    _set(signed, "caller", caller)
    _set(signed, "seq", seq)
    _set(signed, "deadline", deadline)
    return _encoder.encode(signed)


def decode_request(payload: bytes) -> Request:
    """The request in *payload*.

    Raises:
        InvalidRequest: it holds none.
    """
    try:
        return _requests.decode(payload)
    except _UNREADABLE as error:
        # cut, because it repeats a wrong tag or field name as long as the frame
        raise InvalidRequest(f"not a request: {str(error)[:_MOST_TOLD]}") from None


def encode_reply(reply: Reply) -> bytes:
    """What is sent for *reply*.

    Raises:
        LimitExceeded: it would be longer than `MAX_REPLY`.
    """
    payload = _encoder.encode(reply)
    if len(payload) > MAX_REPLY:
        raise LimitExceeded(
            f"the answer would have {len(payload)} bytes, and {MAX_REPLY} are allowed: ask for less"
        )
    return payload


def as_replayed(payload: bytes) -> bytes:
    """*payload*, an encoded reply, as the reply to one who used the same idempotency key later.

    `Reply.replayed` is its last field, and one byte: all before it stays as it was given the first time.
    """
    return payload[: -len(_REPLAYED)] + _REPLAYED


def decode_reply(payload: bytes, ops: Sequence[AnyOp]) -> Reply:
    """The reply in *payload* to a request of *ops*.

    Raises:
        ValueError: it holds none; the peer speaks another language.
    """
    alike = len(ops) == 1 or len({*map(type, ops)}) == 1
    try:
        results, problem, replayed = _replies(type(ops[0]) if alike else None)(payload)
        if len(results) != (len(ops) if problem is None else 0):
            raise ValueError(f"not a reply: {len(results)} results to {len(ops)} ops")
        if not alike:
            pairs = zip(ops, results, strict=False)
            results = [_results(RESULT_TYPES[type(op)]).decode(each) for op, each in pairs]
    except _UNREADABLE as error:
        raise ValueError(f"not a reply: {error}") from None
    return Reply(results, problem, replayed)


@cache
def _replies(op: type[AnyOp] | None) -> Callable[[bytes], tuple[list[Any], Problem | None, bool]]:
    """What decodes a reply to ops of one type, or of several (None)."""
    kind = RESULT_TYPES[op] if op else None
    result: Any = msgspec.Raw if op is None else kind | Problem if kind else Problem | None
    return msgspec.msgpack.Decoder(tuple[list[result], Problem | None, bool]).decode


@cache
def _results(kind: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401
    return msgspec.msgpack.Decoder(kind | Problem)
