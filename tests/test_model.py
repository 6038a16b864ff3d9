"""Table and journal against a model of plain dicts: whatever is asked, killed, snapshot in between."""

import contextlib
import random
from datetime import timedelta
from pathlib import Path

import pytest
from fake_disk import FakeDisk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import UNSET
from simulated_package import EPOCH, SimulatedRun, simulated

from counter import snapshot
from counter.errors import JournalFull
from counter.fields import INT64_MAX, INT64_MIN
from counter.journal import Journal
from counter.ops import Delete, Get, Increment, Request, Set
from counter.recovery import recover
from counter.results import Problem
from counter.table import CounterTable
from counter.wire import as_replayed, decode_reply, encode_reply

DAY = 24 * 3600
NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(-4, 4) | st.sampled_from([INT64_MAX, INT64_MIN, INT64_MAX - 1])
ENDS = st.none() | st.integers(1, 5)


class Refused(Exception):
    """What the model says no with."""


def no(code):
    raise Refused(code)


class Model:
    """Counters as dicts of their settings; an op returns a value, or raises and has changed nothing."""

    def __init__(self, counters=None):
        self.counters = counters or {}

    def copy(self):
        return Model({name: dict(counter) for name, counter in self.counters.items()})

    def alive(self, now):
        return {
            name: each for name, each in self.counters.items() if each["end"] is None or each["end"] > now
        }

    def do(self, op, now):
        there = self.alive(now).get(op.name)
        if isinstance(op, Get):
            return (there or no("not-found"))["value"]
        if (op.if_version == "absent" and there) or (op.if_version == "present" and not there):
            no("version-mismatch")
        if isinstance(op, Delete):
            value = (there or no("not-found"))["value"]
            del self.counters[op.name]
            return value
        after = self._incremented(there, op, now) if isinstance(op, Increment) else self._set(there, op, now)
        self.counters[op.name] = after
        return after["value"]

    @staticmethod
    def _incremented(there, op, now):
        if there is None:
            end = None if op.ttl is None else now + op.ttl
            mode = None if op.ttl is None else op.ttl_mode or "fixed"
            there = {
                "value": 0,
                "min": None,
                "max": None,
                "on_bound": None,
                "ttl": op.ttl,
                "mode": mode,
                "end": end,
            }
        value = there["value"] + op.delta
        lows = [each for each in (INT64_MIN, there["min"], op.min) if each is not None]
        highs = [each for each in (INT64_MAX, there["max"], op.max) if each is not None]
        if op.delta > 0 and value > min(highs):
            bounded = max(there["value"], min(highs))
        elif op.delta < 0 and value < max(lows):
            bounded = min(there["value"], max(lows))
        else:
            bounded = value
        if bounded != value and (op.on_bound or there["on_bound"]) != "clamp":
            no("out-of-bounds")
        end = now + there["ttl"] if there["mode"] == "sliding" else there["end"]
        return there | {"value": bounded, "end": end}

    @staticmethod
    def _set(there, op, now):
        if there is None and op.value is UNSET:
            no("not-found")
        after = dict(there or dict.fromkeys(("min", "max", "on_bound", "ttl", "mode", "end")) | {"value": 0})
        given = {"min": op.min, "max": op.max, "on_bound": op.on_bound, "ttl": op.ttl, "mode": op.ttl_mode}
        after |= {field: value for field, value in given.items() if value is not UNSET}
        low, high = after["min"], after["max"]
        if low is not None and high is not None and low > high:
            no("invalid-request")
        wanted = after["value"] if op.value is UNSET else op.value
        value = wanted if low is None else max(wanted, low)
        value = value if high is None else min(value, high)
        if value != wanted and after["on_bound"] != "clamp":
            no("out-of-bounds")
        if after["ttl"] is None:
            if op.ttl_mode not in (UNSET, None):
                no("invalid-request")
            after |= {"mode": None, "end": None}
        else:
            after["mode"] = after["mode"] or "fixed"
            if after["mode"] == "sliding" or op.ttl is not UNSET:
                after["end"] = now + after["ttl"]
        return after | {"value": value}

    def ask(self, ops, atomic, now):
        """The codes and values of the results; refused as a whole, nothing has changed."""
        told = []
        for op in ops:
            try:
                told.append(self.do(op, now))
            except Refused as refused:
                if atomic:
                    raise
                told.append(str(refused))
        return told


def either(field):
    """A field of a set: left out, cleared, or given."""
    return st.just(UNSET) | st.none() | field


