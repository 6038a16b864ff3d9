"""What systemd is told, and by whom: of the code alone, and of the real commands."""

import contextlib
import os
import signal
import socket
import time

import psutil
import pytest
from service_manager import service_manager
from support import COMMAND, start_process, wait_until

from counter import notify
from counter.notify import Notifier

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_each_state_arrives(abstract):
    with service_manager(abstract) as listener:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier = Notifier(listener.environ)
        notifier.ready()
        notifier.reloading()
        notifier.stopping()
        said = [said for _, said in listener.heard]
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= int(said[1].pop("MONOTONIC_USEC")) <= after
    assert said == [{"READY": "1"}, {"RELOADING": "1"}, {"STOPPING": "1"}]


def test_the_address_is_taken_out_of_the_environment(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    Notifier()
    assert "NOTIFY_SOCKET" not in os.environ


@pytest.mark.parametrize(
    "environ",
    [{}]
    + [{"NOTIFY_SOCKET": to} for to in ("", "/nowhere", "@nobody", "vsock:2:1", "/" + "x" * 200, "\udcff")],
    ids=["none", "empty", "no-file", "nobody", "vsock", "too-long", "odd"],
)
def test_whoever_does_not_listen_stops_nothing(environ):
    notifier = Notifier(environ)
    notifier.ready()
    notifier.reloading()
    notifier.stopping()


def test_whoever_listens_and_does_not_read_holds_up_nobody_for_long(monkeypatch):
    monkeypatch.setattr(notify, "PATIENCE", 0.01)
    with service_manager() as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:  # until no more fits in
                other.sendto(b"STATUS=full", listener.environ["NOTIFY_SOCKET"])
        began = time.monotonic()
        Notifier(listener.environ).ready()
        assert time.monotonic() - began < 5
        assert {*listener.states} == {"STATUS"}


@contextlib.contextmanager
def command(*args, folder, listener, app=APP):
    """`counter ARGS` with the home and the app in *folder*, told where *listener* is."""
    (folder / "app.py").write_text(app)
    with start_process([*COMMAND, *args, "--home", folder / "home"], listener.environ, folder) as process:
        yield process


def check_told_by(process, listener):
    assert {pid for pid, _ in listener.heard} == {process.pid}


@pytest.mark.process
def test_run_tells_that_it_is_ready_reloads_and_stops_and_its_children_tell_nothing(tmp_path):
    """NotifyAccess=main: what a child says is not heard, so it must not try, nor an app in it."""
    with (
        service_manager() as listener,
        command("run", "app:app", "--port", "0", "--workers", "2", folder=tmp_path, listener=listener) as run,
    ):
        run.line("ready")
        listener.wait_for("READY")
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) == 3
        assert not any("NOTIFY_SOCKET" in child.environ() for child in children)
        run.send(signal.SIGHUP)
        listener.wait_for("READY", "RELOADING", "READY")
        assert "reloaded" in run.stderr
        (tmp_path / "app.py").write_text("1 / 0\n")
        run.send(signal.SIGHUP)
        listener.wait_for(*["READY", "RELOADING"] * 2, "READY")
        assert "those from before go on" in run.stderr
        assert run.stop() == 0
        listener.wait_for(*["READY", "RELOADING"] * 2, "READY", "STOPPING")
        check_told_by(run, listener)


@pytest.mark.process
def test_a_reload_that_fails_before_it_was_ever_ready_does_not_say_so(tmp_path):
    wait = "while not pathlib.Path('gate').exists():\n    time.sleep(0.01)\n"
    app = f"import pathlib, time\npathlib.Path('inside').touch()\n{wait}{APP}"
    arguments = ("run", "app:app", "--port", "0", "--workers", "1")
    with (
        service_manager() as listener,
        command(*arguments, folder=tmp_path, listener=listener, app=app) as run,
    ):
        wait_until((tmp_path / "inside").exists)
        (tmp_path / "app.py").write_text("1 / 0\n")
        run.send(signal.SIGHUP)
        wait_until(lambda: "those from before go on" in run.stderr)
        assert listener.states == []
        (tmp_path / "gate").touch()
        listener.wait_for("READY")
        assert run.stop() == 0
        listener.wait_for("READY", "STOPPING")


@pytest.mark.process
def test_run_without_workers_has_nothing_to_reload_and_says_so(tmp_path):
    with (
        service_manager(abstract=True) as listener,
        command("run", "--workers", "0", folder=tmp_path, listener=listener) as run,
    ):
        listener.wait_for("READY")
        (manager,) = psutil.Process(run.pid).children()
        run.send(signal.SIGHUP)
        listener.wait_for("READY", "RELOADING", "READY")
        assert psutil.Process(run.pid).children() == [manager]
        manager.kill()  # another one follows: that is no news of the service
        wait_until(lambda: run.stderr.count("is ready") == 2)
        assert run.stop() == 0
        listener.wait_for("READY", "RELOADING", "READY", "STOPPING")
        check_told_by(run, listener)


@pytest.mark.process
def test_manager_and_workers_tell_it_each_for_itself(tmp_path):
    with (
        service_manager() as of_manager,
        service_manager() as of_workers,
        command("manager", folder=tmp_path, listener=of_manager) as manager,
    ):
        of_manager.wait_for("READY")
        arguments = ("workers", "app:app", "--port", "0", "--workers", "1")
        with command(*arguments, folder=tmp_path, listener=of_workers) as workers:
            of_workers.wait_for("READY")
            assert workers.stop() == 0
            of_workers.wait_for("READY", "STOPPING")
            check_told_by(workers, of_workers)
        assert manager.stop() == 0
        of_manager.wait_for("READY", "STOPPING")
        check_told_by(manager, of_manager)


@pytest.mark.process
def test_what_never_was_ready_never_says_so(tmp_path):
    with (
        service_manager() as listener,
        command(
            "run", "none:app", "--port", "0", "--workers", "1", folder=tmp_path, listener=listener
        ) as run,
    ):
        assert run.wait() == 3
        assert listener.states == ["STOPPING"]
