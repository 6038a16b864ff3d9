"""The package on a clock, a disk and a boot that are made here, for the simulation and the model test.

A *world* has `disk`, `boot`, `ticks`, `wall()` and `rng`; with upkeep also `oracle`, `turn()` and `note()`.
"""

import contextlib
from datetime import UTC, datetime
from types import SimpleNamespace

from fake_disk import Ended

from counter import journal, keeper, log, records, run, snapshot

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class SimulatedRun(run.Run):
    """A run on the world's clock."""

    def __init__(self, world, not_before):
        self._world = world
        super().__init__(not_before)

    def ticks(self):
        return self._world.ticks


class SimulatedChild:
    """A snapshot's process: it works for a while, and may fail, or be killed in the middle."""

    def __init__(self, world, before, name):
        self._world, self._job = world, (before, name)

    def exit_code(self):
        rng, disk = self._world.rng, self._world.disk
        if rng.random() < 0.3:
            return None
        if rng.random() >= 0.2 or disk.left is not None:
            return self.work()
        disk.end_after(rng.randint(0, 6), rng.random())
        try:
            return self.work()
        except Ended:
            return -9
        finally:
            disk.left = None

    def work(self):
        """Make the snapshot; the exit code."""
        world = self._world
        before, name = self._job
        try:
            snapshot.make(world.disk, world.boot, before, name, world.ticks)
        except OSError as error:
            world.note(f"snapshot process failed: {error}")
            return 1
        return 0

    def kill(self):
        pass


class SimulatedKeeper(keeper.Keeper):
    """The upkeep without its thread: `upkeep` is one round of it."""

    world = None

    def start(self):
        self.world.keeper = self

    def stop(self):
        self._child = None

    def upkeep(self):
        try:
            if self._syncs and self._log.behind and self.world.rng.random() < 0.6:
                committed = len(self.world.oracle.history)
                if self.world.rng.random() < 0.3:
                    self.world.disk.during["file_sync"] = self.world.turn  # the loop goes on while we sync
                self._log.sync()
                self.world.oracle.is_safe(committed)
            self.step()
        except Exception as error:  # noqa: BLE001  as the thread does it
            self._failure = error
        finally:
            self.world.disk.during.clear()

    def _start_child(self, before, name):
        return SimulatedChild(self.world, before, name)


@contextlib.contextmanager
def simulated(world):
    """The package, with the world's clock, disk, boot and randomness."""
    kept = []

    def put(module, **names):
        for name, value in names.items():
            kept.append((module, name, getattr(module, name)))
            setattr(module, name, value)

    clock = SimpleNamespace(monotonic=lambda: world.ticks)
    keeper_class = type("KeeperOfThisWorld", (SimulatedKeeper,), {"world": world})
    put(journal, Disk=lambda folder: world.disk, boot_id=lambda: world.boot, time=clock, Keeper=keeper_class)
    put(keeper, time=clock, SNAPSHOT_BYTES=1500, SNAPSHOT_LOGS=3, FIRST_PAUSE=0.5)
    put(records, os=SimpleNamespace(urandom=world.rng.randbytes))
    put(run, secrets=SimpleNamespace(token_urlsafe=lambda size: world.rng.randbytes(size).hex()))
    put(run, datetime=SimpleNamespace(now=lambda zone: world.wall()))
    put(log.logger, disabled=True)
    try:
        yield
    finally:
        for module, name, value in reversed(kept):
            setattr(module, name, value)
