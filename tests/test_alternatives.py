"""What docs/alternatives.md says of the standard library's Manager is so."""

import contextlib
import multiprocessing
import pickle
import threading
from multiprocessing.managers import BaseManager, SyncManager

import pytest
from support import wait_until

pytestmark = pytest.mark.process
SPAWN = multiprocessing.get_context("spawn")
EACH, CLIENTS = 3000, 2


class Plain(BaseManager):
    """A Manager that serves one dict, as the usual answer has it."""


shared = {"x": 0}
Plain.register("shared", lambda: shared, exposed=("__getitem__", "__setitem__"))


def serve(address, authkey, ready):
    server = Plain(address, authkey).get_server()
    ready.set()
    server.serve_forever()


@contextlib.contextmanager
def manager_at(address, authkey=b"key"):
    ready = SPAWN.Event()
    process = SPAWN.Process(target=serve, args=(address, authkey, ready))
    process.start()
    try:
        assert ready.wait(30)
        yield process
    finally:
        process.kill()
        process.join()


def connected(address, authkey=b"key"):
    client = Plain(address, authkey)
    client.connect()
    return client.shared()


def add_many(address, start):
    numbers = connected(address)
    start.wait(30)
    for _ in range(EACH):
        numbers["x"] += 1


def test_adding_through_a_managers_proxy_loses_updates(tmp_path):
    address = str(tmp_path / "socket")
    with manager_at(address):
        start = SPAWN.Event()
        clients = [SPAWN.Process(target=add_many, args=(address, start)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        start.set()
        for client in clients:
            client.join(60)
        assert [client.exitcode for client in clients] == [0] * CLIENTS
        assert EACH <= connected(address)["x"] < EACH * CLIENTS


def test_a_managers_client_never_connects_again(tmp_path):
    address = str(tmp_path / "socket")
    with manager_at(address):
        numbers = connected(address)
        assert numbers["x"] == 0
    (tmp_path / "socket").unlink(missing_ok=True)
    with manager_at(address):
        with pytest.raises((EOFError, ConnectionError)):
            numbers["x"]
        for _ in range(3):
            with pytest.raises((EOFError, ConnectionError)):
                numbers["x"]
        answers = []
        other = threading.Thread(target=lambda: answers.append(connected(address)["x"]))
        other.start()
        other.join(30)
        assert answers == [0], "the manager is there, and another thread is served"


class Evil:
    """Whoever unpickles this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_manager_runs_what_a_client_sends(tmp_path):
    mark = tmp_path / "was-here"
    assert b"open" in pickle.dumps(Evil(str(mark)))
    with SyncManager(ctx=SPAWN) as manager:
        numbers = manager.dict()
        with contextlib.suppress(Exception):  # what comes back does not matter here
            numbers["x"] = Evil(str(mark))
        wait_until(mark.exists)
