"""What docs/alternatives.md says of the standard library's Manager, Value and sqlite3 is so."""

import contextlib
import multiprocessing
import pickle
import sqlite3
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


def add_many(address, start, told):
    numbers = connected(address)
    start.wait(30)
    for _ in range(EACH):
        numbers["x"] += 1
    told.put([])


def at_once(do, *args):
    """What spawned processes were told, together, that *do* the same at the same time."""
    start, told = SPAWN.Barrier(CLIENTS), SPAWN.Queue()
    children = [SPAWN.Process(target=do, args=(*args, start, told)) for _ in range(CLIENTS)]
    for child in children:
        child.start()
    numbers = [number for _ in children for number in told.get(timeout=60)]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * CLIENTS
    return numbers


def test_adding_through_a_managers_proxy_loses_updates(tmp_path):
    address = str(tmp_path / "socket")
    with manager_at(address):
        at_once(add_many, address)
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


ROUNDS = 100_000
"""Of `+=` on a Value: so many that both processes are at it together."""


def add_to_value(number, is_locked, start, told):
    numbers = []
    start.wait(30)
    for _ in range(ROUNDS):
        with number.get_lock() if is_locked else contextlib.nullcontext():
            number.value += 1
            numbers.append(number.value)
    told.put(numbers)


@pytest.mark.parametrize("is_locked", [True, False])
def test_a_value_serves_spawned_children_and_is_exact_under_its_lock_alone(is_locked):
    number = SPAWN.Value("q", 0)
    numbers = at_once(add_to_value, number, is_locked)
    assert (sorted(numbers) == list(range(1, ROUNDS * CLIENTS + 1))) == is_locked
    assert (number.value == ROUNDS * CLIENTS) == is_locked


def keep_the_lock(number, has_it):
    number.get_lock().acquire()
    has_it.set()
    threading.Event().wait()


def test_the_lock_of_a_value_is_not_given_back_by_whoever_is_killed_with_it():
    number, has_it = SPAWN.Value("q", 0), SPAWN.Event()
    child = SPAWN.Process(target=keep_the_lock, args=(number, has_it))
    child.start()
    assert has_it.wait(30)
    child.kill()
    child.join()
    assert not number.get_lock().acquire(timeout=0.2)


COUNT = "INSERT INTO counts VALUES ('x', 1) ON CONFLICT (name) DO UPDATE SET n = n + 1 RETURNING n"


def opened(path, timeout=30.0):
    return contextlib.closing(sqlite3.connect(path, timeout=timeout, isolation_level=None))


def make_table(path, journal_mode):
    with opened(path) as database:
        assert database.execute(f"PRAGMA journal_mode = {journal_mode}").fetchall() == [(journal_mode,)]
        database.execute("CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL)")


def count_rows(path, each, start, told):
    with opened(path) as database:
        database.execute("PRAGMA synchronous = NORMAL")
        start.wait(30)
        told.put([number for _ in range(each) for (number,) in database.execute(COUNT).fetchall()])


@pytest.mark.parametrize(("journal_mode", "each"), [("wal", 2000), ("delete", 50)])
def test_sqlite_is_exact(tmp_path, journal_mode, each):
    path = tmp_path / "counts.db"
    make_table(path, journal_mode)
    assert sorted(at_once(count_rows, path, each)) == list(range(1, each * CLIENTS + 1))


def test_sqlite_gives_up_when_another_writes_for_longer_than_its_timeout(tmp_path):
    path = tmp_path / "counts.db"
    make_table(path, "wal")
    with opened(path) as writer, opened(path, timeout=0.05) as other:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            other.execute(COUNT).fetchall()
        writer.execute("COMMIT")
        assert other.execute(COUNT).fetchall() == [(1,)]
