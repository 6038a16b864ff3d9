"""One client's connection to the manager: what has arrived, what has not left, how far it has come."""

from __future__ import annotations

import select
import socket

from .handshake import MAX_HANDSHAKE_FRAME, ServerHandshake
from .wire import MAX_REPLY, Frames, frame

_READ = 64 * 1024
_HEADROOM = 4  # the length in front of a reply


class ConnectionLost(Exception):
    """The peer is gone, or is to go: close the connection."""


class Connection:
    """A non-blocking socket with its frames in and its bytes out.

    While it has unsent output or an answer is being worked on, it is `blocked`: nothing more is read from it,
    so a peer that does not read costs one answer and no more.
    """

    def __init__(self, sock: socket.socket, handshake: ServerHandshake, ticks: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.frames = Frames(MAX_HANDSHAKE_FRAME)
        self.handshake = handshake
        self.since = ticks  # when it came, and later when its output last moved; seconds, monotonic
        self.working = False
        self.closing = False  # close it once its output has left
        self.stock = False  # it may call methods of the shared object
        self.closed = False
        self.mask = 0  # what the poller watches it for
        self._unsent = bytearray()

    @property
    def unsent(self) -> int:
        """Bytes of output that have not left."""
        return len(self._unsent)

    @property
    def blocked(self) -> bool:
        """Whether its next request has to wait."""
        return self.working or self.closing or bool(self._unsent)

    @property
    def expects_nothing(self) -> bool:
        """Whether all that has arrived was taken, and it is to stay."""
        return not (self.working or self.closing or self.frames.begun)

    @property
    def abandoned(self) -> bool:
        """Whether the peer has left, which nobody would see while nothing is read from it."""
        hangup = select.poll()
        hangup.register(self.sock, 0)  # a hangup is told also to those who ask for nothing
        return bool(hangup.poll(0))

    def receive(self) -> bytes | None:
        """Read once; the next whole frame, None if it has not arrived.

        Raises:
            ConnectionLost: the peer has closed it.
            FrameRefused: the frame is longer than is allowed now.
        """
        try:
            data = self.sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ConnectionLost from error
        if not data:
            raise ConnectionLost
        return self.frames.take(data)

    def send(self, payload: bytes, ticks: float) -> bool:
        """Send *payload* as a frame, at once as far as it goes; whether all output has left.

        Raises:
            ConnectionLost: the peer is gone, or leaves more unread than one answer.
        """
        data = frame(payload)
        if not self._unsent:
            sent = self._send(data)
            if sent == len(data):
                return True
            data, self.since = data[sent:], ticks
        self._unsent += data
        if len(self._unsent) > MAX_REPLY + _HEADROOM:
            raise ConnectionLost
        return False

    def flush(self, ticks: float) -> None:
        """Send what has not left yet, as far as it goes.

        Raises:
            ConnectionLost: the peer is gone.
        """
        sent = self._send(bytes(self._unsent[:_READ]))
        if sent:
            del self._unsent[:sent]
            self.since = ticks

    def _send(self, data: bytes) -> int:
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ConnectionLost from error
