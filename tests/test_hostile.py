"""Nobody gets in, nothing runs: a manager and peers that mean ill.

What holds the right key may say anything: it is refused, nothing it names is imported or called, nothing of
ours is told, and the manager stays as it was. What holds no key, or may not hold one, does not get that far.
"""

import contextlib
import grp
import json
import os
import pickle
import random
import stat
import struct
import subprocess
import tempfile
import time
from multiprocessing import AuthenticationError
from multiprocessing.managers import BaseManager
from pathlib import Path

import msgspec
import pytest
from hostile_frames import (
    BOMBS,
    CALLER,
    CALLS,
    METHODS,
    OPCODES,
    READABLE,
    argument_cases,
    as_argument,
    noise,
    opcode_cases,
    pickled_call,
    programs,
    raw_cases,
    whole,
    wrong_values,
)
from manager_process import PATIENCE, RawClient, start_manager
from support import COMMAND, clean_environ, wait_until

import counter
from counter import Get, Increment, Info, List, StoreUnavailable
from counter.door import HANDSHAKE_SECONDS
from counter.fields import MAX_OPS
from counter.handshake import HandshakeFailed
from counter.ops import Hello, Report, Request
from counter.stores.manager import ManagerStore
from counter.wire import encode_request, frame

pytestmark = pytest.mark.process

MOST_GROWTH = 16 * 1024 * 1024
"""What all of this may cost a manager at its peak, in bytes."""
SLOWEST = 2.0
"""Seconds that one refusal may take; the loop is held up for milliseconds, the rest is a slow machine's."""
LONGEST = 2048
"""Bytes of a refusal; so none is as large as what it refuses."""
OURS = [
    b"Traceback",
    b'File "',
    b".py",
    b"lambda",
    b" object at 0x",
    os.fsencode(Path(counter.__file__).parent),
]
"""What no answer ever holds."""

PROTOCOLS = range(6)


class Victim:
    """The manager under attack, and how it was before."""

    def __init__(self, manager, marker):
        self.manager = manager
        self.marker = marker
        self.slowest = 0.0
        self._honest_calls = 0
        self._logged = 0
        self._check_served()
        self._descriptors = manager.descriptors
        self._threads = manager.threads
        self._peak = manager.peak_memory
        self._secrets = [*OURS, os.fsencode(manager.home), manager.authkey]

    def connect(self, stock=False):
        """A connection with the right key; *stock*: where methods may be called."""
        client = self.manager.connect()
        if stock:
            answer = client.ask(pickled_call("accept_connection", "thread", ident=None))
            assert pickle.loads(answer) == ("#RETURN", None)
        return client

    def attack(self, payloads, stock=False):
        """Send each as a frame, and return what each was answered; None if that was a closed connection."""
        answers = []
        client = self.connect(stock)
        for payload in payloads:
            begun = time.monotonic()
            answer = client.ask(payload)
            if answer is None:  # perhaps the one before was the last that was taken here
                client.close()
                client = self.connect(stock)
                begun = time.monotonic()
                answer = client.ask(payload)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.check_tells_nothing(answer or b"")
            answers.append(answer)
        client.close()
        return answers

    def refuse(self, cases, stock=False):
        """Send each of *cases*, pairs of a name and a payload, and see that it is answered with an error."""
        names, payloads = zip(*cases, strict=True)
        for name, answer in zip(names, self.attack(payloads, stock), strict=True):
            assert answer is not None, name
            assert is_refusal(answer), (name, answer[:300])
            assert len(answer) <= LONGEST, (name, len(answer))

    def check_tells_nothing(self, answer):
        told = [secret for secret in self._secrets if secret in answer]
        assert not told, (told, answer[:2000])

    def check_unharmed(self, unchanged=True):
        """Nothing ran, nothing is left over, nobody is refused; *unchanged*: and no counter was touched."""
        manager = self.manager
        assert not self.marker.exists()
        self._check_served(unchanged)
        wait_until(lambda: manager.descriptors <= self._descriptors)
        assert manager.threads == self._threads
        logged, self._logged = manager.stderr[self._logged :], len(manager.stderr)
        assert not logged, "whatever a peer says is foreseen"
        grown = manager.peak_memory - self._peak
        print(f"peak memory grew by {grown / 2**20:.1f} MiB, slowest answer {self.slowest * 1000:.1f} ms")
        assert grown <= MOST_GROWTH
        assert self.slowest < SLOWEST

    def _check_served(self, unchanged=True):
        self._honest_calls += 1
        with self.connect() as client:
            assert client.request(Increment("honest")).only().value == self._honest_calls
            names = [entry.name for entry in client.request(List(limit=1000)).only().counters]
            assert not unchanged or names == ["honest"], "a refused request changes nothing"
        with self.connect(stock=True) as client:
            answer = client.ask(pickled_call("get", "honest"))
            assert pickle.loads(answer) == ("#RETURN", self._honest_calls)


