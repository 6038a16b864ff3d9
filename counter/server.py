"""The manager: a BaseManager whose server is one event loop around one table.

Theory of operation
-------------------
A turn of the loop reads what has arrived, executes every complete request on the table's overlay, appends
what came out, merges, and only then answers. So an answer is never ahead of the journal, many requests share
one append, and no client needs a thread.

A connection comes in through `Door`; its first frames are the handshake; after that each frame is either ours
(msgpack, see `wire`) or a stock client's (a pickle, see `stock`). A frame becomes a `Question`: ops that the
turn decides, or a job that is answered in slices between turns, so that nothing holds the loop for long. A
connection has one question under way; its next frame waits.

Nothing that a peer sends ends the loop: refusals are answers, and whatever else goes wrong with a question is
logged and closes that one connection.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime
from multiprocessing.managers import BaseManager, Server
from typing import NamedTuple, NoReturn

from . import stock
from .changes import changes
from .connection import Connection
from .connections import Connections
from .door import Door
from .errors import CounterError, InvalidRequest, StoreUnavailable, Unsupported
from .figures import Figures, Seal
from .handshake import HandshakeFailed
from .home import Home
from .information import Information, Limits, ManagerFigures
from .jobs import Jobs, Question
from .journal import Journal, NoJournal
from .listing import Job, count, page
from .ops import Changes, Hello, Info, List, Report, Request
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
SLICES_SECONDS = 0.005
"""How long jobs run between two turns."""
SWEEP_SECONDS = 1.0
_DRAIN_SECONDS = 2.0

logger = logging.getLogger("counter.manager")


class Asked(NamedTuple):
    """A request that a turn has decided, and the sealed reply, to be sent after the commit.

    *reply* is what was sealed, None if the answer is one that was given before.
    """

    question: Question
    request: Request
    sealed: bytes
    reply: Reply | None


class CounterManager(BaseManager):
    """The manager of shared counters; run it in a process of its own, as `counter manager` does."""

    def __init__(
        self,
        options: ManagerOptions,
        journal: Journal | NoJournal | None = None,
        state: State[bytes] | None = None,
    ) -> None:
        self._options, self._home = options, Home(options.home)
        self._journal, self._found = journal or NoJournal(), state or State()
        super().__init__(address=str(self._home.socket_path), authkey=self._home.read_key())

    def get_server(self) -> ManagerServer:
        """The server, listening; `serve_forever` runs it."""
        return ManagerServer(self._options, self._home, self._journal, self._found)

    def start(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: a manager that is some worker's child would go with that worker."""
        raise Unsupported("run the manager as a process of its own: `counter run` or `counter manager`")


