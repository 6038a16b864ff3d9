"""The fault harness: its oracle finds what is wrong, its scenarios find nothing wrong in the service.

The runs here are short; `scripts/faults` makes long ones.
"""

import ast
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from faults import simulated
from faults.diary import Diary, read_diaries
from faults.http_caller import HttpCaller
from faults.launcher import launched
from faults.oracle import ACKNOWLEDGED, REFUSED, UNKNOWN, Call, check, in_flight
from faults.scenarios import SCENARIOS
from faults.trial import Trial
from support import ROOT, free_port, start_process, wait_until

FAULTS = (sys.executable, "-m", "faults")


def told(value, begun, ended, name="n"):
    return Call(f"caller {begun}", name, begun, ended, ACKNOWLEDGED, value)


def one_after_the_other(*values, name="n"):
    """Calls that were told these *values*, each begun after the one before had ended."""
    return [told(value, 10 * number + 1, 10 * number + 5, name) for number, value in enumerate(values)]


def found(calls, **finals):
    """How many are lost and doubled, and all violations in one text."""
    verdict = check(calls, finals)
    return len(verdict.lost), verdict.doubled, "\n".join(verdict.violations)


# The oracle


def test_the_oracle_finds_nothing_wrong_with_a_history_that_is_right():
    """Calls that overlap may be told their numbers in any order, and in any order of their ends."""
    overlapping = [told(3, 1, 90), told(1, 2, 80), told(2, 3, 85), told(4, 86, 99)]
    assert found(overlapping, n=4) == (0, 0, "")
    assert found(one_after_the_other(1, 2, 3) + one_after_the_other(1, name="m"), n=3, m=1) == (0, 0, "")
    assert found([], n=0)[:2] == (0, 0)


def test_the_oracle_finds_one_lost():
    lost, doubled, said = found(one_after_the_other(1, 2, 3), n=2)
    assert (lost, doubled) == (1, 0)
    assert "was told 3, and the final value is 2: lost" in said
    assert [call.value for call in check(one_after_the_other(1, 2, 3), {"n": 2}).lost] == [3]


def test_the_oracle_finds_that_all_is_lost():
    assert found(one_after_the_other(1, 2))[:2] == (2, 0)


def test_the_oracle_finds_one_doubled():
    lost, doubled, said = found(one_after_the_other(1, 3), n=3)
    assert (lost, doubled) == (0, 1)
    assert (
        "1 of the numbers 1 to 3 were told to nobody, and 0 calls have an unknown outcome: 1 doubled" in said
    )


def test_the_oracle_finds_one_doubled_after_the_last_answer():
    assert found(one_after_the_other(1, 2), n=3)[:2] == (0, 1)


def test_the_oracle_finds_one_lost_and_one_doubled_although_the_sum_is_right():
    calls = one_after_the_other(1, 2, 2, 4)
    lost, doubled, said = found(calls, n=len(calls))
    assert (lost, doubled) == (1, 1)
    assert "2 was told twice, to caller 11 and caller 21: one is lost" in said
    assert "1 doubled" in said


def test_the_oracle_finds_a_value_that_was_told_twice():
    lost, _, said = found([told(1, 1, 50), told(1, 2, 60)], n=1)
    assert lost == 1
    assert "1 was told twice" in said


def test_the_oracle_finds_a_stale_value():
    """The numbers are complete, but a later call was told an earlier one."""
    lost, doubled, said = found([told(2, 1, 5), told(1, 10, 15)], n=2)
    assert (lost, doubled) == (0, 0)
    assert "caller 10 was told 1 after caller 1 had been told 2: stale" in said


def test_the_oracle_finds_the_stale_among_many_that_overlap():
    calls = [told(value, value, value + 1000) for value in range(1, 500)]
    assert found(calls, n=499) == (0, 0, "")
    calls += [told(501, 2000, 2001), told(500, 2002, 2003)]
    assert found(calls, n=501)[2].count("stale") == 1


@pytest.mark.parametrize("value", [-1, 0, 7])
def test_the_oracle_finds_a_value_from_nowhere(value):
    """No call can be told a number that so many calls cannot have made."""
    lost, _, said = found(one_after_the_other(1, value), n=2)
    assert lost == 1
    assert f"was told {value}" in said
    if value == 7:
        assert "was told 7 when 2 calls had begun: it came from nowhere" in said


def test_the_oracle_finds_counters_that_nobody_counted_on():
    lost, doubled, said = found(one_after_the_other(1), n=1, m=3)
    assert (lost, doubled) == (0, 3)
    assert "m: the final value is 3, and nobody ever counted there" in said


