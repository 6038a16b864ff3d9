"""A worker and the manager are killed at once, again and again, under load by HTTP: no call fails or is lost.

As with `kill-workers`, none is doubled and nobody is refused. Both are dead before either can be followed by
another. A kill counts as in flight if a call was under way meanwhile.
"""

from faults.kill_workers import kill_again_and_again


def run(trial):
    kill_again_and_again(trial, with_manager=True)
