"""`counter export` and `counter import`: what comes out, what goes in, and what is refused as a whole."""

import contextlib
import errno
import io
import json
import os
import pty
import stat
import subprocess
import uuid
from datetime import UTC, datetime, timedelta

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from manager_process import start_manager
from support import COMMAND, clean_environ

from counter import Entry, Request, Set, connect
from counter.cli import lines, main, moving
from counter.cli.lines import Line
from counter.disk import DiskFile
from counter.errors import STORE_ERRORS, LimitExceeded, OutcomeUnknown, StoreUnavailable
from counter.fields import HIDDEN, INT64_MAX, INT64_MIN, MAX_TTL
from counter.results import Problem, Reply
from counter.store import Store

NOW = datetime.now(UTC)


class Terminal:
    """Runs `counter` commands in this process, against counters of its own."""

    def __init__(self, url=None):
        self.url = url or f"memory://{uuid.uuid4().hex}"
        self.counters = connect(self.url)

    def run(self, *args, stdin=None):
        env = {"COUNTER_URL": self.url}
        return CliRunner().invoke(main, [str(arg) for arg in args], env=env, input=stdin)

    def export(self, *args):
        """What is on stdout."""
        result = self.run("export", *args)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def put_in(self, text, *args):
        """What an import says that succeeds."""
        result = self.run("import", *args, stdin=text)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout.rstrip("\n")

    def put_in_json(self, text, *args):
        return json.loads(self.put_in(text, "--json", *args))

    def refused(self, exit_code, text, *args):
        """The sentence of an import that fails."""
        result = self.run("import", *args, stdin=text)
        assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
        assert result.stderr.startswith("counter: ") and result.stderr.count("\n") == 1
        return result.stderr.removeprefix("counter: ").rstrip("\n")

    def entries(self):
        return msgspec.json.Decoder(Entry).decode_lines(self.export())


@pytest.fixture
def terminal():
    return Terminal()


@pytest.fixture
def other():
    return Terminal()


def text_of(*objects):
    return "".join(json.dumps(each) + "\n" for each in objects)


def line(name="a", value=1, **fields):
    fields = {key: given.isoformat() if key == "expires_at" else given for key, given in fields.items()}
    return {"name": name, "value": value} | fields


def settings_of(entry):
    return (entry.name, entry.value, entry.min, entry.max, entry.on_bound, entry.ttl, entry.ttl_mode)


class Failing(Store):
    """Passes *lives* requests on to *store*, and then fails."""

    def __init__(self, store, lives, error):
        self.store, self.lives, self.error = store, lives, error

    def execute(self, request, timeout=None):
        if not self.lives:
            raise self.error
        self.lives -= 1
        return self.store.execute(request, timeout)

    def close(self):
        pass


def fail(monkeypatch, terminal, lives, error):
    store = Failing(terminal.counters.store, lives, error)
    monkeypatch.setattr("counter.cli.client.open_store", lambda url: store)


# -- export


def test_an_export_is_a_line_a_counter_by_name_with_all_fields_of_http(terminal):
    terminal.counters.update({"b": 2, "über": 3, "a": 1})
    terminal.counters.set("b", 2, min=0, max=9, on_bound="clamp", ttl=60, ttl_mode="sliding")
    exported = terminal.export().splitlines(keepends=True)
    assert [json.loads(each)["name"] for each in exported] == ["a", "b", "über"]
    assert all(each.endswith("}\n") for each in exported)
    for each in exported:
        fields = json.loads(each)
        entry = terminal.counters.entry(fields["name"])
        assert fields == msgspec.to_builtins(entry, builtin_types=()) and len(fields) == 11


def test_an_export_of_nothing_is_empty(terminal, tmp_path):
    assert terminal.export() == ""
    assert terminal.run("export", tmp_path / "x").stderr == "0 counters exported\n"
    assert (tmp_path / "x").read_bytes() == b""


def test_an_export_goes_over_pages_and_by_prefix(terminal, tmp_path):
    terminal.counters.update({f"{number:04}": 1 for number in range(2500)} | {"x": 1, "xy": 1})
    assert [entry.name for entry in terminal.entries()][:2500] == [f"{number:04}" for number in range(2500)]
    assert len(terminal.export("-").splitlines()) == 2502
    assert [json.loads(each)["name"] for each in terminal.export("--prefix", "x").splitlines()] == ["x", "xy"]
    assert terminal.run("export", tmp_path / "x").exit_code == 0
    assert (tmp_path / "x").read_text() == terminal.export()


