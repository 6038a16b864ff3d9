"""The manager's loop: what a turn answers, what it answers when it cannot be written down, how it ends.

Where each promise about the manager is tested; what names no file is here, below the dashed lines in order:

    a failed append is invisible; replies are the same on replay; a lower seq, a deadline that has passed
    nothing that goes wrong with one question ends the loop or another's connection
    slices, a turn's length, sweeping                       and test_listing.py: 2,000 counters a slice
    the end: what has arrived is answered, socket and lock are free for the next
    a real manager: exit codes, second manager, stale socket, late exit, one thread, no TCP, long path
    a million counters (long)
    stock clients' calls                                    test_stock.py
    caps, odd frames, strangers that do not speak           test_hostile.py, test_silence.py
    one frame at a time, unread answers, EMFILE             test_connections.py
    512 strangers, 5 s, the key replaced                    test_door.py
    the folder, the key's file, the lock, the socket's file test_home.py
    overlay, all or nothing, callers, limits                test_table.py
    clients: one deadline, whatever interrupts them         test_manager_store.py
    exact numbers, forks                                    test_library_exact.py
    restarts                                                test_comes_back.py
"""

import contextlib
import itertools
import logging
import os
import pickle
import random
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.managers import BaseManager, Server
from pathlib import Path

import pytest
from manager_process import start_manager
from support import COMMAND, start_process, wait_until

from counter import server as server_module
from counter.errors import JournalFull, LimitExceeded, OutOfBounds, StoreUnavailable, Unsupported
from counter.folder import AlreadyRunning
from counter.handshake import ClientHandshake
from counter.home import Home
from counter.listing import SLICE
from counter.manager import CounterManager, serve
from counter.ops import Delete, Get, Increment, Info, List, Request, Set
from counter.server import GATHER_SECONDS, UPKEEP_SECONDS, ManagerServer
from counter.settings import ManagerOptions
from counter.stores.manager import ManagerStore
from counter.table import Turn
from counter.wire import MAX_REPLY, Frames, decode_reply, encode_request, frame

ANNA, BERT = b"anna" * 4, b"bert" * 4


class Client:
    """One connection that never waits: the house turns in the same thread."""

    def __init__(self, house):
        self.house = house
        self.sock = house.home.connect(time.monotonic() + 10)
        self.sock.setblocking(False)
        self.frames = Frames(2**31)
        handshake = ClientHandshake(house.home.read_key())
        while not handshake.done:
            house.turn()
            for answer in handshake.receive(self.receive()):
                self.send(answer)
        house.turn()

    def send(self, payload):
        self.sock.sendall(frame(payload))

    def receive(self):
        """The next frame that has arrived, None if there is none."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(1 << 20):
                self.frames.feed(data)
        return self.frames.next()

    def say(self, *ops, atomic=True, caller=None, seq=0, deadline=None):
        deadline = 0.0 if caller is None else deadline or self.house.clock() + 10
        request = Request(list(ops), atomic, caller, seq, deadline)
        self.send(encode_request(request))
        self.asked = request.ops

    def reply(self):
        payload = self.receive()
        return None if payload is None else decode_reply(payload, self.asked)

    def ask(self, *ops, **how):
        """A question that has a turn for itself."""
        self.say(*ops, **how)
        self.house.turn()
        return self.reply()

    @property
    def hung_up_on(self):
        with contextlib.suppress(BlockingIOError):
            while self.sock.recv(65536):
                pass
            return True
        return False


class StockClient(Client):
    """One that speaks pickle, after `accept_connection`."""

    def __init__(self, house):
        super().__init__(house)
        self.send(pickle.dumps((None, "accept_connection", ("me",), {})))
        house.turn()
        assert self.receive()

    def say(self, method, *args):
        self.send(pickle.dumps(("counters", method, args, {})))

    def reply(self):
        return pickle.loads(self.receive())[1]


class Journal:
    """An append that fails when it is told to, and looks around before it writes."""

    def __init__(self):
        self.error = None
        self.written = []
        self.before = lambda: None

    def __call__(self, outcomes):
        self.before()
        if self.error:
            raise self.error
        self.written += outcomes


class Clock:
    """The run's clocks; they stand still until they are moved, unless *step* moves them at each look."""

    def __init__(self):
        self.seconds, self.step = 5_000.0, 0.0

    def __call__(self):
        self.seconds += self.step
        return self.seconds


class House:
    """A manager's server that turns when it is told to."""

    def __init__(self, path, monkeypatch, **options):
        self.clock = clock = Clock()

        class StillRun(server_module.Run):
            def ticks(self):
                return clock()

            def now(self):
                return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=clock.seconds)

        monkeypatch.setattr(server_module, "Run", StillRun)
        monkeypatch.setattr("counter.door._connection_limit", lambda: 1024)
        self.home = Home(path)
        self.home.prepare()
        self.home.ensure_key()
        self.server = CounterManager(ManagerOptions(self.home.path, **options)).get_server()
        self.server.append = self.journal = Journal()
        self.clients = []

    def client(self, kind=Client):
        self.clients.append(kind(self))
        return self.clients[-1]

    def turn(self):
        """One turn of the loop, as `serve_forever` makes it."""
        self.server._connections.wait(0)
        self.server._work()

    def turns(self):
        """Turns until nothing is left to do at once."""
        self.turn()
        while self.server._patience() == 0:
            self.turn()

    @property
    def state(self):
        """All that anybody could ever be told of the counters."""
        table = self.server._table
        names = list(table.names.after("", inclusive=True))
        return dict(table.entries), names, len(table.ends), dict(table.callers.records.items())

    def close(self):
        for client in self.clients:
            client.sock.close()
        if self.server._connections.wake_file != -1:  # not closed by its end
            self.server._connections.close_all()


