"""What a row of the benchmark is: what it is told, what it measures, and what was promised of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

OURS = "counter"
"""The subject that is this package."""
PEAK = "its own peak"
"""In place of a condition: the one with the best median."""


class Options(NamedTuple):
    """How much to measure."""

    rounds: int
    """How often everything is compared."""
    seconds: float
    """How long one turn of one subject takes."""
    counters: int
    """How many counters, in rows that are about size."""
    folder: Path
    """An empty folder of this row's own, with a path so short that sockets can be in it."""


class Case(NamedTuple):
    """What was measured of a *subject* under a *condition* ("" where there is one only).

    *figures* are one value a round, the same rounds for all cases of a row; their names are in
    `report.FIGURES`.
    """

    subject: str
    condition: str
    figures: dict[str, list[float]]


class Found(NamedTuple):
    """What a row measured, and what has to be known about it, such as who could not be compared."""

    cases: list[Case]
    notes: list[str] = []  # noqa: RUF012  nobody appends to the default: a tuple's fields are made once


class Aim(NamedTuple):
    """What the project promises: *figure* of *ours* beside that of *against* is *at_least*, and better *aim*.

    The ratio is taken round by round, ours divided by theirs. Of a figure that is better when it is low,
    *at_least* is the most that it may be. Without *against* it is the figure itself and no ratio.
    """

    figure: str
    ours: str
    against: str
    condition: str
    at_least: float
    aim: float
    against_condition: str | None = None
    """Where *against* is measured, if not under the same *condition*; `PEAK` is the best of all."""


class Row(NamedTuple):
    """One comparison: its *name* on the command line, a sentence *about* it, and how to *measure* it."""

    name: str
    about: str
    measure: Callable[[Options], Found]
    aims: tuple[Aim, ...] = ()


class WrongTotal(Exception):
    """A subject lost or invented increments: its figures mean nothing."""


def expect_total(subject: str, total: int, expected: int) -> None:
    """Raise `WrongTotal` unless the *total* of what *subject* counted is what was *expected*."""
    if total != expected:
        raise WrongTotal(f"{subject} counted {total:,} where {expected:,} were acknowledged")
