"""The pytest plugin: counters for a test, empty and its own, and COUNTER_URL where it was afterwards."""

import subprocess
import sys

import psutil
import pytest
from support import ROOT, clean_environ, start_process, wait_until

from counter import connect, pytest_plugin

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "counter.pytest_plugin", "-p", "no:cacheprovider")


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a file of tests with the plugin and as few others as can be, in this process."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # it may be installed, too
    monkeypatch.setenv("COUNTER_URL", "memory://outside")

    def run_file(text, *args):
        pytester.makepyfile("import os, counter, pytest\n" + text)
        return pytester.runpytest_inprocess(
            "-p", "no:cacheprovider", "-W", "error", *args, plugins=[pytest_plugin]
        )

    return run_file


def test_memory_counter_is_empty_in_each_test(run):
    run(
        "@pytest.mark.parametrize('again', range(3))\n"
        "def test_it(memory_counter, again):\n"
        "    assert len(memory_counter) == 0\n"
        "    assert memory_counter.increment('a', idempotency_key='evt_1') == 1\n"
        "    assert counter.connect()['a'] == 1\n"
        "    assert os.environ['COUNTER_URL'] == memory_counter.store.url\n"
    ).assert_outcomes(passed=3)


def test_the_environment_is_as_before_when_a_test_has_ended(run):
    run(
        "def test_one(memory_counter): os.environ['COUNTER_URL'] += 'x'\n"
        "def test_two(): assert os.environ['COUNTER_URL'] == 'memory://outside'\n"
        "def test_three(memory_counter): assert 0\n"
        "def test_four(): assert os.environ['COUNTER_URL'] == 'memory://outside'\n"
    ).assert_outcomes(passed=3, failed=1)


def test_counters_made_at_import_can_be_moved(run, pytester):
    """As docs/testing.md says: by their attribute `store`."""
    pytester.makepyfile(shop="import counter\nhits = counter.connect()\n")
    run(
        "import shop\n"
        "@pytest.fixture(autouse=True)\n"
        "def counts(memory_counter, monkeypatch):\n"
        "    monkeypatch.setattr(shop.hits, 'store', memory_counter.store)\n"
        "@pytest.mark.parametrize('again', range(2))\n"
        "def test_it(memory_counter, again):\n"
        "    assert shop.hits.increment('page') == memory_counter['page'] == 1\n"
        "def test_view(memory_counter):\n"
        "    assert shop.hits.view('a:').increment('b') == memory_counter['a:b'] == 1\n"
    ).assert_outcomes(passed=3)
    assert list(connect("memory://outside")) == []


def test_the_plugin_is_in_nobodys_way(run):
    """Its fixtures are told, and nothing is made where no test asks for them."""
    result = run("def test_it(): assert os.environ['COUNTER_URL'] == 'memory://outside'\n", "-v")
    result.assert_outcomes(passed=1)
    result = run("", "--fixtures")
    result.stdout.fnmatch_lines(["memory_counter -- *", "*Empty counters*", "counter_manager -- *"])
    assert "_counter_home" not in result.stdout.str()


@pytest.mark.process
def test_loading_the_plugin_loads_little():
    code = (
        "import sys, threading, counter.pytest_plugin\n"
        "outside = {'flask', 'werkzeug', 'click', 'waitress', 'asyncio', 'logging', 'multiprocessing',"
        " 'counter.stores.manager', 'counter.server', 'counter.cli', 'counter.web', 'counter.flask'}\n"
        "found = outside & {*sys.modules} - before\n"
        "assert not found and threading.active_count() == 1, found\n"
    )
    before = "import sys, pytest, _pytest.config\nbefore = {*sys.modules}\n"
    subprocess.run([sys.executable, "-W", "error", "-c", before + code], check=True, cwd=ROOT)


MANAGER_TESTS = """
import pathlib, subprocess, sys
ASK = "import counter; print(counter.connect().increment('a'))"
@pytest.mark.parametrize('again', range(3))
def test_it(counter_manager, again):
    assert (len(counter_manager), list(counter_manager)) == (0, [])
    assert counter_manager.increment('a') == 1
    assert subprocess.run([sys.executable, '-c', ASK], capture_output=True, check=True).stdout == b'2\\n'
    assert counter_manager['a'] == counter.connect()['a'] == 2
    assert counter_manager.store.url == os.environ['COUNTER_URL']
    assert counter_manager.store.url.startswith('counter://' + os.environ['COUNTER_HOME'] + '?')
    manager = counter_manager.store.execute(counter.Request([counter.Info()])).only().manager
    with pathlib.Path('pids').open('a') as pids:
        print(manager.pid, os.getpid(), file=pids)
def test_after():
    assert os.environ['COUNTER_URL'] == 'memory://outside'
"""


def seen_pids(pytester):
    """The managers' and the testing processes' ids, a pair for each test."""
    return [tuple(map(int, line.split())) for line in (pytester.path / "pids").read_text().splitlines()]


@pytest.mark.process
def test_counter_manager_is_one_real_process_and_empty_in_each_test(run, pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COUNTER_MAX_COUNTERS", "1")  # how it is to be does not depend on the environment
    run(MANAGER_TESTS).assert_outcomes(passed=4)
    ((manager, tester),) = {*seen_pids(pytester)}
    assert manager != tester and not psutil.pid_exists(manager)


@pytest.mark.process
def test_with_xdist_each_worker_has_a_manager(pytester, monkeypatch):
    for name, value in clean_environ(COUNTER_URL="memory://outside").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("import os, counter, pytest\n" + MANAGER_TESTS)
    result = pytester.runpytest_subprocess(*PLUGIN, "-p", "xdist.plugin", "-n", "2", "--dist", "each")
    result.assert_outcomes(passed=8)
    pairs = {*seen_pids(pytester)}
    assert len(pairs) == len({manager for manager, _ in pairs}) == 2
    assert not any(psutil.pid_exists(pid) for pair in pairs for pid in pair)


@pytest.mark.process
def test_no_manager_is_left_when_the_run_is_killed(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import os, time, counter\n"
        "def test_it(counter_manager):\n"
        "    info = counter_manager.store.execute(counter.Request([counter.Info()])).only()\n"
        "    print('manager', info.manager.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "pytest", "-s", *PLUGIN, "--basetemp", tmp_path / "temp", "test_it.py"]
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with start_process(command, environ, cwd=tmp_path) as process:
        line = wait_until(lambda: [at for at in process.stdout.splitlines() if " manager " in f" {at} "])
        manager = psutil.Process(int(line[0].rpartition("manager ")[2]))
        assert manager.is_running()
        process.stop(9)
        manager.wait(20)


@pytest.mark.process
def test_a_manager_that_does_not_start_says_why(run, monkeypatch):
    """Such as one that cannot make its home."""
    result = run(
        "@pytest.fixture(scope='session')\n"
        "def tmp_path_factory():\n"
        "    class Factory:\n"
        "        def mktemp(self, name):\n"
        "            import pathlib\n"
        "            pathlib.Path('home').write_text('no folder')\n"
        "            return pathlib.Path.cwd()\n"
        "    return Factory()\n"
        "def test_it(counter_manager): pass\n"
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the manager did not start:", "counter: */home *"])
