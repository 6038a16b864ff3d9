"""Frames of a peer that has the key: each is answered, and the numbers stay those that were told.

An input is frames with `END` between them, a byte that msgpack never uses; by itself it is also a stream.
"""

import pickle
from datetime import timedelta

import msgspec
from hostile_frames import ARGUMENTS, CALLS, pickled_call
from journal_files import NOW

from counter import stock
from counter.changes import changes
from counter.errors import CounterError, InvalidRequest
from counter.fields import HIDDEN
from counter.figures import Figures
from counter.listing import count, page
from counter.ops import Changes, Delete, Get, Hello, Increment, Info, List, Report, Request, Set
from counter.pickles import looks_like_pickle
from counter.results import Problem, Reply
from counter.state import Outcome, State
from counter.table import CounterTable
from counter.wire import (
    FrameRefused,
    Frames,
    as_replayed,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    frame,
)

END = b"\xc1"
MOST = 2048
"""Longest frame that is allowed here."""
MAX_COUNTERS = 8
TICKS = 100.0
_journal = msgspec.msgpack.Decoder(list[Outcome[bytes]])


def word(value):
    return msgspec.msgpack.encode(value)


FIELDS = [
    *Request.__struct_fields__,
    *Set.__struct_fields__,
    *List.__struct_fields__,
    *Report.__struct_fields__,
]
TEXTS = """
get increment set delete list changes info hello report op delta since wait
reject clamp fixed sliding present absent -value -updated a run.1 run.2-1
"""
NUMBERS = [0, 1, -1, 100, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, 101.0, 3700.0, 1e300]
WORDS = [END, *map(word, {*FIELDS, *TEXTS.split(), *NUMBERS, HIDDEN, None, b"c" * 16})]


def one_input(data):
    stream(data, data)
    payloads = [payload for payload in data.split(END) if len(payload) <= MOST]
    assert stream(b"".join(map(frame, payloads)), data) == payloads
    manager = Manager()
    for payload in payloads:
        manager.take(payload)


def stream(data, sizes):
    """The frames in *data*, which comes in pieces of these *sizes*: the same however it is cut."""
    frames, found, at = Frames(MOST), [], 0
    step = 0
    try:
        while at < len(data):
            size = 1 + (sizes[step % len(sizes)] if sizes else 0)
            payload = frames.take(data[at : at + size])
            at, step = at + size, step + 1
            while payload is not None:
                found.append(payload)
                payload = frames.next()
        refused = False
    except FrameRefused:
        refused = True
    expected, at = [], 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length > MOST or at + 4 + length > len(data):
            break
        expected.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    assert found == expected
    left = len(data) - at
    assert refused == (left >= 4 and int.from_bytes(data[at : at + 4], "big") > MOST)
    assert refused or len(frames.begun) == left
    return found


class Manager:
    """As much of a manager as decides; `state` is what its journal would bring back."""

    def __init__(self):
        self.table = CounterTable("run", MAX_COUNTERS, as_replayed)
        self.figures = Figures()
        self.state = State()
        self.now = NOW
        self.peer = object()

    def take(self, payload):
        """Answer *payload*, as `server` does."""
        self.now += timedelta(seconds=1)
        with self.table.turn(self.now) as turn:
            turn.sweep(TICKS)
            turn.commit(self.append)
        if looks_like_pickle(payload):
            pickle.loads(self.take_stock(payload))
            return
        try:
            request = decode_request(payload)
        except InvalidRequest as error:
            self.figures.unreadable()
            assert len(encode_reply(Reply.refusing(error))) < 1000
            return
        assert decode_request(encode_request(request)) == request
        if not request.ops[0].on_counter:
            self.answer_beside(request.ops[0])
            return
        sealed, reply = self.decide(request, encode_reply)
        read = decode_reply(sealed, request.ops)
        assert reply is None or (read.results, read.replayed) == (reply.results, reply.replayed)
        if request.mutates and request.caller is not None:
            before = dict(self.table.entries)
            assert self.decide(request, encode_reply)[0] == sealed, "sent again, it is answered alike"
            assert self.table.entries == before, "sent again, it changes nothing"

    def append(self, outcomes):
        for outcome in _journal.decode(word(outcomes)):
            self.state.assign(outcome)

    def decide(self, request, seal):
        before = dict(self.table.entries)
        with self.table.turn(self.now) as turn:
            sealed = turn.execute(request, TICKS, seal)
            turn.commit(self.append)
            reply = turn.reply
        after = self.table.entries
        self.figures.decided(request.ops, reply)
        assert self.state.entries == after, "the journal has what everybody sees"
        assert len(after) <= MAX_COUNTERS
        assert [*self.table.names.after("", True)] == sorted(after)
        if reply is None or reply.problem is not None:
            assert after == before, "nothing was done"
        else:
            told = dict(before)
            for op, result in zip(request.ops, reply.results, strict=True):
                follow(told, op, result)
            assert {name: entry.value for name, entry in told.items()} == {
                name: entry.value for name, entry in after.items()
            }
            assert len({entry.version for entry in after.values()}) == len(after)
        return sealed, reply

    def answer_beside(self, op):
        if isinstance(op, Hello):
            self.figures.hello(self.peer, op)
        elif isinstance(op, Report):
            self.figures.report(self.peer, op)
        elif isinstance(op, Info):
            shown = [name for name in self.table.entries if not name.startswith(HIDDEN)]
            assert end_of(count(self.table, self.now)) == len(shown)
        else:
            self.answer_page(op)
        word((self.figures.workers(), self.figures.operations(), self.figures.http()))

    def answer_page(self, op):
        job = page(self.table, op, self.now) if isinstance(op, List) else changes(self.table, op, self.now)
        seal = self.figures.asked(self.peer, op, encode_reply)
        try:
            found = end_of(job)
        except CounterError as error:
            seal(Reply.refusing(error))
            return
        reply = Reply([found])
        assert decode_reply(seal(reply), [op]) == reply
        names = [entry.name for entry in found.counters] + getattr(found, "gone", [])
        assert len({*names}) == len(names) <= op.limit
        assert all(name.startswith(op.prefix) and not name.startswith(HIDDEN) for name in names)
        if isinstance(op, List) and op.sort == "name":
            assert names == sorted(names)

    def take_stock(self, payload):
        try:
            call = stock.read_call(payload)
            if call.ident is None:
                return stock.answer_server_call(call)
            work, seal = stock.question(call)
            if isinstance(work, Request):
                return self.decide(work, seal)[0]
            return seal(Reply([end_of(work(self.table, self.now))]))
        except CounterError as error:
            return stock.refused(error)


