"""What the manager counts: the workers that Info shows, what they served, operations by what came of them."""

import pytest

from counter.errors import JournalFull, NotFound, OutOfBounds
from counter.figures import _MOST_ROUTES, _REMEMBERED, Figures
from counter.information import Latencies, WorkerFigures
from counter.ops import Changes, Get, Hello, Increment, List, Report
from counter.results import Problem, Reply

FAST, SLOW = [2, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]


class Connection:
    """All that figures needs of one: that it is itself."""


def worker(pid):
    return Hello("worker", pid, "1.0")


def connect(figures, pid):
    connection = Connection()
    figures.hello(connection, worker(pid))
    return connection


def test_a_worker_is_shown_once_it_has_reported_and_its_reports_add_up():
    figures = Figures()
    connection = connect(figures, 7)
    assert figures.workers() == []
    figures.report(connection, Report(1, 3, 4, 2))
    figures.report(connection, Report(2, 4, 4, 1))
    assert figures.workers() == [WorkerFigures(7, "worker", 7, slots=4, slots_used=1)]


def test_the_connections_of_one_process_are_one_worker():
    figures = Figures()
    first, second = connect(figures, 7), connect(figures, 7)
    figures.report(first, Report(1, 1))
    figures.report(second, Report(2, 2))
    assert figures.workers() == [WorkerFigures(7, "worker", 3)]
    figures.leave(first)
    assert figures.workers() == [WorkerFigures(7, "worker", 3)]


def test_a_report_that_is_sent_again_is_counted_once_on_whichever_connection_it_comes():
    figures = Figures()
    first, second = connect(figures, 7), connect(figures, 7)
    report = Report(10, 3, http={"/livez": {"2xx": Latencies(0.5, FAST)}})
    figures.report(first, report)
    figures.report(first, report)
    figures.report(second, report)
    figures.report(connect(figures, 8), report)
    assert [each.requests for each in figures.workers()] == [3, 3]
    assert figures.http() == {"/livez": {"2xx": Latencies(1.0, [4, 0, 0, 0, 0, 0, 0])}}


def test_who_has_gone_is_not_shown_and_goes_on_counting_when_back():
    figures = Figures()
    connection = connect(figures, 7)
    figures.report(connection, Report(1, 3))
    figures.leave(connection)
    assert figures.workers() == []
    figures.report(connect(figures, 7), Report(2, 1))
    assert figures.workers() == [WorkerFigures(7, "worker", 4)]


def test_workers_are_shown_by_pid():
    figures = Figures()
    for pid in (30, 10, 20):
        figures.report(connect(figures, pid), Report(1, pid))
    assert [each.pid for each in figures.workers()] == [10, 20, 30]


def test_a_report_by_nobody_is_nothing():
    figures = Figures()
    figures.report(Connection(), Report(1, 5, http={"/livez": {"2xx": Latencies(0.5, FAST)}}))
    figures.leave(Connection())
    assert (figures.workers(), figures.http()) == ([], {})


def test_a_host_that_goes_through_many_workers_does_not_fill_the_memory():
    """The one that has not reported for longest is forgotten."""
    figures = Figures()
    first = connect(figures, 1)
    for pid in range(2, _REMEMBERED + 1):
        connection = connect(figures, pid)
        figures.report(connection, Report(1, 1))
        figures.leave(connection)
    figures.report(first, Report(1, 1))
    for pid in range(1_000, 1_000 + _REMEMBERED - 1):
        connection = connect(figures, pid)
        figures.report(connection, Report(1, 1))
        figures.leave(connection)
    assert len(figures._served) == _REMEMBERED
    assert figures.workers() == [WorkerFigures(1, "worker", 1)]


# What workers served


