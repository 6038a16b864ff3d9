"""Both ends prove the key to each other, against Python's own multiprocessing and against ourselves."""

import hashlib
import hmac
import pickle
import sys
from collections import deque
from multiprocessing import AuthenticationError
from multiprocessing import connection as stock
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import others_ran

from counter import handshake
from counter.handshake import MAX_HANDSHAKE_FRAME, ClientHandshake, HandshakeFailed, ServerHandshake

KEY = b"k" * 32
OLD_KEY = b"o" * 32
WRONG_KEY = b"w" * 32
CHALLENGE, WELCOME, FAILURE = b"#CHALLENGE#", b"#WELCOME#", b"#FAILURE#"
STOCK_SPEAKS_SHA256 = sys.version_info >= (3, 12)


def mac(key, message, digest="sha256"):
    return hmac.new(key, message, digest).digest()


def message_of(challenge):
    assert challenge.startswith(CHALLENGE)
    return challenge.removeprefix(CHALLENGE)


class Wire:
    """A Connection whose other end is one of our state machines; the two only ever take turns."""

    def __init__(self, machine, opening=()):
        self.machine = machine
        self.inbox = deque(opening)
        self.failure = None

    def send_bytes(self, frame):
        try:
            self.inbox.extend(self.machine.receive(frame))
        except HandshakeFailed as failure:
            self.failure = failure
            if failure.farewell:
                self.inbox.append(failure.farewell)

    def recv_bytes(self, maxlength):
        if not self.inbox:
            raise EOFError
        frame = self.inbox.popleft()
        assert len(frame) <= maxlength
        return frame


def stock_client(server, key):
    """What multiprocessing.connection.Client does once it is connected."""
    wire = Wire(server, [server.start()])
    try:
        stock.answer_challenge(wire, key)
        stock.deliver_challenge(wire, key)
    except EOFError:
        assert wire.failure
    return wire


class Md5Client:
    """A client of Python 3.9 to 3.11, told from their source: nothing but bare HMAC-MD5."""

    nonce = b"n" * 20

    def __init__(self, key):
        self.key = key

    def proof(self, message):
        return mac(self.key, message, "md5")

    def accepts(self, answer):
        return answer == self.proof(self.nonce)


class Sha256Client(Md5Client):
    """A client of Python 3.12 or later."""

    digest = "sha256"

    @property
    def nonce(self):
        return b"{%s}" % self.digest.encode() + b"n" * 40

    def proof(self, message):
        return b"{sha256}" + mac(self.key, message)

    def accepts(self, answer):
        return answer == b"{%s}" % self.digest.encode() + mac(self.key, self.nonce, self.digest)


def run(server, client):
    """One conversation in which everybody behaves; True if both ends believe each other."""
    assert server.receive(client.proof(message_of(server.start()))) == [WELCOME]
    assert not server.done
    (answer,) = server.receive(CHALLENGE + client.nonce)
    assert not server.done
    assert server.receive(WELCOME) == []
    return server.done and client.accepts(answer)


def failure_of(machine, frame):
    with pytest.raises(HandshakeFailed) as caught:
        machine.receive(frame)
    assert not machine.done
    return caught.value


# The real multiprocessing


def test_the_stock_client_of_this_python_gets_in():
    server = ServerHandshake([KEY])
    wire = stock_client(server, KEY)
    assert server.done
    assert not wire.inbox


def test_the_stock_client_with_another_key_is_told_so():
    """It raises AuthenticationError, as with a stock server, not EOFError."""
    server = ServerHandshake([KEY])
    with pytest.raises(AuthenticationError, match="rejected"):
        stock_client(server, WRONG_KEY)
    assert not server.done


def test_the_stock_client_with_an_empty_key_is_refused():
    server = ServerHandshake([KEY])
    with pytest.raises(AuthenticationError):
        stock_client(server, b"")
    assert not server.done


def test_the_stock_client_notices_a_server_without_its_key(monkeypatch):
    server = ServerHandshake([KEY])
    monkeypatch.setattr(handshake, "_answer", lambda key, challenge: bytes(16))
    with pytest.raises(AuthenticationError):
        stock_client(server, KEY)
    assert not server.done


@pytest.mark.skipif(not STOCK_SPEAKS_SHA256, reason="this Python's multiprocessing speaks only MD5")
def test_our_client_gets_into_a_stock_server_that_speaks_sha256():
    client = ClientHandshake(KEY)
    wire = Wire(client)
    stock.deliver_challenge(wire, KEY)
    stock.answer_challenge(wire, KEY)
    assert client.done


