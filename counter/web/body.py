"""A request's body, read up to a cap and never guessed at: half a body is no body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from ..problems import HttpError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment


def read_body(environ: WSGIEnvironment, most: int) -> bytes:
    """The body, of *most* bytes at the most; empty if there is none.

    Raises:
        HttpError: `too-large`.
        InvalidRequest: it is shorter than it says, or does not say how long it is.
    """
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return _read_open_ended(environ, most)
    declared = environ.get("CONTENT_LENGTH")
    if not declared or declared == "0":
        return b""
    if not (declared.isascii() and declared.isdigit() and len(declared) <= 20):
        raise InvalidRequest("Content-Length is a number of bytes")
    size = int(declared)
    if size > most:
        raise _too_large(most)
    body = _read(environ, size)
    if len(body) < size:
        raise InvalidRequest("the body is shorter than its Content-Length")
    return body


def _read_open_ended(environ: WSGIEnvironment, most: int) -> bytes:
    """A chunked body that the server hands on without its length."""
    if not environ.get("wsgi.input_terminated"):
        raise InvalidRequest("a body needs a Content-Length here")
    body = _read(environ, most + 1)
    if len(body) > most:
        raise _too_large(most)
    return body


def _read(environ: WSGIEnvironment, size: int) -> bytes:
    chunks = []
    try:
        while size and (chunk := environ["wsgi.input"].read(size)):
            chunks.append(chunk)
            size -= len(chunk)
    except OSError as exc:
        raise InvalidRequest("the client went away before the body was complete") from exc
    return b"".join(chunks)


def _too_large(most: int) -> HttpError:
    return HttpError("too-large", f"a body has at most {most} bytes here; send less at once")
