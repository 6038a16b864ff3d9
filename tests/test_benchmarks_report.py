"""Figures are told as they are: medians and spreads, ratios of the same round, promises kept or not."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.figures import Spread, percentile, table
from benchmarks.row import OURS, PEAK, Aim, Case, Found, Row

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


# Aims


def cases(figure="rate", **values):
    """Cases of one condition: a list of values for each subject, "ours" being ours."""
    return [
        Case(OURS if name == "ours" else name, "8", {figure: found} if found else {})
        for name, found in values.items()
    ]


@pytest.mark.parametrize(
    ("found", "word"),
    [([30, 31, 32], "aim reached"), ([20, 25, 90], "reached"), ([19, 10, 40], "NOT REACHED")],
)
def test_an_aim_is_judged_by_the_median_of_the_ratios_of_each_round(found, word):
    aim = Aim("rate", OURS, "other", "8", 2.0, 3.0)
    verdict = report.judge(aim, cases(ours=found, other=[10, 10, 10]))
    assert verdict.word == word
    assert verdict.spread == Spread.of(each / 10 for each in found)


def test_ratios_are_taken_within_a_round():
    """A machine that is half as fast in one round is so for both."""
    verdict = report.judge(
        Aim("rate", OURS, "other", "8", 2.0, 3.0), cases(ours=[20, 10, 40], other=[10, 5, 20])
    )
    assert verdict.spread == (2, 2, 2)


@pytest.mark.parametrize(
    ("found", "word"), [(0.3, "aim reached"), (0.35, "aim reached"), (0.5, "reached"), (0.51, "NOT REACHED")]
)
def test_what_should_be_low_is_judged_the_other_way_round(found, word):
    aim = Aim("cpu", OURS, "other", "8", 0.5, 0.35)
    assert report.judge(aim, cases("cpu", ours=[found], other=[1.0])).word == word


def test_an_aim_can_be_about_the_figure_itself():
    aim = Aim("bytes", OURS, "", "8", 450, 250)
    assert report.judge(aim, cases("bytes", ours=[300, 260, 400])) == (aim, Spread(300, 260, 400))
    assert report.judge(aim, cases("bytes", ours=[300])).word == "reached"


def test_an_aim_can_be_about_our_own_peak():
    found = [Case(OURS, "1", {"rate": [10, 12]}), Case(OURS, "8", {"rate": [20, 40]}), *cases(other=[90, 90])]
    found.append(Case(OURS, "32", {"rate": [15, 38]}))
    verdict = report.judge(Aim("rate", OURS, OURS, "32", 0.8, 0.95, against_condition=PEAK), found)
    assert verdict.spread == Spread.of([15 / 20, 38 / 40])


@pytest.mark.parametrize("found", [cases(ours=[1]), cases(ours=[], other=[1]), cases(other=[1]), []])
def test_what_was_not_measured_reaches_nothing(found):
    verdict = report.judge(Aim("rate", OURS, "other", "8", 2.0, 3.0), found)
    assert (verdict.spread, verdict.word) == (None, "not measured")


def test_every_row_promises_what_it_measures():
    for name in command.ROWS:
        row = command.load(name)
        assert row.name == name
        for aim in row.aims:
            figure = report.FIGURES[aim.figure]
            assert (aim.aim > aim.at_least) == figure.more_is_better


# The report


ROW = Row(
    "row", "What is compared.", lambda options: Found([]), (Aim("rate", OURS, "other", "8 processes", 2, 3),)
)
FOUND = Found(
    [
        Case(OURS, "8 processes", {"rate": [4000, 3000, 2000], "p50": [0.001, 0.002, 0.003]}),
        Case("other", "8 processes", {"rate": [1000, 1000, 1000], "p50": [0.002, 0.002, 0.002]}),
        Case("alone", "", {"rate": [7, 7, 7]}),
    ],
    ["a thing is not installed: not compared"],
)


def test_people_are_told_figures_ratios_aims_and_notes():
    head, figures, ratios, aims, notes = report.tell(ROW, FOUND).split("\n\n")
    assert head == "row: What is compared."
    assert [line.split() for line in figures.splitlines()] == [
        ["operations/s", "p50", "us"],
        ["8", "processes,", "counter", "3,000", "(2,000-4,000)", "2,000.0", "(1,000.0-3,000.0)"],
        ["8", "processes,", "other", "1,000", "(1,000-1,000)", "2,000.0", "(2,000.0-2,000.0)"],
        ["alone", "7", "(7-7)", "-"],
    ]
    assert ratios.splitlines()[1].split() == [
        "8",
        "processes,",
        "other",
        *["3.00", "(2.00-4.00)", "1.00", "(0.50-1.50)"],
    ]
    assert len(ratios.splitlines()) == 2
    assert aims.splitlines()[1].endswith("2.00  3.00  3.00 (2.00-4.00)  aim reached")
    assert notes == "note: a thing is not installed: not compared"


def test_one_round_has_no_spread():
    assert "4,000 " in report.tell(ROW, Found([Case(OURS, "", {"rate": [4000], "p50": [0.001]})]))


def test_a_figure_that_nobody_can_tell_is_a_mistake():
    with pytest.raises(ValueError, match="nobody knows how to tell speed"):
        report.tell(ROW, Found([Case(OURS, "", {"speed": [1.0]})]))


def test_programs_are_told_everything():
    told = json.loads(json.dumps(report.as_json(ROW, FOUND)))
    assert [case["subject"] for case in told["cases"]] == [OURS, "other", "alone"]
    assert told["cases"][0]["figures"] == FOUND.cases[0].figures
    (aim,) = told["aims"]
    assert (aim["found"], aim["word"], aim["against"]) == ([3, 2, 4], "aim reached", "other")
    assert told["notes"] == FOUND.notes


@pytest.mark.slow
def test_a_row_with_many_conditions_is_drawn_as_lines(tmp_path):
    from benchmarks.plot import draw

    found = Found(
        [Case(name, str(each), {"rate": [each, 2 * each]}) for name in (OURS, "other") for each in range(3)]
    )
    about = {"machine": {"cpus": 2, "cpu": "fast", "at": "2026-01-01T00:00:00Z"}, "rounds": 2, "seconds": 1.0}
    path = draw(ROW, found, about, tmp_path / "new")
    assert path == tmp_path / "new" / "row.svg"
    assert "<svg" in path.read_text()
