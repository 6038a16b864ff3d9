"""schemathesis against the real service: whatever it sends, the OpenAPI document tells what comes back.

SCHEMATHESIS_SECONDS=300 in the environment makes the long run longer. What is no fault, and why:
tests/schemathesis.toml and tests/schemathesis_hooks.py.
"""

import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from support import COMMAND, start_process

from counter.web.openapi import document

SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "60"))
TESTS = Path(__file__).parent
OPERATIONS = sum(len(item.keys() - {"parameters"}) for item in document()["paths"].values())


def attack(folder, bound, *phases, timeout):
    """The report on a run of *phases* within *bound*; a fault fails the test."""
    run = (
        *COMMAND,
        "run",
        "--workers",
        "3",
        "--port",
        "0",
        "--home",
        folder / "home",
        "--durability",
        "memory",
    )
    with start_process(run, cwd=folder) as service:
        url = service.line("ready", timeout=60).split()[1]
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=20) as answer:
            (folder / "openapi.json").write_bytes(answer.read())
        report = folder / "report.json"
        arguments = [
            "--config-file",
            TESTS / "schemathesis.toml",
            "run",
            folder / "openapi.json",  # a file, as it leaves out the address that it loads one from
            f"--url={url}",
            f"--phases={','.join(phases)}",
            bound,
            "--report=json",
            f"--report-json-path={report}",
        ]
        environ = {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
        with start_process([sys.executable, "-m", "schemathesis.cli", *arguments], environ, folder) as tester:
            code = tester.wait(timeout)
            assert code == 0, "its output, which is printed below, tells what it found"
        assert service.stop(signal.SIGTERM) == 0
        assert "ERROR" not in service.stderr
        return json.loads(report.read_text())


def check(report, *phases, least):
    """The run was whole: every operation in each of *phases*, with *least* requests and all of the checks."""
    cases, operations = report["test_cases"], report["operations"]
    print(
        f"{cases['generated']} test cases, {operations['tested']} operations, "
        f"{report['running_time']:.0f} s, {report['filtered']} refusals that are no fault"
    )
    assert (operations["tested"], operations["skipped"]) == (OPERATIONS, 0)
    assert {name for name, phase in report["phases"].items() if phase["status"] == "success"} == {*phases}
    assert cases["generated"] >= least
    assert cases["with_failures"] == cases["errored"] == cases["without_checks"] == 0
    assert report["filtered"] < cases["generated"] / 5
    assert not report["warnings"]["unsupported_regex"]
    for operation, rates in report["valid_rates"].items():
        assert any(rate["accepted"] for rate in rates.values()), f"nothing valid was sent to {operation}"


@pytest.mark.process
def test_a_short_run_finds_nothing(tmp_path):
    phases = ("examples", "fuzzing", "stateful")
    check(attack(tmp_path, "--max-examples=5", *phases, timeout=90), *phases, least=50)


@pytest.mark.process
@pytest.mark.long
@pytest.mark.timeout(SECONDS + 240)
def test_a_long_run_finds_nothing(tmp_path):
    phases = ("examples", "coverage", "fuzzing", "stateful")
    report = attack(tmp_path, f"--max-time={SECONDS}", *phases, timeout=SECONDS + 120)
    check(report, *phases, least=SECONDS)