@pytest.fixture(scope="module")
def shared_victim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with start_manager(folder / "home") as manager:
        yield Victim(manager, folder / "marker")


@pytest.fixture
def victim(shared_victim):
    """One manager for all attacks, so that what they cost adds up; looked at after each of them."""
    yield shared_victim
    shared_victim.check_unharmed()


def is_refusal(answer):
    """Whether *answer* raises a builtin of a stock client, or is a problem of our wire."""
    if answer[:1] == pickle.PROTO:
        kind, error = pickle.loads(answer)
        return kind == "#ERROR" and type(error).__module__ == "builtins" and "\n" not in str(error)
    results, problem, _replayed = msgspec.msgpack.decode(answer)
    return not results and problem[0] in ("invalid-request", "outcome-unknown", "unsupported")


def test_the_programs_do_run_where_a_pickle_is_trusted(tmp_path):
    marker = tmp_path / "marker"
    for name, body in programs(f"touch {marker}").items():
        pickle.loads(whole(body))
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_that_a_pickle_names_is_imported_or_called(victim, protocol):
    bodies = programs(f"touch {victim.marker}")
    victim.refuse([(name, whole(body, protocol)) for name, body in bodies.items()])
    for stock in (False, True):
        victim.refuse([(name, as_argument(body, protocol)) for name, body in bodies.items()], stock)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_opcode_is_read_but_those_of_plain_values(victim, protocol):
    assert {"REDUCE", "BUILD", "EXT4", "BINPERSID", "READONLY_BUFFER", "DUP"} <= {
        each.name for each in OPCODES
    }
    victim.refuse(opcode_cases(protocol), stock=True)


@pytest.mark.parametrize("stock", [False, True], ids=["before the object", "at the object"])
def test_bombs_do_not_go_off(victim, stock):
    victim.refuse(BOMBS.items(), stock)
    answer = victim.attack([as_argument(b"N")], stock)[0]
    assert is_refusal(answer) != stock, "without a bomb in it, it would have been answered"


def test_what_is_no_call_is_refused(victim):
    for protocol in READABLE:
        cases = [(call, pickle.dumps(call, protocol=protocol)) for call in CALLS]
        victim.refuse(cases)
        victim.refuse(cases, stock=True)


def test_arguments_that_do_not_fit_are_refused(victim):
    victim.refuse(argument_cases(), stock=True)


def test_methods_that_are_not_offered_are_refused(victim):
    for ident in ("counters", "0", "7f00deadbeef", "", "Counters", "counters\0", "x" * 60_000):
        known = () if ident == "counters" else ("get", "increment", "__len__")
        for args in ((), ("a",)):
            victim.refuse([(m, pickled_call(m, *args, ident=ident)) for m in (*METHODS, *known)], stock=True)
    for ident in (None, "counters", "0"):
        for args in ((), ("counters",), ("a", 1)):
            victim.refuse([(m, pickled_call(m, *args, ident=ident)) for m in METHODS])
    for args in ((), ("Counter",), ("list", [1]), (["counters"],), (None,)):
        victim.refuse([(args, pickled_call("create", *args, ident=None))])


def test_more_than_is_allowed_at_once_is_refused(victim):
    many = [f"{number}" for number in range(MAX_OPS + 1)]
    too_many = {"as arguments": pickled_call("increment", *["a"] * MAX_OPS)}
    too_many["as names"] = pickled_call("update", many[:6000], **dict.fromkeys(many[6000:], 1))
    op = msgspec.msgpack.encode({"op": "increment", "name": "a"})
    too_many["as ops"] = (
        b"\x81" + msgspec.msgpack.encode("ops") + struct.pack(">BH", 0xDC, MAX_OPS + 1) + op * (MAX_OPS + 1)
    )
    victim.refuse(too_many.items(), stock=True)


