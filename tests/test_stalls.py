"""No work for nobody: what the manager does for itself, or for those who left, holds up no client."""

import json
import sys

import pytest
from manager_process import LAUNCHER, ManagerProcess, start_manager
from support import start_process, wait_until

from counter.fields import MAX_OPS
from counter.ops import Increment, Info, List, Request
from counter.wire import encode_request

COUNTING = """
import atexit, gc

def full_collections():
    return gc.get_stats()[2]["collections"]

before = full_collections()
atexit.register(lambda: print("full collections:", full_collections() - before, flush=True))
"""


@pytest.mark.process
def test_no_collection_looks_at_all_counters(tmp_path):
    """At 1,000,000 counters that end one by one it would take 0.3 s."""
    options = json.dumps([{"home": str(tmp_path)}, None])
    tmp_path.chmod(0o700)
    with start_process([sys.executable, "-c", COUNTING + LAUNCHER, options]) as process:
        process.line("ready")
        with ManagerProcess(process, tmp_path).connect() as client:
            for first in range(1, 150_000, 5_000):
                ops = [Increment(f"n{ttl}", ttl=ttl) for ttl in range(first * 10, first * 10 + 50_000, 10)]
                assert client.request(*ops).problem is None
        assert process.stop() == 0
        assert process.line("full collections:") == "full collections: 0"


@pytest.mark.process
def test_nothing_is_looked_up_for_those_who_have_left(tmp_path):
    """300 listings of 100,000 counters take a minute; those who asked and left would be connected so long."""
    with start_manager(tmp_path / "home") as manager, manager.connect() as friend:
        for first in range(0, 100_000, MAX_OPS):
            friend.request(*(Increment(f"n{number}") for number in range(first, first + MAX_OPS)))
        listing = encode_request(Request([List(sort="-value", limit=1000)]))
        for _ in range(300):
            with manager.connect() as stranger:
                stranger.send_frame(listing)
        wait_until(lambda: friend.request(Info()).only().manager.connections == 1, timeout=10)
