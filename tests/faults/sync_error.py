"""The disk refuses a sync: the manager ends without an answer, and the next one writes everything anew.

The n-th manager of a service fails at its n-th sync. Checked: it ends with exit code 5, with `always` it
answers nothing any more; before the next one serves, a whole snapshot is written and synced, and no file
from before is synced again, since the kernel may say of it what is not true; no call fails, none is lost or
doubled. Where there is strace, the system call itself is made to fail too.
"""

import shutil
import time

from support import wait_until

import counter
from faults.load import load
from faults.lone_manager import lone_manager
from faults.oracle import slowest
from faults.plan import Plan
from faults.service import PATIENCE, service

DISK_FAILED = 5
"""The exit code that says so."""
MOST_TRACED = 3
SYNCS_OF_A_START = 2
"""By the thread that also appends; strace counts them for each thread."""


def run(trial):
    plan = Plan(trial.new_folder("plan"))
    plan.write(range(1, trial.runs + 1))
    faults = ["faults.disk_faults:sync_seconds=0.05", f"faults.disk_faults:sync_error={plan.folder}"]
    with (
        service(trial, faults=faults) as running,
        load(trial, running.counters_url, processes=2, pause=0.002) as clients,
    ):
        wait_until(lambda: len(told(plan, "running")) > trial.runs, PATIENCE + 3 * trial.runs)
        running.manager()
        calls = clients.finish()
        finals = running.values()
    trial.figures["failed_syncs"] = len(told(plan, "failed"))
    trial.figures["slowest_call_seconds"] = slowest(calls)
    trial.judge(calls, finals)
    judge_ends(trial, plan.told())
    judge_starts(trial, plan.told())
    if shutil.which("strace") is not None:
        for number in range(1, min(trial.runs, MOST_TRACED) + 1):
            fail_system_call(trial, number)


def told(plan, word):
    """The lines of the plan that begin with *word*."""
    return [line for line in plan.told() if line[1] == word]


def by_manager(lines):
    """For each manager, in their order, what it told."""
    managers = {}
    for pid, *words in lines:
        managers.setdefault(pid, []).append(words)
    return [*managers.values()]


def judge_ends(trial, lines):
    """Every manager that met a failed sync must have ended at once, and for that reason."""
    for number, words in enumerate(by_manager(lines)[: trial.runs], 1):
        end = words[words.index(["failed"]) + 1 :] if ["failed"] in words else []
        trial.require(["exit", str(DISK_FAILED)] in end, f"failed sync {number}: no exit code 5: {end}")
        answers = end.count(["answered"])
        said = f"failed sync {number}: {answers} answers were given after it"
        trial.require(trial.durability != "always" or not answers, said)
        trial.require(not any(each[0] == "sync" for each in end), f"failed sync {number}: another one: {end}")


def judge_starts(trial, lines):
    """What every manager after the first synced before it ran."""
    for number, words in enumerate(by_manager(lines)[1:], 1):
        start = words[: words.index(["running"])]
        syncs = [rest for what, *rest in start if what == "sync"]
        old = [name for how, name in syncs if how == "opened"]
        trial.require(not old, f"start {number}: files from before were synced: {old}")
        first = syncs[0][1] if syncs else "nothing"
        trial.require("snapshot" in first, f"start {number}: {first} was synced first, and no snapshot")


def fail_system_call(trial, number):
    """Let strace inject the error into a lone manager's sync number *number* after its start."""
    home = trial.folder / f"traced.{number}"
    # the first ones are `load`'s to begin with; with `everysec` a second passes for each
    nth = SYNCS_OF_A_START + (20 * number if trial.durability == "always" else number)
    # -D: the manager is our child, and strace ends with it
    tracer = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
    tracer += ["-e", f"inject=fdatasync:error=EIO:when={nth}"]
    with (
        lone_manager(trial, home, tracer=tracer) as manager,
        load(trial, f"counter://{home}", processes=1, pause=0.01) as clients,
    ):
        code = manager.wait(PATIENCE)
        trial.require(code == DISK_FAILED, f"system call {nth} failed: exit code {code}")
        with lone_manager(trial, home):
            clients.wait_answered(time.monotonic_ns(), PATIENCE)
            calls = clients.finish()
            finals = dict(counter.connect(f"counter://{home}").items())
    trial.judge(calls, finals)
    trial.figures["failed_system_calls"] = trial.figures.get("failed_system_calls", 0) + 1
