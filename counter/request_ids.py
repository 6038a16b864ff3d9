"""The id of an HTTP request: what its client, its answer and the log lines about it have in common."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

HEADER = "X-Request-Id"
ENVIRON = "counter.request_id"
"""Where it is in a WSGI environ."""

_SAFE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")  # nothing that a log, a header or a shell reads otherwise


def choose(given: str | None) -> str:
    """What the client gave, if it is 1 to 128 safe characters, else a new one."""
    return given if given is not None and _SAFE.fullmatch(given) else secrets.token_hex(8)


def of(environ: WSGIEnvironment) -> str:
    """That of the request of *environ*, which has it from now on if the server gave it none."""
    found: str | None = environ.get(ENVIRON)
    if found is None:
        found = environ[ENVIRON] = choose(environ.get("HTTP_X_REQUEST_ID"))
    return found
