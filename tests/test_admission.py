"""Who is answered while every thread is busy, and who is turned away."""

import contextlib
import json
import threading

import pytest
from support import wait_until
from test_waitress_server import THREADS, Gate, Served, answer

from counter import admission
from counter.admission import LANE
from counter.worker import PROBES

pytestmark = pytest.mark.process  # real sockets and threads


class Probed(Gate):
    """An app with probes, one of which hangs until it is let go."""

    def __init__(self):
        super().__init__()
        self.hanging = threading.Semaphore(0)

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/metrics":
            self.hanging.release()
            assert self.opened.wait(20)
        return super().__call__(environ, start_response)


@pytest.fixture
def served():
    with contextlib.ExitStack() as stack:
        served = Served(stack, lanes=PROBES)
        served.server._server.application = served.app = Probed()
        yield served


def test_probes_are_answered_while_every_thread_is_busy_and_the_queue_is_full(served):
    served.fill()
    for path in ("/livez", "/readyz"):
        for _ in range(3):
            assert answer(served.ask(path)) == (200, b"0\n")
    assert answer(served.ask("/other"))[0] == 503


def test_a_probe_that_hangs_holds_up_no_other(served):
    hanging = [served.ask("/metrics") for _ in range(3)]
    assert served.app.hanging.acquire(timeout=20)
    for path in ("/livez", "/readyz", "/other"):
        assert answer(served.ask(path)) == (200, b"0\n")
    served.app.opened.set()
    assert [answer(client)[0] for client in hanging] == [200] * 3


def test_a_lane_has_an_end_too(served, monkeypatch):
    assert LANE > 10  # load balancers and scrapers, all at once
    lane = served.server._dispatcher._lanes["/metrics"]
    monkeypatch.setattr(lane, "_limit", 2)
    kept = [served.ask("/metrics") for _ in range(2)]
    wait_until(lambda: len(lane._in_flight) == 2)
    assert answer(served.ask("/metrics"))[0] == 503
    assert answer(served.ask("/livez"))[0] == 200
    served.app.opened.set()
    assert [answer(client)[0] for client in kept] == [200] * 2
    wait_until(lambda: not lane._in_flight)


def test_requests_of_one_client_are_answered_in_order_whoever_answers_them(served):
    client = served.raw()
    paths = ["/1", "/livez", "/2", "/readyz", "/livez", "/3"]
    for path in paths:
        client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
    data = b""
    while data.count(b"200 OK") < len(paths):
        data += client.recv(4096)
    assert served.app.seen == paths
    wait_until(lambda: not any(one._in_flight for one in (served.server._dispatcher, *lanes(served))))


def test_an_app_of_ones_own_has_no_lanes():
    with contextlib.ExitStack() as stack:
        served = Served(stack)
        served.fill()
        assert answer(served.ask("/livez"))[0] == 503


def test_the_end_ends_the_lanes(served):
    served.end()
    wait_until(lambda: not any(lane.threads for lane in lanes(served)))


def lanes(served):
    return served.server._dispatcher._lanes.values()


def test_who_is_turned_away_is_told_when_to_come_back_and_the_id_of_the_request(served):
    clients = served.fill()
    assert len(clients) == 2 * THREADS
    for given, told in (("abc-1", "abc-1"), ("a b", None), ("", None)):
        client = served.client()
        client.request("POST", "/more", headers={"X-Request-Id": given})
        response = client.getresponse()
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert json.loads(response.read())["code"] == "overloaded"
        assert response.headers["X-Request-Id"] == (told or response.headers["X-Request-Id"])
        assert len(response.headers["X-Request-Id"]) >= 5


def test_a_request_that_could_not_be_read_is_refused_and_nothing_else_happens(served):
    client = served.raw()
    client.sendall(b"GET /livez\x00 HTTP/9.9\r\nHost\r\n\r\n")
    assert client.recv(4096).split(b" ")[1] == b"400"
    assert answer(served.ask("/livez"))[0] == 200


def test_the_answer_of_a_refusal_is_made_once(served):
    """Whoever refuses in a flood has no time to make sentences."""
    assert json.loads(admission._BODY)["status"] == 503
    assert admission.Overloaded("a").to_response()[2] is admission.Overloaded("b").to_response()[2]
