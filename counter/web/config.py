"""What one app serves: its `COUNTER_…` config and its store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import Flask

from ..errors import InvalidRequest
from ..flask import EXTENSION, AppStore, store_of
from ..settings import ALLOW_HOSTS, SETTINGS, host_names, number
from ..store import Store

_EXTENSION = "counter_api"


class ApiConfig(NamedTuple):
    """The settings of the API: Flask config `COUNTER_…`, else the environment, else the default."""

    max_body: int
    threads: int
    timeout: float
    allow_hosts: frozenset[str]

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
        )


def _number(name: str, config: Mapping[str, Any]) -> int | float:
    setting = SETTINGS[name]
    given = config.get(setting.variable)
    return number(name) if given is None else setting.parse(str(given))


def _hosts(config: Mapping[str, Any]) -> frozenset[str]:
    given = config.get(ALLOW_HOSTS)
    if given is None:
        given = os.environ.get(ALLOW_HOSTS, "")
    several = isinstance(given, list | tuple | set | frozenset)
    return host_names(given if several else str(given))


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
