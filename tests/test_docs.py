"""The documentation is true: its blocks run and print what it says, lists are complete, links resolve.

A block of ```python is executed. A comment behind an expression that is a literal must be its value::

    hits.increment("page")    # 1

A block of ```console is what one sees in a terminal: each line that begins with ``$ `` is run by a shell,
and what it prints is compared with the lines below. There ``…`` stands for any text, and spaces for any white
space. Port 8000 is replaced by a free one, the home directory by an empty one, and ``counter`` is the command
of this clone.

A comment of HTML above a block says more:

    <!-- test: serve -->            the command starts a server, which runs until the next heading
    <!-- test: with manager -->     needs a manager; one is started until the next heading
    <!-- test: with run -->         needs a manager and web workers, likewise
    <!-- test: file app.py -->      the block is the content of that file

Python blocks without such a comment use `memory://` and are executed in the unit part. All blocks together,
in the order of the page and the Python ones in one namespace, are executed with real processes.
"""

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import tokenize
import tomllib
import uuid
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from support import COMMAND, clean_environ, free_port, start_process, wait_until
from test_layering import FILES, own_imports

from counter.cli import COMMANDS, main
from counter.errors import HTTP_PROBLEMS, STORE_ERRORS
from counter.settings import SETTINGS, VERSION
from counter.web.app import OWN_ROUTES, ROUTES

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples/README.md",
]
NOT_RUN = {
    "docs/architecture.md: HTTP clients, browsers": "a picture",
    "CONTRIBUTING.md: $ scripts/check": "runs these very tests",
}
"""The blocks that are not executed, by page and first words, each with its reason."""
PROCESSES = ("run", "manager", "workers", "stop")

_FENCE = re.compile(
    r"(?:^<!-- test: (?P<marks>[^\n]*) -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$"
    r"|^(?P<heading>#+ [^\n]*)$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block, or a heading (kind "heading")."""

    page: str
    line: int
    kind: str
    text: str
    marks: str

    @property
    def where(self):
        return f"{self.page}:{self.line}"

    @property
    def is_unit(self):
        return self.kind == "python" and not self.marks

    @property
    def is_run(self):
        first = self.text.strip()
        return not any(f"{self.page}: {first}".startswith(start) for start in NOT_RUN)


def blocks_of(path):
    """The headings and blocks of a page, in order."""
    text = path.read_text()
    page = str(path.relative_to(ROOT))
    found = []
    for match in _FENCE.finditer(text):
        if match["heading"] is not None:
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, "heading", match["heading"], ""))
        else:
            line = text.count("\n", 0, match.start("text"))
            found.append(Block(page, line, match["kind"], match["text"], match["marks"] or ""))
    return found


BLOCKS = {str(path.relative_to(ROOT)): blocks_of(path) for path in PAGES}


# -- python


def expected_values(source):
    """The literals that stand as comments behind expressions, by line."""
    values = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            with contextlib.suppress(ValueError, SyntaxError):
                values[token.start[0]] = ast.literal_eval(token.string.lstrip("# "))
    return values


def execute(block, namespace):
    """Run a block of Python; every expression with a literal behind it must have that value."""
    values = expected_values(block.text)
    tree = ast.parse(block.text, block.where)
    ast.increment_lineno(tree, block.line)
    for statement in tree.body:
        expected = values.pop(statement.end_lineno - block.line, ...)
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), block.where, "eval"), namespace)
            if expected is not ...:
                assert value == expected, f"{block.where}: {ast.unparse(statement)} is {value!r}"
        else:
            assert expected is ..., f"{block.where}: there is no expression before # {expected!r}"
            exec(compile(ast.Module([statement], []), block.where, "exec"), namespace)


# -- consoles and servers


def matches(pattern, text):
    """Whether *text* is *pattern*, in which … is any text, and white space any white space."""
    parts = [r"\s+".join(map(re.escape, part.split(" "))) for part in " ".join(pattern.split()).split("…")]
    return re.fullmatch(".*?".join(parts), text.strip(), re.DOTALL) is not None