@pytest.fixture
def house(tmp_path, monkeypatch):
    house = House(tmp_path / "home", monkeypatch)
    yield house
    house.close()


def value_of(reply):
    return reply.only().value


# ---------------------------------------------------------------- a failed append is invisible


@pytest.fixture(params=[JournalFull, StoreUnavailable])
def failing(request, house):
    """What tells the journal to fail, or to work again."""

    def fail(broken=True):
        house.journal.error = request.param("no space is left") if broken else None

    fail.code = request.param.code
    return fail


def test_no_answer_leaves_before_the_append(house):
    """Not even a read's: it may tell what is not written down yet."""
    writer, reader, stock = house.client(), house.client(), house.client(StockClient)
    seen = []
    house.journal.before = lambda: seen.append([client.receive() for client in (writer, reader, stock)])
    writer.say(Increment("a"))
    reader.say(Get("a"))
    stock.say("increment", "a")
    house.turn()
    assert seen == [[None, None, None]]
    assert None not in (writer.reply(), reader.reply(), stock.reply())


def test_a_turn_takes_one_frame_of_each_however_fast_they_are_answered(house):
    """Else one who sends what is refused at once, without pause, has each turn to its end for itself."""
    hasty, other = house.client(), house.client()
    hasty.sock.sendall(50 * frame(b"\xc1"))
    other.say(Increment("a"))
    before = house.server._figures.requests
    house.turn()
    assert other.reply().only().value == 1
    assert house.server._figures.requests == before + 2


def test_one_append_a_turn_for_everybody(house):
    appended = []
    house.server.append = lambda outcomes: appended.append(len(outcomes))
    clients = [house.client() for _ in range(5)]
    for client in clients:
        client.say(Increment("a"))
    house.turn()
    assert sorted(value_of(client.reply()) for client in clients) == [1, 2, 3, 4, 5]
    assert appended == [5]


def test_in_a_turn_that_fails_reads_show_the_old_state_and_writes_are_refused(house, failing):
    writer, reader, deleter, creator, batcher = (house.client() for _ in range(5))
    writer.ask(Set("a", 10, min=0, ttl=60))
    entry = reader.ask(Get("a")).only()
    before = house.state
    failing()
    writer.say(Increment("a", 5))
    deleter.say(Delete("a"))
    creator.say(Increment("new"))
    batcher.say(Get("a"), Set("b", 1), atomic=False)
    reader.say(Get("a"))
    house.turn()
    for client in (writer, deleter, creator, batcher):
        reply = client.reply()
        assert (reply.results, reply.problem.code) == ([], failing.code)
        assert reply.problem.error().status == 503
    assert reader.reply().only() == entry
    assert house.state == before
    assert reader.ask(List()).only().counters == [entry]
    assert reader.ask(Info()).only().counters == 1
    reader.say(Get("new"))
    house.turn()
    assert reader.reply().problem.code == "not-found"


def test_whoever_comes_first_in_the_turn_makes_no_difference(house, failing):
    clients = [house.client() for _ in range(3)]
    clients[0].ask(Set("a", 1))
    failing()
    for order in itertools.permutations(range(3)):
        for at in order:
            clients[at].say(*[[Increment("a")], [Get("a")], [Delete("a")]][at])
        house.turn()
        replies = [client.reply() for client in clients]
        codes = [reply.problem and reply.problem.code for reply in replies]
        assert codes == [failing.code, None, failing.code]
        assert value_of(replies[1]) == 1


def test_a_turn_that_only_reads_does_not_notice(house, failing):
    client = house.client()
    client.ask(Set("a", 1))
    failing()
    assert value_of(client.ask(Get("a"))) == 1
    assert client.ask(List()).only().counters[0].value == 1
    assert client.ask(Get("b")).problem.code == "not-found"


def test_what_was_refused_anyway_is_told_from_the_old_state_or_not_at_all(house, failing):
    """A refusal may rest on what was not written down; so it is journal-full, never a wrong reason."""
    first, second = house.client(), house.client()
    first.ask(Set("a", 9, max=10))
    failing()
    first.say(Increment("a"))
    second.say(Increment("a", 1))  # out of bounds only because of the first
    house.turn()
    assert {first.reply().problem.code, second.reply().problem.code} == {failing.code}


def test_retries_with_the_same_seq_count_once_after_it(house, failing):
    client = house.client()
    failing()
    for _ in range(3):
        assert client.ask(Increment("a"), caller=ANNA, seq=1).problem.code == failing.code
    failing(False)
    assert value_of(client.ask(Increment("a"), caller=ANNA, seq=1)) == 1
    assert value_of(client.ask(Increment("a"), caller=ANNA, seq=1)) == 1
    assert value_of(client.ask(Increment("a"), caller=ANNA, seq=2)) == 2
    assert len(house.journal.written) == 2


