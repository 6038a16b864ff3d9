"""The ready line, the socket that workers share, and a child, here a small script instead of a manager."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from support import wait_until

from counter import InvalidRequest, StoreUnavailable
from counter.family import PACKAGES, Child, Family, bind, ready_line

pytestmark = pytest.mark.process

LINKED = "import sys\nfrom counter.link import Link\nlink = Link(int(sys.argv[2]))\n"
READY = LINKED + "link.say_ready('memory')\n"
FOR_EVER = "import time\ntime.sleep(600)\n"


def family(listener=None, script="", app=None):
    environ = {"PYTHONPATH": str(PACKAGES), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", script]
    return Family(Path("/srv/counter"), command, 4, app, listener, environ, Path("/srv/shop"))


@pytest.fixture
def start():
    """Starts scripts as children; those still there at the end are killed."""
    children = []

    def start_script(script):
        children.append(Child("manager", family(script=script)))
        return children[-1]

    yield start_script
    for child in children:
        if child.exit_code() is None:
            child.kill_at = 0.0
            child.kill_if_late(1.0)
            wait_until(lambda child=child: child.exit_code() is not None)


def hear(child):
    wait_until(lambda: child.hear() or child.mode or child.deaf)
    return child.mode


def test_the_ready_line_names_address_app_workers_home_and_mode():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        told = ready_line(Path("/srv/counter"), "memory", family(listener, app="app:app"))
        assert told == f"ready http://127.0.0.1:{port}  app:app x 4  counters in /srv/counter (memory)"
        told = ready_line(Path("/srv/counter"), "memory", family(listener))
        assert told == f"ready http://127.0.0.1:{port}  api x 4  counters in /srv/counter (memory)"


def test_the_ready_line_of_a_manager_has_no_address():
    assert ready_line(Path("/srv/counter"), "always") == "ready  counters in /srv/counter (always)"
    assert ready_line(Path("/srv/counter"), "always", family()) == "ready  counters in /srv/counter (always)"


def test_an_ipv6_address_is_in_brackets():
    try:
        listener = bind("::1", 0, open_to_others=False)
    except StoreUnavailable:
        pytest.skip("this host has no IPv6")
    with listener:
        assert f"ready http://[::1]:{listener.getsockname()[1]}  " in ready_line(
            Path("/"), "", family(listener)
        )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_the_loopback_interface_needs_no_permission(host):
    with bind(host, 0, open_to_others=False) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_any_other_address_does(host):
    with pytest.raises(InvalidRequest, match=f"--bind {host} lets everyone in .*: use --insecure"):
        bind(host, 0, open_to_others=False, advice="use --insecure")


def test_a_host_that_does_not_exist_is_said():
    with pytest.raises(InvalidRequest, match="--bind no such host"):
        bind("no such host", 0, open_to_others=True)


def test_a_taken_port_is_said_and_a_left_one_can_be_had_at_once():
    with bind("127.0.0.1", 0, open_to_others=False) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StoreUnavailable, match=f"port {port} is in use: choose another with --port"):
            bind("127.0.0.1", port, open_to_others=False)
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as connection:
            connection.close()
            client.recv(1)
    with bind("127.0.0.1", port, open_to_others=False):
        pass


def test_an_address_of_another_host_is_said():
    with pytest.raises(StoreUnavailable, match=r"cannot listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0, open_to_others=True)


def test_a_child_tells_its_mode_when_it_is_ready(start):
    child = start(READY + FOR_EVER)
    assert child.mode is None
    assert hear(child) == "memory"
    assert child.exit_code() is None
    child.end()
    assert wait_until(child.exit_code) == -signal.SIGTERM


def test_a_child_that_ends_has_an_exit_code_and_is_not_heard_again(start):
    child = start("import sys\nsys.exit(3)\n")
    assert wait_until(child.exit_code) == 3
    assert hear(start(LINKED)) is None


def test_a_child_that_does_not_end_is_killed_after_a_while(start):
    child = start("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + FOR_EVER)
    hear(child)
    child.end()
    first = child.kill_at
    child.end()
    assert child.kill_at == first
    child.kill_if_late(first - 0.001)
    assert child.exit_code() is None
    child.kill_if_late(first)
    assert wait_until(child.exit_code) == -signal.SIGKILL


def test_a_child_ends_when_our_end_of_its_link_is_gone(start):
    """As when the supervisor is killed, though the child is busy or deaf to SIGTERM."""
    busy = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY
    child = start(busy + "link.watch()\n" + FOR_EVER)
    hear(child)
    child.link.close()
    assert wait_until(child.exit_code) == 1