def commands_of(text):
    """The commands of a console, each with the lines below it."""
    commands = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in commands]


class Place:
    """Where a page's blocks are run: an empty folder, a home, a port, and the servers of the section."""

    def __init__(self, folder):
        self.folder = folder / "here"
        self.user = folder / "user"
        self.port = free_port()
        self.servers = contextlib.ExitStack()
        self.serves = set()
        commands = folder / "bin"
        for made in (self.folder, self.user, commands):
            made.mkdir()
        shim = commands / "counter"
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
        shim.chmod(stat.S_IRWXU)
        (self.user / ".curlrc").write_text("silent\nshow-error\n")  # no progress, as on a terminal
        self.environ = {
            "HOME": str(self.user),
            "XDG_STATE_HOME": "",
            "PATH": os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{self.port}",
        }

    @property
    def home(self):
        return self.user / ".local/state/counter"

    def at_port(self, text):
        return re.sub(r"\b8000\b", str(self.port), text)

    def command(self, line):
        """*line* as it is to be run here."""
        if line.startswith("scripts/"):
            stamp = ROOT / ".venv/ready-run"
            if stamp.exists() and stamp.read_text().strip() == str(ROOT):
                line = f"{ROOT}/{line}"
            else:  # It would make a .venv first, and load packages.
                line = line.replace("scripts/start-", "counter ").replace("scripts/start", "counter run")
        if re.search(r"(scripts/start(-workers)?|counter (run|workers))( |$)", line):
            line += f" --port {self.port}"
        return self.at_port(line)

    def serve(self, line, expected):
        """Start a server and wait until it has said all that is *expected*."""
        process = self.servers.enter_context(
            start_process(["sh", "-c", f"exec {self.command(line)}"], self.environ, self.folder)
        )

        def said():
            assert process.exit_code is None, process.describe()
            lines = (process.stdout + process.stderr).splitlines()
            wanted = self.at_port(expected).splitlines()
            return all(any(matches(pattern, line) for line in lines) for pattern in wanted)

        try:
            wait_until(said)
        except AssertionError:
            raise AssertionError(f"{line}: not said:\n{expected}\n{process.describe()}") from None
        self.servers.callback(lambda: check_ended(process))

    def need(self, what):
        """Start what a block needs to be there, once in a section."""
        if what not in self.serves:
            self.serves.add(what)
            self.serve({"manager": "counter manager", "run": "counter run --workers 1"}[what], "ready …")

    def console(self, block):
        for line, expected in commands_of(block.text):
            result = subprocess.run(
                ["sh", "-c", self.command(line)],
                cwd=self.folder,
                env=clean_environ(**self.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            told = f"{block.where}: $ {line}\n{result.stdout}(exit code {result.returncode})"
            assert matches(self.at_port(expected), result.stdout), told
            assert expected or result.returncode == 0, told

    def leave_section(self):
        """End the servers, the newest first; each must end well."""
        self.serves.clear()
        self.servers.close()

    def play(self, block, namespace, monkeypatch):
        """Do what *block* asks for."""
        word, _, rest = block.marks.partition(" ")
        assert word in ("", "serve", "with", "file"), f"{block.where}: unknown mark {block.marks!r}"
        if word == "with":
            self.need(rest)
        if block.kind == "heading":
            self.leave_section()
        elif word == "file":
            (self.folder / rest).write_text(block.text)
        elif word == "serve":
            ((line, expected),) = commands_of(block.text)
            self.serve(line, expected)
        elif block.kind == "console":
            self.console(block)
        else:
            monkeypatch.setenv("HOME", str(self.user))
            monkeypatch.setenv("XDG_STATE_HOME", "")
            monkeypatch.setenv(
                "COUNTER_URL", f"counter://{self.home}" if word == "with" else namespace["_url"]
            )
            execute(block._replace(text=self.at_port(block.text)), namespace)


def check_ended(process):
    assert process.exit_code is None, process.describe()
    assert process.stop() == 0, process.describe()


def fresh_namespace():
    return {"__name__": "page", "_url": f"memory://{uuid.uuid4().hex}"}


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if any(b.is_unit for b in blocks)])
def test_the_python_of_a_page_runs_and_says_what_it_says(page, monkeypatch):
    namespace = fresh_namespace()
    monkeypatch.setenv("COUNTER_URL", namespace["_url"])
    for block in BLOCKS[page]:
        if block.is_unit and block.is_run:
            execute(block, namespace)


