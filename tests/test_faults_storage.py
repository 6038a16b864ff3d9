"""The scenarios that hurt the storage find nothing wrong in the service, and what is wrong they find.

The runs here are short; `scripts/faults` makes long ones. Where a file system is mounted, it takes root.
"""

import json
import os
from importlib import import_module
from itertools import pairwise
from unittest.mock import patch

import pytest
from faults import failpoints, images, power_cut, reordered_pages
from faults.disk_faults import IN_A_START, POINTS
from faults.images import Cut
from faults.oracle import ACKNOWLEDGED, UNKNOWN, Call
from faults.plan import Plan
from faults.power_cut import Found, Read
from faults.trial import Trial
from test_faults import holds, run_faults

from counter.records import FileFormat
from counter.recovery import _Replay

SECOND = 1_000_000_000


@pytest.fixture
def own_file_systems():
    """They can be had. Without the right to them nothing helps; a tool that is missing is CI's to install."""
    if (reason := images.not_allowed()) is not None:
        pytest.skip(reason)
    missing = images.missing_tools()
    if missing and "CI" not in os.environ:
        pytest.skip(f"these are not installed: {', '.join(missing)}")
    assert not missing


def in_this_process(folder, name, runs, seed=1):
    """The trial of a scenario that starts no processes."""
    trial = Trial(name, folder, runs, seed, "everysec")
    import_module(f"faults.{name}").run(trial)
    return trial


# What was written, and is damaged


@pytest.mark.slow
def test_a_journal_that_is_torn_off_at_any_byte_is_a_prefix_or_is_refused(tmp_path):
    trial = in_this_process(tmp_path, "torn_tail", 1)
    assert trial.violations == []
    assert min(trial.figures[what] for what in ("prefixes", "refused", "opened")) > 100


@pytest.mark.slow
def test_a_bit_that_flipped_makes_no_other_number(tmp_path):
    trial = in_this_process(tmp_path, "bit_flips", 150)
    assert trial.violations == []
    assert min(trial.figures[what] for what in ("prefixes", "refused")) > 50


@pytest.mark.slow
def test_what_was_synced_is_there_whatever_pages_a_power_cut_leaves(tmp_path):
    trial = in_this_process(tmp_path, "reordered_pages", 60)
    assert trial.violations == []
    assert trial.figures["of_them_kept"] > 10
    assert trial.figures["pages_destroyed"] > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "owner", "method", "mistake"),
    [
        ("bit_flips", FileFormat, "_checksum", lambda *_: 0),
        ("bit_flips", _Replay, "_found_behind", lambda *_: None),
        ("bit_flips", _Replay, "end", lambda replay: replay._bad),
        ("reordered_pages", FileFormat, "_checksum", lambda *_: 0),
        ("reordered_pages", _Replay, "end", lambda replay: replay._bad),
        ("reordered_pages", reordered_pages.RememberingFile, "sync", lambda _: None),
        ("reordered_pages", reordered_pages.RememberingDisk, "sync", lambda _: None),
    ],
)
def test_these_find_the_mistakes_of_a_reader_and_a_writer(tmp_path, name, owner, method, mistake):
    """No checksums; what was known to be on the disk, or follows, is forgotten; nothing is really synced."""
    with patch.object(owner, method, mistake):
        try:
            violations = in_this_process(tmp_path, name, 60).violations
        except Exception as error:  # noqa: BLE001  the command line tells of it as a violation
            violations = [repr(error)]
    assert violations


# What a power cut leaves


def told(value, begun, ended, name="n"):
    return Call(f"caller {begun}", name, int(begun * SECOND), int(ended * SECOND), ACKNOWLEDGED, value)


def cut_at(seconds, **values):
    return Found(Cut(int(seconds * SECOND), int((seconds + 0.01) * SECOND)), values)


CALLS = [told(1, 1, 2), told(2, 3, 4), told(3, 5, 6), told(1, 7, 8, "m")]


def test_a_power_cut_may_leave_all_that_was_acknowledged():
    for durability in ("always", "everysec"):
        assert power_cut.violations(CALLS, [], cut_at(9, n=3, m=1), durability) == []
        assert power_cut.violations(CALLS, [], cut_at(7.5, n=3), durability) == []


def test_a_power_cut_may_leave_what_was_asked_for_and_not_yet_answered():
    asked = Call("u", "n", int(6.5 * SECOND), None, UNKNOWN)
    assert power_cut.violations([*CALLS, asked], [], cut_at(9, n=4, m=1), "always") == []
    (said,) = power_cut.violations(CALLS, [], cut_at(9, n=4, m=1), "always")
    assert said == "n is 4, and 3 calls had begun"


