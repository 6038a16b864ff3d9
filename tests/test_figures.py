"""The workers that Info shows: who is connected, with all that they ever served."""

from counter.figures import _REMEMBERED, Figures
from counter.information import WorkerFigures
from counter.ops import Hello


class Connection:
    """All that figures needs of one: that it is itself."""


def worker(pid):
    return Hello("worker", pid, "1.0")


def test_a_worker_is_shown_once_it_has_reported_and_its_reports_add_up():
    figures, connection = Figures(), Connection()
    figures.hello(connection, worker(7))
    assert figures.workers() == []
    figures.report(connection, 3)
    figures.report(connection, 4)
    assert figures.workers() == [WorkerFigures(7, "worker", 7)]


def test_the_connections_of_one_process_are_one_worker():
    figures, first, second = Figures(), Connection(), Connection()
    figures.hello(first, worker(7))
    figures.hello(second, worker(7))
    figures.report(first, 1)
    figures.report(second, 2)
    assert figures.workers() == [WorkerFigures(7, "worker", 3)]
    figures.leave(first)
    assert figures.workers() == [WorkerFigures(7, "worker", 3)]


def test_who_has_gone_is_not_shown_and_goes_on_counting_when_back():
    figures, connection = Figures(), Connection()
    figures.hello(connection, worker(7))
    figures.report(connection, 3)
    figures.leave(connection)
    assert figures.workers() == []
    again = Connection()
    figures.hello(again, worker(7))
    figures.report(again, 1)
    assert figures.workers() == [WorkerFigures(7, "worker", 4)]


def test_workers_are_shown_by_pid():
    figures = Figures()
    for pid in (30, 10, 20):
        connection = Connection()
        figures.hello(connection, worker(pid))
        figures.report(connection, pid)
    assert [each.pid for each in figures.workers()] == [10, 20, 30]


def test_a_report_by_nobody_is_nothing():
    figures = Figures()
    figures.report(Connection(), 5)
    figures.leave(Connection())
    assert figures.workers() == []


def test_a_host_that_goes_through_many_workers_does_not_fill_the_memory():
    """The one that has not reported for longest is forgotten."""
    figures, first = Figures(), Connection()
    figures.hello(first, worker(1))
    for pid in range(2, _REMEMBERED + 1):
        connection = Connection()
        figures.hello(connection, worker(pid))
        figures.report(connection, 1)
        figures.leave(connection)
    figures.report(first, 1)
    for pid in range(1_000, 1_000 + _REMEMBERED - 1):
        connection = Connection()
        figures.hello(connection, worker(pid))
        figures.report(connection, 1)
        figures.leave(connection)
    assert len(figures._served) == _REMEMBERED
    assert figures.workers() == [WorkerFigures(1, "worker", 1)]