def test_a_file_is_for_its_owner_alone_and_replaces_what_was_there(terminal, tmp_path):
    terminal.counters.set("a", 1)
    file = tmp_path / "x.jsonl"
    file.write_text("old")
    file.chmod(0o644)
    result = terminal.run("export", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "1 counter exported\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == terminal.export()
    assert os.listdir(tmp_path) == ["x.jsonl"]
    result = terminal.run("export", "--json", file)
    assert (result.stdout, result.stderr) == ("", '{"exported":1}\n')


def test_a_failure_of_the_store_leaves_the_old_file(terminal, tmp_path, monkeypatch):
    terminal.counters.update({f"{number:04}": 1 for number in range(1500)})
    file = tmp_path / "x.jsonl"
    file.write_text("old")
    fail(monkeypatch, terminal, 1, StoreUnavailable("it is gone"))
    result = terminal.run("export", file)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "counter: it is gone\n")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["x.jsonl"]


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_disk_that_is_full_leaves_the_old_file(terminal, tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    terminal.counters.set("a", 1)
    file = tmp_path / "x.jsonl"
    file.write_text("old")
    monkeypatch.setattr(DiskFile, call, full)
    result = terminal.run("export", file)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"counter: cannot write {file}: No space left on device\n"
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["x.jsonl"]


def test_the_content_is_synced_before_it_has_the_name(terminal, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fdatasync", lambda file: seen.append(("content", os.listdir(tmp_path))))
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(("folder", os.listdir(tmp_path))))
    assert terminal.run("export", tmp_path / "x").exit_code == 0
    (content, (temporary,)), folder = seen
    assert content == "content" and temporary.startswith(".counter-export-")
    assert folder == ("folder", ["x"])


def test_a_link_stays_a_link_and_what_is_no_file_is_not_replaced(terminal, tmp_path):
    terminal.counters.set("a", 1)
    (tmp_path / "link").symlink_to("real")
    assert terminal.run("export", tmp_path / "link").exit_code == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == terminal.export()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert terminal.run("export", tmp_path / "pipe").exit_code == 0
    assert os.read(reader, 1_000_000).decode() == terminal.export()
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_folder_for_temporary_files_is_named(terminal, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(moving, "check", full)
    told = terminal.refused(3, text_of(line("a")))
    assert "(TMPDIR): No space left on device; nothing was imported" in told


def test_a_place_where_no_file_can_be_is_told_in_a_sentence(terminal, tmp_path):
    for file, code, part in ((tmp_path, 2, "is a directory"), (tmp_path / "no" / "x", 3, "No such file")):
        result = terminal.run("export", file)
        assert result.exit_code == code and part in result.stderr and result.stderr.count("\n") == 1


# -- there and back


def test_an_export_makes_the_same_counters_in_another_store(terminal, other, tmp_path):
    terminal.counters.update({f"{number:04}": number for number in range(2500)})
    terminal.counters.set("x", INT64_MIN, min=INT64_MIN, max=INT64_MAX, on_bound="reject")
    terminal.counters.set("y", 3, max=5, on_bound="clamp", ttl=60, ttl_mode="sliding")
    assert terminal.run("export", tmp_path / "x").exit_code == 0
    result = other.run("import", tmp_path / "x")
    assert (result.stdout, result.stderr) == ("2,502 counters set, 2,502 of them new\n", "")
    assert list(map(settings_of, other.entries())) == list(map(settings_of, terminal.entries()))


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=HIDDEN), min_size=1, max_size=60
)
int64s = st.integers(INT64_MIN, INT64_MAX)


@st.composite
def counters(draw):
    low, value, high = sorted(draw(st.tuples(int64s, int64s, int64s)))
    ttl = draw(st.none() | st.integers(100, MAX_TTL))
    return Set(
        draw(names),
        value,
        min=draw(st.sampled_from([None, low])),
        max=draw(st.sampled_from([None, high])),
        on_bound=draw(st.sampled_from([None, "reject", "clamp"])),
        ttl=ttl,
        ttl_mode=ttl and draw(st.sampled_from(["fixed", "sliding"])),
    )


