"""The servers of docs/servers.md, and how each is started: by the command that the page shows."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest
from support import COMMAND, ROOT, free_port, start_process, wait_until

PAGE = ROOT / "docs/servers.md"
APPS = Path(__file__).with_name("server_apps")
WORKERS = 4
REQUESTS = 2000
"""How many a load has."""


class Server(NamedTuple):
    """A server in one of its modes, by its name on the page.

    Attributes:
        answering: how many processes answer; None: one for each request.
        imports: how many processes import the app; 1 of several: before the fork.
        runs_hooks: whether its fork tells Python, which then calls what `os.register_at_fork` was given.
        end: the signal that asks it to end, with exit code 0.
    """

    name: str
    answering: int | None = WORKERS
    imports: int = WORKERS
    runs_hooks: bool = True
    end: signal.Signals = signal.SIGTERM

    @property
    def brings_manager(self):
        """It is `counter run`, which has a manager of its own in the home."""
        return self.name == "waitress"

    @property
    def forks_what_was_imported(self):
        return self.imports == 1 and self.answering == WORKERS


SERVERS = [
    Server("waitress"),
    Server("gunicorn, sync"),
    Server("gunicorn, sync, preloaded", imports=1),
    Server("gunicorn, threads"),
    Server("gunicorn, threads, preloaded", imports=1),
    Server("gunicorn, gevent"),
    Server("gunicorn, gevent, preloaded", imports=1),
    Server("uWSGI", imports=1, runs_hooks=False),
    Server("uWSGI, lazy apps"),
    Server("granian"),
    Server("flask run", answering=1, imports=1, end=signal.SIGINT),
    Server("app.run, threads", answering=1, imports=1, end=signal.SIGINT),
    Server("app.run, processes", answering=None, imports=1, end=signal.SIGINT),
]
"""Every server and mode that is promised."""


def table(head):
    """The rows of the page's table whose first cell is *head*, as a dict of the first two cells."""
    _, _, rest = PAGE.read_text().partition(f"\n| {head} |")
    assert rest, f"{PAGE.name} has no table of {head}"
    rows = rest.split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]
    return {first: second for first, second, *_ in cells}


def arguments(server, app, port):
    """The page's command for *server*, to serve *app*, which is "at_import" or "factory", on *port*."""
    shown = re.sub(r"\b8000\b", str(port), table("server")[server.name])
    if shown.startswith("app.run("):
        made = "create_app()" if app == "factory" else "app"
        return [sys.executable, "-c", f"from {app} import *; {made}{shown.removeprefix('app')}"]
    program = shown.split()[0]
    if app == "factory":
        shown = shown.replace("app:app", table("command")[program])
    words = shlex.split(re.sub(r"\bapp:", f"{app}:", shown))
    return [*(COMMAND if program == "counter" else [path_of(program)]), *words[1:]]


def path_of(program):
    """Where *program* is: beside this Python, mostly."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if path := shutil.which(program, path=places):
        return path
    assert not os.environ.get("CI"), f"{program} is missing"
    return pytest.skip(f"{program} is not installed")


@contextlib.contextmanager
def serving(server, app, environ, workers=WORKERS):
    """*server* with *app*: the address that it serves.

    It must end by itself when it is asked to, with exit code 0, and leave no process behind.
    """
    port = free_port()
    command = [str(workers) if word == str(WORKERS) else word for word in arguments(server, app, port)]
    with start_process(command, environ, cwd=APPS) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(process, f"{url}/ready"))
        yield url
        family = psutil.Process(process.pid).children(recursive=True)
        assert process.stop(server.end) == 0, process.describe()
        wait_until(lambda: not any(map(lives, family)))


def answers(process, url):
    assert process.exit_code is None, process.describe()
    with contextlib.suppress(URLError, ConnectionError), urlopen(url, timeout=20) as response:
        return response.status == 200


def lives(process):
    """Whether it still runs; one that nobody has asked for its exit code does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