def test_a_call_of_unknown_outcome_may_have_counted_once_and_a_refused_one_never():
    unknown = Call("u", "n", 1, 500, UNKNOWN)
    assert found([*one_after_the_other(1, 2), unknown], n=2) == (0, 0, "")
    assert found([*one_after_the_other(1, 2), unknown], n=3) == (0, 0, "")
    assert found([*one_after_the_other(1, 2), unknown], n=4)[:2] == (0, 1)
    refused = unknown._replace(outcome=REFUSED)
    assert found([*one_after_the_other(1, 2), refused], n=2) == (0, 0, "")
    assert found([*one_after_the_other(1, 2), refused], n=3)[:2] == (0, 1)


def test_of_many_violations_of_one_kind_a_few_are_told():
    verdict = check(one_after_the_other(*range(1, 101)), {})
    assert len(verdict.lost) == 100
    assert len(verdict.violations) == 3
    assert verdict.violations[-1] == "n: and 98 more like this"


def test_a_moment_is_in_flight_if_one_call_spans_it():
    calls = [told(1, 10, 20), told(2, 30, 60), Call("u", "n", 100)]
    assert in_flight([(12, 15)], calls) == 1
    assert in_flight([(12, 25)], calls) == 0
    assert in_flight([(12, 25), (31, 59), (200, 900)], calls) == 2
    assert in_flight([], calls) == 0


# The diary


def test_a_diary_is_read_as_it_was_written(tmp_path):
    diary = Diary(tmp_path, "a.1")
    diary.intend("x")
    diary.connection_refused()
    diary.connection_broken("gone")
    diary.connection_broken("gone\nagain")
    diary.acknowledged(7)
    diary.intend("y")
    diary.unknown("no answer\nin time")
    diary.intend("x")
    diary.refused("not reached")
    diary.intend("z")
    Diary(tmp_path, "b").intend("x")
    first, second, third, fourth, other = read_diaries(tmp_path)
    assert (first.who, first.name, first.outcome, first.value) == ("a.1#0", "x", ACKNOWLEDGED, 7)
    assert (first.refused_connections, first.broken_connections) == (1, 2)
    assert first.begun < first.ended < second.begun
    assert (second.who, second.name, second.outcome) == ("a.1#1", "y", UNKNOWN)
    assert (second.failed, second.said, second.broken_connections) == (True, "no answer in time", 0)
    assert (third.outcome, third.failed, third.said) == (REFUSED, True, "not reached")
    assert (fourth.outcome, fourth.ended, fourth.failed) == (UNKNOWN, None, False)
    assert (other.who, other.name) == ("b#0", "x")


def test_a_line_that_a_kill_cut_off_is_as_if_never_begun(tmp_path):
    Diary(tmp_path, "a").intend("x")
    with (tmp_path / "a.calls").open("a") as file:
        file.write("A 17")
    (call,) = read_diaries(tmp_path)
    assert (call.outcome, call.ended) == (UNKNOWN, None)


# The client by HTTP


def call_by_http(tmp_path, server, answers):
    """The call that a client made to *server*, which gives each request the next of *answers*; and the keys.

    An answer is a status and a body, None is a connection that closes.
    """
    keys, answers = [], iter(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            keys.append(self.headers["Idempotency-Key"])
            answer = next(answers)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        def log_message(self, *_):
            pass

    server.RequestHandlerClass = Handler
    caller, diary = HttpCaller(f"http://127.0.0.1:{server.server_port}", 0.2), Diary(tmp_path, "a")
    diary.intend("x")
    caller.increment("x", diary)
    caller.close()
    (call,) = read_diaries(tmp_path)
    return call, keys


@pytest.fixture
def http_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), None) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_call_by_http_is_repeated_with_its_key_until_it_is_answered(tmp_path, http_server):
    answers = [None, (503, b"no"), (504, b"no"), (200, b'{"value": 7}')]
    call, keys = call_by_http(tmp_path, http_server, answers)
    assert (call.outcome, call.value, call.broken_connections) == (ACKNOWLEDGED, 7, 1)
    assert len(keys) == 4
    assert len({*keys}) == 1
    assert keys[0]


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([(503, b"")] * 100, REFUSED),
        ([None] + [(503, b"")] * 100, UNKNOWN),
        ([(504, b"")] * 100, UNKNOWN),
        ([(500, b"")], UNKNOWN),
    ],
)
def test_a_call_by_http_that_is_not_answered_is_refused_only_if_that_is_certain(
    tmp_path, http_server, answers, outcome
):
    call, _ = call_by_http(tmp_path, http_server, answers)
    assert (call.outcome, call.failed) == (outcome, True)