def test_a_request_and_its_repetition_in_one_failing_turn_are_both_refused(house, failing):
    first, again = house.client(), house.client()
    failing()
    for client in (first, again):
        client.say(Increment("a"), caller=ANNA, seq=1)
    house.turn()
    assert first.reply().problem.code == again.reply().problem.code == failing.code
    assert house.state[0] == {}


def test_a_repetition_in_a_failing_turn_gets_its_stored_reply_byte_for_byte(house, failing):
    client, other = house.client(), house.client()
    client.say(Increment("a"), caller=ANNA, seq=1)
    house.turn()
    answer = client.receive()
    failing()
    client.say(Increment("a"), caller=ANNA, seq=1)
    other.say(Increment("a"), caller=BERT, seq=1)
    house.turn()
    assert client.receive() == answer
    assert other.reply().problem.code == failing.code


def test_what_comes_too_late_in_a_failing_turn_is_not_said_to_be_unapplied(house, failing):
    """Its first copy may have been applied, long ago."""
    client, other = house.client(), house.client()
    failing()
    client.say(Increment("a"), caller=ANNA, seq=1, deadline=house.clock.seconds - 1)
    other.say(Increment("a"), caller=BERT, seq=1)
    house.turn()
    assert client.reply().problem.code == "outcome-unknown"
    assert other.reply().problem.code == failing.code


def test_stock_clients_are_told_too(house, failing):
    writer, reader, lister = (house.client(StockClient) for _ in range(3))
    writer.say("set", "a", 3)
    house.turn()
    writer.reply()
    failing()
    writer.say("increment", "a")
    reader.say("get", "a")
    lister.say("items")
    house.turns()
    error = writer.reply()
    assert (type(error), error.code) == (ConnectionError, failing.code)
    assert reader.reply() == 3
    assert lister.reply() == [("a", 3)]


def test_a_sweep_that_cannot_be_written_down_is_done_later(house, failing):
    client = house.client()
    client.ask(Set("a", 1, ttl=5))
    client.ask(Set("b", 1))
    house.clock.seconds += 10
    failing()
    assert client.ask(Get("a")).problem.code == "not-found"  # it is gone for everyone all the same
    assert client.ask(Info()).only().counters == 1
    assert "a" in house.state[0]
    assert client.ask(Set("a", 1)).problem.code == failing.code
    house.turns()
    assert house.server._patience() == 1.0  # not at once: that would go on until there is space
    failing(False)
    house.clock.seconds += 2
    assert client.ask(Info()).only().counters == 1
    house.turns()
    assert list(house.state[0]) == ["b"]
    assert [outcome.changed for outcome in house.journal.written[2:]] == [{"a": None}]


def test_what_was_not_written_down_takes_no_room(tmp_path, monkeypatch):
    house = House(tmp_path / "small", monkeypatch, max_counters=2)
    client = house.client()
    house.journal.error = JournalFull("full")
    for at in range(5):
        assert client.ask(Increment(f"{at}")).problem.code == "journal-full"
    house.journal.error = None
    assert [value_of(client.ask(Increment(name))) for name in "ab"] == [1, 1]
    assert client.ask(Increment("c")).problem.code == "limit-exceeded"
    house.close()


def test_versions_go_on_and_none_is_given_twice(house, failing):
    client, versions = house.client(), []
    for broken in (False, True, False, True, True, False):
        failing(broken)
        reply = client.ask(Increment("a"))
        if not broken:
            versions.append(reply.only().version)
    assert len(set(versions)) == 3
    failing()
    assert client.ask(Get("a")).only().version == versions[-1]
    failing(False)
    assert value_of(client.ask(Set("a", 0, if_version=versions[-1]))) == 0


@pytest.mark.slow
def test_failures_at_random_leave_exactly_what_was_acknowledged(house):
    """Six clients, two counters; the sum of the acknowledged deltas is there, each value was told once."""
    chance, clients = random.Random(4), [house.client() for _ in range(6)]
    told = {"a": [], "b": []}
    for at in range(200):
        house.journal.error = JournalFull("full") if chance.random() < 0.4 else None
        asked = []
        for number, client in enumerate(clients):
            if chance.random() < 0.8:
                asked.append((client, chance.choice("ab"), chance.random() < 0.3))
                client.say(
                    Get(asked[-1][1]) if asked[-1][2] else Increment(asked[-1][1]),
                    **({} if asked[-1][2] else {"caller": b"%016d" % number, "seq": at + 1}),
                )
        expected = {name: len(values) for name, values in told.items()}
        house.turn()
        for client, name, reads in asked:
            reply = client.reply()
            if reply.problem is not None:
                assert reply.problem.code == ("not-found" if reads else "journal-full")
            elif not reads:
                told[name].append(value_of(reply))
            elif house.journal.error:
                assert value_of(reply) == expected[name]
    for name, values in told.items():
        assert sorted(values) == list(range(1, len(values) + 1))
        assert value_of(clients[0].ask(Get(name))) == len(values)


