"""The Flask app that counts in one store or another: the view is the same, and so is all around it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from flask import Flask

from benchmarks.load import NAMES, Client, Target
from benchmarks.peers import Peer

APP = f"{__name__}:create_app"
PATH, PROBE = "/hit", "/ready"
NO_STORE = "no store"
_CONNECT, _ADDRESS = "BENCHMARK_CONNECT", "BENCHMARK_ADDRESS"


def create_app() -> Flask:
    """The app, over the store that the environment names."""
    app = Flask(__name__)
    module, _, connect = os.environ[_CONNECT].partition(":")
    client: Client = getattr(import_module(module), connect)(os.environ[_ADDRESS])
    increment, names = client.increment, itertools.cycle(NAMES)

    @app.get(PROBE)
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post(PATH)
    def hit() -> dict[str, str | int]:
        name = next(names)
        return {"name": name, "value": increment(name)}

    return app


def environ(target: Target) -> dict[str, str]:
    """What the environment says for the app to count in *target*."""
    connect = target.connect
    return {_CONNECT: f"{connect.__module__}:{connect.__name__}", _ADDRESS: target.address}


def count_nothing(_address: str) -> Client:
    """A client of no store: the answer is always 1."""
    return Client(lambda _name: 1, lambda _name: 0)


@contextlib.contextmanager
def no_store(_folder: Path) -> Iterator[Peer]:
    """What the view costs without a store."""
    yield Peer(NO_STORE, Target(count_nothing, ""))