@pytest.mark.slow
@given(st.lists(counters(), max_size=20, unique_by=lambda op: op.name))
def test_whatever_there_is_comes_back_but_versions_times_and_the_rest_of_a_fixed_ttl(ops):
    terminal, other = Terminal(), Terminal()
    for op in ops:
        terminal.counters.store.execute(Request([op])).unwrap()
    summary = other.put_in_json(terminal.export())
    assert summary == {"set": len(ops), "created": len(ops), "expired": 0}
    for before, after in zip(terminal.entries(), other.entries(), strict=True):
        if before.ttl_mode == "fixed":
            assert timedelta(0) <= after.expires_at - before.expires_at < timedelta(seconds=30)
            assert before.ttl - 30 < after.ttl <= before.ttl
            after = msgspec.structs.replace(after, ttl=before.ttl)
        assert settings_of(before) == settings_of(after)
    assert other.put_in_json(terminal.export(), "--dry-run")["created"] == 0


# -- import


def test_a_line_needs_a_name_and_a_value_and_clears_what_it_leaves_out(terminal):
    terminal.counters.set("a", 5, min=0, max=9, on_bound="clamp", ttl=60, ttl_mode="sliding")
    terminal.counters.set("untouched", 4)
    assert terminal.put_in('{"name":"a","value":70}') == "1 counter set, 0 of them new"
    assert settings_of(terminal.counters.entry("a")) == ("a", 70, None, None, None, None, None)
    assert terminal.counters["untouched"] == 4


def test_a_summary_tells_what_happened(terminal):
    terminal.counters.set("a", 5)
    text = text_of(line("a"), line("b"), line("c", ttl=5, expires_at=NOW - timedelta(days=1)))
    assert terminal.put_in_json(text) == {"set": 2, "created": 1, "expired": 1}
    assert terminal.put_in(text) == "2 counters set, 0 of them new; 1 left out, as their time is over"
    assert terminal.put_in("") == "0 counters set, 0 of them new"


def test_versions_and_times_are_the_stores_own(terminal, other):
    terminal.counters.set("a", 5)
    other.put_in(terminal.export())
    before, after = terminal.counters.entry("a"), other.counters.entry("a")
    assert after.version != before.version and after.created_at > before.created_at


def test_a_thousand_counters_are_one_atomic_request(terminal, monkeypatch):
    asked = []

    class Noting(Failing):
        def execute(self, request, timeout=None):
            asked.append((len(request.ops), request.atomic, timeout))
            return super().execute(request, timeout)

    store = Noting(terminal.counters.store, 99, None)
    monkeypatch.setattr("counter.cli.client.open_store", lambda url: store)
    terminal.put_in(text_of(*(line(f"{number}") for number in range(2300))), "--timeout", "7")
    assert asked == [(1000, True, 7.0), (1000, True, 7.0), (300, True, 7.0)]


