"""Sending without giving up Python's lock (the GIL).

`socket.send` gives the lock up during the system call, also of a socket that does not block. Where several
threads are busy another one has it then, and who only wanted to send sleeps until that one waits: the call
takes 3 us, the turn of the other one perhaps a whole request. Measured in docs/decisions/0030.
"""

from __future__ import annotations

import ctypes
import socket

MOST_BYTES = 64 * 1024
"""To copy more would keep other threads waiting: then the lock is given up."""

_send = getattr(ctypes.PyDLL(None), "send", None)  # PyDLL keeps the lock, as no other way to call C does
if _send is not None:
    _send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    _send.restype = ctypes.c_ssize_t
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)


def send_at_once(sock: socket.socket, data: bytes) -> int:
    """Send of *data* what the kernel takes now; how many bytes that is. *sock* has no timeout.

    Raises:
        BlockingIOError: it takes none now.
        OSError: as `socket.socket.send`.
    """
    if _send is not None and type(data) is bytes and len(data) <= MOST_BYTES:
        sent: int = _send(sock.fileno(), data, len(data), _FLAGS)
        if sent >= 0:
            return sent
    return sock.send(data, socket.MSG_DONTWAIT)  # if it failed, once more: that raises
