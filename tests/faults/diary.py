"""What one client thread did, written down so that its own kill -9 takes nothing away.

One file for each thread, one write for each line: `kind nanoseconds name-or-value-or-reason`. A call is an
`I` (intent) before it is made, and then an `A` (acknowledged, with the value), `U` (unknown outcome) or `N`
(nothing was applied). Between them `R` is a connection that was refused and `B` one that broke, if the client
sees those.
"""

import os
import time

from faults.oracle import ACKNOWLEDGED, REFUSED, UNKNOWN, Call

SUFFIX = ".calls"
OUTCOMES = {"A": ACKNOWLEDGED, "U": UNKNOWN, "N": REFUSED}


class Diary:
    """The diary that *who* writes in *folder*."""

    def __init__(self, folder, who):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(os.path.join(folder, who + SUFFIX), flags, 0o600)

    def intend(self, name):
        """A call on the counter *name* is about to be made."""
        self._write("I", name)

    def acknowledged(self, value):
        self._write("A", value)

    def unknown(self, reason):
        self._write("U", reason)

    def refused(self, reason):
        self._write("N", reason)

    def connection_refused(self):
        self._write("R", "")

    def connection_broken(self, reason):
        self._write("B", reason)

    def _write(self, kind, text):
        line = f"{kind} {time.monotonic_ns()} {text}".replace("\n", " ")
        os.write(self._file, line.encode() + b"\n")


def read_diaries(folder):
    """All calls in the diaries in *folder*."""
    calls = []
    for file in sorted(folder.glob("*" + SUFFIX)):
        calls += read_diary(file)
    return calls


def read_diary(file):
    """The calls in one diary, in their order; those without an outcome have an unknown one."""
    *lines, _unfinished = file.read_text().split("\n")
    calls, call, refused, broken = [], None, 0, 0
    for line in [*lines, "I 0 end"]:
        kind, at, text = line.split(" ", 2)
        if kind == "R":
            refused += 1
        elif kind == "B":
            broken += 1
        elif kind == "I":
            if call is not None:
                calls.append(call._replace(refused_connections=refused, broken_connections=broken))
            call = Call(f"{file.stem}#{len(calls)}", text, int(at))
            refused = broken = 0
        else:
            value = int(text) if kind == "A" else None
            said = "" if kind == "A" else text
            call = call._replace(ended=int(at), outcome=OUTCOMES[kind], value=value, said=said)
    return calls


def last_answer(file):
    """When the last answer in a diary came that is still being written; 0 if none of late."""
    with file.open("rb") as diary:
        diary.seek(max(0, file.stat().st_size - 500))
        lines = diary.read().split(b"\n")[1:-1]
    return max((int(line.split()[1]) for line in lines if line.startswith(b"A ")), default=0)