def test_with_always_a_power_cut_must_leave_everything():
    (said,) = power_cut.violations(CALLS, [], cut_at(8.1, n=3), "always")
    assert said == "caller 7 was told 1 0.100 s before the cut: lost"


def test_with_everysec_a_power_cut_may_take_the_last_second_and_a_half():
    assert power_cut.violations(CALLS, [], cut_at(9.4, n=3), "everysec") == []
    (said,) = power_cut.violations(CALLS, [], cut_at(9.6, n=3), "everysec")
    assert "1.600 s before the cut: lost" in said


def test_a_power_cut_leaves_a_prefix():
    (said,) = power_cut.violations(CALLS, [], cut_at(8.5, n=2, m=1), "everysec")[1:]
    assert said == "caller 7 is there, and caller 5, which had ended before, is not"


def test_with_always_a_power_cut_must_leave_what_anybody_read():
    reads = [Read(8 * SECOND, "n", 4)]
    (said,) = power_cut.violations(CALLS, reads, cut_at(8.5, n=3, m=1), "always")
    assert said == "n was read as 4, and is 3"
    assert power_cut.violations(CALLS, reads, cut_at(7, n=3), "always") == []
    assert power_cut.violations(CALLS, reads, cut_at(8.5, n=3, m=1), "everysec") == []


# Plans


def test_each_manager_takes_the_next_line_of_a_plan(tmp_path):
    plan = Plan(tmp_path)
    assert plan.told() == []
    plan.write(["written 3", 7])
    assert [plan.take(), plan.take(), plan.take()] == [["written", "3"], ["7"], []]
    plan.tell("killed", 5)
    assert plan.told() == [(os.getpid(), "killed", "5")]


def test_a_round_has_every_point_and_no_two_starts_fail_in_a_row(tmp_path):
    for seed in range(50):
        lines = failpoints.planned(Trial("failpoints", tmp_path, 2, seed, "everysec"))
        points = [line.split()[0] for line in lines]
        assert sorted(points) == sorted([*POINTS] * 2)
        assert points[0] not in IN_A_START
        assert not any({*pair} <= {*IN_A_START} for pair in pairwise(points))


# Real processes


@pytest.mark.process
def test_a_manager_that_is_killed_at_any_point_loses_nothing(tmp_path):
    assert holds(tmp_path, "failpoints", 1)["kills"] == len(POINTS)


@pytest.mark.process
@pytest.mark.parametrize("durability", ["everysec", "always"])
def test_a_power_cut_takes_nothing_that_was_promised(tmp_path, durability, own_file_systems):
    assert holds(tmp_path, "power-cut", 2, durability)["cuts"] == 2


@pytest.mark.process
def test_a_power_cut_shows_that_nothing_was_synced(tmp_path, own_file_systems):
    plant = ("--plant", "faults.disk_faults:no_sync")
    code, figures = run_faults(tmp_path, "power-cut", "--runs", "1", "--durability", "always", *plant)
    assert code == 1
    assert figures["violations"]


@pytest.mark.process
@pytest.mark.parametrize(("durability", "runs"), [("everysec", 1), ("always", 2)])
def test_a_sync_that_failed_costs_nobody_a_call(tmp_path, durability, runs):
    assert holds(tmp_path, "sync-error", runs, durability)["failed_syncs"] == runs


@pytest.mark.process
def test_a_full_disk_refuses_changes_and_nothing_else(tmp_path, own_file_systems):
    code, figures = run_faults(tmp_path, "disk-full", "--runs", "2", "--seed", "1")
    assert (code, figures["violations"]) == (0, [])


@pytest.mark.process
def test_a_slow_disk_makes_nothing_fail(tmp_path):
    holds(tmp_path, "slow-disk", 3, "always")


@pytest.mark.long
@pytest.mark.process
@pytest.mark.parametrize("durability", ["everysec", "always"])
@pytest.mark.parametrize(
    ("name", "runs"),
    [("failpoints", 2), ("power-cut", 5), ("sync-error", 5), ("disk-full", 4), ("slow-disk", 5)],
)
def test_these_hold_for_longer(tmp_path, name, runs, durability, request):
    if name in ("power-cut", "disk-full"):
        request.getfixturevalue("own_file_systems")
    code, figures = run_faults(tmp_path, name, "--runs", str(runs), "--durability", durability)
    print(json.dumps(figures))
    assert (code, figures["violations"]) == (0, [])


@pytest.mark.long
@pytest.mark.parametrize(("name", "runs"), [("torn_tail", 4), ("bit_flips", 5000), ("reordered_pages", 2000)])
def test_damaged_files_are_read_right_more_often(tmp_path, name, runs):
    trial = in_this_process(tmp_path, name, runs, seed=2)
    print(json.dumps(trial.line()))
    assert trial.violations == []
