"""Versions: outside an opaque string, never given twice; inside the id of a run, and a revision."""

from __future__ import annotations

from .results import Entry


class Versions:
    """Those that the run *run* gives; `newest` is its latest revision."""

    def __init__(self, run: str) -> None:
        self.newest = 0
        self._run = run

    def next_revision(self) -> int:
        """One that was never given before in this run."""
        self.newest += 1
        return self.newest

    def next(self) -> str:
        """A version never given before, in this run or another."""
        return self.of(self.next_revision())

    def of(self, revision: int) -> str:
        """What *revision* of this run is called outside."""
        return f"{self._run}.{revision}"

    def find(self, version: str) -> int | None:
        """The revision that *version* names, None if it is of another run, or none that was given."""
        run, _, text = version.rpartition(".")
        ours = run == self._run and text.isascii() and text.isdecimal() and len(text) < 20
        return int(text) if ours and int(text) <= self.newest else None


def revision(entry: Entry) -> int:
    """The revision of *entry*, which is of this run."""
    return int(entry.version.rpartition(".")[2])
