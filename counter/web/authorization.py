"""Who may do what: the token that a request has to bring where the service has tokens (RFC 6750).

What is not said to be open is closed, addresses where nothing is included. A method decides what a request
needs, so that this is known before its body is read: what is safe needs a token that may read, all else one
that may write, which may read as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..problems import HttpError
from ..tokens import Scope, Token
from .config import ApiConfig
from .security import SAFE_METHODS

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

OPEN = frozenset(("/livez", "/readyz", "/openapi.json", "/problems/{code}"))
"""Routes that tell nothing of the counters: for load balancers, and for whoever wants to know how to ask."""

_CHALLENGE = 'Bearer realm="counter"'


def needed(route: str, method: str, config: ApiConfig) -> Scope | None:
    """What a request to *route* needs a token for; None if it needs none."""
    if config.tokens is None or route in OPEN or (config.open_metrics and route == "/metrics"):
        return None
    return scope_of(method)


def scope_of(method: str) -> Scope:
    """What a token has to allow for a request of *method*."""
    return "read" if method in SAFE_METHODS else "write"


def check(environ: WSGIEnvironment, route: str, config: ApiConfig) -> str:
    """The name of the token that allows the request; "" if it needs none.

    Raises:
        HttpError: `unauthorized` or `forbidden`.
    """
    scope = needed(route, environ["REQUEST_METHOD"], config)
    if scope is None or config.tokens is None:
        return ""
    kind, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if kind.lower() != "bearer":
        raise _refusal("unauthorized", "this needs a token: send `Authorization: Bearer TOKEN`")
    token = config.tokens.find(text.strip(" "))
    if token is None:
        told = (
            "this token is not, or no longer, one of this service; its owner makes one with `counter token`"
        )
        raise _refusal("unauthorized", told, 'error="invalid_token"')
    if not _allows(token, scope):
        told = f"the token {token.name} may only read; this needs one that may write"
        raise _refusal("forbidden", told, 'error="insufficient_scope"', f'scope="{scope}"')
    return token.name


def _allows(token: Token, scope: Scope) -> bool:
    return scope in ("read", token.scope)


def _refusal(code: str, detail: str, *reasons: str) -> HttpError:
    return HttpError(code, detail, (("WWW-Authenticate", ", ".join((_CHALLENGE, *reasons))),))
