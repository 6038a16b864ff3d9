"""Small mistakes in the code itself: each is made in a copy of the clone, and the tests must see it.

    scripts/mutants [--seed S] [--count N] [--seconds T] [MODULE …]

Of all that `mistakes` can make in the modules, a seed draws some. For each the tests of that module run; one
that they do not see *survives*, and is told with its line: it is either no mistake at all (equivalent), or a
test is missing.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from faults.mistakes import made, mistakes_in, source_of

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 2
UNIT = "not process and not slow and not long"
EDGES, SIMULATION = "test_journal_edges.py", "test_simulation.py"
TESTS = {
    "transition": ("test_transition.py", "test_table.py", "test_store_contract.py"),
    "table": ("test_table.py", "test_keys.py", "test_state.py", "test_store_contract.py", SIMULATION),
    "keys": ("test_keys.py", "test_snapshot.py", "test_table.py"),
    "log": ("test_log.py", "test_journal.py", EDGES, SIMULATION, "test_model.py"),
    "records": ("test_records.py", "test_recovery.py", EDGES),
    "recovery": ("test_recovery.py", "test_journal.py", EDGES, SIMULATION),
    "snapshot": ("test_snapshot.py", "test_journal.py", "test_keeper.py", EDGES),
    "journal": ("test_journal.py", "test_manager.py", EDGES, SIMULATION),
    "stores/manager": ("test_manager_store.py",),
}
"""The tests of each module: their unit part, but for `WITH_PROCESSES`."""
WITH_PROCESSES = {"snapshot", "stores/manager"}
"""Modules that are, or that talk to, another process: all tests of theirs but the long ones."""


class Verdict(NamedTuple):
    """What became of a mistake.

    Attributes:
        fate: killed, killed by time, survived, not run.
        line: where it is, and what it is.
        said: by the test that saw it.
    """

    fate: str
    line: str
    said: str


class Clone:
    """A copy of *root* in *folder*, in which one mistake at a time is made."""

    def __init__(self, root, folder):
        self.folder = folder
        shutil.copytree(root, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))

    def test(self, module, seconds, *arguments):
        """Run the tests of *module*; the exit code, None if that takes too long, and the last lines."""
        files = [f"tests/{name}" for name in TESTS[module] if (self.folder / "tests" / name).exists()]
        marks = "not long" if module in WITH_PROCESSES else UNIT
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            marks,
            *arguments,
            *files,
        ]
        environ = os.environ | {"PYTHONPATH": str(self.folder), "CI": "1"}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.folder / "said").open("w+b") as said:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environ, stdout=said, stderr=said, start_new_session=True
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            said.seek(0)
            return code, said.read().decode(errors="replace")

    def red_without(self, module, seconds):
        """The tests that fail without any mistake."""
        code, said = self.test(module, 6 * seconds)
        if code == 0:
            return []
        red = [line.split()[1] for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if code != 1 or not red:
            raise SystemExit(f"the tests of {module} do not run:\n{said}")
        return red

    def judge(self, mistake, seconds, red):
        """The verdict on one mistake."""
        text, line = made(mistake, self.folder)
        source = source_of(mistake.module, self.folder)
        before = source.read_text()
        self._put(source, text)
        try:
            code, said = self.test(mistake.module, seconds, "-x", *(f"--deselect={name}" for name in red))
        finally:
            self._put(source, before)
        failed = [line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        fate = {0: "survived", 1: "killed", 2: "killed", 4: "killed", None: "killed by time"}.get(
            code, "not run"
        )
        return Verdict(fate, line, failed[0] if failed else said[-300:])

    @staticmethod
    def _put(source, text):
        """Write *source*; what was compiled is no longer it, and within a second nothing else would tell."""
        source.write_text(text)
        for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc"):
            compiled.unlink()


def carry_out(root, drawn, seconds):
    """The verdicts on all *drawn* mistakes in the clone *root*, some at a time."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(AT_ONCE) as crowd:
        clones = SimpleQueue()
        for number in range(AT_ONCE):
            clones.put(Clone(root, Path(folder, str(number))))

        def in_a_clone(method, *arguments):
            clone = clones.get()
            try:
                return method(clone, *arguments)
            finally:
                clones.put(clone)

        modules = sorted({each.module for each in drawn})
        red = dict(
            zip(
                modules,
                crowd.map(lambda module: in_a_clone(Clone.red_without, module, seconds), modules),
                strict=True,
            )
        )
        for module, tests in red.items():
            if tests:
                print(f"left out, red without a mistake ({module}): {', '.join(tests)}", flush=True)
        work = [crowd.submit(in_a_clone, Clone.judge, each, seconds, red[each.module]) for each in drawn]
        for done in work:
            yield done.result()


def main(arguments):
    parser = argparse.ArgumentParser(
        "scripts/mutants", description="Make mistakes, and see which no test sees."
    )
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}; all if left out"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), metavar="S")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="how many mistakes")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="T", help="for the tests of one")
    parser.add_argument("--line", type=int, metavar="L", help="only what can be made in this line of MODULE")
    parser.add_argument("--verbose", action="store_true", help="tell of the killed, too")
    options = parser.parse_args(arguments)
    modules = [each.removesuffix(".py").removeprefix("counter/") for each in options.modules] or [*TESTS]
    if unknown := {*modules} - {*TESTS}:
        parser.error(f"there are no tests for {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Clone(ROOT, Path(folder, "clone")).folder  # whatever is edited meanwhile
        mistakes = [each for module in modules for each in mistakes_in(module, root)]
        if options.line is not None:
            mistakes = [each for each in mistakes if f".py:{options.line}: " in made(each, root)[1]]
        drawn = random.Random(options.seed).sample(mistakes, min(options.count, len(mistakes)))
        print(f"seed {options.seed}: {len(drawn)} of {len(mistakes)} mistakes", flush=True)
        return report(carry_out(root, drawn, options.seconds), options.verbose)


def report(verdicts, verbose):
    """Print what became of all; the exit code."""
    begun, fates = time.monotonic(), []
    for verdict in verdicts:
        fates.append(verdict.fate)
        if verbose or verdict.fate in ("survived", "not run"):
            print(f"{verdict.fate}: {verdict.line}", flush=True)
        if verbose or verdict.fate == "not run":
            print(f"    {verdict.said}", flush=True)
    told = ", ".join(
        f"{fates.count(fate)} {fate}" for fate in ("killed", "killed by time", "survived", "not run")
    )
    print(f"{told}; {time.monotonic() - begun:.0f} s")
    return 1 if fates.count("survived") + fates.count("not run") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
