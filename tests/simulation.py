"""A deterministic simulation of callers, network, manager and disk: all that is random comes from one seed.

`python tests/simulation.py SEED` replays a run and prints its trace. The manager is the real table and
journal, with a clock, a disk and a network that are made here. `simulation_oracle` judges what it answers,
and what it finds again after each end; it knows nothing of a journal, only the states that callers were told.
"""

import contextlib
import errno
import hashlib
import logging
import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fake_disk import Ended, FakeDisk
from simulated_package import EPOCH, SimulatedRun, simulated
from simulation_oracle import Oracle, Violation

from counter import journal, log, recovery
from counter.errors import CounterError, StoreUnavailable
from counter.ops import Delete, Get, Increment, Request, Set
from counter.results import Reply
from counter.table import CounterTable
from counter.wire import as_replayed, decode_reply, decode_request, encode_reply, encode_request

STEPS = (40, 80)
SHARED = ("hits", "left", "right")


class Message(NamedTuple):
    """What is under way: *tag* says what a reply belongs to."""

    due: float
    number: int
    client: int
    tag: int
    payload: bytes
    is_reply: bool


class Asked(NamedTuple):
    """What a client waits for."""

    tag: int
    request: Request
    payload: bytes
    deadline: float


class Client:
    """A connection slot with the library's protocol: one request in flight, repeated until its deadline."""

    def __init__(self, world, index):
        self._world, self._index = world, index
        self.caller = world.rng.randbytes(16)
        self._seq = 0
        self._again = 0.0
        self.asked = None

    def step(self):
        world, asked = self._world, self.asked
        if asked is None:
            if world.rng.random() < 0.6:
                self._ask(*world.new_request())
        elif world.ticks >= asked.deadline:
            world.give_up(asked)
            self.asked = None
        elif world.ticks >= self._again:
            self._send()

    def _ask(self, ops, key):
        rng = self._world.rng
        deadline = self._world.ticks + rng.uniform(0.2, 3.0)
        request = Request(ops, idempotency_key=key)
        if request.mutates:
            self._seq += 1
            request = Request(ops, True, self.caller, self._seq, deadline, key)
        self.asked = Asked(self._world.number(), request, encode_request(request), deadline)
        self._send()

    def _send(self):
        self._again = self._world.ticks + self._world.rng.uniform(0.05, 0.5)
        self._world.send(self._index, self.asked.tag, self.asked.payload, is_reply=False)

    def receive(self, message):
        if self.asked is not None and message.tag == self.asked.tag:
            self._world.told(self.asked, message.payload)
            self.asked = None