def test_latencies_add_up_over_reports_and_workers_and_stay_when_these_have_ended():
    figures = Figures()
    first, second = connect(figures, 7), connect(figures, 8)
    figures.report(first, Report(1, 2, http={"/b": {"2xx": Latencies(0.25, FAST)}}))
    figures.report(second, Report(1, 1, http={"/b": {"2xx": Latencies(50.0, SLOW)}}))
    figures.leave(first)
    figures.report(
        second, Report(2, 1, http={"/a": {"5xx": Latencies(50.0, SLOW)}, "/b": {"4xx": Latencies(1, SLOW)}})
    )
    figures.leave(second)
    assert figures.http() == {
        "/a": {"5xx": Latencies(50.0, SLOW)},
        "/b": {"2xx": Latencies(50.25, [2, 0, 0, 0, 0, 0, 1]), "4xx": Latencies(1.0, SLOW)},
    }
    assert [*figures.http()] == ["/a", "/b"]


def test_a_worker_that_makes_routes_up_does_not_fill_the_memory():
    figures = Figures()
    connection = connect(figures, 7)
    for number in range(3 * _MOST_ROUTES):
        figures.report(connection, Report(number, 2, http={f"/{number}": {"2xx": Latencies(0.5, FAST)}}))
    told = figures.http()
    assert len(told) <= _MOST_ROUTES + 1
    assert sum(sum(each["2xx"].counts) for each in told.values()) == 6 * _MOST_ROUTES
    assert told["other"]["2xx"].counts[0] == 4 * _MOST_ROUTES


def test_numbers_stop_where_they_could_not_be_told():
    figures = Figures()
    connection = connect(figures, 7)
    huge = Latencies(1.0, [2**63 - 1] * 7)
    for number in range(3):
        figures.report(connection, Report(number, 2**63 - 1, http={"/": {"2xx": huge}}))
    assert figures.workers()[0].requests == 2**63 - 1
    assert figures.http()["/"]["2xx"].counts == [2**63 - 1] * 7


# Operations


def problem(error):
    return Problem.of(error("no"))


def test_operations_are_counted_by_what_came_of_each():
    figures = Figures()
    figures.decided([Increment("a")], Reply([object()]))
    figures.decided([Increment("a")], Reply.refusing(OutOfBounds("no")))
    figures.decided([Increment("a"), Get("a"), Get("b")], Reply([object(), object(), problem(NotFound)]))
    figures.unreadable()
    assert figures.operations() == {
        "get": {"not-found": 1, "ok": 1},
        "increment": {"ok": 2, "out-of-bounds": 1},
        "unknown": {"invalid-request": 1},
    }


def test_all_operations_of_a_batch_are_refused_with_it():
    figures = Figures()
    figures.decided([Increment("a"), Get("b")], Reply.refusing(JournalFull("no")))
    assert figures.operations() == {"get": {"journal-full": 1}, "increment": {"journal-full": 1}}


def test_what_was_answered_before_is_not_counted_again():
    figures = Figures()
    figures.decided([Increment("a")], None)
    assert figures.operations() == {}


def test_a_question_that_takes_its_time_is_counted_with_its_answer():
    figures, connection = Figures(), Connection()
    seal = figures.asked(connection, List(), lambda reply: b"sealed")
    assert figures.operations() == {}
    assert seal(Reply([object()])) == b"sealed"
    assert figures.operations() == {"list": {"ok": 1}}


def test_an_answer_that_cannot_be_sealed_counts_as_what_is_sent_in_its_place():
    def choosy(reply):
        if reply.problem is None:
            raise OutOfBounds("too long")
        return b"refused"

    figures = Figures()
    seal = figures.asked(Connection(), List(), choosy)
    with pytest.raises(OutOfBounds):
        seal(Reply([object()]))
    assert seal(Reply.refusing(OutOfBounds("too long"))) == b"refused"
    assert figures.operations() == {"list": {"out-of-bounds": 1}}


def test_who_waits_for_changes_is_counted_until_answered_or_gone():
    figures = Figures()
    connections = [Connection() for _ in range(4)]
    seals = [
        figures.asked(connection, Changes(wait=wait), lambda reply: b"")
        for connection, wait in zip(connections, [5, 5, 5, 0], strict=True)
    ]
    assert figures.waiting == 3
    seals[0](Reply([None]))
    figures.leave(connections[1])
    assert figures.waiting == 1
