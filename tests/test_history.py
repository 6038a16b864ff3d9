"""What changed last is found again in its order, whatever changed since; what is forgotten is known."""

import random

import pytest

from counter import history
from counter.history import MOST_GONE, History


def everything_after(found, revision, most):
    """All that *found* tells after *revision*, asked for *most* places at a time."""
    told = []
    while part := found.after(revision, most):
        told += part
        revision = part[-1][0]
    return told


@pytest.mark.parametrize("seed", range(60))
def test_it_is_what_a_plain_dict_says(seed, monkeypatch):
    chance = random.Random(seed)
    monkeypatch.setattr(history, "_BLOCK", chance.choice([2, 4, 16, 512]))
    most_gone = chance.choice([0, 1, 5, 50])
    found, there, gone = History(most_gone), {}, {}
    found.fill(f"n{number}" for number in range(chance.randrange(50)))
    there = {f"n{number - 1}": number for number in range(1, found.newest + 1)}
    revision = found.newest
    for step in range(400):
        revision += chance.choice([1, 1, 3])
        name = f"n{chance.randrange(60)}"
        if name in there and chance.random() < 0.4:
            found.removed(name, revision, there.pop(name))
            gone[name] = revision
            if len(gone) > most_gone:
                oldest = min(gone, key=gone.get)
                assert found.forgotten == gone.pop(oldest)
        else:
            found.changed(name, revision, there.get(name, 0))
            there[name] = revision
            gone.pop(name, None)
        assert found.newest == revision
        if step % 20 == 0:
            since = chance.randrange(revision + 1)
            wanted = sorted((at, name) for name, at in {**there, **gone}.items() if at > since)
            assert everything_after(found, since, chance.choice([1, 10, 1000])) == wanted


@pytest.mark.parametrize("many", [1, 3, 2000])
def test_it_does_not_grow_with_the_number_of_changes(many):
    found, last = History(), {}
    names = [f"n{number}" for number in range(many)]
    for revision in range(1, 100_000):
        name = names[revision * 7919 % len(names)]
        found.changed(name, revision, last.get(name, 0))
        last[name] = revision
    assert sum(len(block.names) for block in found._blocks) < 6 * len(names) + 1024
    assert len(everything_after(found, 0, 1)) == len(names)


def test_a_hundred_thousand_that_are_gone_are_known():
    assert MOST_GONE == 100_000