def test_empty_lines_foreign_line_ends_and_a_missing_last_one_are_no_matter(terminal):
    assert terminal.put_in('\r\n{"name":"a","value":1}\r\n\n \n{"value":2,"name":"b"}').startswith(
        "2 counters"
    )
    assert dict(terminal.counters) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ('{"name":"b"}', "missing required field value"),
        ('{"value":1}', "missing required field name"),
        ('{"name":"b","value":1.0}', "integers without fraction"),
        ('{"name":"b","value":1e3}', "integers without fraction"),
        ('{"name":"b","value":NaN}', "integers without fraction"),
        ('{"name":"b","value":true}', "value: expected int, got bool"),
        ('{"name":"b","value":"1"}', "value: expected int, got str"),
        ('{"name":"b","value":null}', "value: expected int, got null"),
        (f'{{"name":"b","value":{INT64_MAX + 1}}}', "value: "),
        ('{"name":"b","value":1,"value":1}', "'value' is given twice"),
        ('{"name":"b","value":1,"delta":1}', "unknown field delta"),
        ('{"name":"","value":1}', "name: expected str of length >= 1"),
        ('{"name":"a\\u0000","value":1}', "control characters"),
        ('{"name":"\\ud800","value":1}', "surrogate"),
        (json.dumps(line("é" * 126)), "250 bytes"),
        ('{"name":"b","value":1,"min":2,"max":1}', "min must not be above max"),
        ('{"name":"b","value":1,"min":2}', "outside of min and max"),
        ('{"name":"b","value":9,"max":2,"on_bound":"clamp"}', "outside of min and max"),
        ('{"name":"b","value":1,"on_bound":"wrap"}', "on_bound: invalid enum value 'wrap'"),
        ('{"name":"b","value":1,"ttl":0}', "ttl: expected int >= 1"),
        ('{"name":"b","value":1,"ttl":true}', "ttl: expected int | null, got bool"),
        ('{"name":"b","value":1,"ttl_mode":"fixed"}', "need a ttl"),
        ('{"name":"b","value":1,"expires_at":"2024-01-01T00:00:00Z"}', "need a ttl"),
        ('{"name":"b","value":1,"ttl":1,"expires_at":"2024-01-01T00:00:00"}', "timezone"),
        ('{"name":"b","value":1,"ttl":1,"expires_at":"soon"}', "expires_at: invalid RFC3339"),
        ('{"name":"b","value":1,"ttl":1,"expires_at":"9999-12-31T00:00:00Z"}', "a hundred years"),
        ('{"name":"b","value":1,"created_at":5}', "created_at: expected datetime | null, got int"),
        ('{"name":"b","value":1', "not valid JSON: expecting ',' delimiter in column 22"),
        ('{"name":"b","value":1} {}', "not valid JSON: extra data"),
        ('["b", 1]', "expected object, got array"),
        ("page 5", "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
        (b'{"name":"\xff","value":1}', "not valid UTF-8"),
        ("[" * 50_000, "nested deeper"),
        (" " * 70_000 + "{}", "longer than 65,536 bytes"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_nothing_is_imported(terminal, bad, part):
    bad = bad.encode() if isinstance(bad, str) else bad
    many = text_of(*(line(f"{number}") for number in range(1500))).encode()
    said = terminal.refused(2, many + b"\n" + bad + b"\n" + b'{"name":"z","value":1}')
    assert said.startswith("line 1502: ") and said.endswith("; nothing was imported")
    assert part.lower() in said.lower()
    assert len(terminal.counters) == 0


def test_a_name_in_two_lines_is_refused_wherever_they_are(terminal):
    text = text_of(line("ü"), *(line(f"{number}") for number in range(1500)), line("ü", 2))
    assert terminal.refused(2, text) == (
        'line 1502: "\\u00fc" stands in line 1 already; nothing was imported'
    )
    assert len(terminal.counters) == 0


def test_names_that_only_look_alike_in_short_are_two(terminal, monkeypatch):
    monkeypatch.setattr(lines, "hash", lambda name: 5, raising=False)
    assert terminal.put_in(text_of(line("a"), line("b"))).startswith("2 counters")
    assert "line 3" in terminal.refused(2, text_of(line("a"), line("b"), line("a")))


@pytest.mark.slow
@pytest.mark.parametrize("code", STORE_ERRORS)
def test_a_failure_in_the_middle_says_how_far_it_went_and_exits_by_the_table(terminal, monkeypatch, code):
    error = STORE_ERRORS[code]("this is what happened")
    text = text_of(*(line(f"{number}") for number in range(2500)))
    with monkeypatch.context() as patched:
        fail(patched, terminal, 1, error)
        said = terminal.refused(error.exit_code, text)
    perhaps = " and perhaps 1,000 more" if isinstance(error, OutcomeUnknown) else ""
    assert said == (
        f"this is what happened (1,000 of 2,500 counters are in{perhaps}; importing again is harmless)"
    )
    assert len(terminal.counters) == 1000
    assert terminal.put_in_json(text) == {"set": 2500, "created": 1500, "expired": 0}


def test_a_file_that_is_not_there_is_a_mistake_of_who_asks(terminal, tmp_path):
    assert "No such file" in terminal.refused(2, "", tmp_path / "x")
    assert "directory" in terminal.refused(2, "", tmp_path)


# -- time to live


def test_a_fixed_counter_ends_when_it_would_have(terminal):
    end = datetime.now(UTC) + timedelta(seconds=500)
    terminal.put_in(text_of(line(ttl=3600, ttl_mode="fixed", expires_at=end)))
    entry = terminal.counters.entry("a")
    assert entry.ttl_mode == "fixed" and 470 < entry.ttl <= 500
    assert timedelta(0) <= entry.expires_at - end < timedelta(seconds=30)


def test_a_sliding_counter_and_one_without_an_end_start_anew(terminal):
    end = datetime.now(UTC) + timedelta(seconds=500)
    terminal.put_in(
        text_of(
            line("a", ttl=3600, ttl_mode="sliding", expires_at=end),
            line("b", ttl=3600, ttl_mode="fixed"),
            line("c", ttl=3600),
        )
    )
    assert [(entry.ttl, entry.ttl_mode) for entry in terminal.entries()] == [
        (3600, "sliding"),
        (3600, "fixed"),
        (3600, "fixed"),
    ]
    assert all(entry.expires_at - end > timedelta(seconds=3000) for entry in terminal.entries())


@pytest.mark.parametrize("mode", ["fixed", "sliding", None])
def test_a_counter_whose_time_is_over_is_left_out_and_leaves_what_is_there(terminal, mode):
    terminal.counters.set("a", 5)
    over = line("a", 9, ttl=5, ttl_mode=mode, expires_at=datetime.now(UTC))
    assert terminal.put_in_json(text_of(over)) == {"set": 0, "created": 0, "expired": 1}
    assert terminal.counters["a"] == 5


@pytest.mark.parametrize(
    ("left", "ttl"), [(timedelta(microseconds=1), 1), (timedelta(seconds=5), 5), (timedelta(seconds=5.1), 6)]
)
def test_what_is_left_is_rounded_up(left, ttl):
    assert Line("a", 1, ttl=60, expires_at=NOW + left).op(NOW).ttl == ttl
    assert Line("a", 1, ttl=60, expires_at=NOW).op(NOW) is None


# -- a dry run


def test_a_dry_run_tells_what_would_happen_and_changes_nothing(terminal):
    terminal.counters.update({"equal": 1, "changed": 2})
    before = terminal.export()
    over = line("over", ttl=5, expires_at=NOW - timedelta(days=1))
    text = text_of(line("equal"), line("changed"), line("new 1"), line("new 2"), over)
    assert terminal.put_in_json(text, "--dry-run") == {"created": 2, "changed": 1, "equal": 1, "expired": 1}
    assert terminal.put_in(text, "--dry-run") == (
        "2 new, 1 to change, 1 equal; 1 left out, as their time is over; nothing was changed"
    )
    assert terminal.export() == before
    assert "line 1: " in terminal.refused(2, "{}", "--dry-run")


def test_a_dry_run_of_an_export_finds_all_equal(terminal, other):
    terminal.counters.set("a", 5, min=0, max=9, on_bound="clamp", ttl=60, ttl_mode="sliding")
    terminal.counters.set("b", 5, ttl=60)
    terminal.counters.update({f"{number:04}": 1 for number in range(1500)})
    text = terminal.export()
    everything = {"created": 0, "changed": 0, "equal": 1502, "expired": 0}
    assert terminal.put_in_json(text, "--dry-run") == everything
    other.put_in(text)
    assert other.put_in_json(text, "--dry-run") == everything


@pytest.mark.parametrize("whole", [True, False])
def test_a_dry_run_takes_no_failure_for_a_counter_that_is_missing(terminal, monkeypatch, whole):
    problem = Problem("journal-full", "no space")

    class Refusing(Failing):
        def execute(self, request, timeout=None):
            return Reply([], problem) if whole else Reply([problem])

    monkeypatch.setattr("counter.cli.client.open_store", lambda url: Refusing(None, 0, None))
    assert terminal.refused(3, text_of(line()), "--dry-run") == "no space"


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({}, True),
        ({"value": 2}, False),
        ({"min": 0}, False),
        ({"max": 9}, False),
        ({"on_bound": "reject"}, False),
        ({"ttl": 60}, False),
    ],
)
def test_equal_means_value_and_settings(fields, same):
    entry = Entry("a", 1, "v", NOW, NOW)
    assert Line("a", **({"value": 1} | fields)).same_as(entry) == same


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"ttl": 60}, True),
        ({"ttl": 61}, False),
        ({"ttl": 99, "expires_at": NOW + timedelta(seconds=61)}, True),
        ({"ttl": 60, "expires_at": NOW + timedelta(seconds=70)}, False),
        ({"ttl": 60, "ttl_mode": "sliding"}, False),
        ({}, False),
    ],
)
def test_equal_means_the_same_end_if_that_is_fixed(fields, same):
    end = NOW + timedelta(seconds=60)
    entry = Entry("a", 1, "v", NOW, NOW, ttl=60, ttl_mode="fixed", expires_at=end)
    assert Line("a", 1, **fields).same_as(entry) == same