@pytest.mark.skipif(STOCK_SPEAKS_SHA256, reason="this Python's multiprocessing speaks sha256")
def test_our_client_tells_an_md5_server_that_it_is_no_manager():
    wire = Wire(ClientHandshake(KEY))
    with pytest.raises(EOFError):
        stock.deliver_challenge(wire, KEY)
    assert "sha256" in str(wire.failure)


def test_our_client_believes_no_stock_server_with_another_key():
    wire = Wire(ClientHandshake(KEY))
    with pytest.raises(AuthenticationError if STOCK_SPEAKS_SHA256 else EOFError):
        stock.deliver_challenge(wire, WRONG_KEY)
    assert not wire.machine.done


# Every client by its protocol, whatever Python runs the tests


@pytest.mark.parametrize("client", [Md5Client, Sha256Client])
def test_clients_of_every_python_get_in(client):
    assert run(ServerHandshake([KEY]), client(KEY))


@pytest.mark.parametrize("digest", ["md5", "sha256", "sha384", "sha3_256", "sha3_384"])
def test_the_server_answers_with_the_digest_the_client_names(digest):
    client = Sha256Client(KEY)
    client.digest = digest
    assert run(ServerHandshake([KEY]), client)


RECORDED = {
    "challenge": (
        "234348414c4c454e4745237b7368613235367d000102030405060708090a0b0c"
        "0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
    ),
    "proof": ("7b7368613235367dcabce811bfb5988538d1df18db69acedd4767795ec6110f532c895b74a92231f"),
}


def test_the_bytes_are_those_of_python_3_13(monkeypatch):
    """A recorded conversation of 3.13 with itself, its random bytes fixed to 0, 1, 2 and so on."""
    monkeypatch.setattr(handshake.secrets, "token_bytes", lambda size: bytes(range(size)))
    server = ServerHandshake([b"a key of the test"])
    assert server.start() == bytes.fromhex(RECORDED["challenge"])
    assert server.receive(bytes.fromhex(RECORDED["proof"])) == [WELCOME]
    assert server.receive(bytes.fromhex(RECORDED["challenge"])) == [bytes.fromhex(RECORDED["proof"])]
    client = ClientHandshake(b"a key of the test")
    assert client.receive(bytes.fromhex(RECORDED["challenge"])) == [bytes.fromhex(RECORDED["proof"])]


@pytest.mark.parametrize("client", [Md5Client, Sha256Client])
def test_the_previous_key_still_opens_and_answers(client):
    """After a rotation a client of either key gets in, and is answered with the key that it holds."""
    assert run(ServerHandshake([KEY, OLD_KEY]), client(KEY))
    assert run(ServerHandshake([KEY, OLD_KEY]), client(OLD_KEY))
    with pytest.raises(HandshakeFailed):
        run(ServerHandshake([KEY, OLD_KEY]), client(WRONG_KEY))
    with pytest.raises(HandshakeFailed):
        run(ServerHandshake([KEY]), client(OLD_KEY))


def test_a_key_is_never_empty_or_missing():
    for keys in ([], [b""], [KEY, b""]):
        with pytest.raises(ValueError, match="key"):
            ServerHandshake(keys)
    with pytest.raises(ValueError, match="key"):
        ClientHandshake(b"")


# Ourselves


def converse(server, client):
    """Both our ends, until nothing is left to say; the first failure ends it."""
    to_client, to_server = deque([server.start()]), deque()
    while to_client or to_server:
        if to_client:
            to_server.extend(client.receive(to_client.popleft()))
        if to_server:
            to_client.extend(server.receive(to_server.popleft()))


def test_our_client_gets_into_our_server():
    server, client = ServerHandshake([KEY]), ClientHandshake(KEY)
    converse(server, client)
    assert server.done
    assert client.done


def test_our_client_gets_in_with_the_previous_key():
    server, client = ServerHandshake([KEY, OLD_KEY]), ClientHandshake(OLD_KEY)
    converse(server, client)
    assert server.done
    assert client.done


def test_our_client_with_another_key_learns_that_it_differs():
    server, client = ServerHandshake([KEY]), ClientHandshake(WRONG_KEY)
    (proof,) = client.receive(server.start())
    failure = failure_of(server, proof)
    assert failure.farewell == FAILURE
    assert "differs" in str(failure_of(client, failure.farewell))


