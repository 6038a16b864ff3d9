"""The only list of stores: every promise of the conformance suite runs against each of them.

A store here is a function of an empty folder, and of a limit or None, that is a context manager of a fresh
store. It may start servers; it ends them, and checks that they end well.
"""

import contextlib
from pathlib import Path

import pytest
from support import COMMAND, start_process

from counter import open_store
from counter.stores.memory import MemoryStore


@contextlib.contextmanager
def memory(folder, max_counters=None):
    store = MemoryStore(max_counters)
    yield store
    store.close()


@contextlib.contextmanager
def manager(folder, max_counters=None):
    home = Path(folder, "home")
    environ = {} if max_counters is None else {"COUNTER_MAX_COUNTERS": str(max_counters)}
    with start_process([*COMMAND, "manager", "--home", home], environ) as process:
        process.line("ready")
        store = open_store(f"counter://{home}")
        yield store
        store.close()
        assert process.stop() == 0, process.describe()


STORES = [
    pytest.param(memory, id="memory"),
    pytest.param(manager, id="manager", marks=pytest.mark.process),
]