def needs_processes(blocks):
    return any(b.is_run and not b.is_unit for b in blocks if b.kind != "heading")


@pytest.mark.process
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if needs_processes(blocks)])
def test_a_page_can_be_followed_from_top_to_bottom(page, monkeypatch):
    if not shutil.which("curl"):
        assert not os.environ.get("CI"), "curl is missing"
        pytest.skip("curl is missing")
    namespace = fresh_namespace()
    # not in tmp_path, under which a socket's path can get too long for a stock client
    with tempfile.TemporaryDirectory() as folder, (place := Place(Path(folder))).servers:
        for block in BLOCKS[page]:
            if block.is_run:
                place.play(block, namespace, monkeypatch)
        place.leave_section()


def test_what_is_not_executed_is_listed_and_exists():
    blocks = [block for page in BLOCKS.values() for block in page if block.kind != "heading"]
    odd = [
        b.where for b in blocks if b.is_run and b.kind not in ("python", "console") and "file" not in b.marks
    ]
    assert odd == []
    starts = [f"{block.page}: {block.text.strip()}" for block in blocks]
    assert [start for start in NOT_RUN if not any(s.startswith(start) for s in starts)] == []


def test_every_fence_of_a_page_was_seen():
    for page, blocks in BLOCKS.items():
        fences = re.findall(r"^[ ]*```", (ROOT / page).read_text(), re.MULTILINE)
        assert len(fences) == 2 * sum(block.kind != "heading" for block in blocks), page


