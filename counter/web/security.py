"""Who may ask: by which name, and not a browser on behalf of a page of another site.

Listening on the loopback interface keeps other hosts away, and no browser: any page may make it send
requests there, and a name whose address changes in between (DNS rebinding) would let the page read the
answers. So the name must be one of ours, and no page of another site may ask for anything. It could not read
the answer, as nothing here allows it to, but it could change counters, see by a status which there are, and
hold the slots of the streams. What is left is a visit: somebody followed a link to here.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from ..problems import HttpError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""On every answer, with the policy for what it is."""
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; style-src {style}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_PURPOSES = frozenset(("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_PURPOSE", "HTTP_X_MOZ"))
_IN_ADVANCE = re.compile("prefetch|prerender|preview", re.IGNORECASE)


def check(environ: WSGIEnvironment, allow_hosts: frozenset[str]) -> None:
    """Refuse what came by a name that is not ours, or for a page of another site, or unsafely in advance.

    Raises:
        HttpError: `host-not-allowed` or `cross-site`.
    """
    host = environ.get("HTTP_HOST", "")
    if not _is_ours(host, allow_hosts):
        raise HttpError(
            "host-not-allowed",
            "the Host header must be localhost, an IP address, or a name that --allow-host or "
            "COUNTER_ALLOW_HOSTS allows",
        )
    if not (_is_own_site(environ, host) or _is_visit(environ)):
        raise HttpError(
            "cross-site",
            "a browser sent this for a page of another site; only programs and this server's own pages may "
            "ask here, and a link may lead here",
        )
    if environ["REQUEST_METHOD"] not in SAFE_METHODS and _is_in_advance(environ):
        raise HttpError("cross-site", "a browser sent this in advance, and nobody has asked for it yet")


@lru_cache(maxsize=256)
def _is_ours(host: str, allow_hosts: frozenset[str]) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:  # missing, malformed, or several that the server joined with a comma
        return False
    literal, name = match.groups()
    if literal is not None:
        return _is_address(ipaddress.IPv6Address, literal)
    name = name.lower().removesuffix(".")
    return name == "localhost" or name in allow_hosts or _is_address(ipaddress.IPv4Address, name)


def _is_address(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _is_own_site(environ: WSGIEnvironment, host: str) -> bool:
    """Whether a program sent it, or a browser for a page of this server (or for its user: `none`)."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site in ("same-origin", "none")
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or _site(origin) == _site(f"{environ['wsgi.url_scheme']}://{host}")


def _is_visit(environ: WSGIEnvironment) -> bool:
    """Whether somebody opened this address in a window of its own, which no other page can read."""
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and environ.get("HTTP_SEC_FETCH_DEST") == "document"
        and not _is_in_advance(environ)
    )


def _is_in_advance(environ: WSGIEnvironment) -> bool:
    """Whether a browser fetched it in case that somebody wants it, which it says in one of several ways."""
    if _PURPOSES.isdisjoint(environ):  # as it nearly always is, and a generator costs more
        return False
    return any(_IN_ADVANCE.search(environ.get(name, "")) for name in _PURPOSES)


def _site(origin: str) -> str:
    """*origin* as it is compared: in small letters, without the port that its scheme implies."""
    origin = origin.lower()
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")
