"""Versions: outside an opaque string, never given twice; inside the id of a run, and a revision."""

from __future__ import annotations

from .results import Entry


class Versions:
    """Those that the run *run* gives; `newest` is its latest revision."""

    def __init__(self, run: str) -> None:
        self.newest = 0
        self._run = run
        self._begin = len(run) + 1  # of the revision in a version

    def next_revision(self) -> int:
        """One that was never given before in this run."""
        self.newest += 1
        return self.newest

    def next(self) -> str:
        """A version never given before, in this run or another."""
        self.newest += 1
        return f"{self._run}.{self.newest}"

    def of(self, revision: int) -> str:
        """What *revision* of this run is called outside."""
        return f"{self._run}.{revision}"

    def revision(self, entry: Entry) -> int:
        """The revision of *entry*, which is of this run."""
        return int(entry.version[self._begin :])

    def between(self, revision: int, began: int) -> str:
        """How far a listing of everything has come, which began at *began*, between two of its pages."""
        return self.of(revision) if revision >= began else f"{self.of(revision)}-{began}"

    def find(self, version: str) -> tuple[int, int] | None:
        """The two of `between`, alike in a plain version; None: of another run, or none that was given."""
        run, _, text = version.rpartition(".")
        parts = text.split("-") if run == self._run else []
        if not 1 <= len(parts) <= 2 or not all(p.isascii() and p.isdecimal() and len(p) < 20 for p in parts):
            return None
        revision, began = int(parts[0]), int(parts[-1])
        return (revision, began) if revision <= began <= self.newest else None
