"""What one app serves: its `COUNTER_…` config and its store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import Flask

from ..errors import InvalidRequest
from ..settings import ALLOW_HOSTS, SETTINGS, host_names, number
from ..store import Store, open_store

_EXTENSION = "counter_api"


class ApiConfig(NamedTuple):
    """The settings of the API: Flask config `COUNTER_…`, else the environment, else the default."""

    max_body: int
    threads: int
    timeout: float
    own_timeout: float | None
    """The timeout that the app's config asks for; None leaves it to the store."""
    allow_hosts: frozenset[str]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ApiConfig:
        """Read from an app's *config*.

        Raises:
            InvalidRequest: a value is none.
        """
        timeout = float(_number("timeout", config))
        return cls(
            int(_number("max_body", config)),
            int(_number("threads", config)),
            timeout,
            None if config.get("COUNTER_TIMEOUT") is None else timeout,
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


class Api:
    """The API of one app. Its store is opened when first asked: so nothing is before a fork."""

    def __init__(self, config: Mapping[str, Any], store: Store | None = None) -> None:
        self.config = ApiConfig.of(config)
        self._url: str | None = config.get("COUNTER_URL") or None
        self._store = store

    @property
    def store(self) -> Store:
        """Where the counters are.

        Raises:
            RuntimeError: COUNTER_URL is no store's URL: a mistake of this server, not of who asks it.
        """
        if self._store is None:
            try:
                self._store = open_store(self._url)
            except InvalidRequest as exc:
                raise RuntimeError(f"COUNTER_URL: {exc}") from exc
        return self._store


def install(app: Flask, store: Store | None = None) -> Api:
    """Give *app* its API.

    Raises:
        InvalidRequest: the app's config holds a value that is none.
    """
    api: Api = app.extensions.setdefault(_EXTENSION, Api(app.config, store))
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
