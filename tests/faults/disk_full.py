"""The disk gets full under load, and has room again: changes are refused meanwhile, nothing else happens.

The home is on a small file system of its own, by turns in memory and an ext4. While it is full: HTTP says
503 `journal-full` with Retry-After, the library `JournalFull`, `/readyz` is not ready, and reads show what
was there. The manager is killed and starts again on the full disk: reads go on. Then there is room, and it
resumes by itself. No acknowledged call is lost, none is doubled, and no call fails in another way.
"""

import contextlib
import json
import os
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from support import wait_until

import counter
from faults.diary import read_diaries
from faults.images import ext4, tmpfs
from faults.load import load
from faults.oracle import ACKNOWLEDGED
from faults.processes import Kill
from faults.service import service

ROOM = 300_000
"""Bytes for the journal before the disk is full."""
REFUSALS = 20
"""In a row, of a change that now and then had a turn of its own."""
MOST_SECONDS = 5.0
"""Within which it must have resumed."""
PATIENCE = 60.0


def run(trial):
    for number in range(trial.runs):
        folder = trial.folder / f"disk.{number}"
        small = tmpfs(folder, 2**21) if number % 2 == 0 else ext4(folder, 2**23, "-m", "0")
        with small:
            fill_and_free(trial, folder)


def fill_and_free(trial, folder):
    """One full disk at *folder*."""
    home = folder / "home"
    with (
        service(trial, workers=1, home=home, arguments=["--timeout", 2]) as running,
        load(trial, running.counters_url, processes=2, pause=0.002) as clients,
    ):
        ballast = folder / "ballast"
        take_all_but(ROOM, folder, ballast)
        wait_until(lambda: is_full(running), PATIENCE)
        read_before = read_diaries(clients.folder)
        before = running.values()
        refuses(trial, running, "full")
        told(trial, before, read_before)
        kill = Kill(running.manager())
        after = running.values()
        lower = [name for name, value in before.items() if after.get(name, 0) < value]
        trial.require(not lower, f"the next manager on the full disk has less of {lower}")
        trial.figures["kills"] += 1
        refuses(trial, running, f"full, and started {(time.monotonic_ns() - kill.at) / 1e9:.1f} s ago")
        seconds = free(running, ballast)
        trial.figures["slowest_resume_seconds"] = max(seconds, trial.figures.get("slowest_resume_seconds", 0))
        trial.require(seconds <= MOST_SECONDS, f"it took {seconds} s to resume")
        clients.wait_answered(time.monotonic_ns(), MOST_SECONDS)
        wait_until(lambda: http("GET", running.url, "/readyz")[0] == 200, PATIENCE)  # looked at each second
        calls = clients.finish()
        finals = {name: value for name, value in running.values().items() if name != "probe"}
    trial.judge(calls, finals, errors_allowed=True)
    odd = {call.said for call in calls if call.failed and not call.said.startswith("JournalFull(")}
    trial.require(not odd, f"a call ended with something else: {odd}")


def take_all_but(room, folder, ballast):
    """Fill the file system at *folder* with *ballast*, but for so many bytes."""
    found = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - room)


def is_full(running):
    """Whether there is no room for one change: a turn of several is refused while one still fits."""
    return all(http("POST", running.url, "/v1/counters/probe/increment")[0] == 503 for _ in range(REFUSALS))


def free(running, ballast):
    """Make room; the seconds until a change is accepted."""
    ballast.unlink()
    begin = time.monotonic()
    wait_until(lambda: http("POST", running.url, "/v1/counters/probe/increment")[0] == 200, PATIENCE)
    return round(time.monotonic() - begin, 3)


def refuses(trial, running, when):
    """See that changes are refused as they should be, and that reads go on."""
    status, headers, body = http("POST", running.url, "/v1/counters/probe/increment")
    trial.require((status, body.get("code")) == (503, "journal-full"), f"{when}: {status} {body}")
    trial.require("Retry-After" in headers, f"{when}: 503 without Retry-After")
    counters = counter.connect(running.counters_url)
    value = counters["own.0.0"]
    try:
        counters.increment("own.0.0")
    except counter.JournalFull:
        pass
    else:
        trial.require(False, f"{when}: the library could increment")
    read = http("GET", running.url, "/v1/counters/own.0.0")[2].get("value")
    trial.require(read == value == counters["own.0.0"], f"{when}: {read} was read, and then {value}")
    ready = http("GET", running.url, "/readyz")[0]
    trial.require(ready == 503, f"{when}: /readyz says {ready}")


def told(trial, values, calls):
    """See that *values*, which were read after all of *calls*, have each that was acknowledged."""
    lost = [call for call in calls if call.outcome == ACKNOWLEDGED and call.value > values.get(call.name, 0)]
    trial.require(not lost, f"{len(lost)} acknowledged calls do not show on the full disk")


def http(method, url, path):
    """Status, headers, and body of an answer."""
    with contextlib.ExitStack() as stack:
        try:
            answer = stack.enter_context(urlopen(Request(url + path, method=method), timeout=PATIENCE))
        except HTTPError as error:
            answer = stack.enter_context(error)
        text = answer.read()
        return answer.status, answer.headers, json.loads(text) if text.startswith(b"{") else {}