class World:
    """One run."""

    def __init__(self, seed, steps=None):
        self.rng = rng = random.Random(seed)
        self.always = rng.random() < 0.5
        self.ticks = rng.uniform(100, 1000)
        self.born = self.ticks
        self.disk = FakeDisk()
        # Killed between a sync that fails and the mark that says so, nothing could tell the next start of it.
        self.disk.never_ends_at.add(recovery.SYNC_FAILED)
        self.boot = rng.randbytes(16)
        self.trace = []
        self.oracle = Oracle(self.always)
        self.keeper = self.journal = self.table = self.run = None
        self.frozen_until = 0.0
        self._power = False  # what the next end of the manager is
        self._numbers = 0
        self._network = []
        self._inbox = []
        self._keys = []  # of requests that may be repeated by anybody
        self._orphans = []
        self.clients = [Client(self, index) for index in range(rng.randint(2, 4))]
        self._loss = rng.choice((0.0, 0.1, 0.3))
        self._care = rng.choice((0.05, 0.2, 0.5))
        self._trouble = rng.choice((0.02, 0.1, 0.25))
        self._steps = steps or rng.randint(*STEPS)
        self.note(f"always={self.always} clients={len(self.clients)}")

    def note(self, line):
        self.trace.append(f"{self.ticks:.3f} {line}")

    def number(self):
        self._numbers += 1
        return self._numbers

    def wall(self):
        return EPOCH + timedelta(seconds=self.ticks - self.born)

    # -- a run

    def play(self):
        """All steps, and what must be so in the end."""
        for _ in range(self._steps):
            self._step()
        self.note("-- the end")
        self._calm()
        for _ in range(8):
            self._step()
        self._end_manager(power=False)
        self._start_manager()
        self.oracle.finish()

    def _calm(self):
        self._trouble = self._loss = 0.0
        self.disk.heal()
        self.disk.left = None
        self.frozen_until = 0.0

    def _step(self):
        self.ticks += self.rng.expovariate(8)
        for client in self.clients:
            client.step()
        self._deliver()
        try:
            if self.journal is None:
                self._start_manager()
            elif self.ticks >= self.frozen_until:
                self.turn()
                if self.rng.random() < self._care:
                    self.keeper.upkeep()
            if self.rng.random() < self._trouble:
                self._make_trouble()
        except Ended as ended:
            self.note(f"ended {ended}")
            self._end_manager(self._power)
        except log.JournalFailed as error:
            self.note(f"exit 5: {error}")
            self._end_manager(power=False)

    # -- the network

    def send(self, client, tag, payload, is_reply):
        rng = self.rng
        for _ in range(1 + (rng.random() < self._loss)):
            if rng.random() >= self._loss:
                due = self.ticks + (rng.expovariate(20) if rng.random() < 0.9 else rng.uniform(0, 4))
                self._network.append(Message(due, self.number(), client, tag, payload, is_reply))

    def _deliver(self):
        arrived = sorted(message for message in self._network if message.due <= self.ticks)
        self._network = [message for message in self._network if message.due > self.ticks]
        for message in arrived:
            if message.is_reply:
                self.clients[message.client].receive(message)
            elif self.journal is not None:
                self._inbox.append(message)

    # -- the manager

    def _start_manager(self):
        try:
            opened, state = journal.Journal.open(Path("/"), self.always)
        except log.JournalFailed as error:
            self.note(f"no start: {error}")
            self.disk.kill()
            if self.rng.random() < 0.5:
                self.disk.heal()
            return
        except StoreUnavailable as error:
            raise Violation(f"a start is refused: {error}") from error
        self.run = SimulatedRun(self, state.at)
        self.table = CounterTable(self.run.id, 1_000_000, as_replayed, len)
        self.table.restore(state, self.ticks)
        opened.start(lambda: None)
        self.journal = opened
        self.note(f"started with {len(self.table.entries)} counters, {sorted(self.disk.names)}")
        values = {entry.name: (entry.value, self._end_of(entry)) for entry in self.table.entries.values()}
        callers = {caller: (last.seq, last.reply) for caller, last in self.table.callers.records.items()}
        keys = {key.partition("\n")[2]: keyed.reply for key, keyed in self.table.keys.items.items()}
        self.oracle.found(values, callers, keys, self.run.now().timestamp(), self.ticks)

    def _end_manager(self, power):
        """The manager is gone, and with *power* the whole host."""
        self.oracle.ended(power)
        if self.keeper is not None and self.keeper._child is not None and not power:
            self._orphans.append(self.keeper._child)
        self.journal = self.keeper = self.table = None
        self._inbox.clear()
        if not power:
            self.note("killed")
            self.disk.kill()
            return
        self.disk.crash(self.rng, disordered=self.rng.random() < 0.3)
        self.boot = self.rng.randbytes(16)
        self._network.clear()
        self._orphans.clear()
        self.disk.heal()
        for index, client in enumerate(self.clients):
            if client.asked is not None:
                self.give_up(client.asked)
            self.clients[index] = Client(self, index)
        self.note(f"power cut, { ({name: len(inode.cached) for name, inode in self.disk.names.items()}) }")

    def turn(self):
        """As `ManagerServer._turn` and `_answer_unchanged`."""
        self.journal.tend(self.ticks)
        messages, self._inbox = self._inbox, []
        asked, answers, now = [], [], self.run.now()
        self.oracle.begin()
        try:
            with self.table.turn(now) as turn:
                turn.sweep(self.ticks)
                for message in messages:
                    if self.rng.random() < 0.1:
                        self.ticks += self.rng.uniform(0, 0.2)
                    request = decode_request(message.payload)
                    sealed = turn.execute(request, self.ticks, encode_reply)
                    self.judge(request, sealed, now)
                    asked.append((message, request, self.ticks))
                    answers.append((message, sealed))
                turn.commit(self.journal.append)
        except StoreUnavailable as error:
            self.note(f"refused: {error}")
            self.oracle.refused()
            answers = []
            with self.table.turn(now) as turn:
                for message, request, _ in asked:
                    sealed = self._unchanged(turn, request, error)
                    self.judge(request, sealed, now)
                    answers.append((message, sealed))
        self.oracle.committed()
        for message, sealed in answers:
            self.note(f"answer {message.client} {message.tag} {hashlib.md5(sealed).hexdigest()}")
            self.send(message.client, message.tag, sealed, is_reply=True)

    def _unchanged(self, turn, request, error):
        if request.mutates:
            settled = turn.settled(request, self.ticks, encode_reply)
            return settled or encode_reply(Reply.refusing(error))
        return turn.execute(request, self.ticks, encode_reply)

    def judge(self, request, sealed, now):
        """Let the oracle see what a request is answered with, as plain data."""
        reply = decode_reply(sealed, request.ops)
        code = reply.problem.code if reply.problem else None
        steps = []
        for op, result in zip(request.ops, reply.results, strict=bool(reply.results)):
            name = type(op).__name__
            extra = op.delta if isinstance(op, Increment) else getattr(op, "value", None)
            steps.append((name, op.name, extra, result.value, self._end_of(result)))
        self.oracle.answered(
            caller=request.caller,
            seq=request.seq,
            deadline=request.deadline,
            key=request.idempotency_key,
            ticks=self.ticks,
            now=now.timestamp(),
            sealed=sealed,
            plain=sealed[:-1],
            code=code,
            replayed=reply.replayed,
            steps=steps,
        )

    @staticmethod
    def _end_of(entry):
        return entry.expires_at.timestamp() if entry.expires_at else None

    # -- the callers

    def new_request(self):
        """Ops and a key; each operation that changes something has a counter of its own beside."""
        rng = self.rng
        if rng.random() < 0.15:
            return [Get(rng.choice(SHARED))], None
        if self._keys and rng.random() < 0.3:
            ops, key = rng.choice(self._keys)
            return (ops if rng.random() < 0.95 else [Increment("other")]), key
        own, shared = Increment(f"op:{self.number()}"), rng.choice(SHARED)
        other = rng.choice(
            (
                Increment(shared),
                Increment(shared, rng.randint(-9, 9)),
                Increment(shared, max=rng.randint(0, 5)),
                Set(shared, value=rng.randint(-99, 99)),
                Delete(shared),
                Increment(f"short:{rng.randint(0, 3)}", ttl=rng.randint(1, 3)),
                Set(f"short:{rng.randint(0, 3)}", value=7, ttl=1, ttl_mode="sliding"),
            )
        )
        ops, key = [own, other], None
        if rng.random() < 0.4:
            key = f"key-{self.number()}"
            self._keys = [*self._keys[-5:], (ops, key)]
        return ops, key

    def told(self, asked, payload):
        reply = decode_reply(payload, asked.request.ops)
        self.note(f"told {asked.tag} {reply.problem.code if reply.problem else 'ok'}")
        self.oracle.told([op.name for op in asked.request.ops], reply.problem is None, payload)

    def give_up(self, asked):
        self.note(f"unknown {asked.tag}")

    # -- trouble

    def _make_trouble(self):
        rng, disk = self.rng, self.disk
        kind = rng.choice(
            ("kill", "power", "end", "end", "end", "freeze", "stop", "room", "fail", "fail", "heal", "orphan")
        )
        self.note(f"trouble: {kind}")
        if kind in ("kill", "power"):
            self._end_manager(kind == "power")
        elif kind == "end":
            self._power = rng.random() < 0.5
            disk.end_after(rng.randint(0, 12), rng.random())
        elif kind == "freeze":
            self.frozen_until = self.ticks + rng.uniform(0.5, 4)
        elif kind == "stop" and self.journal is not None:
            self._stop_manager()
        elif kind == "room":
            disk.room = rng.randint(0, 400)
        elif kind == "fail":
            disk.heal()
            call = rng.choice(
                ("write", "write", "file_sync", "file_sync", "sync", "cut", "rename", "create", "remove")
            )
            number = errno.ENOSPC if call == "write" and rng.random() < 0.5 else errno.EIO
            disk.fail(call, number, rng.randint(0, 3), 1, rng.random())
        elif kind == "heal":
            disk.heal()
        elif kind == "orphan" and self._orphans:
            with contextlib.suppress(CounterError, ValueError, Ended):
                self._orphans.pop().work()

    def _stop_manager(self):
        """As SIGTERM ends it."""
        self.journal.close()
        if not self._network and not self.disk.left and self.keeper._prepared is None:
            assert not self.disk.open_files, "a descriptor is left"
        self.oracle.is_safe(len(self.oracle.history))
        self._end_manager(power=False)


def simulate(seed, steps=None):
    """Play a run; its trace.

    Raises:
        Violation: with the seed and the trace.
    """
    world = World(seed, steps)
    with simulated(world):
        try:
            world.play()
        except Exception as error:
            told = "\n".join([*world.trace, f"seed {seed}: {type(error).__name__}: {error}"])
            raise Violation(told) from error
    return world.trace


def digest(seed):
    """What a run's whole trace comes to."""
    return hashlib.sha256("\n".join(simulate(seed)).encode()).hexdigest()


if __name__ == "__main__":
    logging.disable()
    print("\n".join(simulate(int(sys.argv[1]))))