@pytest.fixture
def running(house):
    """The house with its loop in a thread of its own."""
    thread = threading.Thread(target=house.server.serve_forever)
    thread.start()
    house.clock.step = 0.00001
    yield house
    house.server.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_our_client_sees_journal_full_and_it_resumes_by_itself(running):
    store = ManagerStore(running.home.path, 10.0)
    with contextlib.closing(store):
        running.clock.seconds = time.monotonic()  # deadlines are on the host's clock
        assert store.execute(Request([Increment("a")])).only().value == 1
        running.journal.error = JournalFull("no space left: free some")
        for _ in range(3):
            with pytest.raises(JournalFull, match="free some"):
                store.execute(Request([Increment("a")])).only()
            assert store.execute(Request([Get("a")])).only().value == 1
        running.journal.error = None
        assert store.execute(Request([Increment("a")])).only().value == 2


def operations(house):
    """What Info counts, without the questions for it."""
    told = house.client().ask(Info()).only().operations
    return {op: outcomes for op, outcomes in told.items() if op != "info"}


def test_what_came_of_a_turn_is_counted_once_it_is_sure(house, failing):
    """By what was answered: to a batch, to a stock client, to what is no request, after a failed append."""
    client, stock = house.client(), house.client(StockClient)
    client.ask(Increment("a"), caller=ANNA, seq=1)
    client.ask(Increment("a"), caller=ANNA, seq=1)  # repeated, not done again
    client.ask(Increment("b"), Get("none"), atomic=False)
    client.ask(Increment("b"), Get("none"))
    stock.ask("increment", "a")
    client.ask(List())
    client.send(b"no request")
    house.turn()
    client.receive()
    done = {
        "get": {"not-found": 2},
        "increment": {"not-found": 1, "ok": 3},
        "list": {"ok": 1},
        "unknown": {"invalid-request": 1},
    }
    assert operations(house) == done
    failing()
    client.say(Increment("a"))
    stock.say("get", "a")
    house.turn()
    done["increment"][failing.code] = 1
    done["get"]["ok"] = 1
    assert operations(house) == done


# ---------------------------------------------------------------- once


def test_a_repetition_gets_the_same_bytes_whoever_brings_it(house):
    first, second = house.client(), house.client()
    answers = []
    for client in (first, first, second):
        client.say(Increment("a", 3), Set("b", 1), caller=ANNA, seq=7)
        house.turn()
        answers.append(client.receive())
        house.client().ask(Increment("a"))  # what happens meanwhile changes no stored reply
    assert answers[0] == answers[1] == answers[2]
    assert value_of(first.ask(Get("a"))) == 6


def test_a_request_and_its_repetition_in_one_turn_are_one(house):
    first, again = house.client(), house.client()
    for client in (first, again):
        client.say(Increment("a"), caller=ANNA, seq=1)
    house.turn()
    assert first.receive() == again.receive() is not None
    assert value_of(first.ask(Get("a"))) == 1


def test_a_refusal_is_repeated_too(house):
    client = house.client()
    client.ask(Set("a", 1, max=1))
    client.say(Increment("a"), caller=ANNA, seq=1)
    house.turn()
    refused = client.receive()
    client.ask(Set("a", 0))
    client.say(Increment("a"), caller=ANNA, seq=1)
    house.turn()
    assert client.receive() == refused
    with pytest.raises(OutOfBounds):
        decode_reply(refused, [Increment("a")]).only()


def test_a_lower_seq_is_refused(house):
    client = house.client()
    assert value_of(client.ask(Increment("a"), caller=ANNA, seq=5)) == 1
    reply = client.ask(Increment("a"), caller=ANNA, seq=4)
    assert (reply.problem.code, "seq goes up" in reply.problem.detail) == ("invalid-request", True)
    assert value_of(client.ask(Increment("a"), caller=BERT, seq=4)) == 2


@pytest.mark.parametrize(
    ("after", "code"), [(-0.001, "outcome-unknown"), (0.0, "outcome-unknown"), (0.5, None)]
)
def test_past_its_deadline_a_request_is_never_executed(house, after, code):
    client = house.client()
    reply = client.ask(Increment("a"), caller=ANNA, seq=1, deadline=house.clock.seconds + after)
    assert (reply.problem and reply.problem.code) == code
    assert (client.ask(Get("a")).problem is None) is (code is None)


def test_a_deadline_that_passes_while_the_request_waits_its_turn_counts(house):
    client = house.client()
    client.say(Increment("a"), caller=ANNA, seq=1, deadline=house.clock.seconds + 5)
    house.server._connections.wait(0)
    house.clock.seconds += 6
    house.server._work()
    assert client.reply().problem.code == "outcome-unknown"
    assert client.ask(Get("a")).problem.code == "not-found"


# ---------------------------------------------------------------- what goes wrong with one


def test_an_internal_error_closes_one_connection_and_the_turn_goes_on(house, monkeypatch, caplog):
    odd, fine = house.client(), house.client()
    real = server_module.decode_request

    def decode(payload):
        if b"odd" in payload:
            raise RecursionError("deep")
        return real(payload)

    monkeypatch.setattr(server_module, "decode_request", decode)
    odd.say(Increment("odd"))
    fine.say(Increment("fine"))
    with caplog.at_level(logging.CRITICAL):
        house.turn()
    assert odd.hung_up_on
    assert value_of(fine.reply()) == 1


@pytest.mark.parametrize("op", [Increment("odd"), List(), Info()], ids=lambda op: type(op).__name__)
def test_a_reply_that_cannot_be_encoded_does_nothing_but_close_one_connection(house, monkeypatch, caplog, op):
    odd, fine = house.client(), house.client()

    def encode(reply):
        raise RecursionError("deep")

    odd.say(op)
    with caplog.at_level(logging.CRITICAL), monkeypatch.context() as patch:
        patch.setattr(server_module, "encode_reply", encode)
        house.turns()
    assert odd.hung_up_on
    assert fine.ask(Get("odd")).problem.code == "not-found"


