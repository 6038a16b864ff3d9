"""The benchmarks run and print figures that can be; how fast anything is, no test says."""

import json
import sys
from typing import NamedTuple

import pytest
from support import ROOT, start_process

from benchmarks.__main__ import BENCHMARKS
from benchmarks.durability import stalls
from benchmarks.figures import Spread, percentile, table
from benchmarks.launcher import Stall
from benchmarks.load import Calls

TINY = ("--seconds", "0.1", "--rounds", "2", "--counters", "500", "--clients", "2")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def bench(*arguments):
    """The benchmark, once it has ended; of what it started nothing is left, whatever happens."""
    with start_process([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT) as process:
        code = process.wait(60)
        return Done(code, process.stdout, process.stderr)


def is_spread(found):
    median, low, high = found
    return 0 < low <= median <= high


# Figures


def test_a_spread_is_the_median_with_the_lowest_and_the_highest():
    assert Spread.of([5, 1, 3]) == (3, 1, 5)
    assert Spread.of([0.0012, 0.002]).told(1, 1000) == "1.6 (1.2-2.0)"


def test_a_percentile_is_one_of_the_values():
    values = list(range(100, 0, -1))
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [51, 100, 100]
    assert percentile([], 0.5) == 0


def test_a_table_has_columns():
    assert table([("", "one", "b"), ("row", "1", "2,000")]) == "     one      b\nrow    1  2,000"


def test_calls_count_where_they_ended():
    calls = Calls([1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    assert calls.between(1.0, 2.5) == [0.2]


def test_what_a_stall_was_is_told_apart():
    """0.1 s in all, 0.02 s at work, 0.05 s without a CPU: the rest was spent waiting for something."""
    stall = Stall(10.0, 0.1, 0.02, 0.05, waking=False)
    assert (stall.own, stall.blocked) == (pytest.approx(0.05), pytest.approx(0.03))


def test_a_window_takes_the_worst_of_what_touches_it():
    probe = Calls([9.0, 10.5, 11.0], [0.5, 0.001, 0.002])
    found = stalls._figures(
        stalls.Window("snapshot", 10.0, 12.0),
        probe,
        [Calls([10.1, 10.2, 12.5], [0.1] * 3)] * 2,
        [
            Stall(8.0, 1.0, 1.0, 0.0, waking=False),  # before
            Stall(9.99, 0.03, 0.01, 0.0, waking=False),  # reaches into it
            Stall(11.0, 0.04, 0.001, 0.035, waking=False),
            Stall(11.5, 0.06, 0.0, 0.06, waking=True),
        ],
    )
    assert (found["rate"], found["longest"], found["loop"], found["queued"]) == (2.0, 0.002, 0.04, 0.06)
    assert (found["own"], found["blocked"]) == (pytest.approx(0.03), pytest.approx(0.02))


# The command


@pytest.mark.process
def test_the_list_tells_every_benchmark_in_a_sentence():
    lines = bench("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)
    assert all(len(line.split()) > 3 and line.endswith(".") for line in lines)


@pytest.mark.process
@pytest.mark.parametrize("arguments", [(), ("nothing",), ("durability", "--part", "nothing")])
def test_what_there_is_not_is_a_wrong_use(arguments):
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: scripts/bench" in done.stderr


@pytest.mark.process
def test_the_cost_and_the_restart_have_figures(tmp_path):
    done = bench("durability", *TINY, "--folder", tmp_path, "--part", "cost", "--part", "restart", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    (cost,) = figures["cost"]
    assert cost["clients"] == 2
    assert is_spread(cost["sync_seconds"])
    assert list(cost["modes"]) == ["memory", "everysec", "always"]
    for mode in cost["modes"].values():
        assert all(map(is_spread, mode.values()))
        assert mode["p50"][0] <= mode["p99"][0] < 1
    assert cost["modes"]["memory"]["rate_ratio"] == [1, 1, 1]
    starts = figures["restart"]["from"]
    assert len(starts) == 3
    assert all(is_spread(each) for start in starts.values() for each in start.values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_snapshot_is_made_under_load(tmp_path):
    """The longest stall is not longer than the longest call that was held up by it; text is for people."""
    done = bench("durability", *TINY, "--rounds", "1", "--folder", tmp_path, "--part", "stalls", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    windows = json.loads(done.stdout)["stalls"]["windows"]
    assert [window["kind"] for window in windows] == ["snapshot", "quiet"]
    for window in windows:
        assert window["rate"] > 0
        assert 0 < window["p99"] <= window["longest"] < 10
        assert max(window["own"], window["running"], window["blocked"]) <= window["loop"] < 10


@pytest.mark.process
def test_people_are_told_in_a_table(tmp_path):
    done = bench("durability", *TINY, "--folder", tmp_path, "--part", "cost")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[3:6]] == ["memory", "everysec", "always"]


@pytest.mark.process
def test_watching_has_figures_beside_another_version(tmp_path):
    arguments = ("--counters", "1500", "--rounds", "2", "--seconds", "0.1", "--folder", tmp_path)
    done = bench("changes", *arguments, "--against", ROOT, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert list(figures["versions"]) == ["this", "against"]
    assert all(is_spread(each) for version in figures["versions"].values() for each in version.values())
    answer = figures["first_answer"]
    assert (answer["pages"], answer["counters"]) == ([2] * 3, [1500] * 3)
    assert is_spread(answer["longest"])
    assert list(tmp_path.iterdir()) == []
    text = bench("changes", *arguments).stdout
    assert "1,500 counters" in text and "the first answer: 2 (2-2) pages" in text
