"""Charts of rows, for the docs: medians, with a line from the lowest to the highest value of the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Chart

from benchmarks.figures import Spread
from benchmarks.report import FIGURES
from benchmarks.row import OURS, Case, Found, Row

LINES = 3
"""From so many conditions on, a subject is a line over them, and not a bar for each."""
_WIDTH, _BAR = 8.0, 0.32
_THOUSANDS = "{x:,.10g}"
_OURS, _OTHERS = "#c2410c", ("#2563eb", "#0d9488", "#7c3aed", "#64748b", "#a16207", "#db2777", "#15803d")


def draw(row: Row, found: Found, about: dict[str, Any], folder: Path) -> Path:
    """Draw the first figure that was promised, or else measured, of *row* as an SVG file in *folder*.

    Args:
        row: what was measured.
        found: what came out.
        about: the run: `machine`, `rounds` and `seconds`.
        folder: made if need be.
    """
    named = [aim.figure for aim in row.aims] + list(FIGURES)
    figure = next(name for name in named if any(case.figures.get(name) for case in found.cases))
    cases = [case for case in found.cases if case.figures.get(figure)]
    conditions = list(dict.fromkeys(case.condition for case in cases))
    subjects = list(dict.fromkeys(case.subject for case in cases))
    lines = len(conditions) >= LINES and len(subjects) > 1
    chart = Chart(figsize=(_WIDTH, 4.5 if lines else 1.4 + _BAR * len(cases)), layout="constrained")
    axes = chart.add_subplot()
    (_lines if lines else _bars)(axes, cases, figure, conditions)
    chart.suptitle(row.about, fontsize=9, x=0.01, horizontalalignment="left")
    axes.spines[["top", "right"]].set_visible(False)
    machine = about["machine"]
    chart.supxlabel(
        f"{machine['cpus']} cpus ({machine['cpu']}), {about['rounds']} rounds of {about['seconds']:g} s, "
        f"{machine['at'][:10]}",
        fontsize=7,
        color="#64748b",
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row.name}.svg"
    chart.savefig(path, metadata={"Date": None})
    return path


def _spread(case: Case, figure: str) -> Spread:
    return Spread(*(FIGURES[figure].scale * each for each in Spread.of(case.figures[figure])))


def _color(subject: str, subjects: Sequence[str]) -> str:
    others = [each for each in subjects if each != OURS]
    return _OURS if subject == OURS else _OTHERS[others.index(subject) % len(_OTHERS)]


def _bars(axes: Axes, cases: Sequence[Case], figure: str, conditions: Sequence[str]) -> None:
    """A bar for each case, the best of each condition at the top."""
    more = FIGURES[figure].more_is_better
    order = sorted(
        cases,
        key=lambda case: (
            conditions.index(case.condition),
            -_spread(case, figure).median if more else _spread(case, figure).median,
        ),
    )
    subjects = list(dict.fromkeys(case.subject for case in cases))
    spreads = [_spread(case, figure) for case in order]
    medians = [each.median for each in spreads]
    bars = axes.barh(
        range(len(order)),
        medians,
        color=[_color(case.subject, subjects) for case in order],
        xerr=_whiskers(spreads),
        error_kw={"elinewidth": 1, "ecolor": "#334155"},
    )
    digits = FIGURES[figure].digits
    axes.bar_label(bars, [f"{each:,.{digits}f}" for each in medians], padding=6, fontsize=8)
    titles = [f"{case.subject}, {case.condition}" if case.condition else case.subject for case in order]
    axes.set_yticks(range(len(order)), titles, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.set_xlabel(FIGURES[figure].title, fontsize=8)


def _lines(axes: Axes, cases: Sequence[Case], figure: str, conditions: Sequence[str]) -> None:
    """A line for each subject, over the conditions."""
    subjects = list(dict.fromkeys(case.subject for case in cases))
    for subject in subjects:
        own = [case for case in cases if case.subject == subject]
        spreads = [_spread(case, figure) for case in own]
        axes.errorbar(
            [conditions.index(case.condition) for case in own],
            [each.median for each in spreads],
            yerr=_whiskers(spreads),
            label=subject,
            color=_color(subject, subjects),
            linewidth=2.5 if subject == OURS else 1.2,
            marker="o",
            markersize=4,
            elinewidth=1,
        )
    axes.set_xticks(range(len(conditions)), conditions, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_THOUSANDS)
    axes.set_ylabel(FIGURES[figure].title, fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _whiskers(spreads: Sequence[Spread]) -> list[list[float]]:
    return [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
