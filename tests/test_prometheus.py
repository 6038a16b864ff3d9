"""What a scrape says: of any store with the code alone, and of real workers."""

import collections
import contextlib
import http.client
import signal
import time
import uuid

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, Gauge, generate_latest, parser
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from support import COMMAND, start_process

import counter
from counter import prometheus
from counter.flask import FlaskCounter
from counter.ops import List
from counter.prometheus import CounterCollector


@pytest.fixture
def hits():
    """Counters of this test alone."""
    return counter.connect(f"memory://{uuid.uuid4().hex}")


class Watched(counter.Store):
    """A store that keeps what it was asked, and fails when it is told to."""

    def __init__(self, store):
        self._store = store
        self.asked = []
        self.timeouts = []
        self.fail_at = None
        self.error = counter.StoreUnavailable("away")

    def execute(self, request, timeout=None):
        self.asked += request.ops
        self.timeouts.append(timeout)
        if self.fail_at == len(self.asked):
            raise self.error
        return self._store.execute(request, timeout)

    def close(self):
        raise AssertionError


def scraped(counters, **options):
    """What a registry with the counters in it says, by name of the metric and label."""
    registry = CollectorRegistry()
    registry.register(CounterCollector(counters, **options))
    return read(generate_latest(registry).decode())


def read(text):
    metrics = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            key = (sample.name, sample.labels["name"]) if sample.labels else sample.name
            assert key not in metrics
            metrics[key] = sample.value
    return metrics


def values(metrics):
    return {key[1]: value for key, value in metrics.items() if isinstance(key, tuple)}


def test_every_counter_is_a_gauge_beside_how_many_there_are(hits):
    hits.update(page=5, seats=-2, nothing=0)
    assert scraped(hits) == {
        "counter_up": 1,
        ("counter_value", "nothing"): 0,
        ("counter_value", "page"): 5,
        ("counter_value", "seats"): -2,
        "counter_counters": 3,
        "counter_left_out": 0,
    }


def test_no_counters_are_no_failure(hits):
    assert scraped(hits) == {"counter_up": 1, "counter_counters": 0, "counter_left_out": 0}


def test_above_the_cap_the_first_by_name_are_shown_whatever_their_values_are(hits):
    hits.update(collections.Counter(a=1, b=2, c=3, d=4))
    for _ in range(2):
        metrics = scraped(hits, most=2)
        assert values(metrics).keys() == {"a", "b"}
        assert metrics["counter_counters"] == 4
        assert metrics["counter_left_out"] == 2
        hits.increment("d", 100)


def test_exactly_as_many_as_the_cap_leave_none_out(hits):
    hits.update(a=1, b=1)
    metrics = scraped(hits, most=2)
    assert (metrics["counter_counters"], metrics["counter_left_out"]) == (2, 0)


@pytest.mark.parametrize(("most", "pages"), [(1000, 1), (1001, 2), (2100, 3), (10_000, 3)])
def test_a_scrape_asks_for_pages_of_a_thousand_and_no_more_than_it_shows(hits, most, pages):
    hits.update({f"{number:04}": number for number in range(2100)})
    store = Watched(hits.store)
    metrics = scraped(counter.SharedCounter(store), most=most)
    assert values(metrics) == {f"{number:04}": number for number in range(min(most, 2100))}
    assert metrics["counter_counters"] == 2100
    assert metrics["counter_left_out"] == max(0, 2100 - most)
    assert sum(type(op) is List for op in store.asked) == pages
    assert all(op.limit <= 1000 for op in store.asked if type(op) is List)
    assert len(store.asked) <= pages + 1


def test_a_view_shows_its_names_alone_and_counts_them_alone(hits):
    hits.update({"other": 1, "shop:cart": 2, "shop:sold": 3, "zoo": 4})
    metrics = scraped(hits.view("shop:"))
    assert values(metrics) == {"cart": 2, "sold": 3}
    assert (metrics["counter_counters"], metrics["counter_left_out"]) == (2, 0)
    metrics = scraped(hits.view("shop:"), most=1)
    assert values(metrics) == {"cart": 2}
    assert (metrics["counter_counters"], metrics["counter_left_out"]) == (2, 1)


def test_a_view_is_not_gone_through_without_end(hits, monkeypatch):
    monkeypatch.setattr(prometheus, "MOST_COUNTED", 1500)
    hits.update({f"ip:{number:05}": 1 for number in range(5000)})
    assert scraped(hits.view("ip:"), most=10)["counter_left_out"] == 2000 - 10


