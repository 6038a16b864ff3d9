"""A socket between clients and the manager that hurts what passes: replies lost or cut, requests repeated.

It has a home of its own, with the manager's key, and knows of the protocol only that frames have a length in
front, that the first six are the handshake and that requests are msgpack. It notes the reply to each signed
request: whenever the same (caller, seq) is answered again, the bytes must be the same.
"""

import contextlib
import os
import random
import shutil
import socket
import struct
import threading
import time
from multiprocessing.connection import Client

import msgspec

SHARE = 0.3
"""Of the signed requests, how many are hurt."""
LONGEST_DELAY = 0.05
HANDSHAKE = 6
"""Frames of the handshake, by turns: the manager begins."""
SECONDS = 20.0


class Cut(Exception):
    """The connection is to be closed here."""


class Proxy:
    """One that listens in the folder *home* and passes on to the manager in *target*.

    Args:
        kinds: the faults that it makes; all of them if left out.
        longest_delay: of a reply, in seconds.

    Attributes:
        faults: how often each was made.
        repeated: how many replies were compared with another one to the same request.
        violations: sentences.
    """

    def __init__(self, home, target, seed, kinds=None, longest_delay=LONGEST_DELAY):
        shutil.copyfile(target / "authkey", home / "authkey")
        (home / "authkey").chmod(0o600)
        # A path that is never too long for a socket's address, wherever the folders are.
        self._folders = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (home, target)]
        own, self._target = (f"/proc/self/fd/{folder}/manager.sock" for folder in self._folders)
        self._key = (target / "authkey").read_bytes()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._last = {}  # by caller: seq and reply
        self._threads = []
        self._open = set()
        self._closing = False
        self._longest_delay = longest_delay
        self.faults = dict.fromkeys(kinds or FAULTS, 0)
        self.repeated = 0
        self.violations = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(own)
        self._listener.listen(128)

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info):
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(SECONDS)
        for folder in self._folders:
            os.close(folder)

    def _start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _accept(self):
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client):
        """Pass on what one client says, until either end, or a fault, closes the connection."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with client, manager:
            with self._lock:
                self._open |= {client, manager}
            try:
                for sock in (client, manager):
                    sock.settimeout(SECONDS)
                manager.connect(self._target)
                for number in range(HANDSHAKE):
                    giver, taker = (client, manager) if number % 2 else (manager, client)
                    taker.sendall(receive(giver))
                while True:
                    self._exchange(client, manager)
            except (OSError, Cut):
                pass  # the client connects again
            finally:
                with self._lock:
                    self._open -= {client, manager}

    def _exchange(self, client, manager):
        """One request and its reply, hurt or not."""
        request = receive(client)
        content = msgspec.msgpack.decode(request[4:])
        signed = content.get("caller") is not None
        with self._lock:
            hurt = signed and self._chance.random() < SHARE
            fault = self._chance.choice(list(self.faults)) if hurt else None
            size = self._chance.random()
            if fault:
                self.faults[fault] += 1
        if fault is None:
            manager.sendall(request)
            client.sendall(self._reply(manager, content))
        else:
            FAULTS[fault](self, client, manager, request, content, size)

    def _reply(self, manager, content):
        """The manager's reply, compared with what the same request was told before."""
        reply = receive(manager)
        if content.get("caller") is not None:
            self._note(content["caller"], content["seq"], reply)
        return reply

    def _note(self, caller, seq, reply):
        with self._lock:
            last_seq, last = self._last.get(caller, (0, b""))
            if last_seq == seq:
                self.repeated += 1
                if last != reply:
                    self.violations.append(f"seq {seq} of one caller was told {last!r}, and then {reply!r}")
            if seq >= last_seq:
                self._last[caller] = seq, reply

    # The faults. *size* is a random number from 0 to 1.

    def _lose_reply(self, client, manager, request, content, size):
        manager.sendall(request)
        self._reply(manager, content)
        raise Cut

    def _delay_reply(self, client, manager, request, content, size):
        manager.sendall(request)
        reply = self._reply(manager, content)
        time.sleep(size * self._longest_delay)
        client.sendall(reply)

    def _cut_reply(self, client, manager, request, content, size):
        manager.sendall(request)
        reply = self._reply(manager, content)
        client.sendall(reply[: int(size * len(reply))])
        raise Cut

    def _cut_request(self, client, manager, request, content, size):
        manager.sendall(request[: int(size * len(request))])
        raise Cut

    def _lose_connection(self, client, manager, request, content, size):
        """The request arrives, but nobody waits for its reply."""
        manager.sendall(request)
        raise Cut

    def _repeat(self, client, manager, request, content, size):
        manager.sendall(request + request)
        self._reply(manager, content)
        client.sendall(self._reply(manager, content))

    def _repeat_elsewhere(self, client, manager, request, content, size):
        """On another connection, at the same moment."""
        with Client(self._target, "AF_UNIX", authkey=self._key) as other:
            manager.sendall(request)
            other.send_bytes(request[4:])
            reply = self._reply(manager, content)
            again = other.recv_bytes()
            self._note(content["caller"], content["seq"], struct.pack("!I", len(again)) + again)
        client.sendall(reply)

    def _repeat_late(self, client, manager, request, content, size):
        """When the caller has already been told, and could have gone on."""
        manager.sendall(request)
        client.sendall(self._reply(manager, content))
        with Client(self._target, "AF_UNIX", authkey=self._key) as other:
            other.send_bytes(request[4:])
            other.recv_bytes()  # the same, or a refusal if the next one was executed; it must not count


FAULTS = {
    "reply lost": Proxy._lose_reply,
    "reply delayed": Proxy._delay_reply,
    "reply cut": Proxy._cut_reply,
    "request cut": Proxy._cut_request,
    "connection lost": Proxy._lose_connection,
    "request repeated": Proxy._repeat,
    "request repeated elsewhere": Proxy._repeat_elsewhere,
    "request repeated late": Proxy._repeat_late,
}


def receive(sock):
    """The next frame, its length in front."""
    head = receive_exactly(sock, 4)
    return head + receive_exactly(sock, struct.unpack("!I", head)[0])


def receive_exactly(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise Cut
        data += more
    return data