def test_our_client_believes_no_server_that_lets_everyone_in():
    client = ClientHandshake(KEY)
    server = ServerHandshake([WRONG_KEY])
    client.receive(server.start())
    (challenge,) = client.receive(WELCOME)
    failure = failure_of(client, b"{sha256}" + mac(WRONG_KEY, message_of(challenge)))
    assert failure.farewell == FAILURE
    assert "prove" in str(failure)


def test_our_client_takes_no_weaker_proof():
    """Not even a right one."""
    client = ClientHandshake(KEY)
    client.receive(ServerHandshake([KEY]).start())
    (challenge,) = client.receive(WELCOME)
    assert failure_of(client, mac(KEY, message_of(challenge), "md5")).farewell == FAILURE


def test_our_client_answers_no_challenge_but_sha256():
    for message in (
        b"n" * 20,
        b"n" * 48,
        b"{md5}" + b"n" * 40,
        b"{sha384}" + b"n" * 40,
        b"{sha256}",
        b"{sha256}short",
    ):
        failure_of(ClientHandshake(KEY), CHALLENGE + message)


def test_our_client_trusts_only_a_welcome():
    for verdict in (b"", b"#WELCOME", b"#WELCOME#x", CHALLENGE, ServerHandshake([KEY]).start()):
        client = ClientHandshake(KEY)
        client.receive(ServerHandshake([KEY]).start())
        assert "no manager" in str(failure_of(client, verdict))


# Peers that cheat


def server_before(step):
    """A server at one of its three steps, all before it was good."""
    server = ServerHandshake([KEY])
    if step != "proof":
        server.receive(Sha256Client(KEY).proof(message_of(server.start())))
    if step == "verdict":
        server.receive(CHALLENGE + b"n" * 20)
    return server


def client_before(step):
    client = ClientHandshake(KEY)
    if step != "challenge":
        client.receive(ServerHandshake([KEY]).start())
    if step == "proof":
        client.receive(WELCOME)
    return client


MACHINES = {f"server, {step}": (server_before, step) for step in ("proof", "challenge", "verdict")}
MACHINES |= {f"client, {step}": (client_before, step) for step in ("challenge", "verdict", "proof")}
on_every_step = pytest.mark.parametrize(("before", "step"), MACHINES.values(), ids=MACHINES)


def test_the_server_answers_nobody_who_has_proved_nothing():
    """Its challenge sent back to it, as a challenge or as a proof, earns no digest: only the end."""
    for reflect in (
        lambda frame: frame,
        message_of,
        lambda frame: frame[:20],
        lambda frame: CHALLENGE + b"n" * 20,
    ):
        server = ServerHandshake([KEY])
        failure = failure_of(server, reflect(server.start()))
        assert failure.farewell == FAILURE


def test_a_proof_is_good_for_one_connection():
    client = Sha256Client(KEY)
    proof = client.proof(message_of(ServerHandshake([KEY]).start()))
    assert failure_of(ServerHandshake([KEY]), proof).farewell == FAILURE


def test_our_client_is_not_fooled_by_its_own_words():
    """A server without the key can only send back what it was sent."""
    client = ClientHandshake(KEY)
    (proof,) = client.receive(ServerHandshake([WRONG_KEY]).start())
    (challenge,) = client.receive(WELCOME)
    for frame in (proof, challenge, message_of(challenge)):
        again = ClientHandshake(KEY)
        again.receive(ServerHandshake([WRONG_KEY]).start())
        again.receive(WELCOME)
        assert failure_of(again, frame).farewell == FAILURE
    failure_of(client, proof)


def test_the_digest_named_must_be_the_digest_used():
    for digest in ("md5", "sha384", "sha3_256"):
        server = ServerHandshake([KEY])
        proof = b"{sha256}" + mac(KEY, message_of(server.start()), digest)
        assert failure_of(server, proof).farewell == FAILURE


@pytest.mark.parametrize("size", range(34))
def test_part_of_a_proof_is_no_proof(size):
    server = ServerHandshake([KEY])
    message = message_of(server.start())
    whole = mac(KEY, message)
    cut = (whole + b"\x00\x00")[:size]
    if cut != whole:
        assert failure_of(server, b"{sha256}" + cut).farewell == FAILURE
    server = ServerHandshake([KEY])
    whole = mac(KEY, message_of(server.start()), "md5")
    cut = (whole + b"\x00" * 20)[:size]
    if cut != whole:
        assert failure_of(server, cut).farewell == FAILURE


