"""`/metrics` of the HTTP API: in form, without a store, and the same from each of several real workers."""

import collections
import contextlib
import http.client
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from support import COMMAND, start_process, wait_until
from test_prometheus import ODD_NAMES, get, get_from_each
from web_client import Api

from counter import OutcomeUnknown, Store, StoreUnavailable, Unsupported
from counter.information import (
    Information,
    JournalFigures,
    Latencies,
    Limits,
    ManagerFigures,
    WorkerFigures,
)
from counter.ops import Info
from counter.results import Page, Reply

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def api():
    return Api()


def read(text, parse=parser.text_string_to_metric_families):
    """The samples of a scrape, by name and labels; each is there once, and its family is explained."""
    found = {}
    for family in parse(text):
        assert family.documentation and family.name.startswith("counter_")
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def scrape(api, accept=""):
    answer = api.ask("GET", "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    parse = openmetrics_parser if "openmetrics" in answer.headers["content-type"] else parser
    return read(answer.body.decode(), parse.text_string_to_metric_families)


def values(found):
    return {key[1]: value for key, value in found.items() if key[0] == "counter_value"}


class Answering(Store):
    """A store that knows no counters, and tells what it is told of itself; or raises it."""

    def __init__(self, told):
        self.told = told

    def execute(self, request, timeout=None):
        if isinstance(self.told, Exception):
            raise self.told
        (op,) = request.ops
        return Reply([self.told if isinstance(op, Info) else Page([], None)])

    def close(self):
        pass


TOLD = Information(
    "1.2",
    "manager",
    "everysec",
    "run",
    0,
    Limits(10, 20),
    ManagerFigures(4711, 2.5, 3, 40, 5),
    JournalFigures(1000, False, datetime(2030, 1, 1, tzinfo=UTC), None, None),
    [
        WorkerFigures(5, "worker", 6, slots=4, slots_used=3),
        WorkerFigures(7, "worker", 6, slots=4, slots_used=1),
    ],
    {"increment": {"ok": 8, "out-of-bounds": 1}, "get": {"ok": 2}},
    {"/v1/counters/{name}": {"2xx": Latencies(12.5, [3, 0, 1, 0, 0, 0, 2])}},
)
DURATION = "counter_http_request_duration_seconds"
ROUTE = ("/v1/counters/{name}", "2xx")
SAMPLES = {
    ("counter_up",): 1,
    ("counter_counters",): 0,
    ("counter_left_out",): 0,
    ("counter_build_info", "everysec", "manager", "1.2"): 1,
    ("counter_operations_total", "increment", "ok"): 8,
    ("counter_operations_total", "increment", "out-of-bounds"): 1,
    ("counter_operations_total", "get", "ok"): 2,
    (f"{DURATION}_bucket", "0.005", *ROUTE): 3,
    (f"{DURATION}_bucket", "0.025", *ROUTE): 3,
    (f"{DURATION}_bucket", "0.1", *ROUTE): 4,
    (f"{DURATION}_bucket", "0.5", *ROUTE): 4,
    (f"{DURATION}_bucket", "2.5", *ROUTE): 4,
    (f"{DURATION}_bucket", "10.0", *ROUTE): 4,
    (f"{DURATION}_bucket", "+Inf", *ROUTE): 6,
    (f"{DURATION}_count", *ROUTE): 6,
    (f"{DURATION}_sum", *ROUTE): 12.5,
    ("counter_manager_uptime_seconds",): 2.5,
    ("counter_manager_requests_total",): 40,
    ("counter_manager_connections",): 3,
    ("counter_manager_waiting",): 5,
    ("counter_workers",): 2,
    ("counter_watch_slots",): 8,
    ("counter_watch_slots_used",): 4,
    ("counter_journal_bytes",): 1000,
    ("counter_journal_writable",): 0,
    ("counter_journal_synced_timestamp_seconds",): datetime(2030, 1, 1, tzinfo=UTC).timestamp(),
}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_all_that_the_manager_tells_is_there_in_both_formats(accept):
    assert scrape(Api(Answering(TOLD)), accept) == SAMPLES


def test_a_journal_that_was_not_synced_yet_and_no_journal_are_no_failure():
    found = scrape(Api(Answering(replaced(journal=JournalFigures(1, True, None, None, None)))))
    assert found["counter_journal_writable",] == 1
    assert ("counter_journal_synced_timestamp_seconds",) not in found
    found = scrape(Api(Answering(replaced(journal=None))))
    assert not [key for key in found if "journal" in key[0]]


def replaced(**fields):
    return Information(**{name: getattr(TOLD, name) for name in TOLD.__struct_fields__} | fields)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_counters_in_memory_are_shown_with_odd_names_too(api, accept):
    for number, name in enumerate(ODD_NAMES):
        api.put(name, -number)
    assert values(scrape(api, accept)) == {name: -number for number, name in enumerate(ODD_NAMES)}


def test_a_thousand_names_are_shown_and_how_many_are_not(api):
    for number in range(1003):
        api.put(f"{number:04}", number)
    found = scrape(api)
    assert values(found) == {f"{number:04}": number for number in range(1000)}
    assert (found["counter_counters",], found["counter_left_out",]) == (1003, 3)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OutcomeUnknown("no answer")])
def test_without_a_store_the_answer_is_200_and_counter_up_0(error):
    assert scrape(Api(Answering(error))) == {("counter_up",): 0}


def test_a_store_that_cannot_list_is_a_problem():
    assert Api(Answering(Unsupported("it cannot list"))).ask("GET", "/metrics").status == 501


