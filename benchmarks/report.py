"""The report of a run: the figures of each row in tables, ours beside the others', and what was promised."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Spread, table
from benchmarks.row import OURS, PEAK, Aim, Case, Found, Row
from counter.settings import VERSION

PACKAGES = (
    *("redis", "hiredis", "pymemcache", "diskcache", "prometheus-client", "msgspec"),
    *("flask", "waitress", "gunicorn", "granian", "pyuwsgi"),
)
SERVERS = {"redis-server": "--version", "valkey-server": "--version", "memcached": "--version"}


class Figure(NamedTuple):
    """How a figure is told: its *title*, times *scale*, with so many *digits*.

    *more_is_better* of some; *compared* are those of which the ratios are told too.
    """

    title: str
    scale: float = 1.0
    digits: int = 0
    more_is_better: bool = False
    compared: bool = True


FIGURES = {
    "rate": Figure("operations/s", more_is_better=True),
    "p50": Figure("p50 us", 1e6, 1),
    "p99": Figure("p99 us", 1e6, compared=False),
    "longest": Figure("longest ms", 1e3, 1),
    "client_cpu": Figure("client CPU us", 1e6, 1, compared=False),
    "server_cpu": Figure("server CPU us", 1e6, 1, compared=False),
    "cpu": Figure("CPU us", 1e6, 1),
    "seconds": Figure("seconds", 1.0, 2),
    "bytes": Figure("bytes"),
}
"""Every figure that a row can have, in the order in which they are told; in seconds and bytes."""


def ratios(case: Case, other: Case, figure: str) -> list[float]:
    """*figure* of *case* divided by that of *other*, round by round; nothing where one has none."""
    if not case.figures.get(figure) or not other.figures.get(figure):
        return []
    pairs = zip(case.figures[figure], other.figures[figure], strict=True)
    return [ours / theirs for ours, theirs in pairs if theirs]


class Verdict(NamedTuple):
    """What became of an *aim*: the *spread* of what counts, None if it was not measured."""

    aim: Aim
    spread: Spread | None

    @property
    def word(self) -> str:
        """How far it went, in words."""
        if self.spread is None:
            return "not measured"
        if self._is(self.aim.aim):
            return "aim reached"
        return "reached" if self._is(self.aim.at_least) else "NOT REACHED"

    def _is(self, limit: float) -> bool:
        assert self.spread is not None  # noqa: S101  for mypy: it was measured
        more = FIGURES[self.aim.figure].more_is_better
        return self.spread.median >= limit if more else self.spread.median <= limit


def judge(aim: Aim, cases: Sequence[Case]) -> Verdict:
    """Compare what was promised with what was measured."""
    ours = _case(cases, aim.ours, aim.condition, aim.figure)
    if ours is None:
        return Verdict(aim, None)
    if not aim.against:
        values = ours.figures.get(aim.figure, [])
    else:
        condition = aim.condition if aim.against_condition is None else aim.against_condition
        other = _case(cases, aim.against, condition, aim.figure)
        values = [] if other is None else ratios(ours, other, aim.figure)
    return Verdict(aim, Spread.of(values) if values else None)


def tell(row: Row, found: Found) -> str:
    """A row for people: its figures, the ratios to ours, the aims and the notes."""
    parts = [f"{row.name}: {row.about}", _figures(found.cases), _ratios(found.cases), _aims(row, found.cases)]
    parts.append("\n".join(f"note: {note}" for note in found.notes))
    return "\n\n".join(filter(None, parts))


def as_json(row: Row, found: Found) -> dict[str, Any]:
    """A row for programs: every value of every round, and the aims."""
    verdicts = [judge(aim, found.cases) for aim in row.aims]
    return {
        "about": row.about,
        "cases": [case._asdict() for case in found.cases],
        "aims": [each.aim._asdict() | {"found": each.spread, "word": each.word} for each in verdicts],
        "notes": found.notes,
    }


def _case(cases: Sequence[Case], subject: str, condition: str, figure: str) -> Case | None:
    found = [each for each in cases if each.subject == subject and each.figures.get(figure)]
    if condition == PEAK:
        best = max if FIGURES[figure].more_is_better else min
        return best(found, key=lambda each: Spread.of(each.figures[figure]).median, default=None)
    return next((each for each in found if each.condition == condition), None)


def _columns(cases: Sequence[Case]) -> list[str]:
    named = {name for case in cases for name, values in case.figures.items() if values}
    if unknown := named - FIGURES.keys():
        raise ValueError(f"nobody knows how to tell {', '.join(sorted(unknown))}")
    return [name for name in FIGURES if name in named]


def _figures(cases: Sequence[Case]) -> str:
    columns = _columns(cases)
    rows = [["", *(FIGURES[name].title for name in columns)]]
    for case in cases:
        figures = [(FIGURES[name], case.figures.get(name, [])) for name in columns]
        rows.append([_title(case), *(_told(values, each.digits, each.scale) for each, values in figures)])
    return table(rows)


def _told(values: Sequence[float], digits: int, scale: float = 1.0) -> str:
    if not values:
        return "-"
    spread = Spread.of(values)
    return spread.told(digits, scale) if len(values) > 1 else f"{scale * spread.median:,.{digits}f}"


def _title(case: Case) -> str:
    return f"{case.condition}, {case.subject}" if case.condition else case.subject


def _ratios(cases: Sequence[Case]) -> str:
    columns = [name for name in _columns(cases) if FIGURES[name].compared]
    rows = [[f"{OURS} divided by", *(FIGURES[name].title for name in columns)]]
    ours = {case.condition: case for case in cases if case.subject == OURS}
    for case in cases:
        if case.subject != OURS and case.condition in ours:
            found = [ratios(ours[case.condition], case, name) for name in columns]
            rows.append([_title(case), *(_told(each, 2) for each in found)])
    return table(rows) if len(rows) > 1 else ""


def _aims(row: Row, cases: Sequence[Case]) -> str:
    rows = [["promised", "at least", "aim", "found", ""]]
    for aim in row.aims:
        figure, verdict = FIGURES[aim.figure], judge(aim, cases)
        scale, digits = (1.0, 2) if aim.against else (figure.scale, figure.digits)
        bound = "" if figure.more_is_better else "<= "
        limits = [f"{bound}{scale * limit:,.{digits}f}" for limit in (aim.at_least, aim.aim)]
        told = verdict.spread.told(digits, scale) if verdict.spread else "-"
        rows.append([_sentence(aim), *limits, told, verdict.word])
    return table(rows) if len(rows) > 1 else ""


def _sentence(aim: Aim) -> str:
    title = FIGURES[aim.figure].title
    said = f"{aim.condition}, {title}" if aim.condition else title
    if aim.against and aim.against_condition is not None:
        return f"{said} of {aim.ours} / {aim.against}, {aim.against_condition or 'alone'}"
    return f"{said} of {aim.ours}" + (f" / {aim.against}" if aim.against else "")


def machine() -> dict[str, Any]:
    """Where this is measured, how busy that is, and the versions of everything that is compared."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {OURS: VERSION, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
        | {name: version for name in PACKAGES if (version := _package(name))}
        | {name: _server(name, flag) for name, flag in SERVERS.items() if shutil.which(name)},
    }


def tell_machine(found: dict[str, Any]) -> str:
    """The machine for people."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    where = f"{found['cpus']} cpus ({found['cpu']}), {found['system']}, load {found['load']}, {found['at']}"
    return f"{where}\n{versions}"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _server(name: str, flag: str) -> str:
    told = subprocess.run([name, flag], capture_output=True, text=True, check=True).stdout  # noqa: S603
    words = told.replace("v=", "").split()
    return next((word for word in words if word[0].isdigit()), told.strip())
