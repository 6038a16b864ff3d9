"""The HTTP API under the servers that people choose from, each with 2 processes of 8 threads."""

from __future__ import annotations

import contextlib
from functools import partial

import counter
from benchmarks.managers import manager
from benchmarks.row import OURS, Found, Options, Row
from benchmarks.web.servers import HOST, WORKERS, program, server, workers
from benchmarks.web.turns import Site, compare

APP = "counter.web:create_app"
_COUNT, _THREADS = str(WORKERS), "8"
GRANIAN = "granian, in ours"
OTHERS = {
    "gunicorn gthread": (
        *("gunicorn", "--workers", _COUNT, "--threads", _THREADS, "--bind", "{address}"),
        f"{APP}()",
    ),
    "granian": (
        *("granian", "--interface", "wsgi", "--workers", _COUNT, "--blocking-threads", _THREADS),
        *("--host", HOST, "--port", "{port}", "--factory", APP),
    ),
    "uWSGI": (
        *("uwsgi", "--http", "{address}", "--http-keepalive", "--master", "--processes", _COUNT),
        *("--threads", _THREADS, "--need-app", "--die-on-term", "--wsgi", f"{APP}()"),
    ),
}
"""Their commands, as docs/servers.md has them; ours is `counter workers`, with each of its servers."""


def measure(options: Options) -> Found:
    """All of them in front of one manager, each with a counter of its own."""
    notes = []
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(manager(options.folder / "home", "everysec"))
        hits = stack.enter_context(counter.connect(owner.url))
        commands = {OURS: workers(owner.home), GRANIAN: workers(owner.home, server="granian")}
        for subject, (name, *words) in OTHERS.items():
            if (path := program(name)) is None:
                notes.append(f"{name} is not installed: not compared")
            else:
                commands[subject] = partial(_command, path, words)
        sites = []
        for number, (subject, command) in enumerate(commands.items()):
            environ = {"COUNTER_URL": owner.url}
            served = stack.enter_context(server(command, "/livez", options.folder, environ))
            total = partial(hits.__getitem__, name := f"page-{number}")
            path = f"/v1/counters/{name}/increment"
            sites.append(Site(subject, served, path, lambda: owner.cpu_seconds, total))
        return Found(compare(sites, options), notes)


def _command(path: str, words: list[str], port: int) -> list[str]:
    return [path, *(word.format(port=port, address=f"{HOST}:{port}") for word in words)]


ROW = Row(
    "http-server",
    "The HTTP API under waitress and granian in ours, gunicorn, granian, uWSGI; 2 processes of 8 threads.",
    measure,
)
