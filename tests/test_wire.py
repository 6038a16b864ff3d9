"""Frames that arrive in any pieces, and requests and replies that come out as they went in."""

import math
import struct
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from counter.errors import InvalidRequest, LimitExceeded, NotFound, OutOfBounds, VersionMismatch
from counter.fields import INT64_MAX, INT64_MIN
from counter.information import Information, Latencies, Limits, ManagerFigures, WorkerFigures
from counter.ops import RESULT_TYPES, Changes, Delete, Get, Hello, Increment, Info, List, Report, Request, Set
from counter.results import Change, ChangesPage, Entry, Page, Problem, Reply
from counter.wire import (
    MAX_REPLY,
    FrameRefused,
    Frames,
    as_replayed,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    encode_signed,
    frame,
)

NOW = datetime(2030, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
ENTRY = Entry("é/ü", INT64_MIN, "r.1", NOW, NOW, -5, 5, "clamp", 60, "sliding", NOW + timedelta(seconds=60))
PLAIN = Entry("plain", 7, "r.2", NOW, NOW)
CHANGE = Change("x", 3, "r.3", NOW, NOW, previous=1, delta=2, created=True)
FAR_CHANGE = Change("x", INT64_MAX, "r.4", NOW, NOW, previous=INT64_MIN, delta=None)
HTTP = {"/livez": {"2xx": Latencies(0.5, [1, 0, 2, 0, 0, 0, 0])}}
INFORMATION = Information(
    "1.0",
    "manager",
    "memory",
    "r",
    3,
    Limits(10, 20),
    ManagerFigures(1, 2.5, 3, 4, 5),
    workers=[WorkerFigures(5, "w", 6, 4, 3)],
    operations={"get": {"ok": 5, "not-found": 1}},
    http=HTTP,
)
OPS = [
    Get("é/ü"),
    Increment("x"),
    Increment("x", -3, -9, 9, "clamp", 60, "sliding", "r.1"),
    Set("x"),
    Set("x", INT64_MIN, None, INT64_MAX, "reject", None, None, "absent"),
    Set("x", min=None, ttl=5),
    Delete("x", "present"),
    List("pre", "-value", 1000, "cursor"),
    Changes("r.1", "pre", 12.5, 1000),
    Info(),
    Hello("worker", 4711, "1.0"),
    Report(1, 12),
    Report(2, 12, 4, 3, HTTP),
]
RESULTS = {
    Get: [ENTRY, PLAIN],
    Increment: [CHANGE],
    Set: [FAR_CHANGE],
    Delete: [CHANGE],
    List: [Page([ENTRY, PLAIN], "next"), Page([], None)],
    Changes: [ChangesPage([ENTRY], ["gone"], "r.9", True, False), ChangesPage([], [], "r.0", False, True)],
    Info: [INFORMATION],
    Hello: [Limits(1_000_000, 1024 * 1024), Limits(1, 2, 3, 4, 5)],
    Report: [None],
}


def pack(value):
    return msgspec.msgpack.encode(value)


SPENT = {"seconds": 0.5, "counts": [0] * 7}


def report(**fields):
    return pack({"ops": [{"op": "report", "number": 1, "requests": 1} | fields]})


# Frames


def frames_of(frames):
    found = []
    while (payload := frames.next()) is not None:
        found.append(payload)
    return found


def test_a_frame_is_multiprocessings_four_bytes_of_length_and_the_payload():
    assert frame(b"abc") == b"\0\0\0\x03abc"
    assert frame(b"") == b"\0\0\0\0"


def test_frames_come_out_whole_when_they_arrive_byte_by_byte():
    payloads = [b"one", b"", b"x" * 300, b"\0\0\0\0"]
    frames, found = Frames(300), []
    for byte in b"".join(map(frame, payloads)):
        assert frames.next() is None
        frames.feed(bytes([byte]))
        found += frames_of(frames)
    assert found == payloads
    assert len(frames.begun) == 0


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 60), min_size=1))
def test_how_bytes_are_cut_on_their_way_makes_no_difference(payloads, cuts):
    stream, frames, found, at = b"".join(map(frame, payloads)), Frames(40), [], 0
    for turn in range(len(stream)):
        size = cuts[turn % len(cuts)]
        frames.feed(stream[at : at + size])
        found += frames_of(frames)
        at += size
    assert found == payloads


