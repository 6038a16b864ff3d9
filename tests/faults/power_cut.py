"""The power is cut under load, again and again: what was acknowledged is there, as the durability promises.

The home is on a disk of its own (`images` says how it is cut). What the disk holds at that moment is mounted
elsewhere, and a manager starts on it, as in another boot. The service and its clients never notice, so the
next cut can follow. Checked, for each cut:

- the start is not refused, and the next increments go on from what is there;
- `always`: whatever was acknowledged, or read by anybody, before the cut is there;
- `everysec`: of what was acknowledged, only calls from the last 1.5 s before the cut are gone;
- what is there is a prefix: no call is there that began after one that is gone had ended;
- nothing is there that nobody had asked for before the cut.
"""

import contextlib
import threading
import time
from typing import NamedTuple

import counter
from faults.client import SHARED
from faults.images import Cut, disk, image_of, mounted
from faults.load import load
from faults.lone_manager import lone_manager
from faults.oracle import ACKNOWLEDGED, few
from faults.service import service

LATEST = 1.5
"""Seconds before a cut from which `everysec` may lose something."""
FAULTS = ("faults.disk_faults:frequent_snapshots=200000,8",)


class Found(NamedTuple):
    """After a *cut*, the *values* that were there."""

    cut: Cut
    values: dict[str, int]


class Read(NamedTuple):
    """A *value* that was read; *ended* in nanoseconds."""

    ended: int
    name: str
    value: int


def run(trial):
    found = []
    with (
        disk(trial) as hard,
        service(trial, faults=FAULTS, home=hard.folder / "home") as running,
        load(trial, running.counters_url, processes=4, pause=0.002) as clients,
        reading(running.counters_url) as reads,
    ):
        for number in range(trial.runs):
            time.sleep(trial.chance.uniform(0.2, 1.5))
            folder = trial.folder / f"cut.{number}"
            cut = hard.cut(image_of(folder))
            found.append(Found(cut, start_after(trial, folder)))
        calls = clients.finish()
        finals = running.values()
    trial.judge(calls, finals)
    trial.figures["cuts"] = len(found)
    trial.figures["reads"] = len(reads)
    trial.figures["gone_after_cuts"] = sum(len(gone(calls, each)) for each in found)
    trial.figures["earliest_gone_seconds_before_cut"] = round(
        max((age(call, each) for each in found for call in gone(calls, each)), default=0), 3
    )
    for number, each in enumerate(found):
        sentences = violations(calls, reads, each, trial.durability)
        trial.violations += [f"cut {number}: {sentence}" for sentence in sentences]


def start_after(trial, folder):
    """The values that a manager finds on the disk after a cut, mounted at *folder*; it goes on from there."""
    with mounted(image_of(folder), folder):
        home = folder / "home"
        with lone_manager(trial, home, ["faults.disk_faults:another_boot="]):
            counters = counter.connect(f"counter://{home}")
            values = dict(counters.items())
            for name in (*SHARED, "new"):
                told, due = counters.increment(name), values.get(name, 0) + 1
                trial.require(told == due, f"after a cut {name} went on with {told}, and not with {due}")
    image_of(folder).unlink()
    return values


@contextlib.contextmanager
def reading(url):
    """What a thread that reads all the time was told, until the end of the block."""
    reads, stop, counters = [], threading.Event(), counter.connect(url)

    def read():
        while not stop.wait(0.005):
            for name in SHARED:
                value = counters[name]
                reads.append(Read(time.monotonic_ns(), name, value))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield reads
    finally:
        stop.set()
        thread.join()


def gone(calls, found):
    """The calls that were acknowledged before the cut, and are not there."""
    return [
        call
        for call in calls
        if call.outcome == ACKNOWLEDGED
        and call.ended <= found.cut.end
        and call.value > found.values.get(call.name, 0)
    ]


def age(call, found):
    """How many seconds before the cut *call* was answered."""
    return (found.cut.begin - call.ended) / 1e9


def violations(calls, reads, found, durability):
    """What cannot be, of the values that were *found* after a cut."""
    sentences = []
    missing = gone(calls, found)
    for call in missing:
        if durability == "always" or age(call, found) > LATEST:
            sentences.append(
                f"{call.who} was told {call.value} {age(call, found):.3f} s before the cut: lost"
            )
    there = [
        call
        for call in calls
        if call.outcome == ACKNOWLEDGED and call.value <= found.values.get(call.name, 0)
    ]
    newest = max(there, key=lambda call: call.begun, default=None)
    for call in missing:
        if newest is not None and call.ended < newest.begun:
            sentences.append(f"{newest.who} is there, and {call.who}, which had ended before, is not")
    if durability == "always":
        for read in reads:
            if read.ended <= found.cut.end and read.value > found.values.get(read.name, 0):
                sentences.append(
                    f"{read.name} was read as {read.value}, and is {found.values.get(read.name)}"
                )
    return [*few(sentences), *from_nowhere(calls, found)]


def from_nowhere(calls, found):
    """Values that so many calls cannot have made before the cut."""
    for name, value in found.values.items():
        begun = sum(call.name == name and call.begun < found.cut.end for call in calls)
        if value > begun:
            yield f"{name} is {value}, and {begun} calls had begun"
