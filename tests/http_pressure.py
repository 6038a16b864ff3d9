"""A client that keeps a number of connections busy and never pauses; what it was answered, as JSON on stdout.

    python http_pressure.py PORT CONNECTIONS SECONDS [RETRY_SECONDS]

It costs as little as it can, since it shares the machine with the service: one process, the same bytes each
time, and of an answer no more is read than the status and the length. A connection that was closed is made
anew, and a request that was refused is repeated, at once or after RETRY_SECONDS.
"""

import contextlib
import heapq
import json
import re
import select
import socket
import sys
import time

LENGTH = re.compile(rb"\r\nContent-Length: *([0-9]+)", re.IGNORECASE)


class Line:
    """One connection, and the answer that it waits for."""

    def __init__(self, port):
        self.address = "127.0.0.1", port
        self.request = (
            b"POST /v1/counters/hits/increment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
        )
        self.socket = None

    def send(self):
        """Ask; the file to wait at."""
        if self.socket is None:
            self.socket = socket.create_connection(self.address, 30)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data, self.sent_at = b"", time.monotonic()
        self.socket.sendall(self.request)
        return self.socket.fileno()

    def receive(self):
        """The answer's head once all of it is there, else None; an empty one if the connection was closed."""
        chunk = b""
        with contextlib.suppress(ConnectionError):
            chunk = self.socket.recv(65536)
        self.data += chunk
        head, end, body = self.data.partition(b"\r\n\r\n")
        if chunk and (not end or len(body) < int(LENGTH.search(head)[1])):
            return None
        if not chunk or b"Connection: close" in head:
            self.socket.close()
            self.socket = None
        return head if end else b""


def press(port, connections, seconds, retry):
    """Statuses with their times (when, after how long), and refusals without Retry-After."""
    poll, lines, later = select.poll(), {}, []

    def send(line):
        number = line.send()
        lines[number] = line
        poll.register(number, select.POLLIN)

    for _ in range(connections):
        send(Line(port))
    told, hasty, order = {}, 0, 0
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        while later and later[0][0] <= now:
            send(heapq.heappop(later)[2])
        for number, _ in poll.poll(50):
            line = lines[number]
            if (head := line.receive()) is None:
                continue
            poll.unregister(number)
            del lines[number]
            now = time.monotonic()
            status = head[9:12].decode() or "closed"
            told.setdefault(status, []).append((round(now - begun, 4), round(now - line.sent_at, 5)))
            hasty += status == "503" and b"\r\nRetry-After: 1\r\n" not in head
            if status == "200" or not retry:
                send(line)
            else:
                heapq.heappush(later, (now + retry, order := order + 1, line))
    return {"told": told, "without_retry_after": hasty}


if __name__ == "__main__":
    port, connections, seconds, *retry = map(float, sys.argv[1:])
    json.dump(press(int(port), int(connections), seconds, *(retry or [0.0])), sys.stdout)