def test_what_is_no_request_is_refused(victim):
    victim.refuse(raw_cases())


def test_a_request_with_one_thing_wrong_is_refused(victim):
    victim.refuse(wrong_values())


def test_a_refusal_is_short_however_long_the_frame_may_be(tmp_path):
    with start_manager(tmp_path / "home", max_frame=8 * 1024 * 1024) as manager, manager.connect() as client:
        for op in ({"op": "x" * 5_000_000}, {"op": "get", "x" * 5_000_000: 1}):
            answer = client.ask(msgspec.msgpack.encode({"ops": [op]}))
            assert is_refusal(answer) and len(answer) <= LONGEST
        assert manager.stderr == ""


def test_a_sequence_that_goes_back_is_refused(victim):
    sign = {"caller": CALLER, "deadline": time.monotonic() + 60}
    with victim.connect() as client:
        for seq in (1, -1, -(2**63)):
            reply = client.request(Increment("honest", 0), seq=seq, **sign)
            assert (reply.problem is None) == (seq == 1), seq


def test_figures_that_grow_too_large_hide_nobody_elses(victim):
    hello = Hello("worker", 2**40, "x" * 64)
    with victim.connect() as liar:
        for op in (hello, *[Report(number, 2**63 - 1) for number in (1, 2, 3)]):
            liar.request(op).unwrap()
        with victim.connect() as client:
            workers = client.request(Info()).only().workers
    assert [worker.requests for worker in workers] == [2**63 - 1]


# Lengths, cuts and noise


TOO_LONG = {
    "-1 and 64 bits": struct.pack("!iQ", -1, 2**62),
    "-1 and a small one": struct.pack("!iQ", -1, 10) + b"x" * 10,
    "-2": struct.pack("!i", -2),
    "-2^31": struct.pack("!i", -(2**31)),
    "2^31 - 1": struct.pack("!i", 2**31 - 1),
}


def test_a_length_over_the_cap_closes_the_connection_before_anything_is_read(victim):
    caps = {"stranger": (victim.manager.dial, 256), "friend": (victim.connect, 1024 * 1024)}
    for who, (connect, cap) in caps.items():
        for name, header in {**TOO_LONG, "cap + 1": struct.pack("!I", cap + 1)}.items():
            with connect() as client:
                if who == "stranger":
                    client.receive()  # the challenge
                client.sock.settimeout(HANDSHAKE_SECONDS / 2)  # it is not the deadline that closes it
                client.send(header)
                assert client.receive() is None, (who, name)


def test_a_frame_as_long_as_the_cap_is_answered(victim):
    with victim.connect() as client:
        assert is_refusal(client.ask(b"\xc1" * 1024 * 1024))
        assert client.ask(b"\xc1" * (1024 * 1024 + 1)) is None


def test_a_stranger_gets_nothing_but_the_challenge(victim):
    says = {
        "a call": pickled_call("increment", "a"),
        "a program": whole(programs(f"touch {victim.marker}")["GLOBAL, REDUCE"]),
        "a request": encode_request(Request([Increment("a")])),
        "nothing": b"",
        "welcome": b"#WELCOME#",
        "a challenge": b"#CHALLENGE#" + b"x" * 20,
        "no digest": b"x" * 16,
        "a digest of another kind": b"{md4}" + b"x" * 16,
        "half a digest": b"{sha256}" + b"x" * 16,
        "256 bytes": b"x" * 256,
    }
    for name, payload in says.items():
        with victim.manager.dial() as stranger:
            assert stranger.receive().startswith(b"#CHALLENGE#")
            stranger.send(frame(payload) + frame(pickled_call("increment", "a")))
            assert stranger.receive() == b"#FAILURE#", name
            assert stranger.receive() is None, name


