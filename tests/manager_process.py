"""A real manager in a process of its own, what it costs, and a client that says what a test wants said."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from support import start_process

from counter.handshake import ClientHandshake
from counter.home import Home
from counter.ops import Request
from counter.stores.manager import MAX_ANSWER, ManagerStore
from counter.wire import Frames, decode_reply, encode_request, frame

PATIENCE = 20.0
"""Seconds that a test waits for something that should come at once."""

LAUNCHER = """
import json, resource, sys
from pathlib import Path
from counter.manager import serve
from counter.settings import ManagerOptions

options, open_files = json.loads(sys.argv[1])
if open_files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
options["home"] = Path(options["home"])
sys.exit(serve(ManagerOptions(**options), lambda: print("ready", flush=True)))
"""


class RawClient:
    """A connection to the manager in *home*; nothing is said on it but what the test says.

    A peer that has closed the connection is no error here: `send` is lost, `receive` returns None.
    """

    def __init__(self, home):
        self.sock = Home(home).connect(time.monotonic() + PATIENCE)
        self.sock.settimeout(PATIENCE)
        self._frames = Frames(MAX_ANSWER)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        self.sock.close()

    def authenticate(self, key):
        """Go through the handshake; raises `HandshakeFailed` or `EOFError` if it does not end well."""
        handshake = ClientHandshake(key)
        try:
            while not handshake.done:
                payload = self.receive()
                if payload is None:
                    raise EOFError("the manager closed the connection in the handshake")
                for answer in handshake.receive(payload):
                    self.send_frame(answer)
        except BaseException:
            self.close()
            raise
        return self

    def send(self, data):
        """Send bare bytes."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def send_frame(self, payload):
        self.send(frame(payload))

    def receive(self):
        """The payload of the next frame, None when the manager has closed the connection."""
        while (payload := self._frames.next()) is None:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._frames.feed(data)
        return payload

    def ask(self, payload):
        """Send *payload* as a frame and return the answer's, None if it was a closed connection."""
        self.send_frame(payload)
        return self.receive()

    def request(self, *ops, **fields):
        """The reply to a request of *ops*; *fields* are the others of `Request`."""
        return decode_reply(self.ask(encode_request(Request(list(ops), **fields))), ops)


class ManagerProcess:
    """A running manager; `process` is what `start_process` gave."""

    def __init__(self, process, home):
        self.process = process
        self.home = home
        self.pid = process.pid

    @property
    def authkey(self):
        return Home(self.home).read_key()

    def dial(self):
        """A connection that has said nothing yet."""
        return RawClient(self.home)

    def connect(self):
        """A connection that has proved to hold the key."""
        return self.dial().authenticate(self.authkey)

    def store(self, timeout=10.0, **options):
        return ManagerStore(self.home, timeout, **options)

    def stop(self):
        """Its exit code after SIGTERM."""
        return self.process.stop()

    @property
    def stderr(self):
        return self.process.stderr

    @property
    def peak_memory(self):
        """The most that was ever resident, in bytes."""
        return self._status("VmHWM") * 1024

    @property
    def memory(self):
        """What is resident now, in bytes."""
        return self._status("VmRSS") * 1024

    @property
    def threads(self):
        return self._status("Threads")

    @property
    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def cpu_seconds(self):
        """User and system time spent so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, field):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise AssertionError(f"no {field}: {self.process.describe()}")


@contextlib.contextmanager
def start_manager(home, open_files=None, **options):
    """A manager in the folder *home* until the end of the block, where it is killed.

    *options* are further fields of `ManagerOptions`; *open_files* is its RLIMIT_NOFILE.
    """
    home = Path(home)
    arguments = json.dumps([{"home": str(home)} | options, open_files])
    with start_process([sys.executable, "-c", LAUNCHER, arguments]) as process:
        process.line("ready")
        yield ManagerProcess(process, home)
