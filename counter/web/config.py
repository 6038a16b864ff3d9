"""What one app serves: its `COUNTER_…` config and its store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import Flask

from ..errors import InvalidRequest
from ..flask import EXTENSION, AppStore, store_of
from ..settings import (
    ALLOW_HOSTS,
    LOG_NAMES,
    OPEN_METRICS,
    RATE_LIMIT,
    SETTINGS,
    TOKENS,
    RateLimit,
    host_names,
    number,
    switch,
)
from ..store import Store
from ..tokens import TokenFile

_EXTENSION = "counter_api"


class ApiConfig(NamedTuple):
    """The settings of the API: Flask config `COUNTER_…`, else the environment, else the default."""

    max_body: int
    threads: int
    timeout: float
    allow_hosts: frozenset[str]
    tokens: TokenFile | None
    open_metrics: bool
    rate_limit: RateLimit | None
    log_names: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ApiConfig:
        """Read from an app's *config*.

        Raises:
            InvalidRequest: a value is none.
        """
        return cls(
            int(_number("max_body", config)),
            int(_number("threads", config)),
            float(_number("timeout", config)),
            _hosts(config),
            _tokens(config),
            switch(_given(OPEN_METRICS, config), OPEN_METRICS),
            RateLimit.parse(str(_given(RATE_LIMIT, config))),
            switch(_given(LOG_NAMES, config), LOG_NAMES),
        )


def _number(name: str, config: Mapping[str, Any]) -> int | float:
    setting = SETTINGS[name]
    given = config.get(setting.variable)
    return number(name) if given is None else setting.parse(str(given))


def _hosts(config: Mapping[str, Any]) -> frozenset[str]:
    given = _given(ALLOW_HOSTS, config)
    several = isinstance(given, list | tuple | set | frozenset)
    return host_names(given if several else str(given))


def _tokens(config: Mapping[str, Any]) -> TokenFile | None:
    given = _given(TOKENS, config)
    if not given:
        return None
    if not isinstance(given, str | os.PathLike):
        raise InvalidRequest(f"{TOKENS} is the path of a file, not {given!r}")
    return TokenFile(given)


def _given(variable: str, config: Mapping[str, Any]) -> Any:  # noqa: ANN401
    given = config.get(variable)
    return os.environ.get(variable, "") if given is None else given


class Api(NamedTuple):
    """The API of one app: its settings, and the app's counters, where nothing is opened before a call."""

    config: ApiConfig
    store: Store


def install(app: Flask, store: Store | None = None) -> Api:
    """Give *app* its API, and *store*, if given, for its counters.

    Raises:
        InvalidRequest: the app's config holds a value that is none.
    """
    if store is not None:
        app.extensions.setdefault(EXTENSION, AppStore(app.config, store))
    api: Api = app.extensions.setdefault(_EXTENSION, Api(ApiConfig.of(app.config), store_of(app)))
    return api


def api_of(app: Flask) -> Api:
    """The API of *app*, made when first needed where the app only mounts the blueprint.

    Raises:
        RuntimeError: the app's config holds a value that is none.
    """
    api: Api | None = app.extensions.get(_EXTENSION)
    if api is None:
        try:
            api = install(app)
        except InvalidRequest as exc:
            raise RuntimeError(str(exc)) from exc
    return api
