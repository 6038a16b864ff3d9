"""Figures made of many measurements, and how they are told."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """The median of some measurements, with the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of *values*, of which there is at least one."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])

    def told(self, digits: int, scale: float = 1.0) -> str:
        """All three, each times *scale* and with so many *digits* behind the point."""
        median, low, high = (f"{scale * each:,.{digits}f}" for each in self)
        return f"{median} ({low}-{high})"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values* that this *share* of them does not exceed; 0 if there are none."""
    if not values:
        return 0.0
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))]


def table(rows: Sequence[Sequence[str]]) -> str:
    """*rows* as lines of text in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