# -- the progress bar


class Screen(io.StringIO):
    def isatty(self):
        return True


def call(name, url, *args):
    command = main.get_command(click.Context(main), name)
    with contextlib.suppress(SystemExit):
        command.main([*map(str, args), "--url", url], standalone_mode=False)


def test_a_terminal_shows_how_far_it_is(terminal, tmp_path, monkeypatch, capsys):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    terminal.counters.update({f"{number:04}": 1 for number in range(2500)})
    call("export", terminal.url, tmp_path / "x")
    assert "exporting" in screen.getvalue() and "100%" in screen.getvalue()
    call("import", terminal.url, tmp_path / "x")
    assert "checking" in screen.getvalue() and "importing" in screen.getvalue()
    call("export", terminal.url, tmp_path / "x", "--prefix", "1")
    call("import", terminal.url, tmp_path / "x", "--dry-run")
    assert "comparing" in screen.getvalue()
    assert capsys.readouterr().out.splitlines() == [
        "2,500 counters set, 0 of them new",
        "0 new, 0 to change, 1,000 equal; nothing was changed",
    ]


# -- as a process


@pytest.fixture(scope="module")
def full_home(tmp_path_factory):
    """The home of a manager with some counters."""
    with start_manager(tmp_path_factory.mktemp("full") / "home") as manager:
        counters = connect(f"counter://{manager.home}")
        counters.update({f"{number:04}": number for number in range(2500)})
        counters.set("ü", 5, max=9, ttl=600)
        yield manager.home