def test_noise_is_survived(tmp_path):
    """On a manager of its own: some of the noise is an honest call by chance, and changes what is counted."""
    dice = random.Random("noise")
    with start_manager(tmp_path / "home") as manager:
        victim = Victim(manager, tmp_path / "marker")
        victim.attack(noise(dice, 2000), stock=True)
        victim.attack(noise(dice, 1000))
        for connect in (manager.dial, manager.connect):
            for _ in range(100):
                with connect() as client:  # not even frames
                    client.send(dice.randbytes(dice.randrange(1, 300)))
        victim.check_unharmed(unchanged=False)


HONEST = [
    pickled_call("accept_connection", "thread", ident=None),
    pickled_call("increment", "honest", 0),
    encode_request(Request([Increment("honest", 0)])),
]


@pytest.mark.parametrize("frame_index", [0, 1, 2], ids=["server call", "stock call", "own request"])
def test_a_frame_is_the_same_wherever_it_is_cut(victim, frame_index):
    payload = HONEST[frame_index]
    data = frame(payload)
    with victim.connect(stock=True) as client:
        whole_answer = client.ask(payload)
    with victim.connect(stock=True) as watch:
        for end in range(1, len(data)):
            with victim.connect(stock=True) as client:
                client.send(data[:end])
                watch.ask(HONEST[1])  # by now the manager has read the first piece
                client.send(data[end:])
                answer = client.receive()
                assert len(answer) == len(whole_answer), end
                assert not is_refusal(answer), end


def test_half_a_frame_does_nothing(victim):
    for payload in (pickled_call("increment", "a"), encode_request(Request([Increment("a")]))):
        data = frame(payload)
        for end in range(len(data)):
            with victim.connect(stock=True) as client:
                client.send(data[:end])


def test_a_conversation_in_single_bytes_is_served(victim):
    with victim.manager.dial() as client:
        client.send = lambda data: [client.sock.sendall(data[at : at + 1]) for at in range(len(data))]
        client.authenticate(victim.manager.authkey)
        said = [HONEST[0], *HONEST[1:] * 20]
        client.send(b"".join(map(frame, said)))  # all at once, answered in order
        answers = [client.receive() for _ in said]
    assert pickle.loads(answers[0]) == ("#RETURN", None)
    assert len({pickle.loads(answer) for answer in answers[1::2]}) == 1
    assert [msgspec.msgpack.decode(answer)[1] for answer in answers[2::2]] == [None] * 20


# Those who may not come in


DAMAGES = {
    "a home open to others": lambda home: home.chmod(0o755),
    "a home open to its group": lambda home: home.chmod(0o750),
    "a key open to others": lambda home: (home / "authkey").chmod(0o644),
    "a key writable by its group": lambda home: (home / "authkey").chmod(0o620),
    "an empty key": lambda home: (home / "authkey").write_bytes(b""),
    "a short key": lambda home: (home / "authkey").write_bytes(b"k" * 31),
    "a long key": lambda home: (home / "authkey").write_bytes(b"k" * 33),
    "no key": lambda home: (home / "authkey").unlink(),
}
KEY = b"0123456789abcdefghijklmnopqrstuv"


def make_home(path):
    path.mkdir(0o700)
    (path / "authkey").touch(0o600)
    (path / "authkey").write_bytes(KEY)
    return path


def test_a_manager_refuses_an_unsafe_home_in_one_sentence(tmp_path):
    started = {}
    for number, (name, damage) in enumerate(DAMAGES.items()):
        if name != "no key":  # it makes one
            home = make_home(tmp_path / f"home{number}")
            damage(home)
            args = [*COMMAND, "manager", "--home", home]
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            started[name] = subprocess.Popen(args, text=True, env=clean_environ(), **streams)
    for name, process in started.items():
        stdout, stderr = process.communicate(timeout=PATIENCE)
        print(name, "->", stderr.strip())
        assert (process.returncode, stdout) == (3, ""), (name, stderr)
        check_sentence(stderr, tmp_path)


def check_sentence(said, home):
    assert str(home) in said, "it tells where"
    assert said.count("\n") <= 1 and "Traceback" not in said
    assert len(said) < 200 + 2 * len(str(home))
    assert KEY.decode() not in said and "kkkk" not in said


@pytest.fixture
def small_manager(tmp_path):
    with start_manager(make_home(tmp_path / "home")) as manager:
        yield manager


