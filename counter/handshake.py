"""Owns how two ends prove to each other that they hold the same key, before anything else is said.

It is multiprocessing's challenge and response, without input or output of its own: hand in each frame of the
peer (without its length prefix), send the frames that come back. Each side is a generator that reads like
the conversation: `yield` sends frames and waits for the peer's next one.

    server                                            client
    #CHALLENGE#{sha256} + 40 random bytes      ->
                                               <-     {sha256} + HMAC-SHA256 of all behind #CHALLENGE#
    #WELCOME#, or #FAILURE# and the end        ->
                                               <-     #CHALLENGE#{sha256} + 40 random bytes
    {sha256} + HMAC-SHA256                     ->
                                               <-     #WELCOME#, or #FAILURE# and the end

Python 3.9 to 3.11 know only HMAC-MD5: such a client takes the server's whole message, `{sha256}` and all, for
the challenge, answers with the bare 16 bytes, and challenges with 20 bare random bytes. Python 3.12 and later
speak as above. The client goes second on purpose: a server that answered whoever had proved nothing could be
made to answer its own challenge.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Generator, Sequence
from typing import TypeAlias

MAX_HANDSHAKE_FRAME = 256
"""Bytes of one frame before the peer has proved itself; check the length prefix against it, unsigned."""

_CHALLENGE = b"#CHALLENGE#"
_WELCOME = b"#WELCOME#"
_FAILURE = b"#FAILURE#"
_SHA256 = b"{sha256}"
_NONCE_BYTES = 40
_OLD_NONCE_BYTES = 20
_MD5_BYTES = 16

_DIGESTS = {b"{%s}" % name.encode(): name for name in ("md5", "sha256", "sha384", "sha3_256", "sha3_384")}
"""The digests that a client of Python 3.12 or later may name in its challenge."""

_Conversation: TypeAlias = Generator[list[bytes], bytes, list[bytes]]


class HandshakeFailed(Exception):
    """The two ends do not trust each other: send `farewell`, if there is one, and close the connection.

    Attributes:
        farewell: the frame that tells the peer so, in its own protocol, or None.
    """

    def __init__(self, detail: str, farewell: bytes | None = None) -> None:
        super().__init__(detail)
        self.farewell = farewell


class _Handshake:
    """Drives one conversation, frame by frame.

    Attributes:
        done: both ends have proved themselves; the next frame is a request.
    """

    def __init__(self, conversation: _Conversation) -> None:
        self.done = False
        self._conversation = conversation
        self._opening = next(conversation)

    def receive(self, frame: bytes) -> list[bytes]:
        """Take the peer's next frame, and return the frames to send it now.

        Args:
            frame: its payload, without the length prefix.

        Raises:
            HandshakeFailed: the peer has not proved itself, or does not speak this protocol; there is
                no way on from here.
        """
        if len(frame) > MAX_HANDSHAKE_FRAME:
            self._conversation.close()
            raise HandshakeFailed(f"A frame of the handshake has at most {MAX_HANDSHAKE_FRAME} bytes.")
        try:
            return self._conversation.send(frame)
        except StopIteration as end:
            if end.value is None:
                raise HandshakeFailed("This handshake is over.") from None
            self.done = True
            last_frames: list[bytes] = end.value
            return last_frames


class ServerHandshake(_Handshake):
    """The manager's side: send `start()`, then answer what comes until `done`.

    Args:
        keys: the keys a client may prove, the current one first; none of them empty. The one it proves is the
            one it gets its answer with.

    Raises:
        ValueError: no key, or an empty one.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or not all(keys):
            raise ValueError("A handshake needs a key that is not empty.")
        super().__init__(_serve(tuple(keys)))

    def start(self) -> bytes:
        """Return the frame that opens the conversation, always the same one: the server's challenge."""
        return self._opening[0]


class ClientHandshake(_Handshake):
    """Our client's side; the server speaks first. It takes no digest but sha256.

    Args:
        key: the key of the manager's home, not empty.

    Raises:
        ValueError: the key is empty.
    """

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("A handshake needs a key that is not empty.")
        super().__init__(_call(key))


def _serve(keys: tuple[bytes, ...]) -> _Conversation:
    message = _new_message()
    proof = yield [_CHALLENGE + message]
    key = next((key for key in keys if _proves(key, message, proof)), None)
    if key is None:
        raise HandshakeFailed("The client did not prove the manager's key.", _FAILURE)
    challenge = yield [_WELCOME]
    verdict = yield [_answer(key, challenge)]
    if verdict != _WELCOME:
        raise HandshakeFailed("The client rejected the manager's proof of its key.")
    return []


def _call(key: bytes) -> _Conversation:
    challenge = yield []
    if not challenge.startswith(_CHALLENGE + _SHA256):
        raise HandshakeFailed("The peer does not ask for the key with sha256: it is no manager of ours.")
    verdict = yield [_answer(key, challenge)]
    if verdict == _FAILURE:
        raise HandshakeFailed("The manager rejected the key: it differs from the manager's own.")
    if verdict != _WELCOME:
        raise HandshakeFailed("The peer neither accepted nor rejected the key: it is no manager of ours.")
    message = _new_message()
    proof = yield [_CHALLENGE + message]
    if not (proof.startswith(_SHA256) and _proves(key, message, proof)):
        raise HandshakeFailed("The peer could not prove that it has the manager's key.", _FAILURE)
    return [_WELCOME]


def _new_message() -> bytes:
    return _SHA256 + secrets.token_bytes(_NONCE_BYTES)


def _proves(key: bytes, message: bytes, proof: bytes) -> bool:
    """Check a proof against our own *message*: sha256 by name, or the bare MD5 of an old client."""
    if proof.startswith(_SHA256):
        return hmac.compare_digest(_mac(key, message, "sha256"), proof.removeprefix(_SHA256))
    return len(proof) == _MD5_BYTES and hmac.compare_digest(_mac(key, message, "md5"), proof)


def _answer(key: bytes, challenge: bytes) -> bytes:
    """Answer a peer's challenge with the digest that it asks for."""
    message = challenge.removeprefix(_CHALLENGE)
    if not challenge.startswith(_CHALLENGE) or len(message) < _OLD_NONCE_BYTES:
        raise HandshakeFailed("The peer did not send a challenge.")
    if len(message) == _OLD_NONCE_BYTES:
        return _mac(key, message, "md5")
    prefix = message[: message.find(b"}") + 1]
    if prefix not in _DIGESTS:
        raise HandshakeFailed("The peer's challenge names no digest that is known here.")
    return prefix + _mac(key, message, _DIGESTS[prefix])


def _mac(key: bytes, message: bytes, digest: str) -> bytes:
    try:
        # Not hmac.digest(), which gives up Python's lock inside OpenSSL: if another thread forks then, the
        # child waits for ever for one of OpenSSL's own.
        return hmac.new(key, message, digest).digest()
    except ValueError:
        # A host in FIPS mode may have no md5. Clients of Python 3.12 and later never ask for it.
        raise HandshakeFailed(
            f"This host has no {digest}, which the peer's Python needs.", _FAILURE
        ) from None
