"""The manager's counters, over its Unix socket.

Theory of operation
-------------------
Each process has a pool of slots. A slot is a caller of its own: 16 random bytes, a sequence number, and a
connection that carries one request at a time. A request that may change something is signed with them and
with the call's deadline, so when the connection breaks or the manager is restarted the slot connects again
and repeats the very same bytes: the manager executes them once, and never after the deadline.

Whatever interrupts a call (an error, a signal, a greenlet's end) closes its connection, so a late answer can
never be taken for the next call's. A pool belongs to the process that made it: a fork starts an empty one.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import select
import socket
import struct
import threading
import time
import weakref
from os import getpid
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import quote, urlencode

from ..errors import InvalidRequest, LimitExceeded, OutcomeUnknown, StoreUnavailable
from ..handshake import ClientHandshake, HandshakeFailed
from ..home import Home, default_home
from ..information import Limits
from ..ops import CALLER_BYTES, Changes, Hello, Request
from ..results import Reply
from ..settings import SETTINGS, VERSION, number
from ..store import Store, StoreUrl
from ..wire import Frames, decode_reply, encode_request, encode_signed, frame
from .pool import Pool

MAX_ANSWER = 64 * 1024 * 1024
"""Longest frame taken from the manager, in bytes."""
_POOL = 16
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
_TIMEVAL = struct.Struct("@ll")
_CLOSE_ENOUGH = 0.005  # seconds: most calls have the same timeout, and the kernel is told once
_AT_ONCE = socket.MSG_DONTWAIT
_OVER = "the deadline is reached"
_WATCHERS = 1000  # most connections of one process that wait for changes


class ManagerStore(Store):
    """The counters of the manager in *home*.

    Args:
        home: the manager's folder.
        timeout: seconds that a call may take in all.
        role: what the manager is told this client is.
        pool: most connections of one process; further threads wait for one.
    """

    capabilities = frozenset({"list", "info"})

    def __init__(self, home: Path, timeout: float, role: str = "client", pool: int = _POOL) -> None:
        self.home = home
        self.url = f"counter://{quote(str(home.absolute()))}"
        self._timeout = timeout
        self._role = role
        self._size = pool
        self._pools: dict[int, _Pools] = {}  # by pid: at most one, but for a moment after a fork
        _stores.add(self)

    @classmethod
    def from_url(cls, url: StoreUrl) -> ManagerStore:
        """`counter:///absolute/home?timeout=2`, or `counter://` for the usual home.

        Raises:
            InvalidRequest: a host, or an option that is not one of timeout, pool, role.
        """
        url.only_options("timeout", "pool", "role")
        if url.host:
            raise InvalidRequest(
                f"a home is an absolute path on this host: counter:///srv/shop, not {url.url!r}"
            )
        timeout = SETTINGS["timeout"].parse(url.options.get("timeout", number("timeout")), "timeout")
        pool = url.options.get("pool", str(_POOL))
        if not pool.isdecimal() or not 1 <= int(pool) <= 1000:
            raise InvalidRequest(f"pool is a number of connections from 1 to 1000, not {pool!r}")
        home = Path(url.path) if url.path else default_home()
        store = cls(home, float(timeout), url.options.get("role", "client"), int(pool))
        store.url += f"?{urlencode(url.options)}" if url.options else ""
        return store

    def execute(self, request: Request, timeout: float | None = None) -> Reply:
        """As every store does; waits for a manager that is being restarted, and repeats what broke off."""
        seconds = self._timeout if timeout is None else SETTINGS["timeout"].parse(timeout, "timeout")
        # The pid is looked at each time: a server that forks in C runs no at-fork hooks.
        op, pools = request.ops[0], self._pools.get(getpid()) or self._pools_of_process()
        pool = pools.usual
        if isinstance(op, Changes) and op.wait:
            seconds, pool = seconds + op.wait, pools.watching
        deadline = monotonic() + seconds
        held: list[_Slot] = []
        try:
            return pool.take(deadline, held).ask(request, deadline)
        finally:
            for slot in held:
                pool.give(slot, deadline)

    def close(self) -> None:
        """Close the connections that are idle; the next call opens one again."""
        for pool in self._pools.get(getpid(), ()):
            pool.close_idle()

    def forget_others(self) -> None:
        """Drop what a parent process had open: its connections are the parent's."""
        for pid in [pid for pid in self._pools if pid != getpid()]:
            for pool in self._pools.pop(pid, ()):  # none, if another thread was faster
                pool.abandon()

    def _pools_of_process(self) -> _Pools:
        pid = getpid()
        pools = self._pools.get(pid)
        if pools is None:
            self.forget_others()
            home = Home(self.home)
            fresh = _Pools(*(Pool(lambda: _Slot(home, self._role), most) for most in (self._size, _WATCHERS)))
            pools = self._pools.setdefault(pid, fresh)  # atomic: two threads get the same ones
        return pools


class _Pools(NamedTuple):
    """Those of one process: what waits for changes must not keep all others from asking."""

    usual: Pool[_Slot]
    watching: Pool[_Slot]