def test_the_server_answers_no_odd_challenge():
    for challenge in (
        b"",
        b"n" * 20,
        CHALLENGE,
        CHALLENGE + b"n" * 19,
        CHALLENGE + b"n" * 21,
        CHALLENGE + b"{sha1}" + b"n" * 40,
    ):
        failure = failure_of(server_before("challenge"), challenge)
        assert failure.farewell is None
    failure_of(server_before("challenge"), CHALLENGE + b"sha256}" + b"n" * 40)


def test_a_client_that_rejects_the_server_is_not_let_in():
    for verdict in (FAILURE, b"", b"#WELCOME", WELCOME + b"x"):
        assert "rejected" in str(failure_of(server_before("verdict"), verdict))


@on_every_step
def test_long_frames_are_refused(before, step):
    assert "256" in str(failure_of(before(step), b"x" * (MAX_HANDSHAKE_FRAME + 1)))


@on_every_step
def test_after_a_failure_there_is_no_second_try(before, step):
    """Not even for a frame that would have been right."""
    for first in (b"garbage", b"x" * 1_000):
        machine = before(step)
        failure_of(machine, first)
        for frame in (WELCOME, CHALLENGE + b"{sha256}" + b"n" * 40, b"garbage"):
            assert "over" in str(failure_of(machine, frame))


def test_there_is_nothing_after_the_end():
    server, client = ServerHandshake([KEY]), ClientHandshake(KEY)
    converse(server, client)
    for machine in (server, client):
        with pytest.raises(HandshakeFailed, match="over"):
            machine.receive(WELCOME)


@on_every_step
@given(
    frame=st.binary(max_size=300)
    | st.binary(max_size=60).map(lambda tail: CHALLENGE + b"{sha256}"[: len(tail)] + tail)
)
@settings(max_examples=30, deadline=None)
def test_garbage_never_gets_anybody_in(before, step, frame):
    """Any frame is taken or ends in HandshakeFailed; nothing else escapes, and nobody is in by chance."""
    assume(frame != WELCOME)
    machine = before(step)
    try:
        machine.receive(frame)
    except HandshakeFailed as failure:
        assert str(failure).endswith(".")
    assert not machine.done


# The challenge itself, and the host


def test_challenges_are_fresh_and_asked_for_once():
    server = ServerHandshake([KEY])
    assert server.start() == server.start()
    challenges = {message_of(ServerHandshake([KEY]).start()) for _ in range(50)}
    assert len(challenges) == 50
    assert all(challenge.startswith(b"{sha256}") and len(challenge) == 48 for challenge in challenges)
    assert len(server.start()) <= MAX_HANDSHAKE_FRAME


@pytest.fixture
def no_md5(monkeypatch):
    """A host in FIPS mode."""

    def new(key, message, name):
        if name == "md5":
            raise ValueError("unsupported hash type md5")
        return hmac.new(key, message, name)

    monkeypatch.setattr(handshake, "hmac", SimpleNamespace(new=new, compare_digest=hmac.compare_digest))


def test_without_md5_clients_that_speak_sha256_are_served(no_md5):
    assert run(ServerHandshake([KEY]), Sha256Client(KEY))
    converse(ServerHandshake([KEY]), ClientHandshake(KEY))


def test_without_md5_an_old_client_is_told_to_go(no_md5):
    server = ServerHandshake([KEY])
    failure = failure_of(server, bytes(16))
    assert failure.farewell == FAILURE
    assert "md5" in str(failure)
    assert "md5" not in str(failure_of(ServerHandshake([KEY]), b"garbage"))


def test_digests_are_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(handshake.hmac, "compare_digest", compare)
    server = ServerHandshake([KEY])
    failure_of(server, bytes(16))
    converse(ServerHandshake([KEY]), ClientHandshake(KEY))
    assert len(compared) == 3


def test_a_failure_survives_pickling():
    again = pickle.loads(pickle.dumps(HandshakeFailed("No.", FAILURE)))
    assert (str(again), again.farewell) == ("No.", FAILURE)


def test_every_digest_that_may_be_named_exists_here():
    assert {"sha256", *handshake._DIGESTS.values()} <= hashlib.algorithms_available


@pytest.mark.parametrize("digest", ["sha256", "md5"])
def test_no_fork_comes_in_between(digest):
    """A fork while another thread is inside OpenSSL leaves the child a lock that nobody releases."""
    nonce = b"n" * 20 if digest == "md5" else b"{sha256}" + b"n" * 32
    challenge = CHALLENGE + nonce
    assert not others_ran(lambda: handshake._answer(KEY, challenge) and None, 1000)
    assert others_ran(lambda: hmac.digest(KEY, nonce, digest) and None, 100_000), "or this test shows nothing"