def test_registering_asks_nothing_even_where_registries_describe(hits):
    store = Watched(hits.store)
    CollectorRegistry(auto_describe=True).register(CounterCollector(counter.SharedCounter(store)))
    assert store.asked == []


def test_a_registry_takes_one_and_no_other_metric_of_these_names(hits):
    """Prometheus refuses a scrape in which a series comes twice; a program shall find out when it starts."""
    registry = CollectorRegistry()
    registry.register(CounterCollector(hits))
    with pytest.raises(ValueError, match="counter_up"):
        registry.register(CounterCollector(hits.view("shop:")))
    with pytest.raises(ValueError, match="counter_value"):
        Gauge("counter_value", "of somebody else", registry=registry)


def test_a_scrape_can_ask_for_one_metric(hits):
    registry = CollectorRegistry()
    registry.register(CounterCollector(hits))
    said = read(generate_latest(registry.restricted_registry(["counter_up"])).decode())
    assert said == {"counter_up": 1}


ODD_NAMES = [
    'say "hi"',
    "back\\slash",
    "\\n",
    "ends in \\",
    "Größe 🚲",
    " spaces ",
    "a,b}={x",
    "#",
    "a\u2028b",
]


def test_odd_names_survive_the_text_formats(hits):
    hits.update(ODD_NAMES)
    assert values(scraped(hits)) == dict.fromkeys(ODD_NAMES, 1)
    registry = CollectorRegistry()
    registry.register(CounterCollector(hits))
    text = openmetrics.generate_latest(registry).decode()
    families = openmetrics_parser.text_string_to_metric_families(text)
    assert {s.labels["name"] for f in families if f.name == "counter_value" for s in f.samples} == {
        *ODD_NAMES
    }


def test_beyond_two_to_the_53_the_last_digits_are_rounded(hits):
    hits.update(exact=2**53, odd=2**53 + 1, most=2**63 - 1, least=-(2**63))
    assert values(scraped(hits)) == {"exact": 2**53, "odd": 2**53, "most": 2.0**63, "least": -(2.0**63)}


@pytest.mark.parametrize("fail_at", [1, 2, 3])
@pytest.mark.parametrize("error", [counter.StoreUnavailable, counter.OutcomeUnknown])
def test_a_store_that_goes_away_anywhere_leaves_nothing_but_counter_up_0(hits, fail_at, error):
    hits.update({f"{number:04}": 1 for number in range(2100)})
    store = Watched(hits.store)
    store.fail_at, store.error = fail_at, error("away")
    assert scraped(counter.SharedCounter(store), most=1500) == {"counter_up": 0}
    assert len(store.asked) == fail_at


def test_a_store_that_cannot_list_says_so_aloud(hits):
    store = Watched(hits.store)
    store.fail_at, store.error = 1, counter.Unsupported("this store cannot list")
    with pytest.raises(counter.Unsupported):
        scraped(counter.SharedCounter(store))


def test_the_whole_scrape_has_three_seconds_not_each_of_its_pages(hits, monkeypatch):
    now = [100.0]

    class Slow(Watched):
        def execute(self, request, timeout=None):
            now[0] += 1.2
            return super().execute(request, timeout)

    monkeypatch.setattr(prometheus.time, "monotonic", lambda: now[0])
    hits.update({f"{number:04}": 1 for number in range(5000)})
    store = Slow(hits.store)
    assert scraped(counter.SharedCounter(store), most=5000) == {"counter_up": 0}
    assert store.timeouts == pytest.approx([3.0, 1.8, 0.6])


def test_without_a_manager_it_can_be_registered_and_says_0(tmp_path):
    assert scraped(counter.connect(f"counter://{tmp_path}/none")) == {"counter_up": 0}


def test_a_flask_counter_is_scraped_in_a_view_of_its_app(hits):
    registry = CollectorRegistry()
    shared = FlaskCounter()
    registry.register(CounterCollector(shared.view("shop:")))
    apps = [Flask(name, static_folder=None) for name in ("one", "two")]
    for number, app in enumerate(apps):
        app.config["COUNTER_URL"] = f"{hits.store.url}-{number}"
        shared.init_app(app)
        app.get("/metrics")(lambda: generate_latest(registry))
        counter.connect(app.config["COUNTER_URL"]).update({"shop:sold": number, "other": 1})
    for number, app in enumerate(apps):
        assert values(read(app.test_client().get("/metrics").text)) == {"sold": number}


# -- real processes