def test_what_has_arrived_and_was_not_taken_is_counted():
    frames = Frames(100)
    frames.feed(frame(b"abc") + b"\0\0")
    assert len(frames.begun) == 9
    frames.next()
    assert len(frames.begun) == 2


@pytest.mark.parametrize("length", [101, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_frame_over_the_cap_is_refused_by_its_length_alone(length):
    """Also a length that would be negative in multiprocessing; nothing of the frame has to arrive."""
    frames = Frames(100)
    frames.feed(struct.pack("!I", length))
    with pytest.raises(FrameRefused, match=f"{length} bytes.* 100"):
        frames.next()
    with pytest.raises(FrameRefused):  # there is no way on
        frames.next()


def test_the_cap_itself_is_allowed_and_can_be_raised():
    frames = Frames(3)
    frames.feed(frame(b"abc") + frame(b"abcd"))
    assert frames.next() == b"abc"
    frames.most = 4
    assert frames.next() == b"abcd"


# Requests


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_each_op_comes_out_as_it_went_in(op):
    request = Request([op])
    assert decode_request(encode_request(request)) == request


def test_a_signed_batch_comes_out_as_it_went_in():
    request = Request(
        [op for op in OPS if isinstance(op, Get | Increment | Set | Delete)], False, b"c" * 16, 9, 1.5
    )
    assert decode_request(encode_request(request)) == request


def test_a_field_of_a_set_that_is_left_out_is_not_one_that_is_cleared():
    payload = encode_request(Request([Set("x", ttl=None)]))
    (op,) = decode_request(payload).ops
    assert op.ttl is None
    assert op.min is msgspec.UNSET
    assert msgspec.msgpack.decode(payload) == {"ops": [{"op": "set", "name": "x", "ttl": None}]}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"hello",
        pack(None),
        pack([]),
        pack({}),
        pack({"ops": []}),
        pack({"ops": [{"op": "shutdown"}]}),
        pack({"ops": [{"op": "increment"}]}),
        pack({"ops": [{"op": "increment", "name": ""}]}),
        pack({"ops": [{"op": "increment", "name": "x", "delta": True}]}),
        pack({"ops": [{"op": "increment", "name": "x", "delta": 1.0}]}),
        pack({"ops": [{"op": "increment", "name": "x", "delta": "1"}]}),
        pack({"ops": [{"op": "increment", "name": "x", "delta": 2**63}]}),
        pack({"ops": [{"op": "increment", "name": "x", "surprise": 1}]}),
        pack({"ops": [{"op": "increment", "name": "x\n"}]}),
        pack({"ops": [{"op": "get", "name": "x"}], "surprise": 1}),
        pack({"ops": [{"op": "get", "name": "x"}], "caller": b"short"}),
        pack({"ops": [{"op": "get", "name": "x"}], "deadline": float("nan")}),
        pack({"ops": [{"op": "get", "name": "x"}], "seq": 2**63}),
        pack({"ops": [{"op": "get", "name": "x"}] * 10_001}),
        pack({"ops": [{"op": "get", "name": "x"}], "idempotency_key": ""}),
        pack({"ops": [{"op": "get", "name": "x"}], "idempotency_key": "a b"}),
        pack({"ops": [{"op": "get", "name": "x"}], "idempotency_key": "k" * 256}),
        pack({"ops": [{"op": "get", "name": "x"}], "idempotency_key": "k", "scope": "s" * 65}),
        pack({"ops": [{"op": "info"}], "idempotency_key": "k"}),
        pack({"ops": [{"op": "get", "name": "x"}, {"op": "info"}]}),
        pack({"ops": [{"op": "get", "name": "x"}]})[:-1],
        pack({"ops": [{"op": "get", "name": "x"}]}) + b"\0",
        pack({"ops": [{"op": "get", "name": b"x"}]}),
        pack({"ops": [{"op": "report", "requests": 1}]}),
        pack({"ops": [{"op": "report", "number": -1, "requests": 1}]}),
        pack({"ops": [{"op": "report", "number": 1, "requests": 2**63}]}),
        report(requests=True),
        report(slots=-1),
        report(http=[]),
        report(http={"r" * 65: {}}),
        report(http={f"/{number}": {} for number in range(101)}),
        report(http={"/": {"6xx": SPENT}}),
        report(http={"/": {"2xx": {}}}),
        report(http={"/": {"2xx": SPENT | {"seconds": -0.1}}}),
        report(http={"/": {"2xx": SPENT | {"seconds": math.nan}}}),
        report(http={"/": {"2xx": SPENT | {"seconds": math.inf}}}),
        report(http={"/": {"2xx": SPENT | {"seconds": 1e300}}}),
        report(http={"/": {"2xx": SPENT | {"counts": [1] * 6}}}),
        report(http={"/": {"2xx": SPENT | {"counts": [1] * 8}}}),
        report(http={"/": {"2xx": SPENT | {"counts": [-1] * 7}}}),
        report(http={"/": {"2xx": SPENT | {"counts": [2**63] * 7}}}),
        b"\x81\xa3ops\x91\x82\xa2op\xa3get\xa4name\xa2\xff\xfe",  # no UTF-8
        b"\x81\xa1x" + b"\x91" * 50_000 + b"\xc0",  # deep, in an unknown field
        b"\x81\xa3ops\xdd\xff\xff\xff\xff",  # announces 4,294,967,295 ops
    ],
    ids=lambda payload: repr(payload[:48]),
)
def test_what_is_no_request_is_refused_with_a_sentence(payload):
    with pytest.raises(InvalidRequest, match=r"not a request|a batch holds"):
        decode_request(payload)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(payload):
    try:
        decode_request(payload)
    except InvalidRequest:
        return