@pytest.mark.slow
def test_a_reply_over_the_cap_is_refused_and_nothing_is_applied(tmp_path, monkeypatch):
    house = House(tmp_path / "home", monkeypatch, max_frame=4 * MAX_REPLY)
    client = house.client()
    settings = {"min": -(2**60), "max": 2**60, "on_bound": "reject", "ttl": 10**6, "ttl_mode": "sliding"}
    ops = [Set(f"{at:0250}", at, **settings) for at in range(10_000)]
    client.sock.setblocking(True)
    sender = threading.Thread(target=client.say, args=ops)
    sender.start()
    while sender.is_alive():
        house.turn()
    client.sock.setblocking(False)
    while (reply := client.reply()) is None:
        house.turn()
    with pytest.raises(LimitExceeded, match="ask for less"):
        reply.unwrap()
    assert house.state[0] == {}
    assert house.journal.written == []
    assert value_of(client.ask(Increment("a"))) == 1
    house.close()


def test_a_frame_that_is_no_request_is_answered_and_the_connection_goes_on(house):
    client = house.client()
    client.asked = [Get("a")]
    client.send(b"\xc1")
    house.turn()
    assert client.reply().problem.code == "invalid-request"
    assert value_of(client.ask(Increment("a"))) == 1


def test_what_a_client_says_without_waiting_is_heard_in_order(house):
    """The rest of its handshake and two requests in one piece; each step has a turn of its own."""
    client = Client.__new__(Client)
    client.house, client.frames = house, Frames(2**31)
    client.sock = house.home.connect(time.monotonic() + 10)
    client.sock.setblocking(False)
    house.clients.append(client)
    house.turn()
    handshake = ClientHandshake(house.home.read_key())
    (proof,) = handshake.receive(client.receive())
    (challenge,) = handshake.receive(b"#WELCOME#")
    requests = [encode_request(Request([Increment("a", delta)])) for delta in (1, 10)]
    client.sock.sendall(b"".join(map(frame, [proof, challenge, b"#WELCOME#", *requests])))
    house.turns()
    assert client.receive() == b"#WELCOME#"
    assert handshake.receive(client.receive()) == [b"#WELCOME#"]
    client.asked = [Increment("a")]
    assert [value_of(client.reply()) for _ in range(2)] == [1, 11]


def test_who_hangs_up_in_mid_question_disturbs_nobody(house):
    leaving, lister, fine = house.client(), house.client(), house.client()
    leaving.say(Increment("a"))
    lister.say(List())
    for client in (leaving, lister):
        client.sock.close()
    assert value_of(fine.ask(Increment("b"))) == 1
    house.turns()
    assert len(house.server._connections) == 1
    assert value_of(fine.ask(Get("a"))) == 1  # it was asked


# ---------------------------------------------------------------- nothing holds the loop


def fill(house, number, **settings):
    with house.server._table.turn(house.server._run.now()) as turn:
        for first in range(0, number, 5_000):
            ops = [Set(f"{at:07}", at, **settings) for at in range(first, min(first + 5_000, number))]
            turn.execute(Request(ops), 0.0, lambda reply: reply)
        turn.commit(lambda outcomes: None)


@pytest.mark.slow
@pytest.mark.parametrize("sort", ["name", "-value", "-updated"])
def test_others_are_served_between_the_slices_of_a_listing(house, sort):
    fill(house, 10 * SLICE)
    lister, other = house.client(), house.client()
    house.clock.step = 0.003  # so that a pause between two turns holds two slices
    lister.say(List(prefix="0019999" if sort == "name" else "", sort=sort))
    served = 0
    while (page := lister.reply()) is None:
        assert value_of(other.ask(Increment("other"))) == served + 1
        served += 1
        assert served < 50
    assert page.only().counters[0].name in ("0019999", "other")
    assert served >= (1 if sort == "name" else 4)


@pytest.mark.slow
def test_a_listing_asked_for_by_one_connection_waits_for_its_own_answer(house):
    """Its next request is not even read before that, and then it is answered."""
    fill(house, 10 * SLICE)
    client = house.client()
    house.clock.step = 0.003
    client.say(List(sort="-value", limit=1))
    client.send(encode_request(Request([Get("0000007")])))
    house.turn()
    assert client.reply() is None
    house.turns()
    assert client.reply().only().counters[0].value == 10 * SLICE - 1
    client.asked = [Get("0000007")]
    assert value_of(client.reply()) == 7


@pytest.mark.slow
def test_several_listings_go_on_side_by_side(house):
    fill(house, 10 * SLICE)
    clients = [house.client() for _ in range(3)]
    for client in clients:
        client.say(List(sort="-value", limit=1))
    house.clock.step = 0.003
    started = [client for client in clients if client.reply()]
    assert not started
    house.turns()
    assert [client.reply().only().counters[0].value for client in clients] == [10 * SLICE - 1] * 3


