"""The shape of the package: who may import whom, what stays outside, and how long a thing may get."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support import ROOT

PACKAGE = ROOT / "counter"

ORDER = """
errors settings folder home extras request_ids tokens
fields information results ops transition run
schedule names history versions state callers keys table listing changes
strict_json wire pickles handshake
logs link notify disk records recovery log snapshot keeper journal backup
store prefix stores stores.memory stores.pool stores.manager
connection door connections figures stock jobs server manager
reading multiset watch sender buffered shared_counter counter
limits prometheus
problems flask pytest_plugin
web.security web.body web.config web.idempotency
web.call web.conditions web.counters web.pages web.system web.metrics web.watcher web.changes
web.authorization web.rate_limit web.schemas web.parts web.operations web.openapi web.app web
access admission request_parser at_once waitress_channel waitress_server gateway granian_server
meter worker family supervisor
cli.output cli.client cli.lines cli.data cli.watching cli.moving cli.homes
cli.options cli.processes cli.tokens cli
__main__
"""
"""A module imports only from lines above, or what is left of it on its line. `counter` is `__init__`."""

PLACE = {name: place for place, name in enumerate(ORDER.split())}

LOADERS = {"store", "worker", "cli"}
"""Who imports by a name known only at run time: a URL's store, the user's app, the subcommands."""

CLIENT_SIDE = {
    *("store", "prefix", "stores", "stores.memory", "stores.pool", "stores.manager"),
    *("reading", "multiset", "watch", "sender", "buffered", "shared_counter", "counter"),
    *("limits", "prometheus", "problems", "flask", "pytest_plugin"),
}
JOURNAL = {"disk", "records", "recovery", "log", "snapshot", "keeper", "journal", "backup"}
LOOP = {"connection", "door", "connections", "figures", "stock", "jobs", "server", "manager"}
MANAGER_SIDE = LOOP | JOURNAL
RULE_AND_TABLE = {
    *("transition", "schedule", "names", "history", "versions", "state", "callers", "keys", "table"),
    *("listing", "changes"),
}

PURE = {"errors", "fields", "information", "results", "ops"} | RULE_AND_TABLE
PURE_IMPORTS = {
    "array",
    "base64",
    "bisect",
    "collections",
    "datetime",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "types",
    "typing",
}
"""What the pure core takes from the standard library; `table` a lock besides."""

HOMES = {  # what is imported in one part of the package alone
    "flask": "flask web",
    "jinja2": "web",
    "markupsafe": "web",
    "werkzeug": "web",
    "waitress": "admission request_parser waitress_channel waitress_server",
    "granian": "granian_server",
    "click": "cli",
    "limits": "limits",
    "prometheus_client": "prometheus",
    "multiprocessing": "server manager",
    "pytest": "pytest_plugin",
    "pickle": "pickles",
    "msgspec": "",
}
READERS_OF_CODE = {"load", "loads", "Unpickler", "_loads", "_load", "_Unpickler"}

MOST_LINES, MOST_FUNCTION_LINES = 350, 60


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or "counter"


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def every_module(test):
    """One test that holds for each module; the assertion's message or locals name it."""

    def holds_for_every_module():
        for module in FILES:
            test(module)

    holds_for_every_module.__name__ = test.__name__
    return holds_for_every_module


@cache
def tree_of(module):
    return ast.parse(FILES[module].read_text())


def running_nodes(node):
    """All nodes below *node* but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from running_nodes(other)
            continue
        yield child
        yield from running_nodes(child)


@cache
def imports_of(module):
    """The dotted names that *module* imports; those of this package begin with `counter`."""
    return [*find_imports(module)]


def find_imports(module):
    for node in running_nodes(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = from_where(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner.removeprefix("counter.") in FILES else base


def from_where(module, node):
    if not node.level:
        return node.module
    package = ["counter", *(module.split(".") if module != "counter" else [])]
    if FILES[module].name != "__init__.py":
        package.pop()
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def own_imports(module):
    """The modules of this package that *module* imports."""
    for name in imports_of(module):
        if name.partition(".")[0] == "counter":
            yield name.removeprefix("counter.")


def foreign_imports(module):
    """The other packages that *module* imports, the standard library's too."""
    return {name.partition(".")[0] for name in imports_of(module)} - {"counter", "__future__"}


def test_every_module_has_its_place_in_the_order():
    assert {*FILES} - {*PLACE} == set(), "put these in ORDER, where they belong"
    assert {*PLACE} - {*FILES} == set(), "these are gone: take them out of ORDER"
    assert len(PLACE) == len(ORDER.split())


