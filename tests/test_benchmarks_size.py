"""The rows about size, upkeep and durability count right; how good their figures are, no test says."""

import math
import os
import shutil

import pytest

import counter
from benchmarks import homes
from benchmarks.launcher import Stall
from benchmarks.load import NAMES, Calls
from benchmarks.managers import manager
from benchmarks.report import FIGURES, judge
from benchmarks.row import OURS, Options, WrongTotal
from benchmarks.rows import changes, connections, memory, modes, restart, snapshot_stall


def tiny(folder, rounds=1, counters=500):
    return Options(rounds=rounds, seconds=0.1, counters=counters, folder=folder)


def figures_of(row, found):
    """What was measured, by subject and condition: once a round, all that is promised, and it can be told."""
    assert len({len(values) for case in found.cases for values in case.figures.values()}) == 1
    for case in found.cases:
        assert case.figures and set(case.figures) <= set(FIGURES)
        assert all(
            math.isfinite(value) and value >= 0 for values in case.figures.values() for value in values
        )
    assert all(judge(aim, found.cases).spread for aim in row.aims)
    return {(case.subject, case.condition): case.figures for case in found.cases}


# Homes


@pytest.mark.long
@pytest.mark.parametrize("log_bytes", [0, 100_000])
def test_a_home_has_what_its_maker_tells(tmp_path, log_bytes):
    total = homes.fill(tmp_path / "home", 300, log_bytes)
    with manager(tmp_path / "home", "everysec") as running:
        hits = counter.connect(running.url)
        assert (len(hits), hits.total()) == (300, total)
        entries = list(hits.entries())
        assert {entry.name for entry in entries} >= set(NAMES)
        assert len({entry.created_at for entry in entries}) == 300
        assert min(entry.value for entry in entries) > 256  # none of an int that Python keeps once
    assert (total > sum(map(homes.value, range(300)))) == bool(log_bytes)


def test_the_increment_before_a_turn_counts():
    assert homes.increments([Calls([1.0, 2.0], [0.1, 0.1]), Calls([], [])]) == 4


# What a snapshot holds up


def test_what_a_stall_was_is_told_apart():
    """0.1 s in all, 0.02 s at work, 0.05 s without a CPU: the rest was spent waiting for something."""
    stall = Stall(10.0, 0.1, 0.02, 0.05, waking=False)
    assert (stall.own, stall.blocked) == (pytest.approx(0.05), pytest.approx(0.03))


def test_a_window_takes_the_worst_of_what_touches_it():
    probe = Calls([9.0, 10.5, 11.0], [0.5, 0.001, 0.002])
    cases = snapshot_stall.cases(
        [snapshot_stall.Window("snapshot", 10.0, 12.0)],
        probe,
        [Calls([10.1, 10.2, 12.5], [0.1] * 3)] * 2,
        [
            Stall(8.0, 1.0, 1.0, 0.0, waking=False),  # before
            Stall(9.99, 0.03, 0.01, 0.0, waking=False),  # reaches into it
            Stall(11.0, 0.04, 0.001, 0.035, waking=False),
            Stall(11.5, 0.06, 0.0, 0.06, waking=True),
        ],
    )
    during = snapshot_stall.KINDS["snapshot"]
    found = {case.condition.removeprefix(during).lstrip("; "): case.figures for case in cases}
    assert (found[""]["rate"], found[""]["longest"]) == ([2.0], [0.002])
    longest = {part: figures["longest"] for part, figures in found.items() if part}
    assert longest == {
        "its loop": [0.04],
        "its loop, but for others on the CPU": [pytest.approx(0.03)],
        "of it running": [0.01],
        "of it blocked": [pytest.approx(0.02)],
        "its loop without a CPU": [0.06],
    }


@pytest.mark.long
def test_a_snapshot_is_made_under_load(tmp_path):
    """The longest turn of the loop has its parts within it."""
    found = figures_of(snapshot_stall.ROW, snapshot_stall.measure(tiny(tmp_path)))
    for kind in snapshot_stall.KINDS.values():
        calls = found[OURS, kind]
        assert calls["rate"][0] > 0
        assert 0 < calls["p99"][0] <= calls["longest"][0] < 10
        ((loop,), *parts) = (found[OURS, f"{kind}; {part}"]["longest"] for part in snapshot_stall.LOOP)
        assert all(part <= loop < 10 for (part,) in parts)


# The others


@pytest.mark.long
def test_a_start_is_measured_from_each_kind_of_journal(tmp_path):
    found = figures_of(restart.ROW, restart.measure(tiny(tmp_path, rounds=2)))
    assert [start for _, start in found] == ["nothing", "a snapshot", "a snapshot and a log"]
    assert all(0 < seconds < 30 for figures in found.values() for seconds in figures["seconds"])


@pytest.mark.long
def test_each_mode_has_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(modes, "PROCESSES", (2,))
    measured = modes.measure(tiny(tmp_path, rounds=2))
    found = figures_of(modes.ROW, measured)
    assert list(found) == [(subject, "2 processes") for subject in modes.MODES.values()]
    for figures in found.values():
        assert set(figures) == {"rate", "p50", "p99", "server_cpu"}
        assert all(p50 <= p99 < 10 for p50, p99 in zip(figures["p50"], figures["p99"], strict=True))
    assert "sync" in measured.notes[0]


@pytest.mark.long
def test_a_watcher_is_told_all(tmp_path):
    measured = changes.measure(tiny(tmp_path, counters=1500))
    found = figures_of(changes.ROW, measured)
    assert list(found[OURS, changes.BESIDE]) == ["seconds", "p99", "longest"]
    assert measured.notes == ["the first answer has 1,500 counters in 2 pages"]


@pytest.mark.long
def test_counters_take_memory(tmp_path):
    measured = memory.measure(tiny(tmp_path, counters=20_000))
    found = figures_of(memory.ROW, measured)
    for when in (memory.FILLED, memory.RESTARTED, memory.PEAK):
        assert 50 < found[OURS, when]["bytes"][0] < 2000  # a name alone has 65
    is_compared(measured, memory.REDIS)


@pytest.mark.long
def test_idle_connections_take_memory(tmp_path):
    measured = connections.measure(tiny(tmp_path, counters=100))
    found = figures_of(connections.ROW, measured)
    for subject in (OURS, "stock manager"):
        assert "bytes" not in found[subject, connections.ALONE]
        assert 0 < found[subject, connections.BESIDE]["bytes"][0] < 100_000
        assert 0 < found[subject, connections.BESIDE]["p50"][0] < 10
    is_compared(measured, connections.redis_py.EVERYSEC)


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "told"),
    [
        *((row, "fill") for row in (memory, restart, changes, snapshot_stall)),
        *((row, "increments") for row in (changes, connections, modes, snapshot_stall)),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_an_increment_too_few_ends_a_row(tmp_path, monkeypatch, row, told):
    """Nothing is measured of a subject that lost one; here, one is said to be there that was never made."""
    real = getattr(row, told)
    monkeypatch.setattr(row, told, lambda *arguments: real(*arguments) + 1)
    with pytest.raises(WrongTotal):
        row.measure(tiny(tmp_path, counters=50))


def is_compared(measured, subject):
    """A subject whose server is not installed is told of; with CI set it has to be there."""
    if any(case.subject == subject for case in measured.cases):
        return
    assert "CI" not in os.environ and shutil.which("redis-server") is None
    assert "redis-server is not installed: not compared" in measured.notes
