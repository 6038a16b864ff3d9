"""Callers, network, manager and disk in a simulation: what is promised holds for every seed that is tried."""

import os
import subprocess
import sys

import pytest
import simulation
from simulation import Violation, digest, simulate
from simulation_oracle import Oracle
from support import ROOT

FEW, MANY = 40, 2000
SHARES = 8


@pytest.fixture(scope="module")
def traces():
    """Of the first seeds; a broken promise raises."""
    return [simulate(seed) for seed in range(FEW)]


def test_the_promises_hold_for_the_first_seeds(traces):
    assert all(trace[-1].partition(" ")[2].startswith("started with") for trace in traces)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_the_promises_hold_for_two_thousand_seeds(share):
    for seed in range(FEW + share, FEW + MANY, SHARES):
        simulate(seed)


def test_a_seed_is_the_whole_run(traces):
    assert simulate(7) == traces[7] != traces[8]
    assert digest(7) == digest(7) != digest(8)


@pytest.mark.process
def test_another_process_plays_the_same_run():
    command = [sys.executable, str(ROOT / "tests" / "simulation.py"), "7"]
    environ = os.environ | {"PYTHONHASHSEED": "random"}
    told = [subprocess.run(command, capture_output=True, env=environ, check=True).stdout for _ in range(2)]
    assert told[0] == told[1] and told[0].decode().splitlines() == simulate(7)


def test_the_runs_meet_what_they_are_for(traces):
    told = "\n".join(line for trace in traces for line in trace)
    for event in (
        "killed",
        "power cut",
        "ended in write",
        "ended in sync",
        "ended in rename",
        "refused: the change could not be written down",
        "exit 5",
        "no start",
        "snapshot process failed",
        ".snapshot",
        "key-reused",
        "out-of-bounds",
        "unknown",
    ):
        assert event in told, event


def test_a_violation_tells_its_seed_and_its_trace(monkeypatch):
    monkeypatch.setattr(simulation.World, "play", lambda world: Oracle.told(None, None, None, None))
    with pytest.raises(Violation, match=r"clients=(.|\n)*seed 3: AttributeError"):
        simulate(3)


# -- the judge can say no

ANSWER = b"answer\xc2"


@pytest.fixture
def oracle():
    return Oracle(always=False)


def answer(oracle, name="op:1", value=1, caller=b"anna", seq=1, ticks=0.0, **other):
    fields = {"deadline": 9.0, "key": None, "now": 0.0, "sealed": ANSWER, "code": None, "replayed": False}
    fields |= other
    plain, steps = fields["sealed"][:-1], [("Increment", name, 1, value, None)]
    oracle.answered(caller=caller, seq=seq, ticks=ticks, plain=plain, steps=steps, **fields)


def turn(oracle, *answers, **fields):
    oracle.begin()
    for each in answers or [fields]:
        answer(oracle, **each)
    oracle.committed()


def found(oracle, values, callers=None, keys=None, power=False):
    oracle.ended(power)
    oracle.found(values, callers or {}, keys or {}, now=0.0, ticks=99.0)


def test_the_judge_sees_a_lost_a_doubled_and_an_invented_count(oracle):
    turn(oracle)
    turn(oracle, name="op:2", seq=2)
    for values in (
        {"op:1": (1, None)},
        {"op:2": (1, None)},
        {"op:1": (2, None), "op:2": (1, None)},
        {"x": (1, None)},
    ):
        with pytest.raises(Violation):
            found(oracle, values)
    found(oracle, {"op:1": (1, None), "op:2": (1, None)})


def test_the_judge_allows_a_power_cut_a_prefix_of_what_was_not_safe(oracle):
    turn(oracle)
    oracle.is_safe(2)
    turn(oracle, name="op:2", seq=2)
    turn(oracle, name="op:3", seq=3)
    for values in ({}, {"op:1": (1, None), "op:3": (1, None)}):
        with pytest.raises(Violation):
            found(oracle, values, power=True)
    found(oracle, {"op:1": (1, None)}, power=True)
    assert oracle.lost == 2


def test_the_judge_of_always_allows_no_power_cut_to_take_anything():
    oracle = Oracle(always=True)
    turn(oracle)
    with pytest.raises(Violation, match="were safe"):
        found(oracle, {}, power=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"sealed": b"another\xc2"}),
        ({"seq": 2}, {"seq": 1}),
        ({}, {"seq": 2, "value": 2}),
        ({}, {"seq": 2, "name": "x", "value": 7}),
        ({}, {"seq": 2, "name": "x", "ticks": 9.0}),
        ({}, {"seq": 2, "name": "x", "code": "outcome-unknown"}),
        ({}, {"seq": 2, "name": "x", "replayed": True}),
        ({"key": "k"}, {"seq": 2, "key": "k"}),
        ({"key": "k"}, {"seq": 2, "key": "k", "replayed": True, "sealed": b"another\xc3"}),
        ({}, {"seq": 2, "key": "k", "code": "key-reused"}),
    ],
)
def test_the_judge_sees_a_wrong_answer(oracle, first, second):
    turn(oracle, **first)
    with pytest.raises(Violation):
        turn(oracle, **second)


def test_the_judge_wants_the_same_answer_after_a_start(oracle):
    turn(oracle, deadline=200.0)
    with pytest.raises(Violation, match="callers"):
        found(oracle, {"op:1": (1, None)})
    with pytest.raises(Violation, match="callers"):
        found(oracle, {"op:1": (1, None)}, {b"anna": (1, b"another")})
    found(oracle, {"op:1": (1, None)}, {b"anna": (1, ANSWER)})


def test_the_judge_knows_that_a_refused_turn_did_nothing(oracle):
    oracle.begin()
    answer(oracle)
    oracle.refused()
    answer(oracle, code="journal-full")
    oracle.committed()
    found(oracle, {})


def test_the_judge_misses_what_was_acknowledged(oracle):
    turn(oracle)
    oracle.told(["op:1"], True, ANSWER)
    oracle.finish()
    oracle.history[-1].values.clear()
    with pytest.raises(Violation, match="acknowledged"):
        oracle.finish()
