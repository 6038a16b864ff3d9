"""Everyone who is connected: waiting for events, reading whole frames, sending, and showing people out."""

from __future__ import annotations

import contextlib
import logging
import os
import select
from collections.abc import Callable
from math import ceil

from .connection import Connection, ConnectionLost
from .door import Door
from .wire import FrameRefused

LINGER_SECONDS = 60e-6
"""How long it looks for more before it sleeps, as being woken up takes as long: docs/decisions/0026."""
MOST_SKIPPED = 63
"""After so many times of going to sleep without a look, it is tried again whether one pays."""
STALLED_SECONDS = 30.0
"""After so long without progress, a peer that does not read its answer is shown out."""

logger = logging.getLogger("counter.manager")


class Connections:
    """The poller and all it watches; *ticks* is the monotonic clock, in seconds.

    `ready` holds the next whole frame of each connection that may ask something now.
    """

    def __init__(
        self, door: Door, ticks: Callable[[], float], on_close: Callable[[Connection], None]
    ) -> None:
        self.ready: dict[Connection, bytes] = {}
        self._door = door
        self._ticks = ticks
        self._on_close = on_close
        self._stalled: set[Connection] = set()  # who has unsent output
        self._skips = self._skipped = 0  # looks: how many are still to skip, and were after the last in vain
        # Bare, as a selector takes half as long again as all else that is done with an event.
        self._poller = (getattr(select, "epoll", None) or _Poll)()
        self._watched: dict[int, Connection] = {}  # by its descriptor
        self._listening = False
        self._resume_listening()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._poller.register(self._wake_reader, select.POLLIN)

    def __len__(self) -> int:
        return len(self._door)

    def wake(self) -> None:
        """End the wait under way, or the next one; a signal handler may call it."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody waits
            os.write(self._wake_writer, b"\0")

    @property
    def wake_file(self) -> int:
        """The descriptor that `wake` writes to."""
        return self._wake_writer

    def wait(self, most: float | None) -> bool:
        """Wait for events, *most* seconds (None: as long as it takes), and read what has arrived.

        Returns whether there was any event.
        """
        events = self._poller.poll(self._patience(most) if most != 0 else 0)
        for number, _ in events:
            connection = self._watched.get(number)
            if connection is not None:
                self._on_event(connection)
            elif number == self._wake_reader:
                with contextlib.suppress(BlockingIOError):
                    os.read(number, 4096)
            elif number == self._door.listener.fileno():
                self._let_in()  # else its connection was closed by what was done for the event before
        return bool(events)

    def linger(self) -> bool:
        """Look for a moment whether somebody asks again at once, and read that; whether somebody did.

        A look in vain lets it skip the next one, the one after that the next three, and so on: where clients
        ask now and then, that costs little.
        """
        if self._skips:
            self._skips -= 1
            return False
        until = self._ticks() + LINGER_SECONDS
        while not self.wait(0):
            if self._ticks() >= until:
                self._skips = self._skipped = min(2 * self._skipped + 1, MOST_SKIPPED)
                return False
            os.sched_yield()
        self._skipped = 0
        return True

    def send(self, connection: Connection, payload: bytes) -> None:
        """Send *payload*, and go on with *connection*: its next frame may be ready."""
        if connection.closed:
            return
        try:
            all_left = connection.send(payload, self._ticks())
        except ConnectionLost:
            self.close(connection)
            return
        if all_left and connection.mask == select.POLLIN and connection.expects_nothing:
            return  # mostly: it was read from all the time, and goes on being so
        self.go_on(connection)

    def go_on(self, connection: Connection) -> None:
        """Find the next frame of *connection*, if it may have one, and watch it for what it waits for."""
        if connection.closed:
            return
        if connection.closing and not connection.unsent:
            self.close(connection)
            return
        if connection.unsent:
            self._stalled.add(connection)
        else:
            self._stalled.discard(connection)
        if not connection.blocked and connection not in self.ready:
            try:
                payload = connection.frames.next()
            except FrameRefused as error:
                self._refuse(connection, error)
                return
            if payload is not None:
                self.ready[connection] = payload
        self._watch(connection)

    def admit(self, connection: Connection) -> None:
        """*connection* has proved to hold the key."""
        self._door.admit(connection, self._ticks())

    def close(self, connection: Connection) -> None:
        """Close *connection* and forget it."""
        if connection.closed:
            return
        connection.closed = True
        self._ignore(connection)
        connection.sock.close()
        self.ready.pop(connection, None)
        self._stalled.discard(connection)
        self._door.leave(connection)
        self._on_close(connection)

    def tidy(self) -> None:
        """Show out who overstays, and listen again after a pause."""
        ticks = self._ticks()
        late = self._door.unwelcome(ticks)
        late += [c for c in self._stalled if ticks >= c.since + STALLED_SECONDS]
        for connection in late:
            self.close(connection)
        if not self._listening and ticks >= self._door.opens_at:
            self._resume_listening()

    def stop_listening(self) -> None:
        """Let nobody in any more."""
        self._pause_listening()
        self._door.opens_at = float("inf")

    @property
    def strangers(self) -> bool:
        """Whether somebody is here who has not proved to hold the key."""
        return self._door.strangers

    @property
    def unsent(self) -> bool:
        """Whether somebody has not read all of an answer."""
        return bool(self._stalled)

    def close_all(self) -> None:
        """Close every connection, the listener and the poller."""
        for connection in list(self._door):
            self.close(connection)
        self._door.listener.close()
        self._poller.close()
        os.close(self._wake_reader)
        # `wake` may still be called, when the number is another file's.
        writer, self._wake_writer = self._wake_writer, -1
        os.close(writer)

    def _refuse(self, connection: Connection, error: FrameRefused) -> None:
        logger.info("closing a connection: %s", error)
        self.close(connection)

    def _patience(self, most: float | None) -> float | None:
        ticks = self._ticks()
        ends = [c.since + STALLED_SECONDS for c in self._stalled]
        if (deadline := self._door.next_deadline()) is not None:
            ends.append(deadline)
        if not self._listening:
            ends.append(self._door.opens_at)
        if most is not None:
            ends.append(ticks + most)
        return max(0.0, min(ends) - ticks) if ends else None

    def _on_event(self, connection: Connection) -> None:
        """What *connection* is watched for may be so, or its peer is gone, which the same calls tell."""
        try:
            if connection.mask == select.POLLOUT:
                connection.flush(self._ticks())
            elif connection not in self.ready:  # else what has arrived comes first
                payload = connection.receive()
                if payload is not None:
                    self.ready[connection] = payload
                return
        except ConnectionLost:
            self.close(connection)
        except FrameRefused as error:
            self._refuse(connection, error)
        else:
            self.go_on(connection)

    def _let_in(self) -> None:
        for connection in self._door.accept(self._ticks()):
            self.send(connection, connection.handshake.start())
        if self._door.opens_at > self._ticks():
            self._pause_listening()

    def _pause_listening(self) -> None:
        if self._listening:
            self._poller.unregister(self._door.listener)
            self._listening = False

    def _resume_listening(self) -> None:
        self._poller.register(self._door.listener, select.POLLIN)
        self._listening = True

    def _watch(self, connection: Connection) -> None:
        if connection.unsent:
            mask = select.POLLOUT
        elif connection.blocked:
            self._ignore(connection)  # a hangup would be told all the time
            return
        else:
            mask = select.POLLIN
        if connection.mask:
            if mask != connection.mask:
                self._poller.modify(connection.sock, mask)
        else:
            self._poller.register(connection.sock, mask)
            self._watched[connection.sock.fileno()] = connection
        connection.mask = mask

    def _ignore(self, connection: Connection) -> None:
        if connection.mask:
            self._poller.unregister(connection.sock)
            del self._watched[connection.sock.fileno()]
            connection.mask = 0


class _Poll:
    """What Linux has as `select.epoll`, made of what other systems have."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register, self.modify = self._poll.register, self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, seconds: float | None) -> list[tuple[int, int]]:
        """Descriptors at which something is so that is waited for."""
        return self._poll.poll(None if seconds is None else ceil(1000 * seconds))

    def close(self) -> None:
        """Nothing is open."""