@every_module
def test_a_module_imports_only_what_stands_before_it(module):
    later = [name for name in own_imports(module) if PLACE[name] >= PLACE[module]]
    assert later == [], f"{module} imports what comes after it"


@pytest.mark.parametrize("module", sorted(MANAGER_SIDE | CLIENT_SIDE))
def test_the_managers_side_and_the_clients_side_meet_on_the_wire_alone(module):
    other = CLIENT_SIDE if module in MANAGER_SIDE else MANAGER_SIDE
    assert {*own_imports(module)} & other == set()


def test_a_client_of_the_manager_decides_nothing_itself():
    assert {*own_imports("stores.manager")} & RULE_AND_TABLE == set()
    assert {*own_imports("stores.memory")} & RULE_AND_TABLE == {"table", "listing", "changes"}


@every_module
def test_modules_are_imported_by_name_where_it_is_meant_and_nowhere_else(module):
    text = ast.unparse(tree_of(module))
    loads = any(word in text for word in ("import_module", "__import__", "resolve_name", "exec_module"))
    assert not loads or module in LOADERS, module


@pytest.mark.parametrize("module", sorted(PURE))
def test_the_core_is_pure(module):
    allowed = PURE_IMPORTS | {"msgspec"} | ({"threading"} if module == "table" else set())
    assert foreign_imports(module) <= allowed
    clocks = {"now", "utcnow", "today"}
    asked = [
        n.func.attr for n in ast.walk(tree_of(module)) if isinstance(n, ast.Call) and hasattr(n.func, "attr")
    ]
    assert not clocks & {*asked}, "time is an argument"


@every_module
def test_foreign_packages_stay_where_they_belong(module):
    for name in foreign_imports(module):
        if name in sys.stdlib_module_names and name not in HOMES:
            continue
        assert name in HOMES, f"{module} imports {name}, which no rule knows"
        home = HOMES[name]
        assert not home or any(module == at or module.startswith(at + ".") for at in home.split()), (
            f"{name} belongs in {home}, not {module}"
        )


@every_module
def test_nothing_in_the_package_reads_a_pickle_that_could_hold_code(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("pickle", "_pickle"):
            assert node.attr not in READERS_OF_CODE
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            assert not {alias.name for alias in node.names} & {*READERS_OF_CODE, "*"}
    assert not foreign_imports(module) & {"_pickle", "marshal", "shelve", "dill", "cloudpickle"}
    assert not {*imports_of(module)} & {"multiprocessing.connection", "multiprocessing.reduction"}


@every_module
def test_a_file_is_short_enough_to_be_read(module):
    lines = len(FILES[module].read_text().splitlines())
    assert lines <= MOST_LINES, module


@every_module
def test_a_function_is_short_enough_to_be_seen_at_once(module):
    functions = [
        n for n in ast.walk(tree_of(module)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {function.name: function.end_lineno - function.lineno + 1 for function in functions}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_FUNCTION_LINES} == {}, module


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_the_package_imports_no_web_no_command_line_and_no_manager():
    run(
        "import sys, counter\n"
        "outside = {'flask', 'werkzeug', 'click', 'waitress', 'prometheus_client', 'multiprocessing',"
        " 'asyncio', 'logging', 'counter.server', 'counter.stores.manager', 'counter.web', 'counter.cli'}\n"
        "assert not outside & {*sys.modules}, outside & {*sys.modules}"
    )


def test_importing_the_package_starts_and_changes_nothing():
    run(
        "import os, signal, sys, threading\n"
        "def state():\n"
        "    signals = [signal.getsignal(n) for n in (1, 2, 13, 15)]\n"
        "    threads, files = threading.enumerate(), os.listdir('/dev/fd')\n"
        "    return threads, files, signals, dict(os.environ), sys.path[:], sys.excepthook\n"
        "before = state()\n"
        "import counter\n"
        "assert state() == before"
    )


def test_the_rules_see_every_kind_of_import(tmp_path, monkeypatch):
    """These rules can fail."""
    path = tmp_path / "web" / "odd.py"
    path.parent.mkdir()
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from ..server import serve\n"
        "else:\n    from ..wire import Frames\n"
        "from .. import stock\n"
        "from . import call\n"
        "from .app import create_app\n"
        "from ..stores import memory\n"
        "import counter.table\n"
        "def late():\n    import click\n"
    )
    monkeypatch.setitem(FILES, "web.odd", path)
    assert {*own_imports("web.odd")} == {"wire", "stock", "web.call", "web.app", "stores.memory", "table"}
    assert foreign_imports("web.odd") == {"typing", "click"}
    assert isinstance(FILES["web.odd"], Path)
