"""What a worker counts, and that its reports tell each request once; `test_web_metrics.py` runs real ones."""

import threading

import pytest

from counter import InvalidRequest, OutcomeUnknown, StoreUnavailable
from counter import meter as meter_module
from counter.information import LATENCY_BOUNDS, Latencies
from counter.meter import Meter
from counter.ops import Report
from counter.results import Reply


class FakeStore:
    """A manager that answers what it is told to answer, in turn, then None; with all reports it was sent."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []

    def execute(self, request, timeout=None):
        (report,) = request.ops
        assert type(report) is Report
        self.sent.append(report)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return Reply([None])

    def close(self):
        pass

    @property
    def requests(self):
        """Of each report that the manager counts: those whose number is above all before."""
        by_number = {report.number: report for report in self.sent}
        assert [*by_number] == sorted(by_number)
        return [report.requests for report in by_number.values()]


class Clock:
    """`time.monotonic`, moved by apps."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(meter_module.time, "monotonic", clock)
    return clock


def ok(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


def serve(meter, requests=1):
    environ = {}
    for _ in range(requests):
        meter(environ, lambda status, headers, exc_info=None: None)
    return environ


def reported(meter, store):
    """The last report after another one."""
    meter.report()
    return store.sent[-1]


def test_a_meter_reports_each_request_once():
    store = FakeStore()
    meter = Meter(ok, store, lambda: False)
    environ = serve(meter, 3)
    environ["counter.report"]()
    serve(meter, 2)
    meter.report()
    meter.report()
    assert store.requests == [3, 2, 0]


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), OutcomeUnknown("lost")])
def test_a_report_that_may_not_have_arrived_is_sent_again_as_it_was(failure):
    """By its number the manager knows whether it had it."""
    store = FakeStore(failure, failure)
    meter = Meter(ok, store, lambda: False)
    serve(meter, 3)
    meter.report()
    serve(meter, 1)
    meter.report()
    serve(meter, 7)
    meter.report()
    first, second, third, last = store.sent
    assert first == second == third
    assert (first.requests, last.requests) == (3, 8)
    meter.report()
    assert store.requests == [3, 8, 0]


def test_a_report_that_is_refused_is_not_sent_for_ever(caplog):
    store = FakeStore(InvalidRequest("another version"))
    meter = Meter(ok, store, lambda: False)
    serve(meter, 3)
    meter.report()
    serve(meter, 1)
    meter.report()
    assert store.requests == [3, 1]
    assert "refused a report: another version" in caplog.text


def test_reports_of_threads_do_not_wait_behind_a_manager_that_hangs(monkeypatch):
    monkeypatch.setattr(meter_module, "REPORT_SECONDS", 0.01)
    hangs, goes_on = threading.Event(), threading.Event()

    class Hanging(FakeStore):
        def execute(self, request, timeout=None):
            hangs.set()
            assert goes_on.wait(10)
            return super().execute(request, timeout)

    store = Hanging()
    meter = Meter(ok, store, lambda: False)
    first = threading.Thread(target=meter.report)
    first.start()
    assert hangs.wait(10)
    meter.report()
    goes_on.set()
    first.join(10)
    assert len(store.sent) == 1


def test_an_app_can_ask_whether_its_worker_is_about_to_end():
    stopping = []
    environ = serve(Meter(ok, FakeStore(), lambda: bool(stopping)))
    assert not environ["counter.stopping"]()
    stopping.append(True)
    assert environ["counter.stopping"]()


@pytest.mark.parametrize(
    ("seconds", "place"),
    [(0.0, 0), (0.005, 0), (0.006, 1), (0.1, 2), (2.4, 4), (10.0, 5), (10.1, 6), (999, 6)],
)
def test_requests_are_counted_by_route_class_and_time(clock, seconds, place):
    def app(environ, start_response):
        environ["counter.route"] = "/slow"
        clock.seconds += seconds
        return ok(environ, start_response)

    store = FakeStore()
    meter = Meter(app, store, lambda: False)
    serve(meter, 2)
    (found,) = [reported(meter, store).http["/slow"]]
    assert found.keys() == {"2xx"}
    assert found["2xx"].seconds == pytest.approx(2 * seconds)
    assert found["2xx"].counts == [2 if at == place else 0 for at in range(len(LATENCY_BOUNDS) + 1)]
    assert reported(meter, store).http == {}


@pytest.mark.parametrize(
    ("status", "kind"),
    [("200 OK", "2xx"), ("304 Not Modified", "3xx"), ("404 X", "4xx"), ("503 X", "5xx"), ("999 X", "5xx")],
)
def test_whatever_tells_no_route_is_counted_as_other(clock, status, kind):
    def app(environ, start_response):
        start_response(status, [])
        return []

    store = FakeStore()
    meter = Meter(app, store, lambda: False)
    serve(meter)
    assert reported(meter, store).http == {"other": {kind: Latencies(0.0, [1, 0, 0, 0, 0, 0, 0])}}


def test_a_stream_is_counted_when_it_begins(clock):
    def app(environ, start_response):
        start_response("200 OK", [])
        for _ in range(3):
            clock.seconds += 100
            yield b"x"

    store = FakeStore()
    meter = Meter(app, store, lambda: False)
    chunks = meter({}, lambda status, headers: None)
    assert reported(meter, store).http == {}
    assert b"".join(chunks) == b"xxx"
    assert reported(meter, store).http["other"]["2xx"].counts[0] == 1


def test_an_app_that_fails_is_counted_once_and_what_it_raised_goes_on(clock):
    started = []

    def app(environ, start_response):
        if started:
            start_response("200 OK", [])
            start_response("500 Oh", [], (None, None, None))
        raise KeyError("x")

    store = FakeStore()
    meter = Meter(app, store, lambda: False)
    with pytest.raises(KeyError):
        serve(meter)
    assert reported(meter, store).http["other"].keys() == {"5xx"}
    started.append(True)
    with pytest.raises(KeyError):
        serve(meter)
    assert [sum(each.counts) for each in reported(meter, store).http["other"].values()] == [1]


def test_the_slots_that_an_app_tells_of_are_in_each_report():
    class Slots:
        count, used = 4, 1

    store = FakeStore()
    meter = Meter(ok, store, lambda: False)
    environ = serve(meter)
    assert (reported(meter, store).slots, store.sent[-1].slots_used) == (0, 0)
    slots = Slots()
    environ["counter.slots"](slots)
    slots.used = 3
    assert (reported(meter, store).slots, store.sent[-1].slots_used) == (4, 3)


def test_threads_lose_no_request(clock):
    store = FakeStore()
    meter = Meter(ok, store, lambda: False)
    threads = [threading.Thread(target=serve, args=[meter, 500]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        meter.report()
    meter.report()
    assert sum(store.requests) == 2000
    assert sum(sum(each.http["other"]["2xx"].counts) for each in store.sent if each.http) == 2000
