"""The commands that start and stop processes: `run`, `manager`, `workers`, `stop`."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from .. import logs
from ..errors import CounterError, StoreUnavailable
from ..family import Family, bind, ready_line
from ..folder import LockName
from ..home import Home
from ..link import Link
from ..manager import serve
from ..notify import Notifier
from ..settings import (
    ACCESS_LOG,
    ALLOW_HOSTS,
    LOG_NAMES,
    OPEN_METRICS,
    RATE_LIMIT,
    SERVER,
    SETTINGS,
    TOKENS,
    ManagerOptions,
    Setting,
)
from ..supervisor import Supervisor
from .homes import home_option
from .options import COMMON, MANAGER, WORKERS, Command

STOP_SECONDS = 60.0


def _fails_as_a_log_line(command: Command) -> Command:
    """With JSON logs, the sentence for which a command ends is such a line, too: no collector drops it."""

    @functools.wraps(command)
    def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        try:
            return command(*args, **options)
        except CounterError as error:
            if options["log_format"] == "text":
                raise
            logging.getLogger("counter").critical("%s", error.detail)
            return error.exit_code

    return call


@click.command()
@WORKERS
@MANAGER
@COMMON
@_fails_as_a_log_line
def run(home: Home, group: str | None, workers: int, **options: Any) -> int:  # noqa: ANN401
    """Run a manager and workers that serve APP, such as app:app; without APP, the HTTP API.

    SIGTERM or Ctrl-C ends all, SIGHUP replaces the workers without refusing a request.
    """
    logs.configure("supervisor", options["log_format"])
    if options["app"] and not workers:
        raise click.UsageError("--workers 0 serves no APP: leave one of them out.")
    home.prepare(group)
    with home.lock("supervisor"):
        command = _manager_command(home, group, options)
        return _supervise(home, command, workers, options)


@click.command()
@WORKERS
@COMMON
@_fails_as_a_log_line
def workers(home: Home, workers: int, **options: Any) -> int:  # noqa: ANN401
    """Run workers that serve APP; the manager runs by itself (`counter manager`)."""
    logs.configure("supervisor", options["log_format"])
    if not workers:
        raise click.UsageError("--workers is at least 1 here.")
    return _supervise(home, None, workers, options)


@click.command()
@MANAGER
@COMMON
@click.option("--link", type=int, hidden=True)
@_fails_as_a_log_line
def manager(home: Home, link: int | None, **options: Any) -> int:  # noqa: ANN401
    """Run the manager, the process that owns the counters."""
    logs.configure("manager", options["log_format"])
    mode = options["durability"]
    notifier = Notifier()
    if link is None:

        def ready() -> None:
            click.echo(ready_line(home.path, mode))
            notifier.ready()

    else:
        supervisor = Link(link)
        supervisor.watch()

        def ready() -> None:
            supervisor.say_ready(mode)

    chosen = ManagerOptions(
        home=home.path,
        durability=mode,
        max_counters=options["max_counters"],
        max_frame=options["max_frame"],
        group=options["group"],
        stock_clients=not options["no_stock_clients"],
    )
    return serve(chosen, ready, notifier.stopping)


@click.command()
@home_option
def stop(home: Home) -> int:
    """Stop what runs in a home, and wait until it has ended."""
    for lock in ("supervisor", "lock"):
        if (pid := home.holder(lock)) is not None:
            return _stop(home, lock, pid)
    raise StoreUnavailable(f"nothing is running in {home.path}")


def _stop(home: Home, lock: LockName, pid: int) -> int:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended by itself
    except PermissionError as exc:
        raise StoreUnavailable(f"process {pid} belongs to another user: stop it as that user") from exc
    if not home.wait_released(lock, STOP_SECONDS):
        raise CounterError(f"process {pid} was asked to stop, but still runs after {STOP_SECONDS:.0f} s")
    return 0


def _manager_command(home: Home, group: str | None, options: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-m", "counter", "manager", "--home", str(home.path)]
    command += ["--durability", options["durability"]]
    command += ["--group", group] if group else []
    command += ["--no-stock-clients"] if options["no_stock_clients"] else []
    return command


def _supervise(home: Home, command: list[str] | None, workers: int, options: dict[str, Any]) -> int:
    notifier = Notifier()  # first, so that the children's environment is without its address
    listener = _bind(options) if workers else None
    family = Family(
        home=home.path,
        manager=command,
        workers=workers,
        app=options["app"],
        listener=listener,
        environ=_environ(home, options),
        folder=Path.cwd(),
    )
    return Supervisor(family, notifier).run()


def _bind(options: dict[str, Any]) -> socket.socket:
    """The socket to serve. Tokens make it safe to be open to others, where it is the API that is served."""
    allowed, app = options["insecure"], options["app"]
    if app:
        advice = f"add --insecure if that is meant; who may ask {app} is its own"
    else:
        allowed = allowed or options["tokens"] is not None
        advice = "add --tokens FILE, which `counter token` makes, or --insecure if that is meant"
    return bind(options["host"], options["port"], allowed, advice)


def _environ(home: Home, options: dict[str, Any]) -> dict[str, str]:
    """What the children find in their environment: ours, with what the command line says in place of it."""
    environ = dict(os.environ)
    settings: list[Setting] = [SETTINGS[name] for name in SETTINGS.keys() & options.keys()]
    environ |= {setting.variable: str(options[setting.name]) for setting in settings}
    environ["COUNTER_URL"] = "counter://" + quote(str(home.path))
    environ["COUNTER_HOME"] = str(home.path)  # so that an app's own `counter://` is this home, too
    environ[logs.VARIABLE] = options["log_format"]
    environ[RATE_LIMIT] = options["rate_limit"]
    environ[SERVER] = options["server"]
    environ[ACCESS_LOG] = str(int(options["access_log"]))
    environ[LOG_NAMES] = str(int(options["log_names"]))
    if options["tokens"]:
        environ[TOKENS] = str(options["tokens"])
    environ[OPEN_METRICS] = str(int(options["open_metrics"]))
    if options["hosts"]:
        environ[ALLOW_HOSTS] = ",".join(sorted(options["hosts"]))
    if path := environ.get("PYTHONPATH"):
        # Children start elsewhere: what is relative there must go on meaning the same.
        environ["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in path.split(os.pathsep))
    return environ