def test_connections_that_are_refused_are_counted(tmp_path):
    caller, diary = HttpCaller(f"http://127.0.0.1:{free_port()}", 0.1), Diary(tmp_path, "a")
    diary.intend("x")
    caller.increment("x", diary)
    (call,) = read_diaries(tmp_path)
    assert call.outcome == REFUSED
    assert call.refused_connections > 1


# The package knows nothing of all this

HOOK = r"\b(faults?|fail_?points?|test_?hooks?|for_tests?|under_test|pytest)\b"
OF_THE_SYSTEM = {"HOME", "PYTHONPATH"}
"""Variables of the environment that mean here what they mean everywhere."""
OF_A_REQUEST = (
    r"(HTTP_|wsgi\.|waitress\.|counter\.)|(CONTENT_|PATH_INFO|QUERY_|REQUEST_|SCRIPT_|SERVER_|REMOTE_)"
)
"""What an `environ` holds that is a WSGI request's."""


def sources():
    """The files of the package, without what it offers to tests of others."""
    return [file for file in (ROOT / "counter").rglob("*.py") if file.name != "pytest_plugin.py"]


def test_the_oracle_and_those_who_feed_it_share_no_code_with_the_service():
    for module in ("oracle", "diary", "http_caller", "proxy"):
        text = (ROOT / "tests" / "faults" / f"{module}.py").read_text()
        assert not re.search(r"^\s*(import|from) (counter|support)\b", text, re.MULTILINE), module


def test_the_package_has_no_hooks_for_faults_or_tests():
    for file in sources():
        found = re.search(HOOK, file.read_text(), re.IGNORECASE)
        assert found is None, f"{file}: {found[0]}"


def test_the_package_reads_nothing_of_the_environment_that_is_not_documented():
    """Whoever reads the docs knows every switch there is."""
    docs = "".join(file.read_text() for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    documented = {*re.findall(r"\b(?:COUNTER|XDG)_[A-Z_]+", docs)} | OF_THE_SYSTEM
    assert "COUNTER_URL" in documented
    for file in sources():
        assert {*environment_names(ast.parse(file.read_text()))} <= documented, file


def environment_names(tree):
    """The variables of the environment that a module names: by their look, or by what is done with them."""
    for node in ast.walk(tree):
        asked = []
        if isinstance(node, ast.Constant) and re.fullmatch(r"COUNTER_[A-Z_]+", str(node.value)):
            asked = [node]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            asked = [node.slice]
        elif isinstance(node, ast.Call) and re.search(r"environ\.\w+$|getenvb?$", ast.unparse(node.func)):
            asked = node.args[:1]
        for name in asked:
            if isinstance(name, ast.Constant) and not re.match(OF_A_REQUEST, str(name.value)):
                yield name.value


def test_these_rules_can_fail():
    module = "os.getenv('A')\nos.environ['B']\nx.environ.get('C', 1)\nD = 'COUNTER_D'\nenviron['HTTP_E']"
    assert {*environment_names(ast.parse(module))} == {"A", "B", "C", "COUNTER_D"}
    assert re.search(HOOK, "if FAULTS:", re.IGNORECASE)
    assert not re.search(HOOK, "default faulty", re.IGNORECASE)


# The command line


def run_faults(tmp_path, *arguments):
    """Exit code and figures of one run of the harness, or what it said; nothing of it may be left."""
    folder = tmp_path / "tmp"
    folder.mkdir(exist_ok=True)
    environ = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "TMPDIR": str(folder)}
    with start_process([*FAULTS, *arguments], environ, cwd=ROOT) as process:
        code = process.wait(110)
        assert [*folder.iterdir()] == [], "something is left in the folder for temporary files"
        assert processes_that_name(folder) == [], "a process is left"
        return code, json.loads(process.stdout) if process.stdout.startswith("{") else process.stdout


def processes_that_name(folder):
    """Running processes with *folder* in their command lines."""
    lines = {process.pid: process.info["cmdline"] for process in psutil.process_iter(["cmdline"])}
    return [pid for pid, line in lines.items() if any(str(folder) in word for word in line or ())]


@pytest.mark.process
def test_the_list_names_every_scenario(tmp_path):
    code, said = run_faults(tmp_path, "--list")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == [*SCENARIOS]


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("kill-manager", "--list"),
        ("kill-manager", "--runs", "0"),
        ("kill-manager", "--runs", "x"),
        ("kill-manager", "--durability", "nonsense"),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path, arguments):
    assert run_faults(tmp_path, *arguments) == (2, "")