@pytest.mark.parametrize(
    "request_",
    [
        *(Request([op]) for op in OPS),
        Request([Increment("a"), Get("b")], atomic=False, scope="token"),
        Request([Get("a")], idempotency_key="k", scope="token"),
    ],
    ids=repr,
)
def test_signed_it_is_sent_as_a_copy_with_these_fields_would_be(request_):
    """Byte for byte, and so with every field that a request has."""
    before = encode_request(request_)
    signed = replace(request_, caller=b"c" * 16, seq=9, deadline=1.5)
    assert encode_signed(request_, b"c" * 16, 9, 1.5) == encode_request(signed)
    assert decode_request(encode_request(signed)) == signed
    assert encode_request(request_) == before


# Replies


@pytest.mark.parametrize(("kind", "result"), [(kind, result) for kind in RESULTS for result in RESULTS[kind]])
def test_each_result_comes_out_as_it_went_in(kind, result):
    op = next(op for op in OPS if type(op) is kind)
    reply = Reply([result])
    (found,) = decode_reply(encode_reply(reply), [op]).results
    assert found == result
    assert type(found) is type(result)


def test_every_op_has_a_result_that_was_tried():
    assert {type(op) for op in OPS} == set(RESULTS) == set(RESULT_TYPES)


@pytest.mark.parametrize("op", OPS, ids=repr)
@pytest.mark.parametrize(
    "error",
    [
        NotFound("there is none"),
        OutOfBounds("too much", ENTRY),
        VersionMismatch("changed", PLAIN, 3),
        LimitExceeded("full", None, 9_999),
    ],
    ids=repr,
)
def test_a_problem_comes_out_as_the_same_error(op, error):
    """Whatever was asked, with the counter as it is and the index of the op where the error had them."""
    reply = decode_reply(encode_reply(Reply([], Problem.of(error))), [op])
    with pytest.raises(type(error)) as caught:
        reply.only()
    assert (caught.value.detail, caught.value.current, caught.value.index) == (
        error.detail,
        error.current,
        error.index,
    )


