"""A run's time never goes back, and its id is its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from counter import run as run_module
from counter.run import UNKNOWN_BOOT, Run, boot_id


class Times:
    """A wall clock and a monotonic clock that we set."""

    def __init__(self, monkeypatch, wall):
        self.wall, self.ticks = wall, 1000.0
        monkeypatch.setattr(run_module, "datetime", self)
        monkeypatch.setattr(Run, "ticks", lambda run: self.ticks)

    def now(self, zone):
        assert zone is UTC
        return self.wall


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_time_begins_at_the_wall_clock_and_is_carried_on_by_the_monotonic_one(monkeypatch):
    times = Times(monkeypatch, NOON)
    run = Run()
    assert (run.now(), run.uptime()) == (NOON, 0.0)
    times.wall -= timedelta(hours=1)  # somebody sets the clock back
    times.ticks += 2.5
    assert (run.now(), run.uptime()) == (NOON + timedelta(seconds=2.5), 2.5)


def test_time_does_not_begin_before_what_an_earlier_run_wrote(monkeypatch):
    Times(monkeypatch, NOON)
    assert Run(not_before=NOON + timedelta(hours=1)).now() == NOON + timedelta(hours=1)
    assert Run(not_before=NOON - timedelta(hours=1)).now() == NOON


def test_no_two_runs_have_the_same_id():
    ids = {Run().id for _ in range(200)}
    assert len(ids) == 200
    assert all(id_.isascii() and id_ and "." not in id_ for id_ in ids)


def test_the_boot_is_the_same_until_the_host_is_restarted_and_unknown_where_nobody_tells(monkeypatch):
    assert boot_id() == boot_id() != UNKNOWN_BOOT
    monkeypatch.setattr(Path, "read_text", lambda path: "no id")
    assert boot_id() == UNKNOWN_BOOT