def test_it_is_read_and_nothing_else(api):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert api.refuse(405, "method-not-allowed", method, "/metrics").headers["allow"] == "GET, HEAD"
    assert api.ask("HEAD", "/metrics").status == 200
    api.refuse(400, "invalid-request", "GET", "/metrics?name=a")


PLAIN = "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, PLAIN),
        ("*/*", PLAIN),
        ("text/html", PLAIN),
        ("application/openmetrics-text; version=x", PLAIN),
        ("application/openmetrics-text; version=1.é", PLAIN),
        (f"application/openmetrics-text; version={'1' * 5000}", PLAIN),
        (
            "text/plain; version=1.0.0; escaping=\x7f",
            "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        (f"{OPENMETRICS}, text/plain", f"{OPENMETRICS}; charset=utf-8; escaping=underscores"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(api, accept, content_type):
    answer = api.ask("GET", "/metrics", HTTP_ACCEPT=accept)
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    assert answer.headers["vary"] == "Accept"


def test_a_worker_reports_before_it_answers_and_is_told_where_the_slots_are_and_the_route(api):
    told = []
    environ = {"counter.report": lambda: told.append("report"), "counter.slots": told.append}
    assert api.ask("GET", "/metrics", **environ).status == 200
    assert told[0] == "report"
    assert (told[1].used, told[1].count) == (0, 4)


# -- real processes

APP = """
import os
from counter.web import create_app

api = create_app()

def app(environ, start_response):
    def start(status, headers, *others):
        return start_response(status, [*headers, ("X-Pid", str(os.getpid()))], *others)
    return api(environ, start)
"""


def serve(folder, command="run"):
    """The API from three workers that tell who they are."""
    (folder / "app.py").write_text(APP)
    args = [*COMMAND, command, "app:app", "--port", "0", "--workers", "3", "--home", folder / "home"]
    return start_process(args, cwd=folder)


def increment(process, path="/v1/counters/a/increment", body=None):
    """Status, and the worker that did it."""
    where = process.line("ready").split()[1].removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(where, timeout=30)) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["X-Pid"]


def scraped(process):
    status, _, text = get(process, "/metrics")
    assert status == 200, text
    return read(text)


def served(found, route, status="2xx"):
    return found.get((f"{DURATION}_count", route, status), 0)


STEP = "/v1/counters/{name}/increment"


@pytest.mark.process
def test_every_worker_tells_the_same_of_the_counters_and_the_past_stays_when_one_is_killed(tmp_path):
    with serve(tmp_path) as process:
        increments = collections.Counter()
        while len(increments) < 3 or increments.total() < 30:
            assert increments.total() < 3000, f"only {[*increments]} answered"
            status, pid = increment(process)
            assert status == 200
            increments[pid] += 1
        assert increment(process, body='{"max": 0}')[0] == 409
        assert increment(process, "/v1/counters/%00/increment")[0] == 400
        done = increments.total()

        scrapes = get_from_each(process, "/metrics")
        assert scrapes.keys() == increments.keys()
        of_counters = ("counter_up", "counter_counters", "counter_left_out", "counter_value")
        (said,) = {
            tuple(line for line in text.splitlines() if line.startswith(of_counters))
            for texts in scrapes.values()
            for text in texts
        }
        assert f'counter_value{{name="a"}} {done}.0' in said
        assert len(said) == 4

        found = wait_until(lambda: served(found := scraped(process), STEP) == done and found)
        assert found["counter_operations_total", "increment", "ok"] == done
        assert found["counter_operations_total", "increment", "out-of-bounds"] == 1
        wait_until(lambda: served(scraped(process), STEP, "4xx") == 1)
        assert served(scraped(process), "/v1/counters/{name}", "4xx") == 1
        assert (found["counter_workers",], found["counter_journal_writable",]) == (3, 1)
        assert found["counter_watch_slots",] == 3 * 4

        killed = increments.most_common(1)[0][0]
        os.kill(int(killed), signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{killed}").exists())
        later = wait_until(
            lambda: killed not in get_from_each(process, "/livez") and scraped(process), timeout=30
        )
        assert served(later, STEP) == done, "what the killed worker served is told still"
        assert later["counter_value", "a"] == done
        assert increment(process)[0] == 200
        wait_until(lambda: served(scraped(process), STEP) == done + 1)
        assert process.stop() == 0


@pytest.mark.process
def test_while_the_manager_hangs_or_is_away_it_is_200_with_counter_up_0_and_nothing_is_counted_twice(
    tmp_path,
):
    """Requests of the time in which the manager hung are in the figures later, once each."""

    def manager():
        return start_process([*COMMAND, "manager", "--home", tmp_path / "home"])

    def is_down(workers):
        began = time.monotonic()
        assert scraped(workers) == {("counter_up",): 0}
        assert time.monotonic() - began < 8

    with contextlib.ExitStack() as processes:
        first = processes.enter_context(manager())
        workers = processes.enter_context(serve(tmp_path, "workers"))
        assert increment(workers)[0] == 200
        first.send(signal.SIGSTOP)
        for _ in range(5):
            assert get(workers, "/livez")[0] == 200
        is_down(workers)
        first.send(signal.SIGCONT)
        found = wait_until(lambda: served(found := scraped(workers), "/livez") >= 5 and found)
        assert (served(found, "/livez"), served(found, STEP)) == (5, 1)
        assert first.stop() == 0
        is_down(workers)
        processes.enter_context(manager()).line("ready")
        assert values(scraped(workers)) == {"a": 1}