def test_a_turn_takes_no_more_requests_in_after_10_milliseconds(house):
    """What is left comes in the next turn, those who wait longest first."""
    clients = [house.client() for _ in range(10)]
    for client in clients:
        client.say(Increment("a"))
    house.clock.step = 0.002
    answered = []
    while len(answered) < 10:
        house.turn()
        new = [value for client in clients if (reply := client.reply()) for value in [value_of(reply)]]
        assert 0 < len(new) < 10
        answered += new
    assert sorted(answered) == list(range(1, 11))


def test_it_sleeps_until_something_happens_or_a_counter_may_end(house):
    client = house.client()
    house.turn()
    assert house.server._patience() is None
    client.ask(Set("a", 1))
    assert house.server._patience() <= UPKEEP_SECONDS  # it has answered, and looks once whether that was all
    house.turn()
    assert house.server._patience() is None
    client.ask(Set("b", 1, ttl=60))
    house.turns()
    assert house.server._patience() == 1.0


def test_what_has_ended_is_swept_though_nobody_asks(house):
    client = house.client()
    for name in "abc":
        client.ask(Set(name, 1, ttl=5))
    house.clock.seconds += 10
    house.turns()
    assert house.state[:3] == ({}, [], 0)
    assert [outcome.changed for outcome in house.journal.written[3:]] == [dict.fromkeys("abc")]
    assert house.server._patience() is None


def test_callers_are_forgotten_when_their_deadline_has_passed(house):
    client = house.client()
    client.ask(Increment("a"), caller=ANNA, seq=1, deadline=house.clock.seconds + 5)
    house.clock.seconds += 4
    house.turn()
    assert ANNA in house.state[3]
    house.clock.seconds += 3
    house.turns()
    assert house.state[3] == {}
    assert house.server._patience() is None


# ---------------------------------------------------------------- the end