def end_of(job):
    """The answer of *job*."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def follow(told, op, result):
    """Let *told*, the counters as they were, be what *result* says that *op* has made of them."""
    before = told.get(op.name)
    if isinstance(result, Problem):
        assert result.current is None or (before is not None and result.current.value == before.value)
    elif isinstance(op, Get):
        assert result == before
    elif isinstance(op, Delete):
        assert (result.value, result.delta) == (told.pop(op.name).value, 0)
    else:
        previous = 0 if before is None else before.value
        assert (result.previous, result.created) == (previous, before is None)
        assert -(2**63) <= result.value < 2**63
        if isinstance(op, Increment):
            moved = result.value - previous
            assert moved == result.delta
            clamps = op.on_bound == "clamp" or (before is not None and before.on_bound == "clamp")
            assert moved == op.delta or (clamps and abs(moved) < abs(op.delta) and moved * op.delta >= 0)
        elif isinstance(op.value, int) and result.on_bound != "clamp":
            assert result.value == op.value
        assert before is None or result.version != before.version
        told[op.name] = result


def seeds():
    asked = {"caller": b"c" * 16, "seq": 1, "deadline": TICKS + 5}
    latencies = {"/v1/info": {"2xx": {"seconds": 0.5, "counts": [0] * 12}}}
    requests = [
        [Request([Increment("a")]), Request([Get("a")]), Request([Delete("a")]), Request([Get("a")])],
        [Request([Increment("a", 5)], **asked), Request([Increment("a", 5)], **(asked | {"seq": 2}))],
        [Request([Set("a", 9, min=0, max=10)]), Request([Increment("a", 5)])],
        [Request([Set("a", 9)]), Request([Increment("a", 5, max=3, on_bound="clamp")])],
        [Request([Set("a", 9, min=0, max=10, on_bound="clamp")]), Request([Increment("a", 2**63 - 1)])],
        [
            Request([Increment("a", max=100, ttl=1, ttl_mode="sliding")]),
            Request([Get("a")]),
            Request([Info()]),
        ],
        [Request([Increment("a"), Set("b", 2**63 - 1), Increment("b")], atomic=atomic) for atomic in (0, 1)],
        [Request([Increment("a")], idempotency_key="k", scope="s")] * 2
        + [Request([Increment("b")], idempotency_key="k", scope="s")],
        [Request([Set("a", 1, if_version="absent")]), Request([Delete("a", if_version="run.1")])],
        [Request([Increment(f"n{each}") for each in range(MAX_COUNTERS)]), Request([Increment("one more")])],
        [
            Request([Increment("a", 2)]),
            Request([Increment("ab", 1)]),
            Request([List(prefix="a", sort="-value", limit=1)]),
        ],
        [Request([List(cursor="WyJuYW1lIiwwLCJhIl0")]), Request([List(cursor="W1tbW10")])],
        [
            Request([Increment("a")]),
            Request([Changes(since="run.1", limit=1)]),
            Request([Changes(since="run.2-1")]),
        ],
        [Request([Hello("worker", 7, "1")]), Request([Report(1, 5, 2, 1)]), Request([Info()])],
        [Request([Increment(HIDDEN, ttl=2)]), *(Request([op]) for op in (Info(), List(), Changes(), Info()))],
        [
            Request([Hello("worker", 7, "1")]),
            {"ops": [{"op": "report", "number": 2, "requests": 1, "http": latencies}]},
        ],
        [Request([Increment("größe €")]), {"ops": [{"op": "increment", "name": "a", "x": [[[[]]]]}]}],
        [{"ops": []}, {"ops": [{"op": "get", "name": ""}]}, {"ops": [{"op": "what"}]}, 7, "x"],
    ]
    for some in requests:
        yield END.join(map(word, some))
    for call in CALLS:
        yield pickle.dumps(call, 4)
    first = pickled_call("update", {"a": 1, "b": 2})
    for method, many in ARGUMENTS.items():
        for arguments in (many[0], many[-1]):
            yield END.join([first, pickled_call(method.split()[0], *arguments)])
    for method in ("keys", "items", "__len__", "__iter__", "__repr__"):
        yield END.join([first, pickled_call(method)])
    for method in ("create", "dummy", "accept_connection", "shutdown"):
        yield pickled_call(method, "counters", ident=None)
    yield frame(word(Request([Get("a")]))) + (MOST + 1).to_bytes(4, "big") + b"x"
