"""The `counter` command: what it prints, how it takes arguments, and its exit codes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from support import COMMAND, clean_environ, start_process

from counter import Change, ChangesPage, Entry, OutOfBounds, Page, connect
from counter.cli import COMMANDS, main
from counter.cli.watching import News
from counter.errors import STORE_ERRORS
from counter.fields import INT64_MAX, INT64_MIN
from counter.information import Information
from counter.results import Problem, Reply
from counter.store import Store

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no file that is always full")


class Terminal:
    """Runs `counter` commands in this process, against counters of its own."""

    def __init__(self):
        self.url = f"memory://{uuid.uuid4().hex}"
        self.counters = connect(self.url)

    def run(self, *args):
        return CliRunner().invoke(main, [str(arg) for arg in args], env={"COUNTER_URL": self.url})

    def out(self, *args):
        """What a command that succeeds prints."""
        result = self.run(*args)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    def refused(self, exit_code, *args):
        """The sentence of a command that fails."""
        result = self.run(*args)
        assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
        assert result.stderr.startswith("counter: ") and result.stderr.count("\n") == 1
        return result.stderr.removeprefix("counter: ").rstrip("\n")


@pytest.fixture
def terminal():
    return Terminal()


class Failing(Store):
    """A store that only fails."""

    def __init__(self, error):
        self.error = error

    def execute(self, request, timeout=None):
        raise self.error

    def close(self):
        pass


# -- one counter


def test_each_command_prints_the_number_that_is_there_after_it(terminal):
    assert terminal.out("incr", "page") == "1\n"
    assert terminal.out("incr", "page", 9) == "10\n"
    assert terminal.out("decr", "page") == "9\n"
    assert terminal.out("decr", "page", 4) == "5\n"
    assert terminal.out("get", "page") == "5\n"
    assert terminal.out("set", "page", 70) == "70\n"
    assert terminal.out("reset", "page") == "0\n"
    assert terminal.out("reset", "page", "--value", 3) == "3\n"
    assert terminal.out("delete", "page") == "3\n"
    assert "page" not in terminal.counters


@pytest.mark.parametrize(
    ("command", "printed"),
    [("incr a 2", "7\n"), ("decr a", "4\n"), ("set a 9", "9\n"), ("reset a", "0\n"), ("delete a", "5\n")],
)
def test_a_command_with_an_idempotency_key_is_done_once(terminal, command, printed):
    terminal.out("set", "a", 5)
    command = [*command.split(), "--idempotency-key", "k"]
    assert terminal.out(*command) == printed
    after = dict(terminal.counters)
    assert terminal.out(*command) == printed
    assert dict(terminal.counters) == after
    assert "'k'" in terminal.refused(1, "incr", "b", "--idempotency-key", "k")
    assert "visible ASCII" in terminal.refused(2, "incr", "b", "--idempotency-key", "two words")


@pytest.mark.parametrize(
    "order", ["incr - -5", "incr page -5 --max 9", "incr --max 9 page -5", "incr page --max 9 -- -5"]
)
def test_a_negative_number_is_an_argument_wherever_options_stand(terminal, order):
    assert terminal.out(*order.split()) == "-5\n"


def test_negative_numbers_are_values_of_options_and_of_set_and_reset(terminal):
    assert terminal.out("set", "x", -3, "--min", -9, "--max=-1") == "-3\n"
    assert terminal.out("reset", "x", "--value", -2) == "-2\n"
    entry = terminal.counters.entry("x")
    assert (entry.min, entry.max) == (-9, -1)
    assert terminal.out("decr", "x", -1) == "-1\n"


@pytest.mark.parametrize("value", [INT64_MIN, INT64_MAX])
def test_all_64_bits_arrive(terminal, value):
    assert terminal.out("set", "x", value) == f"{value}\n"
    assert terminal.out("get", "x") == f"{value}\n"


def test_any_name_can_be_given_also_one_that_looks_like_an_option(terminal):
    for name in ("--json", "-x", "-5", "New York", "/über uns", "$x", "-"):
        assert terminal.out("incr", "--", name) == "1\n"
        assert terminal.out("get", "--", name) == "1\n"
    assert terminal.out("incr", "--max", 9, "--", "-x", -3) == "-2\n"


def test_a_mistyped_option_is_not_taken_for_a_name(terminal):
    assert "No such option" in terminal.refused(2, "incr", "--jsn", "page", "-5")
    assert "No such option" in terminal.refused(2, "get", "-j")
    assert len(terminal.counters) == 0


def test_incr_has_the_options_of_the_op(terminal):
    assert terminal.out("incr", "x", 9, "--max", 5, "--on-bound", "clamp") == "5\n"
    assert "would pass" in terminal.refused(1, "incr", "x", "--max", 5)
    assert "would pass" in terminal.refused(1, "decr", "x", "--min", 5)
    terminal.out("incr", "y", "--ttl", 60, "--ttl-mode", "sliding")
    entry = terminal.counters.entry("y")
    assert (entry.ttl, entry.ttl_mode) == (60, "sliding")


def test_settings_of_set_stay_and_none_clears_them(terminal):
    terminal.out(
        "set", "x", 5, "--min", 0, "--max", 9, "--on-bound", "clamp", "--ttl", 60, "--ttl-mode", "fixed"
    )
    terminal.out("set", "x", 6, "--max", "none", "--on-bound", "none")
    entry = terminal.counters.entry("x")
    assert (entry.min, entry.max, entry.on_bound, entry.ttl, entry.ttl_mode) == (0, None, None, 60, "fixed")
    terminal.out("set", "x", 6, "--ttl", "none", "--min", "none")
    entry = terminal.counters.entry("x")
    assert (entry.min, entry.ttl, entry.ttl_mode, entry.expires_at) == (None, None, None, None)
    assert "neither a number nor none" in terminal.refused(2, "set", "x", 6, "--min", "nothing")


@pytest.mark.parametrize("command", ["incr x", "decr x", "set x 1", "reset x", "delete x"])
def test_a_change_can_be_made_to_depend_on_the_version(terminal, command):
    terminal.counters.set("x", 7)
    version = terminal.counters.entry("x").version
    assert "changed since" in terminal.refused(1, *command.split(), "--if-version", "other")
    assert "exists already" in terminal.refused(1, *command.split(), "--if-version", "absent")
    assert terminal.counters["x"] == 7
    terminal.out(*command.split(), f"--if-version={version}")
    assert terminal.counters["x"] != 7


def test_reset_is_for_a_counter_that_exists_and_keeps_its_settings(terminal):
    assert terminal.refused(1, "reset", "x") == "there is no counter 'x'"
    assert terminal.refused(1, "reset", "x", "--if-version", "absent") == "there is no counter 'x'"
    assert "x" not in terminal.counters
    terminal.out("set", "x", 5, "--max", 9)
    terminal.out("reset", "x")
    assert terminal.counters.entry("x").max == 9


# -- json


def test_json_is_the_type_of_the_op_on_one_line(terminal):
    def decoded(kind, *args):
        out = terminal.out(*args, "--json")
        assert out.endswith("}\n") and out.count("\n") == 1
        return msgspec.json.decode(out, type=kind)

    change = decoded(Change, "incr", "x", 5)
    assert (change.value, change.previous, change.delta, change.created) == (5, 0, 5, True)
    assert decoded(Entry, "get", "x") == terminal.counters.entry("x")
    assert decoded(Change, "decr", "x").delta == -1
    assert decoded(Change, "set", "x", 8).previous == 4
    assert decoded(Change, "reset", "x").delta == -8
    assert decoded(Page, "list").counters == [terminal.counters.entry("x")]
    assert decoded(Information, "info").counters == 1
    assert decoded(Change, "delete", "x").value == 0


# -- many counters


def test_a_list_is_tab_separated_where_nobody_reads_it(terminal):
    terminal.counters.update({"b b": -2, "a": 11})
    updated = msgspec.to_builtins(terminal.counters.entry("a").updated_at)
    assert terminal.out("list") == f"a\t11\t{updated}\nb b\t-2\t{updated}\n"


def test_a_list_of_nothing_is_empty(terminal):
    assert terminal.out("list") == ""


def test_a_list_goes_by_prefix_order_and_limit(terminal):
    terminal.counters.update({"shop:a": 1, "shop:b": 3, "shop:c": 2, "web": 9})

    def names(*args):
        return [line.split("\t")[0] for line in terminal.out("list", *args).splitlines()]

    assert names("--prefix", "shop:") == ["shop:a", "shop:b", "shop:c"]
    assert names("--sort", "-value") == ["web", "shop:b", "shop:c", "shop:a"]
    assert names("--sort=-value", "--limit", 2) == ["web", "shop:b"]
    assert "--limit" in terminal.refused(2, "list", "--limit", 0)


def test_a_list_goes_on_over_pages_as_far_as_asked(terminal):
    terminal.counters.update({f"{number:04}": 1 for number in range(2500)})
    assert len(terminal.out("list").splitlines()) == 100
    assert len(terminal.out("list", "--limit", 1001).splitlines()) == 1001
    lines = terminal.out("list", "--all").splitlines()
    assert [line.split("\t")[0] for line in lines] == [f"{number:04}" for number in range(2500)]
    pages = [json.loads(line) for line in terminal.out("list", "--all", "--json").splitlines()]
    assert [len(page["counters"]) for page in pages] == [1000, 1000, 500]


# -- watching


def entries(*named, run="a"):
    """Entries that changed at the seconds given, `name=value@second`."""
    found = []
    for text in named:
        name, value, second = re.split("[=@]", text)
        at = datetime.fromtimestamp(int(second), UTC)
        found.append(Entry(name, int(value), f"{run}.{second}", at, at))
    return found


def news(*pages):
    """What is told of each of *pages*: (counters, gone, more, complete)."""
    told = News()
    shown = []
    for counters, gone, more, complete in pages:
        page = ChangesPage(counters, gone, "v", more, complete)
        shown.append([f"{each.name} {getattr(each, 'value', 'gone')}" for each in told.of(page)])
    return shown


def test_watching_tells_what_there_is_and_what_changes():
    first = (entries("a=1@1", "b=2@2"), [], False, True)
    assert news(first, (entries("a=2@3"), ["b"], False, False)) == [["a 1", "b 2"], ["a 2", "b gone"]]


def test_watching_tells_nothing_twice_after_a_restart():
    """Then everything is listed again, with other versions; what is missing there is gone."""
    before = (entries("a=1@1", "b=2@2", "c=3@3", "d=4@4"), [], False, True)
    after = (entries("a=1@1", "b=9@8", run="b"), [], True, True)
    rest = (entries("c=3@9", run="b"), [], False, False)
    assert news(before, after, rest)[1:] == [["b 9"], ["c 3", "d gone"]]


def test_watching_tells_of_no_end_of_what_was_never_shown():
    assert news((entries("a=1@1"), [], False, True), ([], ["x", "a"], False, False)) == [["a 1"], ["a gone"]]
    begun = [(entries("a=1@1", "b=1@1"), [], False, True), (entries("a=1@1"), [], True, True)]
    assert news(*begun, ([], ["b"], True, False), (entries("c=1@2"), [], False, False))[2:] == [
        ["b gone"],
        ["c 1"],
    ]


def test_watching_prints_a_line_a_counter_until_the_store_is_away(terminal, monkeypatch):
    class Two(Failing):
        """Answers twice, and then fails."""

        def __init__(self):
            self.pages = [
                ChangesPage(entries("shop:a b=-5@1", "shop:c=2@2"), [], "v", False, True),
                ChangesPage(entries("shop:c=3@3"), ["shop:a b", "shop:é"], "w", False, False),
            ]
            self.asked = []

        def execute(self, request, timeout=None):
            self.asked.append((request.ops[0].prefix, timeout))
            if not self.pages:
                raise OutOfBounds("it ends here")
            return Reply([self.pages.pop(0)])

    store = Two()
    monkeypatch.setattr("counter.cli.client.open_store", lambda url: store)
    result = terminal.run("watch", "shop:", "--timeout", 3)
    assert (result.exit_code, result.stderr) == (1, "counter: it ends here\n")
    assert result.stdout == "shop:a b\t-5\nshop:c\t2\nshop:c\t3\nshop:a b\tgone\n"
    assert store.asked == [("shop:", 3)] * 3
    store.__init__()
    shown = [json.loads(line) for line in terminal.run("watch", "--json").stdout.splitlines()]
    assert [(line["name"], line.get("value"), line.get("gone")) for line in shown] == [
        ("shop:a b", -5, None),
        ("shop:c", 2, None),
        ("shop:c", 3, None),
        ("shop:a b", None, True),
    ]
    assert shown[0]["version"] == "a.1"


@pytest.mark.process
def test_watching_goes_on_through_a_restart_and_ends_with_ctrl_c(tmp_path):
    home = tmp_path / "home"
    counters = connect(f"counter://{home}")
    with start_process([*COMMAND, "manager", "--home", home]) as manager:
        manager.line("ready")
        counters.update({"shop:a": 1, "shop:b": 2, "blog": 1})
        with start_process([*COMMAND, "watch", "shop:", "--home", home]) as watching:
            watching.line("shop:b\t2")
            counters.increment("shop:a")
            watching.line("shop:a\t2")
            assert manager.stop() == 0
            with start_process([*COMMAND, "manager", "--home", home]) as manager:
                manager.line("ready")
                counters.increment("shop:b")
                watching.line("shop:b\t3")
                counters.delete("shop:a")
                watching.line("shop:a\tgone")
                assert watching.stop(signal.SIGINT) == 130
                assert sorted(watching.stdout.splitlines()[:2]) == ["shop:a\t1", "shop:b\t2"]
                assert watching.stdout.splitlines()[2:] == ["shop:a\t2", "shop:b\t3", "shop:a\tgone"]
                assert watching.stderr.strip() == "", "it ends the line of a terminal and says nothing"
    counters.close()


@pytest.mark.process
def test_watching_ends_when_nobody_reads(tmp_path):
    home = tmp_path / "home"
    with start_process([*COMMAND, "manager", "--home", home]) as manager:
        manager.line("ready")
        counters = connect(f"counter://{home}")
        counters.increment("a")
        command = [*COMMAND, "watch", "--home", home]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=clean_environ(), **pipes) as watching:
            assert watching.stdout.readline() == b"a\t1\n"
            watching.stdout.close()
            counters.increment("a")
            assert watching.stderr.read() == b""
            assert watching.wait(20) != 0
        counters.close()


# -- the store


def test_info_prints_a_line_for_each_field(terminal):
    terminal.out("incr", "x")
    fields = dict(line.split("\t") for line in terminal.out("info").splitlines())
    assert fields["store"] == "memory"
    assert fields["counters"] == "1"
    assert fields["limits.max_counters"] == "1000000"
    assert fields["manager"] == ""


def test_ping_says_pong_and_how_long_it_took(terminal):
    word, number, unit = terminal.out("ping").split()
    assert (word, unit) == ("pong", "ms")
    assert float(number) >= 0


# -- errors


@pytest.mark.parametrize("code", STORE_ERRORS)
def test_every_error_is_one_sentence_and_the_exit_code_of_the_table(terminal, code, monkeypatch):
    error = STORE_ERRORS[code]("this is what happened")
    monkeypatch.setattr("counter.cli.client.open_store", lambda url: Failing(error))
    assert terminal.refused(error.exit_code, "get", "x") == "this is what happened"


def test_a_refusal_inside_the_reply_is_told_likewise(terminal, monkeypatch):
    class Refusing(Failing):
        def execute(self, request, timeout=None):
            return Reply([], Problem("journal-full", "no space"))

    monkeypatch.setattr("counter.cli.client.open_store", lambda url: Refusing(None))
    assert terminal.refused(3, "incr", "x") == "no space"


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["get"], "Missing argument 'NAME'"),
        (["get", "a", "b"], "unexpected extra argument"),
        (["get", ""], "1 to 250 bytes"),
        (["get", "a\nb"], "control characters"),
        (["incr", "x", "1.5"], "not a valid integer"),
        (["incr", "x", str(INT64_MAX + 1)], "delta goes from"),
        (["decr", "x", str(INT64_MIN)], "delta goes from"),
        (["incr", "x", "--max"], "requires an argument"),
        (["incr", "x", "--min", "2", "--max", "1"], "min must not be above max"),
        (["incr", "x", "--ttl", "0"], "ttl"),
        (["incr", "x", "--on-bound", "wrap"], "--on-bound"),
        (["get", "x", "--timeout", "soon"], "--timeout is a number"),
        (["get", "x", "--timeout", "-1"], "--timeout is a number"),
        (["get", "x", "--url", "nonsense://"], "no store's URL"),
        (["get", "x", "--url", "memory://", "--home", "y"], "not both"),
        (["nonsense"], "No such command"),
        (["--nonsense"], "No such option"),
    ],
)
def test_what_is_asked_wrongly_exits_2(terminal, args, part):
    assert part in terminal.refused(2, *args)


def test_what_the_store_refuses_exits_1_and_changes_nothing(terminal):
    assert terminal.refused(1, "get", "x") == "there is no counter 'x'"
    assert terminal.refused(1, "delete", "x") == "there is no counter 'x'"
    terminal.out("set", "x", 5, "--max", 5)
    assert "would pass" in terminal.refused(1, "incr", "x")
    assert terminal.counters["x"] == 5


# -- where the store is, and how long it may take


def opened_by(monkeypatch, *args):
    """The URL that a command opens, and the timeout that it gives."""
    asked = []

    class Noting(Failing):
        def execute(self, request, timeout=None):
            asked.append(timeout)
            return Reply([Problem("not-found", "x")])

    monkeypatch.setattr("counter.cli.client.open_store", lambda url: asked.append(url) or Noting(None))
    assert CliRunner().invoke(main, ["get", "x", *args]).exit_code == 1
    return asked


def test_url_and_home_say_which_store_and_timeout_how_long(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert opened_by(monkeypatch) == [None, None]
    assert opened_by(monkeypatch, "--url", "memory://a", "--timeout", "2.5") == ["memory://a", 2.5]
    assert opened_by(monkeypatch, "--home", "/srv/a b?") == ["counter:///srv/a%20b%3F", None]
    assert opened_by(monkeypatch, "--home", "here") == [f"counter://{tmp_path}/here", None]


# -- the command itself


def test_help_names_every_command(terminal):
    listed = terminal.out("--help").split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in listed if line] == list(COMMANDS)
    assert terminal.out() == terminal.out("--help") == terminal.out("-h")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_its_options(terminal, name):
    assert terminal.out(name, "--help").startswith(f"Usage: counter {name} ")
    command = main.get_command(click.Context(main), name)
    assert command.help
    options = (param for param in command.params if isinstance(param, click.Option))
    assert [option.name for option in options if not option.help and not option.hidden] == []


# -- as a process


def counter(*args, **options):
    environ = clean_environ(COUNTER_URL="memory://")
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, env=environ, **options)


@pytest.mark.process
def test_a_command_on_counters_loads_no_web_server():
    code = "import sys; from counter.cli import main; sys.argv[1:] = ['incr', 'x']; main()"
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        env=clean_environ(COUNTER_URL="memory://"),
    )
    assert result.stdout == "1\n"
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert "click" in loaded
    assert loaded.isdisjoint({"flask", "waitress", "werkzeug", "prometheus_client", "multiprocessing"})


@pytest.mark.process
def test_the_version_is_told():
    assert counter("--version").stdout == "counter 0.1.0\n"


@pytest.mark.process
def test_without_a_manager_it_says_what_to_do_and_exits_3(tmp_path):
    result = subprocess.run(
        [*COMMAND, "ping", "--home", tmp_path / "home"], capture_output=True, text=True, env=clean_environ()
    )
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("counter: no manager is running in ") and result.stderr.count("\n") == 1


@pytest.mark.process
def test_a_closed_pipe_ends_it_without_a_word():
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [*COMMAND, "info"], stdout=write, stderr=subprocess.PIPE, env=clean_environ(COUNTER_URL="memory://")
    )
    os.close(write)
    assert process.stderr == b""
    assert process.returncode != 0


@pytest.mark.process
def test_ctrl_c_ends_it_without_a_word():
    code = """if True:
        import os, signal
        from counter.cli import main
        import counter.cli.client
        counter.cli.client.open_store = lambda url: os.kill(os.getpid(), signal.SIGINT)
        main(["get", "x"])
    """
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean_environ()
    )
    assert (process.returncode, process.stdout, process.stderr.strip()) == (128 + signal.SIGINT, "", "")


@pytest.mark.process
def test_any_name_can_be_printed_in_any_locale():
    code = """if True:
        from counter import connect
        from counter.cli import main
        connect("memory://").increment("über")
        main(["list", "--url", "memory://"])
    """
    environ = clean_environ(PYTHONIOENCODING="ascii")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environ)
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.decode().startswith("über\t1\t")


@pytest.mark.process
@needs_full
@pytest.mark.parametrize("args", ["incr x", "list", "get x --json", "info", "ping"])
def test_an_answer_that_cannot_be_written_is_not_taken_for_a_refusal(args):
    code = f"""if True:
        from counter import connect
        from counter.cli import main
        connect("memory://").increment("x")
        main({args!r}.split() + ["--url", "memory://"])
    """
    environ = clean_environ(PYTHONUNBUFFERED="")
    with FULL.open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, env=environ
        )
    assert process.returncode == 4
    assert process.stderr == (
        "counter: it is done, but the answer cannot be written: No space left on device\n"
    )


@pytest.mark.process
@needs_full
def test_a_complaint_that_cannot_be_written_leaves_the_exit_code():
    environ = clean_environ(PYTHONUNBUFFERED="")
    with FULL.open("wb") as full:
        process = subprocess.run([*COMMAND, "get", "x", "--url", "memory://"], stderr=full, env=environ)
    assert process.returncode == 1


@pytest.mark.process
@pytest.mark.parametrize("args", ["run", "get x --home here"])
def test_a_current_folder_that_is_gone_is_said(tmp_path, args):
    gone = tmp_path / "gone"
    gone.mkdir()
    process = subprocess.run(
        ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', gone, *COMMAND, *args.split()],
        capture_output=True,
        text=True,
        env=clean_environ(COUNTER_HOME=str(tmp_path / "home")),
    )
    assert process.returncode == 3
    assert process.stderr == "counter: the current folder is gone; change to another one\n"


@pytest.mark.process
def test_on_a_terminal_the_columns_are_aligned():
    code = """if True:
        from counter import connect
        from counter.cli import main
        connect("memory://").update({"a": 12345, "longer name": -1})
        main(["list", "--url", "memory://"])
    """
    controller, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=terminal, check=True, env=clean_environ())
    os.close(terminal)
    lines = os.read(controller, 10_000).decode().splitlines()
    os.close(controller)
    assert [line[:20] for line in lines] == [
        "NAME         VALUE  ",
        "a            12345  ",
        "longer name     -1  ",
    ]
