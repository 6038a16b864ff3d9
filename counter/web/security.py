"""Who may ask: by which name, and not a browser on behalf of a page of another site.

Listening on the loopback interface keeps other hosts away, and no browser: any page may make it send
requests there, and a name whose address changes in between (DNS rebinding) would let the page read the
answers. So the name must be one of ours, and what may change something must come from no other site.
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
)
"""On every answer, with the policy for what it is."""
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; style-src {style}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


def check(environ: WSGIEnvironment, allow_hosts: frozenset[str]) -> None:
    """Refuse a request by a name that is not ours, and an unsafe one from another site.

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
    if environ["REQUEST_METHOD"] not in SAFE_METHODS and not _is_own_site(environ, host):
        raise HttpError(
            "cross-site",
            "a browser sent this for a page of another site; only programs and this server's own pages may "
            "change counters",
        )


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


def _site(origin: str) -> str:
    """*origin* as it is compared: in small letters, without the port that its scheme implies."""
    origin = origin.lower()
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")