def counter(*args, **options):
    return subprocess.run(
        [*COMMAND, *map(str, args)], capture_output=True, text=True, env=clean_environ(), **options
    )


@pytest.mark.process
def test_a_pipe_moves_all_counters_from_one_manager_to_another(full_home, tmp_path):
    with start_manager(tmp_path / "home") as manager:
        exported = counter("export", "--home", full_home)
        assert (exported.returncode, exported.stderr) == (0, "")
        imported = counter("import", "--home", manager.home, input=exported.stdout)
        assert (imported.returncode, imported.stderr) == (0, "")
        assert imported.stdout == "2,501 counters set, 2,501 of them new\n"
        before, after = connect(f"counter://{full_home}"), connect(f"counter://{manager.home}")
        assert dict(before) == dict(after)
        assert abs(before.entry("ü").expires_at - after.entry("ü").expires_at) < timedelta(seconds=20)


@pytest.mark.process
def test_a_store_that_is_full_says_so_and_how_far_it_came(full_home, tmp_path):
    with start_manager(tmp_path / "home", max_counters=1200) as manager:
        text = counter("export", "--home", full_home).stdout
        imported = counter("import", "--home", manager.home, input=text)
        assert (imported.returncode, imported.stdout) == (LimitExceeded.exit_code, "")
        assert "(1,000 of 2,501 counters are in; importing again is harmless)" in imported.stderr
        assert len(connect(f"counter://{manager.home}")) == 1000


@pytest.mark.process
def test_without_a_manager_both_say_what_to_do(tmp_path):
    for command in ("export", "import"):
        result = counter(command, "--home", tmp_path / "none", input='{"name":"a","value":1}')
        assert (result.returncode, result.stdout) == (3, "")
        assert result.stderr.startswith("counter: no manager is running in ")


@pytest.mark.process
def test_a_reader_that_goes_away_ends_an_export(full_home):
    process = subprocess.Popen(
        [*COMMAND, "export", "--home", full_home],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environ(),
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) != 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.process
@pytest.mark.parametrize("piped", [True, False])
def test_a_bar_is_on_a_real_terminal_but_not_between_the_lines(full_home, piped):
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "export", "--home", full_home, "--prefix", "000"],
        stdout=subprocess.PIPE if piped else terminal,
        stderr=terminal,
        env=clean_environ(),
    )
    os.close(terminal)
    data, _ = process.communicate(timeout=60)
    seen = os.read(controller, 100_000).decode()
    os.close(controller)
    assert process.returncode == 0
    assert ("exporting" in seen) == piped
    lines = (data.decode() if piped else seen).splitlines()
    assert [json.loads(each)["name"] for each in lines] == [f"{number:04}" for number in range(10)]
