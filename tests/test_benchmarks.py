"""The benchmark compares what it says, and tells no figure whose total is wrong; how fast, no test says.

The rows about size are in `test_benchmarks_size.py`, those over HTTP in `test_benchmarks_http.py`, and how
figures are told in `test_benchmarks_report.py`.
"""

import contextlib
import json
import math
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from click.testing import CliRunner
from support import ROOT, start_process, wait_until

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.load import BATCH, NAMES, Calls, Client, Clients, Target
from benchmarks.managers import cpu_seconds
from benchmarks.peers import Peer, counters, mapped, memcached, redis_py, started
from benchmarks.peers.process import serving
from benchmarks.row import OURS, Options, Row, WrongTotal, expect_total
from benchmarks.rows import batch, durable_always, floor, increment, read, threads
from benchmarks.turns import Crowd, compare, expect_unique


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def bench(*arguments):
    """The benchmark, once it has ended; of what it started nothing is left, whatever happens."""
    with start_process([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT) as process:
        code = process.wait(60)
        return Done(code, process.stdout, process.stderr)


@pytest.fixture
def folder():
    """One with a shorter path than tmp_path has: sockets are in it, some folders deeper."""
    with tempfile.TemporaryDirectory() as name:
        yield name


def tiny(folder, rounds=1):
    return Options(rounds=rounds, seconds=0.05, counters=10, folder=folder)


# Totals


def test_calls_count_where_they_ended():
    calls = Calls([1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    assert calls.between(1.0, 2.5) == [0.2]


def test_a_wrong_total_is_told():
    expect_total("some", 5, 5)
    with pytest.raises(WrongTotal, match="some counted 1,004 where 1,005 were acknowledged"):
        expect_total("some", 1004, 1005)


def test_a_number_that_is_given_twice_is_told():
    def calls(*values):
        return Calls([0.0] * len(values), [0.0] * len(values), values)

    expect_unique("some", [calls(1, 1, 1, 1, 2, 2), calls(3, 3)])  # each name in turn has numbers of its own
    with pytest.raises(WrongTotal, match="gave a number of 'visits' twice"):
        expect_unique("some", [calls(1, 1, 1, 1, 2, 2), calls(3, 2)])


def forgets(path):
    """A client that sees fewer than were acknowledged."""
    client = mapped.connect(path)
    return client._replace(get=lambda name: client.get(name) - (name == NAMES[-1]))


def repeats(path):
    """A client that is right in the end, and tells everybody the same number."""
    client = mapped.connect(path)
    return client._replace(increment=lambda name: 0 * client.increment(name))


def fails(path):
    """No client at all."""
    raise SystemExit(0)


def planted(connect):
    @contextlib.contextmanager
    def start(folder):
        own = folder / "planted"
        own.mkdir()
        with mapped.mapped(own) as peer:
            yield Peer("planted", Target(connect, peer.target.address))

    return start


@pytest.mark.long
@pytest.mark.parametrize(("connect", "message"), [(forgets, "planted counted"), (repeats, "twice")])
def test_a_subject_that_counts_wrong_has_no_figures(tmp_path, connect, message):
    with pytest.raises(WrongTotal, match=message):
        compare(tiny(tmp_path), [mapped.mapped, planted(connect)], {"": Crowd(2)})


@pytest.mark.long
def test_a_client_that_dies_is_told():
    with Clients(1) as clients, pytest.raises(RuntimeError, match="a client ended early"):
        clients.run(Target(fails, ""), 0.05)


def test_a_wrong_total_fails_the_command(folder, monkeypatch):
    def measure(options):
        expect_total("some", 1, 2)

    monkeypatch.setattr(command, "load", lambda name: Row("row", "What is compared.", measure))
    done = CliRunner().invoke(command.main, ["floor", "--folder", folder])
    assert done.exit_code == 1
    assert "floor: some counted 1 where 2 were acknowledged" in done.output
    assert os.listdir(folder) == []


# Peers


def test_who_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with started([redis_py.everysec, memcached.memcached, mapped.mapped], tmp_path) as (peers, notes):
        assert [peer.subject for peer in peers] == [mapped.SUBJECT]
    assert notes == [
        "redis-server is not installed: not compared",
        "memcached is not installed: not compared",
    ]


@pytest.mark.long
def test_a_server_that_does_not_start_says_why(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('out of order')"]
    with pytest.raises(RuntimeError, match="out of order"), serving(command, tmp_path / "socket"):
        pass


@pytest.mark.long
def test_servers_end_with_the_comparison(tmp_path):
    starts = [counters.everysec, *increment.SUBJECTS[1:5]]
    with started(starts, tmp_path) as (peers, _):
        pids = [pid for peer in peers for pid in peer.pids]
        assert len(pids) >= len(peers) > 1
        assert all(cpu_seconds(pid) > 0 for pid in pids)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# The rows


def checked(row, found, subjects, conditions, rounds):
    """Everybody who is there was measured: once a round, with figures that can be, and promises judged."""
    missing = {note for note in found.notes if note.endswith("is not installed: not compared")}
    if os.environ.get("CI"):
        assert missing <= {"valkey-server is not installed: not compared"}
    measured = {(case.subject, case.condition): case.figures for case in found.cases}
    there = {subject for subject, _ in measured}
    assert there >= {OURS} and (missing or there == subjects) and there <= subjects
    assert not missing or len(subjects - there) == len(missing)
    assert measured.keys() == {(subject, condition) for subject in there for condition in conditions}
    for (subject, _), figures in measured.items():
        assert set(figures) == {"rate", "p50", "p99", "client_cpu", "server_cpu", "cpu"}
        assert all(len(values) == rounds for values in figures.values())
        assert all(math.isfinite(value) and value >= 0 for values in figures.values() for value in values)
        assert min(figures["client_cpu"]) > 0
        assert all(low <= high for low, high in zip(figures["p50"], figures["p99"], strict=True))
        if subject == OURS:
            assert min(figures["server_cpu"]) > 0
    words = {report.judge(aim, found.cases).word for aim in row.aims if {aim.ours, aim.against} <= there}
    assert "not measured" not in words
    assert row.about in report.tell(row, found)


COUNTING = {
    OURS,
    "redis-py",
    "redis-py on Valkey",
    "pymemcache",
    "stock manager",
    "dict + Lock",
    "SQLite",
    "diskcache",
}
ALWAYS = {OURS, "redis-py, AOF always", "redis-py on Valkey, AOF always", "SQLite FULL"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "subjects", "conditions"),
    [
        (threads.ROW, COUNTING, ["8 threads"]),
        (batch.ROW, {OURS, "redis-py", "redis-py on Valkey", "SQLite"}, ["4 processes"]),
        (read.ROW, COUNTING, ["1 process", "8 processes"]),
        (durable_always.ROW, ALWAYS, ["8 processes"]),
        (
            floor.ROW,
            {OURS, "raw ping-pong", "bare loop", "fcntl + mmap", "redis-py"},
            ["1 process", "8 processes"],
        ),
    ],
    ids=lambda each: each.name if isinstance(each, Row) else "",
)
def test_a_row_measures_everybody(tmp_path, row, subjects, conditions):
    checked(row, row.measure(tiny(tmp_path, rounds=2)), subjects, conditions, rounds=2)


@pytest.mark.long
def test_increments_are_measured_with_up_to_32_processes(tmp_path):
    conditions = ["1 process", *(f"{number} processes" for number in (2, 4, 8, 16, 32))]
    checked(increment.ROW, increment.ROW.measure(tiny(tmp_path)), COUNTING, conditions, rounds=1)


def test_nobody_can_add_a_batch_up_before_it_is_sent():
    assert len(set(BATCH)) == len(BATCH) == 100


def test_a_subject_without_a_batch_says_so_by_having_none():
    assert Client(int, int).update is None


# The command


@pytest.mark.long
def test_the_list_tells_every_row_in_a_sentence():
    lines = bench("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(command.ROWS)
    assert all(len(line.split()) > 3 and line.endswith(".") for line in lines)


@pytest.mark.long
@pytest.mark.parametrize("arguments", [("nothing",), ("nothing", "floor"), ("floor", "--rounds", "0")])
def test_what_there_is_not_is_a_wrong_use(arguments):
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: scripts/bench" in done.stderr


@pytest.mark.long
def test_a_run_is_told_written_and_drawn(tmp_path, folder):
    """With where it was and what it ran, so that nobody reads it as the figures of another machine."""
    file, charts = tmp_path / "all.json", tmp_path / "charts"
    short = ("--rounds", "2", "--seconds", "0.05", "--folder", folder)
    done = bench("floor", "batch", *short, "--json", file, "--plot", charts)
    assert (done.returncode, done.stderr, os.listdir(folder)) == (0, "", [])
    assert "\nfloor: " in done.stdout and "\nbatch: " in done.stdout
    told = json.loads(file.read_text())
    assert list(told["rows"]) == ["floor", "batch"]
    assert (told["rounds"], told["seconds"]) == (2, 0.05)
    assert {"counter", "python", "sqlite", "redis", "hiredis"} <= told["machine"]["versions"].keys()
    assert all(version[0].isdigit() for version in told["machine"]["versions"].values())
    assert all(figure > 0 for case in told["rows"]["floor"]["cases"] for figure in case["figures"]["rate"])
    assert sorted(each.name for each in charts.iterdir()) == ["batch.svg", "floor.svg"]
    assert all(each.read_text().startswith("<?xml") for each in charts.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_run_that_is_ended_leaves_nothing(folder, number):
    arguments = [sys.executable, "-m", "benchmarks", "floor", "--seconds", "60", "--folder", folder]
    with start_process(arguments, cwd=ROOT) as running:
        process = psutil.Process(running.pid)
        wait_until(lambda: list(Path(folder).glob("*/mapped")))  # the last of its subjects is there
        wait_until(lambda: len(process.children(recursive=True)) > 4)  # and so are clients
        started = process.children(recursive=True)
        assert running.stop(number) == 1
        wait_until(lambda: not any(each.is_running() for each in started))
    assert os.listdir(folder) == []


def test_a_folder_in_which_no_socket_could_be_is_refused(tmp_path):
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    done = CliRunner().invoke(command.main, ["floor", "--folder", str(folder)])
    assert done.exit_code == 2
    assert "a socket's path in it would be too long; take one of at most 60 bytes" in done.output