@pytest.mark.process
def test_what_it_started_ends_with_it(tmp_path):
    """Asked to end in the middle, it leaves nothing behind."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    environ = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "TMPDIR": str(folder)}
    with start_process([*FAULTS, "kill-manager", "--durability", "memory"], environ, cwd=ROOT) as process:
        wait_until(lambda: [*folder.glob("*/diaries.0/*.calls")])
        assert process.stop() == 1
        assert [*folder.iterdir()] == []
        wait_until(lambda: not processes_that_name(folder))


@pytest.mark.process
def test_faults_are_in_each_manager_and_not_in_its_supervisor(tmp_path):
    """The replaced method is called once by the manager, and a second manager would fail at it."""
    seen = tmp_path / "seen"
    command = launched([f"os:mkdir={seen}"], ["run", "--workers", "0", "--home", str(tmp_path / "home")])
    environ = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with start_process(command, environ) as process:
        process.line("ready")
        assert seen.is_dir()
        seen.rmdir()
        (manager,) = psutil.Process(process.pid).children()
        manager.kill()
        wait_until(seen.is_dir)
        assert process.stop() == 0


# The scenarios


def holds(tmp_path, name, runs, durability="everysec"):
    """The figures of a run that found nothing wrong."""
    code, figures = run_faults(tmp_path, name, "--runs", str(runs), "--durability", durability, "--seed", "1")
    assert (code, figures["violations"]) == (0, []), figures
    assert figures["lost"] == figures["doubled"] == figures["refused_connections"] == 0
    assert figures["acknowledged"] > 0
    assert (figures["scenario"], figures["runs"]) == (name, runs)
    return figures


@pytest.mark.process
def test_with_durability_memory_the_losses_show(tmp_path):
    """So they would show with the others."""
    code, figures = run_faults(tmp_path, "kill-manager", "--runs", "2", "--durability", "memory")
    assert code == 1
    assert figures["lost"] > 0
    assert figures["client_errors"] == 0
    assert any("lost" in sentence for sentence in figures["violations"])


@pytest.mark.process
@pytest.mark.parametrize("durability", ["everysec", "always"])
def test_a_killed_manager_loses_nothing(tmp_path, durability):
    assert holds(tmp_path, "kill-manager", 4, durability)["kills"] == 4


@pytest.mark.process
@pytest.mark.parametrize(("name", "kills"), [("kill-workers", 3), ("kill-both", 4)])
def test_killed_workers_refuse_nobody_and_lose_nothing(tmp_path, name, kills):
    runs = kills // 2 if name == "kill-both" else kills
    assert holds(tmp_path, name, runs)["kills"] == kills


@pytest.mark.process
def test_a_request_that_is_repeated_counts_once_and_has_one_answer(tmp_path):
    figures = holds(tmp_path, "cut-replies", 800)
    assert figures["acknowledged"] == 800
    assert figures["replies_compared"] > 20


@pytest.mark.process
def test_what_was_given_up_while_the_manager_stood_still_is_never_executed(tmp_path):
    assert holds(tmp_path, "freeze", 2)["sent_and_given_up_calls"] > 0


@pytest.mark.process
def test_a_storm_of_restarts_costs_nobody_a_call(tmp_path):
    assert holds(tmp_path, "restart-storm", 4)["client_errors"] == 0


@pytest.mark.process
def test_clients_that_fork_count_for_themselves(tmp_path):
    assert holds(tmp_path, "forks", 2)["forks"] == 4


@pytest.mark.process
def test_a_reply_that_comes_too_late_is_nobody_elses(tmp_path):
    code, figures = run_faults(tmp_path, "late-replies", "--runs", "160", "--seed", "1")
    assert (code, figures["violations"]) == (0, [])
    assert figures["given_up_calls"] > 0


def test_a_simulation_is_a_scenario_too(tmp_path):
    trial = Trial("simulation", tmp_path, 3, 1, "everysec")
    simulated.run(trial)
    assert trial.violations == []
    assert trial.figures["seeds"] == 3


@pytest.mark.long
@pytest.mark.process
@pytest.mark.parametrize("durability", ["everysec", "always"])
@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("kill-manager", 20),
        ("kill-workers", 10),
        ("kill-both", 10),
        ("cut-replies", 4000),
        ("freeze", 5),
        ("restart-storm", 10),
        ("forks", 10),
    ],
)
def test_the_scenarios_hold_for_longer(tmp_path, name, runs, durability):
    print(json.dumps(holds(tmp_path, name, runs, durability)))
