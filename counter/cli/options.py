"""The options of the commands that start processes: each a flag, else of the environment, else a default."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import logs
from ..errors import InvalidRequest
from ..settings import (
    ACCESS_LOG,
    ALLOW_HOSTS,
    DEFAULT_SERVER,
    DURABILITIES,
    LOG_NAMES,
    OPEN_METRICS,
    RATE_LIMIT,
    SERVER,
    SERVERS,
    SETTINGS,
    TOKENS,
    RateLimit,
    host_names,
    number,
)
from ..tokens import TokenFile
from ..worker import load_server, parse_app
from .homes import home_option

Command = Callable[..., Any]


def _setting(name: str) -> Callable[[Command], Command]:
    """The option of a setting; its value is the flag's, else the environment's, else the default."""
    setting = SETTINGS[name]

    def value(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | float:
        return number(name) if text is None else setting.parse(text, setting.flag)

    help_ = f"{setting.help}  [{setting.variable}; default: {setting.default}]"
    return click.option(setting.flag, name, metavar="N", callback=value, help=help_)


def _app(_context: click.Context, _parameter: click.Parameter, spec: str | None) -> str | None:
    if spec is not None:
        parse_app(spec)
    return spec


def _server(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    load_server(name, "--server")
    return name


def _hosts(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> frozenset[str]:
    if names:
        return host_names(names, "--allow-host")
    return host_names(os.environ.get(ALLOW_HOSTS, ""))


def _rate_limit(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str:
    if text is None:
        text, source = os.environ.get(RATE_LIMIT, ""), RATE_LIMIT
    else:
        source = "--rate-limit"
    RateLimit.parse(text, source)
    return text


def _tokens(_context: click.Context, _parameter: click.Parameter, file: str | None) -> Path | None:
    """The file's path, after a look into it: the sentence on what is wrong with it comes from us."""
    if file == "":
        raise InvalidRequest("--tokens takes the path of a file")
    file = file or os.environ.get(TOKENS)
    return TokenFile(file).path if file else None


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


COMMON = _options(
    home_option,
    _setting("timeout"),
    click.option(
        "--log-format",
        type=click.Choice(logs.LOG_FORMATS),
        envvar=logs.VARIABLE,
        default="text",
        help=f"How lines on stderr look.  [{logs.VARIABLE}; default: text]",
    ),
)
"""Of whatever runs."""
MANAGER = _options(
    click.option(
        "--durability",
        type=click.Choice(DURABILITIES),
        default=DURABILITIES[0],
        envvar="COUNTER_DURABILITY",
        help="What an answer means: written down and synced each second; synced first; or in memory alone.  "
        "[COUNTER_DURABILITY; default: everysec]",
    ),
    _setting("max_counters"),
    _setting("max_frame"),
    click.option("--group", metavar="NAME", help="Let the members of this group use the counters."),
    click.option("--no-stock-clients", is_flag=True, help="Serve no plain multiprocessing managers."),
)
"""Of who runs a manager."""
WORKERS = _options(
    click.argument("app", required=False, callback=_app),
    click.option(
        "--workers",
        type=click.IntRange(min=0, max=256),
        default=min(4, _cpus()),
        show_default=True,
        metavar="N",
        help="Worker processes.",
    ),
    click.option(
        "--server",
        type=click.Choice([*SERVERS]),
        default=DEFAULT_SERVER,
        envvar=SERVER,
        callback=_server,
        help=f"What serves HTTP in each.  [{SERVER}; default: {DEFAULT_SERVER}]",
    ),
    click.option("--bind", "host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        show_default=True,
        metavar="P",
        help="0: any that is free.",
    ),
    click.option(
        "--tokens",
        metavar="FILE",
        callback=_tokens,
        help="Who may use the HTTP API; `counter token` makes one, or adds to it.  [COUNTER_TOKENS]",
    ),
    click.option(
        "--open-metrics",
        is_flag=True,
        envvar=OPEN_METRICS,
        help=f"Answer /metrics without a token.  [{OPEN_METRICS}; default: no]",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Allow a --bind that others can reach, without tokens or with an APP.",
    ),
    click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        callback=_hosts,
        metavar="NAME",
        help="A name of this host for the HTTP API to answer to; can be repeated.  [COUNTER_ALLOW_HOSTS]",
    ),
    click.option(
        "--rate-limit",
        metavar="LIMIT",
        callback=_rate_limit,
        help="How often one address may ask the HTTP API, such as 100/minute.  [COUNTER_RATE_LIMIT]",
    ),
    click.option(
        "--access-log/--no-access-log",
        envvar=ACCESS_LOG,
        help=f"Log a line for each request.  [{ACCESS_LOG}; default: no]",
    ),
    click.option(
        "--log-names",
        is_flag=True,
        envvar=LOG_NAMES,
        help=f"Show the names of counters in logs.  [{LOG_NAMES}; default: no]",
    ),
    _setting("threads"),
    _setting("max_body"),
)
"""Of who runs workers."""