@pytest.mark.parametrize("damage", [name for name in DAMAGES if "key" in name])
def test_a_client_refuses_an_unsafe_key_and_the_manager_keeps_the_one_it_has(small_manager, damage):
    DAMAGES[damage](small_manager.home)
    store = small_manager.store(timeout=5)
    with pytest.raises(StoreUnavailable) as error:
        store.execute(Request([Get("a")]))
    print(error.value)
    check_sentence(str(error.value), small_manager.home)
    with small_manager.dial().authenticate(KEY) as client:
        assert client.request(Increment("a")).only().value == 1


def test_a_wrong_key_is_refused_in_one_sentence(small_manager, tmp_path):
    other = make_home(tmp_path / "other")
    (other / "authkey").write_bytes(bytes(reversed(KEY)))
    os.link(small_manager.home / "manager.sock", other / "manager.sock")
    with contextlib.closing(ManagerStore(other, 5.0)) as store, pytest.raises(StoreUnavailable) as error:
        store.execute(Request([Increment("a")]))
    print(error.value)
    check_sentence(str(error.value), other)
    for key in (b"x", KEY[:31], KEY + b"x", bytes(32), KEY.swapcase()):
        with small_manager.dial() as client, pytest.raises(HandshakeFailed, match="rejected the key"):
            client.authenticate(key)
    address = str(small_manager.home / "manager.sock")
    for key in (b"", b"x", bytes(32)):
        with pytest.raises(AuthenticationError):
            BaseManager(address, authkey=key).connect()
    with small_manager.connect() as client:
        assert client.request(Increment("a")).only().value == 1


def test_without_stock_clients_they_are_told_so_and_ours_work(tmp_path):
    with start_manager(tmp_path / "home", stock_clients=False) as manager:
        victim = BaseManager(str(manager.home / "manager.sock"), authkey=manager.authkey)
        with pytest.raises(NotImplementedError, match="serves no stock clients") as error:
            victim.connect()
        assert "\n" not in str(error.value)
        with manager.connect() as client:
            for method in ("create", "accept_connection", "dummy"):
                assert is_refusal(client.ask(pickled_call(method, "counters", ident=None)))
            assert is_refusal(client.ask(pickled_call("increment", "a")))
            assert client.request(Increment("a")).only().value == 1
        assert manager.stderr == ""


# Other users of the host


NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_user(groups, question):
    """What *question* returns in a child of this process that is nobody, in *groups*; or its error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = question()
        except BaseException as error:  # noqa: BLE001  nothing of pytest may go on in the child
            answer = f"{type(error).__name__}: {error}"
        with os.fdopen(writer, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = json.load(file)
    os.waitpid(pid, 0)
    return answer


@pytest.fixture
def public_folder():
    """A folder that others can pass through, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)
        yield Path(name)


@as_root
def test_another_user_is_not_even_challenged(public_folder):
    """Not with the key, and not where every mode was opened by mistake."""
    home = public_folder / "home"
    with start_manager(home) as manager:
        key = manager.authkey

        def say_something():
            with RawClient(home) as client:
                challenge = client.receive()
                return challenge and client.authenticate(key) and "came in"

        assert "permission denied" in as_user([], say_something)
        home.chmod(0o755)
        (home / "manager.sock").chmod(0o666)
        assert as_user([], say_something) is None
        with manager.connect() as client:
            assert client.request(Increment("a")).only().value == 1


def count_one(home):
    with contextlib.closing(ManagerStore(home, 10.0)) as store:
        return store.execute(Request([Increment("a")])).only().value


@as_root
def test_a_group_that_is_let_in_can_count_and_nobody_else(public_folder):
    home = public_folder / "home"
    group = next(group for group in grp.getgrall() if group.gr_gid not in (0, NOBODY))
    with start_manager(home, group=group.gr_name):
        for path, mode in ((home, 0o750), (home / "manager.sock", 0o660), (home / "authkey", 0o640)):
            found = path.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, 0, group.gr_gid), path
        assert stat.S_IMODE((home / "lock").stat().st_mode) == 0o600
        assert as_user([group.gr_gid], lambda: count_one(home)) == 1
        outsider = as_user([], lambda: count_one(home))
        assert outsider.startswith("StoreUnavailable") and "permission denied" in outsider
        assert count_one(home) == 2