@st.composite
def increments(draw):
    low, high = draw(ENDS | st.integers(-5, 0)), draw(st.none() | st.integers(5, 9))
    ttl = draw(st.none() | st.integers(1, 30))
    mode = draw(st.none() | st.sampled_from(["fixed", "sliding"])) if ttl else None
    condition = draw(st.sampled_from([None, None, "present", "absent"]))
    bound = draw(st.none() | st.sampled_from(["reject", "clamp"]))
    return Increment(draw(NAMES), draw(NUMBERS), low, high, bound, ttl, mode, condition)


@st.composite
def sets(draw):
    return Set(
        draw(NAMES),
        draw(st.just(UNSET) | NUMBERS),
        draw(either(st.integers(-5, 0))),
        draw(either(st.integers(0, 5))),
        draw(either(st.sampled_from(["reject", "clamp"]))),
        draw(either(st.integers(1, 30))),
        draw(either(st.sampled_from(["fixed", "sliding"]))),
        draw(st.sampled_from([None, None, "present", "absent"])),
    )


PLAIN = st.builds(Increment, NAMES, st.integers(-4, 4))
OPS = PLAIN | increments() | sets() | st.builds(Delete, NAMES) | st.builds(Get, NAMES)


class Machine(RuleBasedStateMachine):
    """Everything that can happen to a table with a journal; what it tells is what the model tells."""

    def __init__(self):
        super().__init__()
        self.rng, self.disk, self.boot = random.Random(0), FakeDisk(), b"1st boot's id..."
        self.ticks = 100.0
        self.model = Model()
        self.keys = {}  # key: (ops, answer, when)
        self.last = {}  # caller: (request, answer, latest deadline)
        self.seq = 0
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(simulated(self))
        self._versions = set()

    def teardown(self):
        self._stack.close()

    def wall(self):
        return EPOCH + timedelta(seconds=self.ticks)

    @property
    def now(self):
        return (self.run.now() - EPOCH).total_seconds()

    @initialize(always=st.booleans())
    def start(self, always):
        self.always = always
        self._open()

    def _open(self):
        self.journal, state = Journal.open(Path("/"), self.always)
        self.run = SimulatedRun(self, state.at)
        self.table = CounterTable(self.run.id, 1000, as_replayed, len)
        self.table.restore(state, self.ticks)

    def turn(self, *requests, append=None):
        """The sealed answers."""
        with self.table.turn(self.run.now()) as turn:
            told = [turn.execute(request, self.ticks, encode_reply) for request in requests]
            turn.commit(append or self.journal.append)
        return told

    # -- asking

    def _same(self, request, sealed):
        """Do the same in the model, and compare."""
        reply = decode_reply(sealed, request.ops)
        draft = self.model.copy()
        try:
            expected = draft.ask(request.ops, request.atomic, self.now)
        except Refused as refused:
            assert reply.problem is not None and reply.problem.code == str(refused)
            return
        assert reply.problem is None, reply.problem
        told = [each.code if isinstance(each, Problem) else each.value for each in reply.results]
        assert told == expected
        self.model = draft

    @rule(ops=st.lists(OPS, min_size=1, max_size=4), atomic=st.booleans())
    def somebody_asks(self, ops, atomic):
        request = Request(ops, atomic)
        (sealed,) = self.turn(request)
        self._same(request, sealed)

    @rule(
        ops=st.lists(OPS, min_size=1, max_size=2), name=st.sampled_from([b"anna", b"bert"]), key=st.booleans()
    )
    def a_caller_asks(self, ops, name, key):
        self.seq += 1
        key = f"key-{self.seq}" if key else None
        request = Request(ops, True, name * 4, self.seq, self.ticks + 5, key)
        if not request.mutates:
            return
        (sealed,) = self.turn(request)
        self._same(request, sealed)
        self._told(request, sealed)
        if key:
            self.keys[key] = (ops, sealed, self.now)

    def _told(self, request, sealed):
        latest = max(request.deadline, self.last[request.caller][2]) if request.caller in self.last else 0
        self.last[request.caller] = (request, sealed, max(latest, request.deadline))

    @rule(ops=st.lists(PLAIN, min_size=2, max_size=4))
    def one_turn_takes_several(self, ops):
        requests = [Request([op]) for op in ops]
        for request, sealed in zip(requests, self.turn(*requests), strict=True):
            self._same(request, sealed)

    # -- repeating

    @rule(name=st.sampled_from([b"anna", b"bert"]))
    def a_caller_repeats(self, name):
        if name * 4 not in self.last:
            return
        request, sealed, _ = self.last[name * 4]
        if request.deadline > self.ticks:
            assert self.turn(request, request) == [sealed, sealed]
        else:
            (told,) = self.turn(request)
            assert told == sealed or decode_reply(told, request.ops).problem.code == "outcome-unknown"

    @rule(name=st.sampled_from([b"anna", b"bert"]))
    def a_request_comes_late_or_after_its_successor(self, name):
        late = Request([Increment("a")], True, name * 4, 10**9, self.ticks)
        (told,) = self.turn(late)
        assert decode_reply(told, late.ops).problem.code == "outcome-unknown"
        last = self.last.get(name * 4)
        if last and last[2] > self.ticks and last[0].seq > 1:
            old = Request([Increment("a")], True, name * 4, last[0].seq - 1, self.ticks + 5)
            (told,) = self.turn(old)
            assert decode_reply(told, old.ops).problem.code == "invalid-request"

    @rule(data=st.data(), name=st.none() | st.sampled_from([b"anna", b"bert"]), other=st.booleans())
    def somebody_uses_a_key_again(self, data, name, other):
        kept = [key for key, (_, _, when) in self.keys.items() if when > self.now - DAY]
        if not kept:
            return
        key = data.draw(st.sampled_from(kept))
        ops, sealed, _ = self.keys[key]
        self.seq += 1
        who = (None, 0, 0.0) if name is None else (name * 4, self.seq, self.ticks + 5)
        request = Request([Get("other")] if other else ops, True, *who, key)
        (told,) = self.turn(request)
        if other:
            assert decode_reply(told, request.ops).problem.code == "key-reused"
            return
        assert told == as_replayed(sealed)
        if name:
            self._told(request, told)

    # -- time

    @rule(seconds=st.sampled_from([0.25, 1, 4, 30, DAY + 1]))
    def time_goes_on(self, seconds):
        self.ticks += seconds

    @rule()
    def what_is_over_is_swept(self):
        with self.table.turn(self.run.now()) as turn:
            turn.sweep(self.ticks)
            turn.commit(self.journal.append)
        gone = [key for key, (_, _, when) in self.keys.items() if when <= self.now - DAY]
        assert not {f"\n{key}" for key in gone} & set(self.table.keys.items)

    # -- the disk

    @rule(ops=st.lists(PLAIN, min_size=1, max_size=3), part=st.floats(0, 0.99))
    def a_turn_cannot_be_written(self, ops, part):
        self.disk.fail("write", 28, part=part)
        try:
            self.turn(Request(ops, True, b"carl" * 4, 10**6 + len(ops), self.ticks + 5))
        except JournalFull:
            assert self.journal.refusing
        else:
            raise AssertionError("it was written")

    @rule()
    def a_snapshot_is_made(self):
        log = self.journal._log
        log.switch(log.prepare())
        snapshot.make(self.disk, self.boot, log.first, "made.new", self.ticks)
        snapshot.adopt(self.disk, "made.new", log.first)

    @rule(torn=st.binary(max_size=60))
    def the_process_is_killed(self, torn):
        """In the middle of a write, maybe: of that nobody was told."""
        log = self.journal._log
        log._open.file.write(torn, log._size)
        self.disk.kill()
        self._open()

    @rule()
    def it_is_stopped_and_started(self):
        self.journal.close()
        assert not self.disk.open_files
        self.disk.kill()
        self._open()

    @rule(seed=st.integers(0, 99), disordered=st.booleans())
    def the_power_fails_after_a_sync(self, seed, disordered):
        self.journal._log.sync()
        self.disk.crash(random.Random(seed), disordered)
        self.boot = self.rng.randbytes(16)
        self.last.clear()
        self._open()
        assert not self.table.callers

    # -- always

    @invariant()
    def the_counters_are_the_models(self):
        if not hasattr(self, "table"):
            return
        now = self.run.now()
        there = {
            name: {
                "value": each.value,
                "min": each.min,
                "max": each.max,
                "on_bound": each.on_bound,
                "ttl": each.ttl,
                "mode": each.ttl_mode,
                "end": each.expires_at and (each.expires_at - EPOCH).total_seconds(),
            }
            for name, each in self.table.entries.items()
            if not each.expired(now)
        }
        assert there == self.model.alive(self.now)

    @invariant()
    def a_reader_of_the_files_finds_the_same(self):
        if not hasattr(self, "table"):
            return
        state = recover(self.disk, self.boot).state
        assert {n: e.value for n, e in state.entries.items()} == {
            n: e.value for n, e in self.table.entries.items()
        }
        kept = {caller: each.reply for caller, each in self.table.callers.records.items()}
        found = {caller: each.reply for caller, each in state.callers.items() if each.deadline > self.ticks}
        assert {caller: kept.get(caller) for caller in found} == found


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestTableAndJournal = pytest.mark.slow(Machine.TestCase)