CounterManager.register(stock.IDENT)


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
        self._table: CounterTable[bytes] = CounterTable(self._run.id, options.max_counters, as_replayed)
        self._table.restore(state, self._run.ticks())
        self._figures = Figures()
        door = Door(home, home.bind(), shared=options.group is not None)
        self._connections = Connections(door, self._run.ticks, self._figures.leave)
        self._jobs = Jobs(self._connections, self._run.ticks, self._changes, self._version)
        self._swept = 0.0
        self._syncs = options.durability == "always"  # a commit takes as long as the disk
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
        self._journal.tend(ticks)
        sweep = self._sweeping or (self._scheduled() and ticks >= self._swept + SWEEP_SECONDS)
        if self._connections.ready or sweep:
            self._turn(ticks)
        self._jobs.look_after()
        if self._jobs:
            self._jobs.run(self._run.ticks() + SLICES_SECONDS)
        self._connections.tidy()

    def _busy(self) -> bool:
        return bool(self._connections.ready or self._jobs)

    def _scheduled(self) -> bool:
        return bool(len(self._table.ends) or len(self._table.callers.ends))

    def _patience(self) -> float | None:
        if self._busy() or self._sweeping:
            return 0
        waits = [SWEEP_SECONDS] if self._journal.refusing or self._scheduled() else []
        if (look := self._jobs.next_look) is not None:
            waits.append(max(0.0, look - self._run.ticks()))
        return min(waits, default=None)

    # A turn

    def _turn(self, ticks: float) -> None:
        answers: list[Asked] = []
        until = ticks + TURN_SECONDS
        try:
            with self._table.turn(self._run.now()) as turn:
                if self._sweeping or ticks >= self._swept + SWEEP_SECONDS:
                    self._sweeping, self._swept = turn.sweep(ticks), ticks
                self._take_in(turn, answers, until)
                while self._greeting and answers and self._syncs and self._run.ticks() < until:
                    # Else each step of a handshake would wait for a sync, of which a slow disk makes seconds.
                    self._connections.wait(GREETING_SECONDS)
                    self._take_in(turn, answers, until)
                turn.commit(self.append)
        except StoreUnavailable as error:
            self._sweeping = False  # tried again in a second, not at once and for ever
            self._answer_unchanged(answers, error)
        else:
            for question, request, sealed, reply in answers:
                self._figures.decided(request.ops, reply)
                self._connections.send(question.connection, sealed)
            if turn.changed:
                self._jobs.wake(turn.changed)

    def _take_in(self, turn: Turn[bytes], answers: list[Asked], until: float) -> None:
        """Execute what is ready."""
        self._greeting, seal = False, Seal()
        for connection, payload in self._connections.take_ready():
            try:
                question = self._question(connection, payload)
                if question is None:
                    self._greeting = True
                    continue
                work = question.work
                if isinstance(work, Request):
                    sealed = turn.execute(work, self._run.ticks(), seal.for_next(question.seal))
                    answers.append(Asked(question, work, sealed, seal.reply))
                elif isinstance(work, Changes):
                    self._jobs.begin_changes(question, work)
                else:
                    self._jobs.begin(question, work(self._table, self._run.now()))
            except Exception:  # noqa: BLE001  whatever a peer sends must not end the loop
                self._jobs.give_up(connection)
            if self._run.ticks() >= until:
                break

    def _answer_unchanged(self, asked: list[Asked], error: StoreUnavailable) -> None:
        """After a failed append: what was so before the turn is told, all else is refused with *error*."""
        with self._table.turn(self._run.now()) as turn:
            for question, request, *_ in asked:
                ticks, seal = self._run.ticks(), Seal().for_next(question.seal)
                if request.mutates:
                    sealed = turn.settled(request, ticks, seal) or seal(Reply.refusing(error))
                else:
                    sealed = turn.execute(request, ticks, seal)
                self._figures.decided(request.ops, seal.reply)
                self._connections.send(question.connection, sealed)

    # Frames

    def _question(self, connection: Connection, payload: bytes) -> Question | None:
        """What a frame asks of the table; None if it was answered here."""
        if not connection.handshake.done:
            self._shake_hands(connection, payload)
            return None
        if looks_like_pickle(payload):
            return self._stock_question(connection, payload)
        self._figures.requests += 1
        try:
            request = decode_request(payload)
        except InvalidRequest as error:
            self._figures.unreadable()
            self._connections.send(connection, encode_reply(Reply.refusing(error)))
            return None
        op = request.ops[0]
        if op.on_counter:
            return Question(connection, request, encode_reply)
        if isinstance(op, Changes):
            return Question(connection, op, self._figures.asked(connection, op, encode_reply))
        if isinstance(op, List):
            seal = self._figures.asked(connection, op, encode_reply)
            return Question(connection, lambda table, now: page(table, op, now), seal)
        if isinstance(op, Info):
            seal = self._figures.asked(connection, op, encode_reply)
            return Question(connection, self._information, seal)
        told = None
        if isinstance(op, Hello):
            self._figures.hello(connection, op)
            told = self._limits
        elif isinstance(op, Report):
            self._figures.report(connection, op)
        self._connections.send(connection, encode_reply(Reply([told])))
        return None

    def _stock_question(self, connection: Connection, payload: bytes) -> Question | None:
        try:
            if not self._options.stock_clients:
                raise Unsupported("this manager serves no stock clients (--no-stock-clients)")
            call = stock.read_call(payload)
            if call.ident is not None and connection.stock:
                self._figures.requests += 1
                return Question(connection, *stock.question(call))
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
        counters = yield from count(table, now)
        return Information(
            VERSION,
            "manager",
            options.durability,
            self._run.id,
            counters,
            self._limits,
            ManagerFigures(
                os.getpid(),
                round(self._run.uptime(), 3),
                len(self._connections),
                figures.requests,
                figures.waiting,
            ),
            self._journal.figures(),
            figures.workers(),
            figures.operations(),
            figures.http(),
        )
