"""The limits package's own tests of storages and strategies pass against ours, in a real manager.

They come from the source distribution of the version that is installed. Time is real in all of them: they
wait, and nobody's clock is moved. What they call flaky is tried again as often as they allow.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from support import ROOT, clean_environ

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

VERSION = importlib.metadata.version("limits")

LEFT_OUT = {
    "tests/test_strategy.py::TestMovingWindow": "a strategy that we do not offer",
    "tests/integration/test_concurrency.py::TestConcurrency::test_moving_window": "likewise",
    "tests/integration/test_concurrency.py::TestAsyncConcurrency": "storages for asyncio, which we are not",
    "tests/aio": "likewise",
    "tests/test_storage.py::TestBaseStorage": "the registry of schemes, with storages made up for it",
    "tests/test_storage.py::TestStorageErrors": "the wrapping of errors, with a storage made up for it",
    "tests/storage/test_memory.py": "their own storage",
    "tests/storage/test_redis.py": "likewise",
    "tests/benchmarks": "measurements",
    "tests/test_limit_granularities.py": "no storage in it",
    "tests/test_limits.py": "likewise",
    "tests/test_ratelimit_parser.py": "likewise",
    "tests/test_storage_schema.py": "likewise",
    "tests/test_utils.py": "likewise",
}
"""What is not run of their tests: all others are."""

SKIP_THEMSELVES = {"test_expiry_acquire_entry", "test_acquire_entry_custom_amount"}
"""Tests of the moving window, which look whether the storage has it."""

RUN = 20
"""How many do run in 5.8.0, and no fewer in others."""

INI = """
[pytest]
markers =
    asyncio: theirs
    benchmark: theirs
    flaky: theirs
    integration: theirs
    memory: theirs
    memcached: theirs
    mongodb: theirs
    redis: theirs
    redis_cluster: theirs
    redis_sentinel: theirs
    valkey: theirs
    valkey_cluster: theirs
filterwarnings = error
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A folder with their tests, and nothing else of theirs: they test what is installed."""
    folder = tmp_path_factory.mktemp("limits")
    options = ["--quiet", "--no-deps", "--no-binary", "limits", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, f"limits=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    if done.returncode:
        why = f"cannot download the source of limits {VERSION}: {done.stderr.strip()[-500:]}"
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    (archive,) = folder.glob("limits-*.tar.gz")
    with tarfile.open(archive) as tar:
        root = f"limits-{VERSION}/"
        members = [member for member in tar if member.name.startswith(root + "tests/")]
        for member in members:
            member.name = member.name.removeprefix(root)
        tar.extractall(folder, members, filter="data")
    (folder / "pytest.ini").write_text(INI)
    return folder


def run_theirs(folder, url, *which):
    """What came out of their tests *which*: (id, outcome, tries allowed) of each; and what pytest said."""
    report = folder / "report"
    report.unlink(missing_ok=True)
    environ = clean_environ(LIMITS_TEST_URL=url, LIMITS_TEST_REPORT=str(report))
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), environ["PYTHONPATH"]])
    plugins = ["-p", "limits_plugin", "-p", "no:cacheprovider", "--noconftest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", *plugins, *which],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = report.read_text().splitlines() if report.exists() else []
    return [json.loads(line) for line in lines], done.stdout + done.stderr


def test_their_tests_pass(unpacked, manager):
    url = f"counter://{manager.home}"
    files = [path for path in LEFT_OUT if "::" not in path]
    tests = [path for path in LEFT_OUT if "::" in path]
    which = [f"--ignore={path}" for path in files] + [f"--deselect={path}" for path in tests]
    results, said = run_theirs(unpacked, url, *which, "tests")
    skipped = {
        test.partition("[")[0].rpartition("::")[2] for test, outcome, _ in results if outcome == "skipped"
    }
    assert skipped == SKIP_THEMSELVES, said
    tried = Counter(test for test, _, _ in results)
    while failed := [(test, tries) for test, outcome, tries in results if outcome == "failed"]:
        assert all(tried[test] < tries for test, tries in failed), said
        again, said = run_theirs(unpacked, url, *(test for test, _ in failed))
        tried.update(test for test, _, _ in again)
        assert len(again) == len(failed), said
        results = [result for result in results if result[1] != "failed"] + again
    passed = [test for test, outcome, _ in results if outcome == "passed"]
    assert len(passed) >= RUN, said
    assert all("[counter]" in test for test in passed)


def test_what_is_left_out_is_there(unpacked):
    for path in LEFT_OUT:
        file, *inside = path.split("::")
        assert (unpacked / file).exists(), path
        text = "" if (unpacked / file).is_dir() else Path(unpacked / file).read_text()
        assert all(f"class {name}" in text or f"def {name}(" in text for name in inside), path