class _Slot:
    """One caller: one connection, one request at a time."""

    def __init__(self, home: Home, role: str) -> None:
        self._home = home
        self._role = role
        self._caller = os.urandom(CALLER_BYTES)
        self._seq = 0
        self._sock: socket.socket | None = None
        self._frames = Frames(MAX_ANSWER)
        self._arrivals: select.poll | None = None
        self._main: int | None = None  # of which thread signals interrupt the reading
        self._waits = math.inf  # seconds that the kernel lets a read wait
        self._answered = True
        self._most = 0  # bytes of a frame that the manager takes

    def ask(self, request: Request, deadline: float) -> Reply:
        """Send *request*, again if need be, until it is answered or the deadline is reached."""
        mutates = request.mutates
        if mutates:
            self._seq += 1
            data = encode_signed(request, self._caller, self._seq, deadline)
        else:
            data = encode_request(request)
        pause, sent = _SHORTEST_PAUSE, False
        while True:
            if not self._answered:  # interrupted even in closing it
                self.close()
            self._answered = False
            try:
                sock = self._sock or self._connect(deadline)
                if len(data) > self._most:
                    self._answered = True
                    return _too_large(len(data), self._most, sent and mutates)
                self._send(sock, data, deadline)
                sent = True  # before it had all of it, the manager cannot have begun
                reply = decode_reply(self._receive(sock, deadline), request.ops)
                self._answered = True
                return reply
            except (OSError, EOFError, StoreUnavailable) as error:
                self.close()
                final = isinstance(error, StoreUnavailable) or monotonic() + pause >= deadline
                if final:
                    raise _failure(error, sent and mutates) from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except ValueError as error:
                self.close()
                failure = OutcomeUnknown if sent and mutates else StoreUnavailable
                raise failure(f"the manager's answer cannot be read: {error}") from error
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connect(self, deadline: float) -> socket.socket:
        """A connection that has passed the handshake and said hello."""
        try:
            sock = self._join(deadline)
        except HandshakeFailed:  # a key that was replaced after we were let in is known to both the next time
            self.close()
            try:
                sock = self._join(deadline)
            except HandshakeFailed as error:
                told = f"the manager in {self._home.path} was not joined: {error}"
                raise StoreUnavailable(told) from error
        hello = Request([Hello(self._role, getpid(), VERSION)])
        self._send(sock, encode_request(hello), deadline)
        limits: Limits = decode_reply(self._receive(sock, deadline), hello.ops).only()
        self._most = limits.max_frame
        return sock

    def _join(self, deadline: float) -> socket.socket:
        """A connection that has passed the handshake.

        Raises:
            HandshakeFailed: one of us does not know the other's key.
        """
        self._sock = sock = self._home.connect(deadline)
        self._frames = Frames(MAX_ANSWER)
        self._arrivals, self._waits = _poll(sock), math.inf
        self._main = threading.main_thread().ident
        handshake = ClientHandshake(self._home.read_key())
        while not handshake.done:
            for answer in handshake.receive(self._receive(sock, deadline)):
                self._send(sock, answer, deadline)
        return sock

    def _send(self, sock: socket.socket, payload: bytes, deadline: float) -> None:
        data, left = frame(payload), deadline - monotonic()
        if left <= 0:
            raise TimeoutError(_OVER)
        if self._arrivals is not None:
            try:
                sent = sock.send(data, _AT_ONCE)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        sock.settimeout(left)
        sock.sendall(data)
        if self._arrivals is not None:
            sock.settimeout(None)

    def _receive(self, sock: socket.socket, deadline: float) -> bytes:
        payload, arrivals = None, self._arrivals
        while payload is None:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError(_OVER)
            if arrivals is None:
                sock.settimeout(left)
            elif threading.get_ident() != self._main:
                self._let_wait(sock, left)
            elif not arrivals.poll(left * 1000):
                continue  # the deadline is over, or nearly
            try:
                data = sock.recv(65536)
            except BlockingIOError:  # so long as the kernel was told, nothing came
                continue
            if not data:
                raise EOFError("the manager closed the connection")
            payload = self._frames.take(data)
        if self._frames.begun:
            raise EOFError("the manager said more than it was asked")
        return payload

    def _let_wait(self, sock: socket.socket, left: float) -> None:
        """Tell the kernel that a read of *sock* waits *left* seconds and no longer.

        So a thread that reads gives up Python's lock once, and with it perhaps its turn. Not the main thread:
        a signal's handler may interrupt it, and the kernel would begin anew.
        """
        if not -_CLOSE_ENOUGH < left - self._waits < _CLOSE_ENOUGH:
            seconds, rest = divmod(left, 1)
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(seconds), int(rest * 1e6) or 1)
            )
            self._waits = left


def _too_large(size: int, most: int, unknown: bool) -> Reply:
    """The answer to a request that is not taken; *unknown*: the manager before may have taken it."""
    if unknown:
        return Reply.refusing(OutcomeUnknown("sent, and the manager that is there now takes none so large"))
    detail = f"a request of {size} bytes is over the manager's --max-frame of {most}: send it in parts"
    return Reply.refusing(LimitExceeded(detail))


def _poll(sock: socket.socket) -> select.poll | None:
    """What tells that something has arrived on *sock*, which is made to block; None where gevent's waits.

    A socket with a timeout asks before each call whether it would block. Each of these system calls gives up
    Python's lock: without them a call in one of eight threads of a worker took a tenth less of its CPU.
    """
    if type(sock).__module__ != "socket":
        return None
    sock.settimeout(None)
    arrivals = select.poll()
    arrivals.register(sock, select.POLLIN)
    return arrivals


def _failure(error: Exception, unknown: bool) -> StoreUnavailable | OutcomeUnknown:
    """What a call ends with that got no answer; *unknown*: it was sent, and may change something."""
    if unknown:
        return OutcomeUnknown(
            f"sent, but no answer came by the deadline ({error}): it was applied, or never will be"
        )
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnavailable(f"no answer by the deadline, and nothing was changed ({error})")


_stores: weakref.WeakSet[ManagerStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.forget_others()


def _at_exit() -> None:
    for store in list(_stores):
        with contextlib.suppress(OSError):
            store.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