@pytest.mark.parametrize("op", [Get("x"), Increment("x")])
def test_a_batch_of_one_kind_holds_results_and_problems(op):
    """Their order tells which is whose; a problem is told from a result, also where an entry is in it."""
    result = RESULTS[type(op)][0]
    problem = Problem.of(OutOfBounds("too much", ENTRY))
    reply = Reply([result, problem, result, Problem("not-found", "none")])
    assert decode_reply(encode_reply(reply), [op] * 4) == reply


def test_a_batch_of_all_kinds_holds_results_and_problems():
    ops = [Get("a"), Increment("b"), Set("c", 1), Delete("d"), Get("e")]
    problem = Problem.of(VersionMismatch("changed", ENTRY))
    reply = Reply([ENTRY, CHANGE, problem, FAR_CHANGE, Problem("not-found", "none")])
    assert decode_reply(encode_reply(reply), ops) == reply


@pytest.mark.parametrize("ops", [[Get("a")] * 2, [Get("a"), Increment("b")]])
def test_the_problem_of_a_whole_batch_stands_alone(ops):
    reply = Reply([], Problem.of(OutOfBounds("too much", PLAIN, 1)))
    assert decode_reply(encode_reply(reply), ops) == reply


@pytest.mark.parametrize(
    "reply",
    [Reply([ENTRY]), Reply([PLAIN, Problem("not-found", "none")]), Reply([], Problem("not-found", "none"))],
)
def test_a_replayed_reply_is_the_same_but_for_its_last_byte(reply):
    ops = [Get("a")] * max(1, len(reply.results))
    first = encode_reply(reply)
    again = as_replayed(first)
    assert (again[:-1], len(again)) == (first[:-1], len(first))
    assert decode_reply(first, ops) == reply
    assert decode_reply(again, ops) == replace(reply, replayed=True)
    assert encode_reply(replace(reply, replayed=True)) == again == as_replayed(again)


def test_a_request_with_a_key_comes_out_as_it_went_in_and_one_without_has_not_grown():
    request = Request([Get("a")], idempotency_key="k", scope="token")
    assert decode_request(encode_request(request)) == request
    assert msgspec.msgpack.decode(encode_request(Request([Get("a")]))).keys() == {"ops"}


def test_an_error_of_a_later_version_is_still_an_error():
    reply = decode_reply(encode_reply(Reply([], Problem("brand-new", "a sentence"))), [Get("x")])
    with pytest.raises(Exception, match="a sentence"):
        reply.only()


UNREADABLE = [
    b"",
    b"\xc1",
    b"#WELCOME#",
    pack(None),
    pack({}),
    pack([[]]),
    pack([[1], None]),
    pack([[ENTRY, ENTRY, ENTRY], None]),
    pack([[], None]),
    pack([[ENTRY], "text"]),
    pack([[CHANGE], None])[:-1],
    pack([[CHANGE], None]) + b"\0",
    pack([[{"name": b"\xff"}], None]),
    b"\x92\x91" + b"\x91" * 50_000,
]


@pytest.mark.parametrize("payload", UNREADABLE, ids=lambda payload: repr(payload[:32]))
@pytest.mark.parametrize(
    "ops", [[Get("a")], [Get("a")] * 2, [Get("a"), Increment("b")]], ids=["one", "two", "mixed"]
)
def test_what_is_no_reply_to_these_ops_is_refused(payload, ops):
    """One result an op, or one problem for all: else the peer speaks another language."""
    with pytest.raises(ValueError, match="not a reply"):
        decode_reply(payload, ops)


def test_a_reply_over_the_cap_is_refused_before_it_is_sent():
    entry = Entry("n" * 250, 1, "r.1", NOW, NOW)
    fits = (MAX_REPLY - 7) // len(pack(entry))  # 7: two arrays and the missing problem
    assert MAX_REPLY - len(pack(entry)) < len(encode_reply(Reply([entry] * fits))) <= MAX_REPLY
    with pytest.raises(LimitExceeded, match="ask for less"):
        encode_reply(Reply([entry] * (fits + 1)))
