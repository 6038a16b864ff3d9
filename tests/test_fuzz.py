"""What reads bytes of others stands what fuzzing has found, and what it finds in some seconds more.

For longer runs: COUNTER_TEST_FUZZ_SECONDS with `--long`, or `python -m fuzz`.
"""

import importlib.util
import json
import os
import platform
import random
import sys
import time
import zlib
from unittest import mock

import fuzz
import pytest
from fuzz import corpus
from fuzz.watch import HANG_SECONDS, MOST_GROWTH, WARM_RUNS, Watch
from msgspec import structs
from support import ROOT, start_process

import counter.handshake
import counter.pickles
import counter.records
import counter.strict_json
import counter.table
import counter.web.body
from counter.wire import Frames

FUZZ_SECONDS = float(os.environ.get("COUNTER_TEST_FUZZ_SECONDS", "6"))
NEAR = 100
"""How many beginnings of each input are tried at most, and how often a bit is changed."""

targets = pytest.mark.parametrize("name", fuzz.TARGETS)


def neighbours(data, dice):
    """*data*, its beginnings, and what a changed bit makes of it."""
    yield data
    places = sorted(dice.sample(range(len(data)), min(NEAR, len(data))))
    for at in places:
        yield data[:at]
        yield data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def replay(name):
    """Hand the target *name* its real inputs and its corpus; how many inputs that were."""
    target, dice, count = fuzz.load(name), random.Random(name), 0
    for data in target.seeds():
        target.one_input(data)
    for data in corpus.inputs(name):
        for each in neighbours(data, dice):
            target.one_input(each)
            count += 1
    return count


@pytest.mark.slow
@targets
def test_the_corpus_and_what_is_near_it(name):
    begun = time.monotonic()
    count = replay(name)
    print(f"{name}: {count} inputs in {time.monotonic() - begun:.1f} s")
    assert count > 500


def test_the_corpora_are_small():
    sizes = {name: sum(map(len, corpus.inputs(name))) for name in fuzz.TARGETS}
    assert all(0 < size <= corpus.MOST_BYTES for size in sizes.values()), sizes


# These can fail


def tells_one_too_many(real):
    """Whoever adds is told a number that is not the counter's."""

    def transition(entry, op, now, version):
        after, result = real(entry, op, now, version)
        return after, structs.replace(result, value=result.value + 1) if op.mutates else result

    return transition


def never_negative(reader, size):
    reader.stack.append(reader.unsigned(size))


def head_alone(form, head, payload):
    return zlib.crc32(head)


MISTAKES = {
    "wire": (counter.table, "transition", tells_one_too_many(counter.table.transition)),
    "wire: frames": (Frames, "take", lambda frames, data: data[4:] or None),
    "pickles": (counter.pickles._Reader, "push_signed", never_negative),
    "pickles: depth": (counter.pickles, "_check_depth", lambda value: None),
    "handshake": (counter.handshake, "_proves", lambda key, message, proof: True),
    "journal": (counter.records.FileFormat, "_checksum", head_alone),
    "web": (counter.strict_json, "_check_surrogates", lambda value: None),
    "web: depth": (counter.strict_json, "_check_depth", lambda body: None),
    "web: body": (counter.web.body, "_read", lambda environ, size: None),
}
"""What is changed, and what into; a target is named by the word before the colon."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(name):
    owner, attribute, wrong = MISTAKES[name]
    journals = fuzz.load("journal").journals
    journals.cache_clear()
    try:
        with mock.patch.object(owner, attribute, wrong), pytest.raises(Exception):  # noqa: B017
            replay(name.partition(":")[0])
    finally:
        journals.cache_clear()


class Watched:
    """A `Watch` with a clock and a memory of its own."""

    def __init__(self, folder, one_input, **options):
        self.now, self.bytes, self.code = 0.0, 0, None
        options |= {"leave": self.leave, "clock": lambda: self.now, "memory": lambda: self.bytes}
        self.watch = Watch("wire", one_input, folder, **options)

    def leave(self, code):
        assert self.code is None
        self.code = code

    def told(self, capsys):
        return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_run_ends_after_so_many_inputs_or_seconds(tmp_path, capsys):
    short = Watched(tmp_path, lambda data: None, runs=2)
    short.watch(b"1")
    assert short.code is None
    short.watch(b"2")
    assert (short.code, short.told(capsys)["runs"]) == (0, 2)
    brief = Watched(tmp_path, lambda data: None, seconds=5)
    brief.watch(b"1")
    brief.now = 5.0
    brief.watch(b"2")
    assert (brief.code, brief.told(capsys)["seconds"]) == (0, 5.0)
    assert not [*tmp_path.iterdir()]


def test_an_input_that_fails_is_kept(tmp_path, capsys):
    def one_input(data):
        raise LookupError("no such thing")

    failing = Watched(tmp_path, one_input)
    failing.watch(b"bad")
    told = failing.told(capsys)
    assert (failing.code, told["failure"]) == (1, "LookupError: no such thing")
    (path,) = tmp_path.iterdir()
    assert told["input"] == str(path)
    assert path.read_bytes() == b"bad"


@pytest.mark.parametrize(("slow", "code"), [(3, 1), (2, None)])
def test_an_input_that_takes_too_long_each_time_fails(tmp_path, slow, code):
    calls = []

    def one_input(data):
        calls.append(data)
        hanging.now += HANG_SECONDS + 0.1 if len(calls) <= slow else 0.2

    hanging = Watched(tmp_path, one_input)
    hanging.watch(b"slow")
    assert hanging.code == code
    assert hanging.watch.slowest == pytest.approx(HANG_SECONDS + 0.1 if code else 0.2)


def test_a_process_that_grows_fails(tmp_path, capsys):
    growing = Watched(tmp_path, lambda data: None)
    for step in range(1, WARM_RUNS * 3 + 1):
        growing.bytes = 10**9 if step <= WARM_RUNS else 10**9 + MOST_GROWTH + (step > WARM_RUNS * 2)
        growing.watch(b"")
        assert growing.code == (1 if step == WARM_RUNS * 3 else None)
    assert "has grown by" in growing.told(capsys)["failure"]


@pytest.mark.long
@targets
def test_fuzzing_finds_nothing(name, tmp_path):
    """10 s for each, or as many as COUNTER_TEST_FUZZ_SECONDS says."""
    if importlib.util.find_spec("atheris") is None:
        made_for_it = (
            sys.platform == "linux" and sys.version_info < (3, 14) and platform.machine() == "x86_64"
        )
        expected = made_for_it and os.environ.get("CI")
        (pytest.fail if expected else pytest.skip)(
            "atheris is not installed: it is not made for every Python"
        )
    command = [sys.executable, "-m", "fuzz", name, "--seconds", FUZZ_SECONDS, "--folder", tmp_path]
    environ = {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
    with start_process(command, environ, cwd=ROOT) as running:
        code = running.wait(FUZZ_SECONDS + 60)
        told = running.stdout
    assert code == 0
    figures = json.loads(told.splitlines()[-1])
    print(figures)
    assert figures["runs"] > 100
