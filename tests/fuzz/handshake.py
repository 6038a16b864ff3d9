"""The handshake: whoever lacks the key never gets in, whatever is said and in whatever order.

No input can hold an answer to a challenge that is made anew each time. So the first byte of a frame says what
the rest stands for: itself, or what a peer would compute that has the key, or another one.
"""

import hashlib
import hmac

from counter.handshake import MAX_HANDSHAKE_FRAME, ClientHandshake, HandshakeFailed, ServerHandshake

KEY, OLD_KEY, WRONG_KEY = b"k" * 32, b"o" * 32, b"w" * 32
CHALLENGE, WELCOME, FAILURE, SHA256 = b"#CHALLENGE#", b"#WELCOME#", b"#FAILURE#", b"{sha256}"
END = b"\xff"  # between two frames of an input
WORDS = [
    *(CHALLENGE, WELCOME, FAILURE, SHA256, b"{md5}", b"{sha384}", b"{sha3_256}", b"{sha1}", END),
    *(END + bytes([kind]) for kind in range(8)),
    b"n" * 20,
    b"n" * 40,
]


def mac(key, message, digest="sha256"):
    return hmac.new(key, message, digest).digest()


def challenge_in(frame):
    return frame.removeprefix(CHALLENGE)


def said(part, heard):
    """The frame that *part* of an input stands for, after the frames that were *heard*."""
    kind, rest = part[:1], part[1:]
    last = heard[-1] if heard else b""
    makes = {
        b"\x01": lambda: SHA256 + mac(KEY, challenge_in(last)),
        b"\x02": lambda: mac(KEY, challenge_in(last), "md5"),
        b"\x03": lambda: SHA256 + mac(WRONG_KEY, challenge_in(last)),
        b"\x04": lambda: last + rest,
        b"\x05": lambda: SHA256 + mac(OLD_KEY, challenge_in(last)),
        b"\x06": lambda: b"".join(heard)[:MAX_HANDSHAKE_FRAME],
        b"\x07": lambda: (SHA256 + mac(KEY, challenge_in(last)))[: len(rest)],
    }
    return makes.get(kind, lambda: rest)()


def one_input(data):
    who, parts = data[:1], data[1:].split(END)
    if who == b"s":
        serve(parts)
    elif who == b"c":
        call(parts)
    else:
        relay(parts)


def serve(parts):
    """We are the manager, and the input is who comes."""
    side = ServerHandshake([KEY, OLD_KEY])
    heard = [side.start()]
    frames = talk(side, parts, heard)
    message = challenge_in(heard[0])
    proofs = {SHA256 + mac(key, message) for key in (KEY, OLD_KEY)}
    proofs |= {mac(key, message, "md5") for key in (KEY, OLD_KEY)}
    proved = bool(frames) and frames[0] in proofs
    if frames and not proved:  # one that is too long is not even answered
        assert heard[1:] == ([FAILURE] if len(frames[0]) <= MAX_HANDSHAKE_FRAME else [])
    assert side.done == (proved and len(heard) == 3 and len(frames) > 2 and frames[2] == WELCOME)


def call(parts):
    """We are the client, and the input is whom it met."""
    side = ClientHandshake(KEY)
    heard = []
    frames = talk(side, parts, heard)
    asked = [challenge_in(frame) for frame in heard if frame.startswith(CHALLENGE)]
    if side.done:
        assert frames[0].startswith(CHALLENGE + SHA256)
        assert frames[1:3] == [WELCOME, SHA256 + mac(KEY, asked[0])]
        assert heard[-1] == WELCOME
    elif WELCOME in heard:
        raise AssertionError("it welcomed somebody and is not done")


def talk(side, parts, heard):
    """Say the frames of *parts* to *side*; what it says comes to *heard*. Returns what it was told."""
    frames = []
    over = False
    for part in parts[:8]:
        frame = said(part, heard)
        try:
            answers = side.receive(frame)
        except HandshakeFailed as failure:
            answers = [failure.farewell] if failure.farewell and not over else []
            assert not (over and failure.farewell), "it says farewell once"
            over = True
        else:
            assert not over
            over = side.done
        if len(frames) < 3:
            frames.append(frame)
        for answer in answers:
            assert 0 < len(answer) <= MAX_HANDSHAKE_FRAME
        heard.extend(answers)
    return frames


def relay(parts):
    """Two that have the key, and the input is between them: each part changes one frame, or none."""
    server, client = ServerHandshake([KEY]), ClientHandshake(KEY)
    to, other, frame, changed = client, server, server.start(), False
    for part in (parts + [b""] * 8)[:8]:
        passed = bytes(a ^ b for a, b in zip(frame, part.ljust(len(frame), b"\0"), strict=False))
        passed += part[len(frame) :]
        changed |= passed != frame
        try:
            answers = to.receive(passed)
        except HandshakeFailed:
            break
        to, other = other, to
        if not answers:
            break
        frame = answers[0]
        if len(answers) > 1:
            raise AssertionError("one frame is answered by one")
    both = server.done and client.done
    assert not (both and changed)
    assert both or changed


def seeds():
    yield b"s" + END.join([b"\x01", b"\0" + CHALLENGE + SHA256 + b"n" * 40, b"\0" + WELCOME, b"\0more"])
    yield b"s" + END.join([b"\x05", b"\0" + CHALLENGE + b"{sha3_384}" + b"n" * 40, b"\0" + WELCOME])
    yield b"s" + END.join([b"\x02", b"\0" + CHALLENGE + b"n" * 20, b"\0" + WELCOME])
    yield b"s" + END.join([b"\x01", b"\0" + CHALLENGE + b"n" * 19])
    yield b"s" + END.join([b"\x01", b"\0" + CHALLENGE + b"{sha1}" + b"n" * 40])
    yield b"s" + END.join([b"\x01", b"\0" + CHALLENGE + SHA256 + b"n" * 40, b"\0" + FAILURE])
    yield b"s\x03"
    yield b"s\x04"
    yield b"s\0" + b"x" * (MAX_HANDSHAKE_FRAME + 1)
    yield b"c" + END.join([b"\0" + CHALLENGE + SHA256 + b"n" * 40, b"\0" + WELCOME, b"\x01"])
    yield b"c" + END.join([b"\0" + CHALLENGE + SHA256 + b"n" * 40, b"\0" + WELCOME, b"\x03"])
    yield b"c" + END.join([b"\0" + CHALLENGE + SHA256 + b"n" * 40, b"\0" + WELCOME, b"\x04"])
    yield b"c" + END.join([b"\0" + CHALLENGE + SHA256 + b"n" * 40, b"\0" + FAILURE])
    yield b"c\0" + CHALLENGE + b"{md5}" + b"n" * 40
    yield b"c\0" + hashlib.md5(b"").digest()
    yield b"r"
    for at in range(6):
        yield b"r" + END * at + bytes(15) + b"\x01"