def test_start_is_refused_with_a_sentence(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    home.ensure_key()
    with pytest.raises(Unsupported, match="a process of its own: `counter run` or `counter manager`"):
        CounterManager(ManagerOptions(home.path)).start()
    assert not home.socket_path.exists()


def test_it_is_a_base_manager_with_a_server_of_its_own(house):
    assert issubclass(CounterManager, BaseManager)
    assert isinstance(house.server, ManagerServer)
    assert isinstance(house.server, Server)
    assert house.server.address == str(house.home.socket_path)


def test_what_has_arrived_when_it_is_told_to_stop_is_answered(house):
    """Also what no turn has looked at yet, and what waits behind it on the same connection."""
    first, second, lister = house.client(), house.client(), house.client()
    for client in (first, second, first):
        client.say(Increment("a"))
    fill(house, 3 * SLICE)
    lister.say(List(sort="-value", limit=1))
    house.server.stop()
    house.server.serve_forever()
    assert sorted(value_of(reply) for reply in (first.reply(), first.reply(), second.reply())) == [1, 2, 3]
    assert lister.reply().only().counters[0].value == 3 * SLICE - 1


class SlowDisk:
    """Every commit of *house* takes *seconds*; `commits` has how many outcomes each of them had."""

    def __init__(self, house, seconds):
        self.house, self.seconds, self.commits = house, seconds, []
        house.server.append = self
        house.clock.step = 1e-5

    def __call__(self, outcomes):
        self.commits.append(len(outcomes))
        self.house.clock.seconds += self.seconds


@pytest.fixture
def durable_house(tmp_path, monkeypatch):
    house = House(tmp_path / "durable", monkeypatch, durability="always")
    yield house
    house.close()


@pytest.mark.parametrize(("kind", "commits"), [("durable_house", [2, 2]), ("house", [2, 1, 1])])
def test_before_a_sync_who_asked_lately_is_waited_for(kind, commits, request, monkeypatch):
    """Of two that asked together one asks again a moment later than the other."""
    house = request.getfixturevalue(kind)
    one, two, _silent = [house.client() for _ in range(3)]
    disk = SlowDisk(house, 0.1)
    for client in (one, two):
        client.say(Increment("x"))
    house.turn()
    assert [client.reply().only().value for client in (one, two)] == [1, 2]
    executed, late = Turn.execute, [two]

    def execute(turn, *args):
        while late:
            late.pop().say(Increment("x"))
        return executed(turn, *args)

    monkeypatch.setattr(Turn, "execute", execute)
    one.say(Increment("x"))
    house.turn()
    house.turn()
    assert [client.reply().only().value for client in (one, two)] == [3, 4]
    assert disk.commits == commits


@pytest.mark.parametrize(("seconds", "most"), [(0.1, GATHER_SECONDS), (0.0002, 0.0002)])
def test_who_does_not_ask_again_is_waited_for_no_longer_than_a_sync_takes(durable_house, seconds, most):
    house = durable_house
    one, two = house.client(), house.client()
    SlowDisk(house, seconds)
    for client in (one, two):
        client.say(Increment("x"))
    house.turn()
    took = []
    for _ in range(4):
        one.say(Increment("x"))
        before = house.clock.seconds
        house.turn()
        took.append(house.clock.seconds - before - seconds)
    waited = [each - min(took) for each in took]
    assert waited[:2] == [pytest.approx(most, abs=20 * house.clock.step)] * 2
    assert waited[2:] == [pytest.approx(0, abs=20 * house.clock.step)] * 2, "it is forgotten after two turns"


def test_a_stop_ends_the_wait(house):
    threading.Timer(0.05, house.server.stop).start()
    house.server.serve_forever()
    assert not house.home.socket_path.exists()
    assert house.server._connections.wake_file == -1


@pytest.mark.slow
def test_one_who_does_not_read_does_not_hold_up_the_end(house, monkeypatch):
    client = house.client()
    connection = next(iter(house.server._connections._door))
    house.server._connections.send(connection, b"x" * MAX_REPLY)
    house.clock.step = 0.1
    started = time.monotonic()
    house.server.stop()
    house.server.serve_forever()
    assert connection.closed
    assert time.monotonic() - started < 10
    client.sock.close()


def test_after_the_stop_nobody_is_let_in(house):
    house.server.stop()
    waiting = house.home.connect(time.monotonic() + 10)
    house.server.serve_forever()
    with contextlib.suppress(ConnectionResetError):
        assert waiting.recv(100) == b""
    waiting.close()
    with pytest.raises(StoreUnavailable, match="no manager is running"):
        Home(house.home.path).connect(time.monotonic() + 10)


# ---------------------------------------------------------------- a real manager


@contextlib.contextmanager
def start_command(home, *options):
    """`counter manager` in *home*; the block begins once it is ready."""
    with start_process([*COMMAND, "manager", "--home", home, *options]) as process:
        process.line("ready")
        yield process


def counts(home):
    """Whether a manager in *home* counts, asked by a client of its own."""
    with contextlib.closing(ManagerStore(home, 20.0)) as store:
        return store.execute(Request([Increment("alive")])).only().value >= 1


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_0_and_a_successor_starts_at_once(tmp_path, number):
    home = tmp_path / "home"
    with start_command(home) as first:
        assert counts(home)
        assert first.stop(number) == 0
        assert not Home(home).socket_path.exists()
        with start_command(home) as second:
            assert counts(home)
            assert second.stop(number) == 0
            assert first.stderr + second.stderr == ""


@pytest.mark.process
def test_a_signal_lets_it_answer_what_has_arrived(tmp_path):
    """It is stopped in between, so that all of it, signal and frames, is there when it goes on."""
    with start_manager(tmp_path / "home") as manager:
        clients = [manager.connect() for _ in range(20)]
        os.kill(manager.pid, signal.SIGSTOP)
        for client in clients:
            client.send_frame(encode_request(Request([Increment("a")])))
        os.kill(manager.pid, signal.SIGTERM)
        os.kill(manager.pid, signal.SIGCONT)
        values = [value_of(decode_reply(client.receive(), [Increment("a")])) for client in clients]
        assert sorted(values) == list(range(1, 21))
        assert manager.process.wait() == 0
        for client in clients:
            assert client.receive() is None
            client.close()


@pytest.mark.process
def test_it_ends_in_seconds_though_somebody_does_not_read(tmp_path):
    with start_manager(tmp_path / "home") as manager, manager.connect() as client:
        for first in range(0, 10_000, 1_000):
            client.request(*[Set(f"{at:0250}", at) for at in range(first, first + 1_000)])
        for _ in range(10):
            client.send_frame(encode_request(Request([List(limit=1_000)])))
        with manager.connect() as other:
            other.request(Info())
        started = time.monotonic()
        assert manager.stop() == 0
        assert time.monotonic() - started < 10


@pytest.mark.process
def test_a_second_manager_in_a_home_ends_with_exit_code_3_and_a_sentence(tmp_path):
    home = tmp_path / "home"
    with start_manager(home) as manager:
        with start_process([*COMMAND, "manager", "--home", home]) as second:
            assert second.wait() == 3
            assert second.stdout == ""
            assert f"a manager (pid {manager.pid}) already runs in {home}" in second.stderr
            assert "counter stop" in second.stderr
            assert "Traceback" not in second.stderr
        with pytest.raises(AlreadyRunning) as caught:
            serve(ManagerOptions(home), lambda: pytest.fail("it is not ready"))
        assert caught.value.pid == manager.pid
        assert counts(home)


@pytest.mark.process
def test_a_socket_left_behind_is_no_obstacle(tmp_path):
    home = tmp_path / "home"
    with start_manager(home) as manager:
        assert manager.process.stop(signal.SIGKILL) == -signal.SIGKILL
    assert Home(home).socket_path.exists()
    with start_manager(home) as manager:
        assert counts(home)
        assert manager.stop() == 0


@pytest.mark.process
def test_one_that_exits_late_leaves_its_successors_socket_alone(tmp_path):
    """The lock's file is removed, as by a cleaner of old files, so that both run for a while."""
    home = tmp_path / "home"
    with start_manager(home) as late:
        (home / "lock").unlink()
        with start_manager(home) as successor:
            assert late.stop() == 0
            assert Home(home).socket_path.exists()
            assert counts(home)
            assert successor.stop() == 0
    assert not Home(home).socket_path.exists()


@pytest.mark.process
def test_no_client_gets_a_thread_and_it_listens_on_its_unix_socket_alone(tmp_path):
    """No TCP: loopback is open to every user of the host."""
    with start_manager(tmp_path / "home") as manager:
        clients = [manager.connect() for _ in range(30)] + [manager.dial() for _ in range(30)]
        for client in clients[:30]:
            client.request(Increment("a"))
            client.send_frame(encode_request(Request([List(sort="-value")])))
        assert manager.threads == 2  # the loop's, and the journal's
        files = [str(file.readlink()) for file in Path(f"/proc/{manager.pid}/fd").iterdir()]
        ours = {file[8:-1] for file in files if file.startswith("socket:[")}
        unix = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
        assert len(ours) >= 61
        assert ours <= unix
        for client in clients:
            client.close()


@pytest.mark.process
def test_a_home_with_a_path_too_long_for_a_socket_works(tmp_path):
    home = tmp_path / ("long " * 20) / ("longer-" * 20) / "home"
    with start_command(home) as manager:
        assert counts(home)
        with start_process([*COMMAND, "manager", "--home", home]) as second:
            assert second.wait() == 3
        assert manager.stop() == 0
    assert not Home(home).socket_path.exists()


@pytest.mark.process
def test_when_full_creating_is_refused_with_507_and_nothing_is_evicted(tmp_path):
    home = tmp_path / "home"
    with start_command(home, "--max-counters", "3"), contextlib.closing(ManagerStore(home, 10.0)) as store:
        for name in "abc":
            store.execute(Request([Set(name, 7)])).only()
        for ops in ([Increment("d")], [Increment("a"), Increment("d")]):
            with pytest.raises(LimitExceeded, match="--max-counters") as caught:
                store.execute(Request(ops)).unwrap()
            assert caught.value.status == 507
        page = store.execute(Request([List()])).only().counters
        assert [(entry.name, entry.value) for entry in page] == [("a", 7), ("b", 7), ("c", 7)]
        assert store.execute(Request([Delete("b"), Increment("d")])).unwrap()


@pytest.mark.process
def test_what_comes_after_its_deadline_is_never_executed(tmp_path):
    """The manager stands still until the client has given up; then it finds the frame, and lets it lie."""
    with start_manager(tmp_path / "home") as manager, contextlib.closing(manager.store()) as store:
        store.execute(Request([Increment("a")])).only()
        os.kill(manager.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            store.execute(Request([Increment("a")]), 0.3)
        os.kill(manager.pid, signal.SIGCONT)
        assert store.execute(Request([Get("a")])).only().value == 1
        with manager.connect() as late:
            os.kill(manager.pid, signal.SIGSTOP)
            request = Request([Increment("a")], caller=ANNA, seq=1, deadline=time.monotonic() + 0.1)
            late.send_frame(encode_request(request))
            time.sleep(max(0.0, request.deadline - time.monotonic()))
            os.kill(manager.pid, signal.SIGCONT)
            assert decode_reply(late.receive(), request.ops).problem.code == "outcome-unknown"
        assert store.execute(Request([Increment("a")])).only().value == 2


@contextlib.contextmanager
def steady_increments(manager):
    """A client that increments all the time; the yielded list holds how long each answer took, in seconds."""
    took, stop, failures = [], threading.Event(), []

    def work():
        try:
            with manager.connect() as client:
                while not stop.is_set():
                    started = time.perf_counter()
                    client.request(Increment("steady"))
                    took.append(time.perf_counter() - started)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: len(took) > 20 or failures)
        yield took
        last = len(took)
        wait_until(lambda: len(took) > last + 20 or failures)
    finally:
        stop.set()
        thread.join(20)
    assert not failures


@pytest.mark.process
def test_how_long_a_batch_of_10000_ops_keeps_others_waiting(tmp_path):
    with start_manager(tmp_path / "home") as manager, manager.connect() as client:
        ops = [Increment(f"{at:04}") for at in range(10_000)]
        frames = encode_request(Request(ops))
        with steady_increments(manager) as took:
            for _ in range(3):
                calm = max(took)
                took.clear()
                client.ask(frames)
                last = len(took)
                wait_until(lambda last=last: len(took) > last + 5)
                print(
                    f"a batch of 10,000: others waited {max(took) * 1e3:.1f} ms, before {calm * 1e3:.1f} ms"
                )
                assert max(took) < 2


@pytest.mark.long
@pytest.mark.process
def test_a_million_counters_are_listed_by_value_and_by_time_without_holding_anybody_up(tmp_path):
    """The aim is 50 ms; what is asserted leaves room for a noisy machine, what was measured is printed."""
    number = 1_000_000
    with start_manager(tmp_path / "home", max_counters=number + 10) as manager, manager.connect() as client:
        for first in range(0, number, 5_000):
            client.request(*[Set(f"{at:07}", at * 7_919 % number) for at in range(first, first + 5_000)])
        print(f"{number} counters are {manager.memory / 1e6:.0f} MB")
        with manager.connect() as lister, steady_increments(manager) as took:
            for sort in ("name", "-value", "-updated"):
                took.clear()
                started = time.monotonic()
                page = lister.request(List(sort=sort, limit=1_000)).only()
                spent, gap = time.monotonic() - started, max(took, default=0.0)
                assert len(page.counters) == 1_000
                if sort == "-value":
                    assert [e.value for e in page.counters] == list(range(number - 1, number - 1_001, -1))
                print(f"List by {sort}: {spent:.2f} s; increments meanwhile took {gap * 1000:.1f} ms at most")
                assert gap < 0.25
            took.clear()
            assert lister.request(Info()).only().counters == number + 1
            assert lister.request(List(prefix="0999", limit=1_000)).only().counters[0].name == "0999000"
            assert max(took, default=0.0) < 0.25