APP = """
import os
import counter
from counter.prometheus import CounterCollector
from prometheus_client import CollectorRegistry, make_wsgi_app

hits = counter.connect()

registry = CollectorRegistry()
registry.register(CounterCollector(hits))
metrics = make_wsgi_app(registry)

def app(environ, start_response):
    def start(status, headers):
        start_response(status, [*headers, ("X-Pid", str(os.getpid()))])
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start)
    number = hits.increment("hits")
    start("200 OK", [("Content-Type", "text/plain")])
    return [str(number).encode()]
"""

PLAIN = """
registry = CollectorRegistry()
registry.register(CounterCollector(hits))
metrics = make_wsgi_app(registry)
"""
BESIDE_MULTIPROCESS = """
from prometheus_client import Counter
from prometheus_client.multiprocess import MultiProcessCollector
orders = Counter("shop_orders", "Orders of all workers.")

def metrics(environ, start_response):
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    registry.register(CounterCollector(hits))
    return make_wsgi_app(registry)(environ, start_response)
"""
MULTIPROCESS = APP.replace(PLAIN, BESIDE_MULTIPROCESS).replace('"hits")\n', '"hits")\n    orders.inc()\n')


def serve(folder, app, environ=None, command="run"):
    """`counter run`, or `workers`, of *app* with three workers in *folder*."""
    (folder / "app.py").write_text(app)
    args = [*COMMAND, command, "app:app", "--port", "0", "--workers", "3", "--home", folder / "home"]
    return start_process(args, environ, folder)


def get(process, path):
    """Status, worker and text of an answer, on a connection of its own."""
    where = process.line("ready").split()[1].removeprefix("http://")
    connection = http.client.HTTPConnection(where, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers["X-Pid"], response.read().decode()
    finally:
        connection.close()


def get_from_each(process, path, workers=3, most=2000):
    """The texts of one address, a list for each worker."""
    found = collections.defaultdict(list)
    for _ in range(most):
        status, pid, text = get(process, path)
        assert status == 200, text
        found[pid].append(text)
        if len(found) == workers:
            return found
    raise AssertionError(f"only {[*found]} answered")


@pytest.mark.process
def test_every_worker_says_the_same(tmp_path):
    with serve(tmp_path, APP) as process:
        answers = get_from_each(process, "/hit")
        counted = sum(map(len, answers.values()))
        scrapes = get_from_each(process, "/metrics")
        assert scrapes.keys() == answers.keys()
        (text,) = {text for texts in scrapes.values() for text in texts}
        assert values(read(text)) == {"hits": counted}
        assert process.stop() == 0


@pytest.mark.process
def test_a_manager_that_hangs_or_is_away_is_counter_up_0_in_time(tmp_path):
    """Answered with status 200, before Prometheus gives up after 10 seconds, as the library's calls do."""

    def scrape(workers):
        began = time.monotonic()
        status, _, text = get(workers, "/metrics")
        assert status == 200, text
        assert time.monotonic() - began < 8
        return read(text)

    def manager():
        return start_process([*COMMAND, "manager", "--home", tmp_path / "home"])

    with contextlib.ExitStack() as processes:
        first = processes.enter_context(manager())
        workers = processes.enter_context(serve(tmp_path, APP, command="workers"))
        get(workers, "/hit")
        assert scrape(workers)["counter_up"] == 1
        first.send(signal.SIGSTOP)
        assert scrape(workers) == {"counter_up": 0}
        first.send(signal.SIGCONT)
        assert values(scrape(workers)) == {"hits": 1}
        assert first.stop() == 0
        assert scrape(workers) == {"counter_up": 0}
        processes.enter_context(manager()).line("ready")
        assert values(scrape(workers)) == {"hits": 1}


@pytest.mark.process
def test_it_stands_beside_the_metrics_of_prometheus_multiprocess_mode(tmp_path):
    """Those are added up over the workers' files; ours are read once, from the owner of the counters."""
    files = tmp_path / "files"
    files.mkdir()
    with serve(tmp_path, MULTIPROCESS, {"PROMETHEUS_MULTIPROC_DIR": str(files)}) as process:
        counted = sum(map(len, get_from_each(process, "/hit").values()))
        assert len([*files.glob("counter_*.db")]) == 3
        for texts in get_from_each(process, "/metrics").values():
            lines = texts[0].splitlines()
            assert f"shop_orders_total {counted}.0" in lines
            assert f'counter_value{{name="hits"}} {counted}.0' in lines
