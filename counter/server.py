"""The server of the manager: one event loop around one table.

Theory of operation
-------------------
A turn of the loop reads what has arrived, executes every complete request on the table's overlay, appends
what came out, merges, and only then answers. So an answer is never ahead of the journal, many requests share
one append, and no client needs a thread.

A connection comes in through `Door`; its first frames are the handshake; after that each frame is either
ours (msgpack, see `wire`) or a stock client's (a pickle, see `stock`). It asks ops that the turn decides, or
it is a `Question` that a job answers in slices between turns, so that nothing holds the loop for long. A
connection has one request under way; its next frame waits.

Nothing that a peer sends ends the loop: refusals are answers, and whatever else goes wrong with a question is
logged and closes that one connection.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import datetime
from multiprocessing.managers import Server

from . import stock
from .changes import changes
from .connection import Connection
from .connections import Connections
from .door import Door
from .errors import CounterError, InvalidRequest, StoreUnavailable, Unsupported
from .figures import Figures
from .handshake import HandshakeFailed
from .home import Home
from .information import Information, Limits, ManagerFigures
from .jobs import Jobs, Question, request_id_of
from .journal import Journal, NoJournal
from .listing import Job, count, page
from .ops import Changes, Hello, List, Op, Report, Request
from .pickles import looks_like_pickle
from .results import ChangesPage, Reply
from .run import Run
from .settings import VERSION, ManagerOptions
from .state import State
from .table import Append, CounterTable, Turn
from .wire import as_replayed, decode_request, encode_reply

TURN_SECONDS = 0.01
"""How long a turn goes on taking requests in."""
GREETING_SECONDS = 0.001
"""How long a turn that is going to sync waits for the next word of who is being let in."""
GATHER_SECONDS = 0.0005
"""How long it waits for those who asked lately, at the most: docs/decisions/0031."""
SLICES_SECONDS = 0.005
"""How long jobs run between two turns."""
SWEEP_SECONDS = 1.0
UPKEEP_SECONDS = 0.005
"""How often it is looked for what is to be done besides answering: each turn would spend a tenth on it."""
_DRAIN_SECONDS = 2.0

logger = logging.getLogger("counter.manager")


Seal = Callable[[Reply], bytes]
Asked = tuple[Connection, Request, Seal, bytes, Reply | None]
"""Who asked what, how its reply is sealed, the sealed one, and what was sealed (None: it was before)."""


class ManagerServer(Server):
    """The event loop. `append` writes outcomes down, to *journal*, which held *state* when it was opened."""

    def __init__(
        self, options: ManagerOptions, home: Home, journal: Journal | NoJournal, state: State[bytes]
    ) -> None:
        # Server.__init__ would bind a listener of its own, and serve each client with a thread.
        self.address = str(home.socket_path)
        self.append: Append[bytes] = journal.append
        self._journal = journal
        self._options, self._home = options, home
        self._limits = Limits(options.max_counters, options.max_frame)
        self._run = Run(not_before=state.at)
        self._table: CounterTable[bytes] = CounterTable(self._run.id, options.max_counters, as_replayed, len)
        self._table.restore(state, self._run.ticks())
        self._figures = Figures()
        door = Door(home, home.bind(), shared=options.group is not None)
        self._connections = Connections(door, self._run.ticks, self._figures.leave)
        self._jobs = Jobs(self._connections, self._run.ticks, self._changes, self._version)
        self._upkeep_at = 0.0
        self._kept_up = True  # the last time that there was work to do
        self._swept = 0.0
        self._syncs = options.durability == "always"  # a commit takes as long as the disk
        self._commit_seconds = 0.0  # what the last one took
        # Who asked in the last turn, and in the one before.
        self._lately: tuple[set[Connection], set[Connection]] = set(), set()
        self._greeting = False  # somebody is being let in, and goes on at once
        self._sweeping = False  # the last turn did not come to the end of what has expired
        self._stopping = False

    @property
    def wake_file(self) -> int:
        """A descriptor: a byte written to it wakes the loop."""
        return self._connections.wake_file

    def stop(self, *_signal: object) -> None:
        """Let the loop end after the turn it is in; it may be a signal's handler."""
        self._stopping = True
        self._connections.wake()

    def serve_forever(self) -> None:
        """Run until `stop`; what has arrived by then is answered.

        Raises:
            JournalFailed: nobody knows what is on the disk; who was not answered is not.
        """
        self._journal.start(self._connections.wake)
        while not self._stopping:
            if not (self._connections.wait(0) or self._busy() or self._connections.linger()):
                self._connections.wait(self._patience())
            self._work()
        self._home.unlink_socket()
        self._connections.stop_listening()
        end = self._run.ticks() + _DRAIN_SECONDS
        self._connections.wait(0)  # what came since the loop looked last
        self._work()
        while (self._busy() or self._connections.unsent) and self._run.ticks() < end:
            self._connections.wait(0 if self._busy() else 0.05)
            self._work()
        self._connections.close_all()

    def _work(self) -> None:
        ticks = self._run.ticks()
        self._kept_up = ticks >= self._upkeep_at or not self._connections.ready
        if self._connections.ready or self._sweeping:
            self._turn(ticks)
        if self._kept_up:
            self._upkeep(ticks)
        elif self._connections.strangers:
            self._connections.tidy()  # at once, or more than are allowed could be let in
        if self._jobs:
            self._jobs.run(self._run.ticks() + SLICES_SECONDS)

    def _upkeep(self, ticks: float) -> None:
        self._upkeep_at = ticks + UPKEEP_SECONDS
        self._journal.tend(ticks)
        self._jobs.look_after()
        self._connections.tidy()
        if ticks >= self._swept + SWEEP_SECONDS and (self._connections.ready or self._scheduled()):
            self._sweeping = True

    def _busy(self) -> bool:
        return bool(self._connections.ready or self._jobs)

    def _scheduled(self) -> bool:
        return bool(len(self._table.ends) or len(self._table.callers.ends))

    def _patience(self) -> float | None:
        if self._busy() or self._sweeping:
            return 0
        waits = [] if self._kept_up else [UPKEEP_SECONDS]
        if self._journal.refusing or self._scheduled():
            waits.append(SWEEP_SECONDS)
        if (look := self._jobs.next_look) is not None:
            waits.append(max(0.0, look - self._run.ticks()))
        return min(waits, default=None)

    # A turn

    def _turn(self, ticks: float) -> None:
        answers: list[Asked] = []
        until = ticks + TURN_SECONDS
        try:
            with self._table.turn(self._run.now()) as turn:
                if self._sweeping:
                    self._sweeping, self._swept = turn.sweep(ticks), ticks
                self._take_in(turn, answers, until)
                while self._greeting and answers and self._syncs and self._run.ticks() < until:
                    # Else each step of a handshake would wait for a sync, of which a slow disk makes seconds.
                    for connection, *_ in answers:  # what it says next waits for this answer
                        connection.working = True
                        self._connections.go_on(connection)
                    self._connections.wait(GREETING_SECONDS)
                    self._take_in(turn, answers, until)
                if self._syncs:
                    self._gather(turn, answers, until)
                begun = self._run.ticks()
                turn.commit(self.append)
                self._commit_seconds = self._run.ticks() - begun
        except StoreUnavailable as error:
            self._sweeping = False  # tried again in a second, not at once and for ever
            self._answer_unchanged(answers, error)
        else:
            for connection, request, _, sealed, reply in answers:
                self._figures.decided(request.ops, reply)
                connection.working = False
                self._connections.send(connection, sealed)
            if turn.changed:
                self._jobs.wake(turn.changed)

    def _take_in(self, turn: Turn[bytes], answers: list[Asked], until: float) -> None:
        """Execute what is ready."""
        self._greeting, ticks = False, self._run.ticks()
        ready = self._connections.ready
        for connection in list(ready):  # once each: who is answered at once may be ready again
            if ticks >= until:
                break
            payload = ready.pop(connection, None)
            if payload is None:
                continue  # it was closed meanwhile
            try:
                asked = self._asked(connection, payload)
                if asked is not None:
                    request, seal = asked
                    sealed = turn.execute(request, ticks, seal)
                    answers.append((connection, request, seal, sealed, turn.reply))
            except Exception:  # noqa: BLE001  whatever a peer sends must not end the loop
                self._jobs.give_up(connection, request_id_of(payload))
            ticks = self._run.ticks()

    def _gather(self, turn: Turn[bytes], answers: list[Asked], until: float) -> None:
        """Wait for who was answered lately and asks again, no longer than a sync takes.

        Else who asks a moment later than the first waits for a whole sync before its own begins.
        """
        here, lately = {asked[0] for asked in answers}, self._lately[0] | self._lately[1]
        end = min(until, self._run.ticks() + min(self._commit_seconds, GATHER_SECONDS))
        while not lately <= here and self._run.ticks() < end:
            if self._connections.wait(0):
                self._take_in(turn, answers, until)
                here = {asked[0] for asked in answers}
            else:
                os.sched_yield()
        self._lately = here, self._lately[0]

    def _answer_unchanged(self, asked: list[Asked], error: StoreUnavailable) -> None:
        """After a failed append: what was so before the turn is told, all else is refused with *error*."""
        with self._table.turn(self._run.now()) as turn:
            for connection, request, seal, *_ in asked:
                ticks = self._run.ticks()
                if request.mutates:
                    refusal = Reply.refusing(error)
                    settled = turn.settled(request, ticks, seal)
                    reply, sealed = (turn.reply, settled) if settled is not None else (refusal, seal(refusal))
                else:
                    sealed = turn.execute(request, ticks, seal)
                    reply = turn.reply
                self._figures.decided(request.ops, reply)
                connection.working = False
                self._connections.send(connection, sealed)

    # Frames

    def _asked(self, connection: Connection, payload: bytes) -> tuple[Request, Seal] | None:
        """What a frame asks of the turn, and how its reply is sealed; None if that goes on elsewhere."""
        if not connection.handshake.done:
            self._greeting = True
            self._shake_hands(connection, payload)
            return None
        if looks_like_pickle(payload):
            return self._stock_asked(connection, payload)
        self._figures.requests += 1
        try:
            request = decode_request(payload)
        except InvalidRequest as error:
            self._figures.unreadable()
            self._connections.send(connection, encode_reply(Reply.refusing(error)))
            return None
        op = request.ops[0]
        if op.on_counter:
            return request, encode_reply
        self._answer_beside(connection, op, request.request_id)
        return None

    def _answer_beside(self, connection: Connection, op: Op, request_id: str) -> None:
        """Answer *op*, which asks for more than one counter or for none, between the turns or at once."""
        if isinstance(op, Hello | Report):
            told = None
            if isinstance(op, Hello):
                self._figures.hello(connection, op)
                told = self._limits
            else:
                self._figures.report(connection, op)
            self._connections.send(connection, encode_reply(Reply([told])))
            return
        question = Question(connection, self._figures.asked(connection, op, encode_reply), request_id)
        if isinstance(op, Changes):
            self._jobs.begin_changes(question, op)
        elif isinstance(op, List):
            self._jobs.begin(question, page(self._table, op, self._run.now()))
        else:
            self._jobs.begin(question, self._information(self._table, self._run.now()))

    def _stock_asked(self, connection: Connection, payload: bytes) -> tuple[Request, Seal] | None:
        try:
            if not self._options.stock_clients:
                raise Unsupported("this manager serves no stock clients (--no-stock-clients)")
            call = stock.read_call(payload)
            if call.ident is not None and connection.stock:
                self._figures.requests += 1
                work, seal = stock.question(call)
                if isinstance(work, Request):
                    return work, seal
                self._jobs.begin(Question(connection, seal), work(self._table, self._run.now()))
                return None
            answer = stock.answer_server_call(call)
            # as the stock server: such a call is alone on its connection, unless it asks to go on
            connection.stock = call.method == "accept_connection"
            connection.closing = not connection.stock
        except CounterError as error:
            answer = stock.refused(error)
        self._connections.send(connection, answer)
        return None

    def _shake_hands(self, connection: Connection, payload: bytes) -> None:
        try:
            answers = connection.handshake.receive(payload)
        except HandshakeFailed as error:
            logger.info("a handshake failed: %s", error)
            connection.closing = True
            answers = [error.farewell] if error.farewell else []
        if connection.handshake.done:
            connection.frames.most = self._options.max_frame
            self._connections.admit(connection)
        for answer in answers:
            self._connections.send(connection, answer)
        self._connections.go_on(connection)

    def _changes(self, op: Changes) -> Job[ChangesPage]:
        return changes(self._table, op, self._run.now())

    def _version(self) -> str:
        return self._table.versions.of(self._table.versions.newest)

    def _information(self, table: CounterTable[bytes], now: datetime) -> Job[Information]:
        options, figures = self._options, self._figures
        counters, asked = (yield from count(table, now)), (figures.requests, figures.waiting)
        return Information(
            VERSION,
            "manager",
            options.durability,
            self._run.id,
            counters,
            self._limits,
            ManagerFigures(os.getpid(), round(self._run.uptime(), 3), len(self._connections), *asked),
            self._journal.figures(),
            figures.workers(),
            figures.operations(),
            figures.http(),
        )
