"""What systemd is to a service: the socket that it is told on how things stand."""

import contextlib
import socket
import struct
import tempfile
from pathlib import Path

from support import wait_until


class ServiceManager:
    """A datagram socket that keeps what is said to it, and by which process."""

    def __init__(self, address):
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._socket.bind(address)
        self._heard = []

    def close(self):
        self._socket.close()

    @property
    def heard(self):
        """What was said so far: pairs of a pid and a dictionary."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, extra, *_ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
                (pid, _uid, _gid) = struct.unpack("3i", extra[0][2])
                self._heard.append((pid, dict(line.split("=", 1) for line in data.decode().split("\n"))))
        return self._heard

    @property
    def states(self):
        """The first word of everything that was said so far."""
        return [next(iter(said)) for _, said in self.heard]

    def wait_for(self, *states):
        """Return when exactly these words were said; fail if they are not within a while."""
        wait_until(lambda: len(self.states) >= len(states))
        assert self.states == [*states], self.states


@contextlib.contextmanager
def service_manager(abstract=False):
    """One until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:  # a test's own folder can be too long for an address
        path = str(Path(folder) / "notify")
        listener = ServiceManager("\0" + path if abstract else path)
        with contextlib.closing(listener):
            yield listener
