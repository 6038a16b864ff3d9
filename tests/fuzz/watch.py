"""What is watched while a target is fed: that nothing fails, nothing hangs, and memory stays what it was."""

import hashlib
import json
import os
import time
import traceback
from pathlib import Path

HANG_SECONDS = 1.0
MOST_GROWTH = 32 * 1024 * 1024
"""Bytes that the process may grow by."""
WARM_RUNS = 1000
"""After so many it has loaded and cached what it will, and is measured again after each so many."""
_TRIES = 3


def resident():
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Called in place of *one_input*; at the first mistake, or at the end, it calls *leave* with a code.

    *runs* and *seconds* are how long it goes on, whichever is over first; None: without an end.
    """

    def __init__(
        self,
        name,
        one_input,
        folder,
        runs=None,
        seconds=None,
        leave=os._exit,
        clock=time.monotonic,
        memory=resident,
    ):
        self.name, self.one_input, self.folder = name, one_input, Path(folder)
        self.runs, self.seconds = runs, seconds
        self.leave, self.clock, self.memory = leave, clock, memory
        self.done = 0
        self.began = clock()
        self.slowest, self.slowest_input = 0.0, b""
        self.at_first = None
        self.growth = 0

    def __call__(self, data):
        begun = self.clock()
        try:
            self.one_input(data)
        except BaseException:  # noqa: BLE001  whatever it is, it is what is looked for
            self.fail(traceback.format_exc(), data)
            return
        now = self.clock()
        self.done += 1
        if now - begun > self.slowest:
            self.look_at(data, now - begun)
        if not self.done % WARM_RUNS:
            self.weigh(data)
        if self.done == self.runs or (self.seconds is not None and now - self.began >= self.seconds):
            self.end(0)

    def look_at(self, data, took):
        """The slowest so far; where it took too long it is tried again, as the machine may have been busy."""
        for _ in range(_TRIES - 1):
            if took <= HANG_SECONDS:
                break
            begun = self.clock()
            self.one_input(data)
            took = min(took, self.clock() - begun)
        if took > self.slowest:
            self.slowest, self.slowest_input = took, data
        if took > HANG_SECONDS:
            self.fail(f"it took {took:.2f} s", data)

    def weigh(self, data):
        bytes_now = self.memory()
        if self.at_first is None:
            self.at_first = bytes_now
        self.growth = max(self.growth, bytes_now - self.at_first)
        if bytes_now - self.at_first > MOST_GROWTH:
            self.fail(f"the process has grown by {self.growth} bytes since {WARM_RUNS} inputs", data)

    def fail(self, what, data):
        """Tell *what* happened, and keep the input."""
        path = self.folder / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        self.end(1, failure=what.strip().splitlines()[-1], input=str(path), trace=what)

    def end(self, code, trace="", **more):
        print(trace, json.dumps(self.figures() | more), sep="\n" if trace else "", flush=True)
        self.leave(code)

    def figures(self):
        return {
            "target": self.name,
            "runs": self.done,
            "seconds": round(self.clock() - self.began, 1),
            "slowest_ms": round(self.slowest * 1000, 2),
            "slowest_bytes": len(self.slowest_input),
            "growth_mib": round(self.growth / 2**20, 1),
        }
