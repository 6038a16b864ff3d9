"""SQLite with a write-ahead log, and the standard library's sqlite3."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.load import Client, Target
from benchmarks.peers import Peer

NORMAL = "SQLite"
FULL = "SQLite FULL"
_INCREMENT = (
    "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value"
)
_GET = "SELECT value FROM counters WHERE name = ?"


def connect_normal(path: str) -> Client:
    """A client with one connection, which syncs only at a checkpoint."""
    return _client(_opened(path, "NORMAL"))


def connect_full(path: str) -> Client:
    """A client with one connection, which syncs each transaction."""
    return _client(_opened(path, "FULL"))


def connect_shared(path: str) -> Client:
    """A client that threads share, with one connection for each, as sqlite3 wants it."""
    local = threading.local()

    def own() -> Client:
        if not hasattr(local, "client"):
            local.client = connect_normal(path)
        client: Client = local.client
        return client

    return Client(lambda name: own().increment(name), lambda name: own().get(name))


def _opened(path: str, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def _client(connection: sqlite3.Connection) -> Client:
    def increment(name: str) -> int:
        value: int = connection.execute(_INCREMENT, (name,)).fetchall()[0][0]
        return value

    def get(name: str) -> int:
        row = connection.execute(_GET, (name,)).fetchone()
        return row[0] if row else 0

    def update(names: Sequence[str]) -> object:
        connection.execute("BEGIN IMMEDIATE")
        for name in names:
            increment(name)
        return connection.execute("COMMIT")

    return Client(increment, get, update, connection.close)


@contextlib.contextmanager
def normal(folder: Path) -> Iterator[Peer]:
    """What was answered survives a crash of the process, and perhaps no power cut."""
    path = _made(folder / "normal.sqlite")
    yield Peer(NORMAL, Target(connect_normal, path), shared=Target(connect_shared, path))


@contextlib.contextmanager
def full(folder: Path) -> Iterator[Peer]:
    """What was answered is on the disk."""
    yield Peer(FULL, Target(connect_full, _made(folder / "full.sqlite")))


def _made(path: Path) -> str:
    with contextlib.closing(_opened(str(path), "NORMAL")) as connection:
        connection.execute(
            "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID"
        )
    return str(path)