@pytest.mark.parametrize(
    ("pattern", "text", "same"),
    [
        ("a", "a\n", True),
        ("a", "ab", False),
        ("a b", "a\tb", True),
        ('{"value":1,…}', '{"value":1,"x":{}}', True),
        ('{"value":1,…}', '{"value":2,"x":{}}', False),
        ("a…", "a\nb", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_the_comparison_tells_same_from_different(pattern, text, same):
    assert matches(pattern, text) == same


def test_a_wrong_value_in_a_comment_is_found():
    with pytest.raises(AssertionError, match="1 is 1"):
        execute(Block("x.md", 1, "python", "1  # 2\n", ""), {})


# -- lists that must be complete


def section(page, heading):
    """The text of *page* below *heading*, up to the next of its rank."""
    text = (ROOT / page).read_text()
    rank = heading.split()[0]
    assert f"\n{heading}\n" in text, f"{page} has no {heading!r}"
    return re.split(rf"^#{{1,{len(rank)}}} ", text.split(f"\n{heading}\n", 1)[1], flags=re.MULTILINE)[0]


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_is_in_the_table_with_its_variable_and_default(setting):
    (row,) = re.findall(rf"^\|.*`{setting.flag}[ `].*$", section("README.md", "## Settings"), re.MULTILINE)
    assert f"`{setting.variable}`" in row
    default = f"{setting.default:,}" if isinstance(setting.default, int) else f"{setting.default:g}"
    assert f"| {default} " in row


@pytest.mark.parametrize("name", PROCESSES)
def test_every_option_of_a_command_that_starts_processes_is_told(name):
    command = main.get_command(click.Context(main), name)
    told = set(re.findall(r"--[a-z][a-z-]+", section("README.md", "## Settings")))
    options = (param for param in command.params if isinstance(param, click.Option) and not param.hidden)
    flags = {
        flag for option in options for flag in option.opts + option.secondary_opts if flag.startswith("--")
    }
    assert flags - told == set()


def test_the_settings_told_exist():
    commands = [main.get_command(click.Context(main), name) for name in COMMANDS]
    flags = {
        flag for command in commands for param in command.params for flag in param.opts + param.secondary_opts
    }
    assert set(re.findall(r"--[a-z][a-z-]+", section("README.md", "## Settings"))) - flags == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_told(name):
    assert re.search(rf"`(counter )?{name}\b", section("README.md", "## The command"))


def test_the_decision_on_dependencies_names_them_all():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w-]+", need)[0] for need in project["dependencies"]}
    text = (ROOT / "docs/decisions/0001-core-dependencies.md").read_text()
    assert set(re.findall(r"^- \*\*([\w-]+)\*\*", text, re.MULTILINE)) == wanted
    extras = {re.match(r"[\w-]+", need)[0] for need in project["optional-dependencies"]["dev"]}
    assert {name for name in extras if not re.search(rf"\b{name}\b", text)} == set()


def test_every_address_of_the_api_is_told():
    handlers = (ROUTES | OWN_ROUTES).items()
    served = {re.sub("<.*>", "{}", path) for path, handler in handlers if handler.__name__ != "_nowhere"}
    told = {re.sub("{.*}", "{}", path) for path in re.findall(r"`(/[^`]*)`", section("README.md", "## HTTP"))}
    assert served - told == set()


@pytest.mark.parametrize("code", [*STORE_ERRORS, *HTTP_PROBLEMS])
def test_every_error_is_told_with_its_status(code):
    (row,) = re.findall(rf"^\| `{code}` \|.*$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    if code in STORE_ERRORS:
        error = STORE_ERRORS[code]
        assert cells[1:5] == [
            f"`{error.__name__}`",
            f"`{error.__mro__[1 if code == 'journal-full' else 2].__name__}`",
            str(error.status),
            str(error.exit_code),
        ]
    else:
        assert cells[1] == str(HTTP_PROBLEMS[code].status)


def test_no_error_is_told_that_does_not_exist():
    told = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted([*STORE_ERRORS, *HTTP_PROBLEMS])


def test_the_changelog_has_this_version():
    assert f"\n## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


# -- the picture and the rule of imports


def layers():
    """The module names of the architecture page's table, in its order."""
    rows = re.findall(r"^\| (`.*?`) \|", section("docs/architecture.md", "## Modules"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([\w/]+)`", row)]


def told(module):
    """Where the architecture page tells of *module*: `stores/memory`; all of `web` is one."""
    return "web" if module.partition(".")[0] == "web" else module.replace(".", "/")


UNTOLD = {"counter", "__main__", "stores"}
"""Modules that only give others a name."""


def test_the_architecture_page_names_every_module_once():
    assert sorted(layers()) == sorted({told(module) for module in FILES} - UNTOLD)


def test_on_the_architecture_page_too_a_module_imports_only_from_above():
    order = layers()
    for module in FILES.keys() - UNTOLD:
        others = {told(other) for other in own_imports(module)} - {told(module)} - UNTOLD
        assert others <= {*order[: order.index(told(module))]}, module


def test_the_files_that_the_architecture_page_names_exist():
    for name in re.findall(r"`(\w+(?:/\w+)*\.py)`", (ROOT / "docs/architecture.md").read_text()):
        assert (ROOT / "counter" / name).exists() or (ROOT / name).exists(), name


def test_every_decision_is_half_a_page_with_its_three_parts():
    numbers = []
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        text = path.read_text()
        numbers.append(int(path.name[:4]))
        assert text.startswith(f"# {numbers[-1]}. "), path.name
        assert re.findall("^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], (
            path.name
        )
        assert len(text.split()) < 300, path.name
    assert numbers == list(range(1, len(numbers) + 1))


def anchors(path):
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", BLOCKS)
def test_every_link_within_the_project_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: {target}"


def test_the_first_screen_fits_on_one():
    lines = (ROOT / "README.md").read_text().split("\n## ", 1)[0].splitlines()
    assert len(lines) < 30
