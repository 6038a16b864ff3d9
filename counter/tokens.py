"""The tokens that the HTTP API takes: a file of them, read again when it changes, and how one is made.

The file holds no token, only its name, its scope and its SHA-256: who reads the file cannot ask for anything.
A plain digest is enough, as a token is 32 random bytes, which nobody finds by trying.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import shlex
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from .errors import InvalidRequest

Scope = Literal["read", "write"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a token allows: to read; to change as well."""
PREFIX = "counter_"
"""How a token begins, so that whoever finds one, a person or a scanner for secrets, sees what it is."""
TOKEN_BYTES = 32
MOST_BYTES = 64 * 1024

_LINE = re.compile(
    r"(?P<scope>read|write)[ \t]+(?P<name>[A-Za-z0-9._-]{1,64})[ \t]+(?P<digest>[0-9A-Fa-f]{64})"
)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SETTLED_SECONDS = 0.1

logger = logging.getLogger("counter.tokens")


class Token(NamedTuple):
    """One line of the file: several may have one name, of which the old one goes when all use the new one."""

    scope: Scope
    name: str
    digest: bytes

    def __str__(self) -> str:
        return f"{self.scope} {self.name} {self.digest.hex()}"


def make(name: str, scope: Scope) -> tuple[str, Token]:
    """A new token: its text, which nothing keeps, and what the file is to hold.

    Raises:
        InvalidRequest: no such name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"a token's name has 1 to 64 letters, digits, '.', '_' and '-': not {name!r}")
    text = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    return text, Token(scope, name, _digest(text))


def add(path: Path, token: Token) -> None:
    """Append *token* to the file at *path*, which is made if there is none, for its owner alone.

    Raises:
        InvalidRequest: the file cannot be written, is open to others, or holds something else.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    with _opened(path, flags, f"cannot write the tokens in {path}") as file:
        content = _content(file, path)
        _parse(content, path)
        start = "\n" if content and not content.endswith(b"\n") else ""
        os.write(file, f"{start}{token}\n".encode())  # whoever reads half of it keeps what was before
        os.fsync(file)


class TokenFile:
    """The tokens in the file at `path`, as it is now; those before while it cannot be read.

    Raises:
        InvalidRequest: it cannot be read at the start, is open to others, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._lock = threading.Lock()
        self._complaint = ""
        self._seen: tuple[int, ...] | None = self._stamp()
        self._tokens = _load(self.path)

    def find(self, text: str) -> Token | None:
        """The token that *text* is, None if it is none.

        It is compared with each of them, in a time that tells nothing of where or how far it was like one.
        """
        self._refresh()
        digest = _digest(text)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def _refresh(self) -> None:
        if self._stamp() == self._seen is not None:
            return
        with self._lock:
            stamp = self._stamp()
            try:
                tokens, complaint = _load(self.path), ""
            except InvalidRequest as error:
                tokens, complaint = self._tokens, str(error)
            if complaint != self._complaint and complaint:
                logger.error("the tokens before stay in force: %s", complaint)
            elif tokens != self._tokens:
                logger.info("the tokens in %s were read again: there are %d", self.path, len(tokens))
            # What failed may be over though the file is the same: it is tried again at the next request.
            self._tokens, self._complaint, self._seen = tokens, complaint, None if complaint else stamp

    def _stamp(self) -> tuple[int, ...] | None:
        """What changes with the file; None if it was changed so lately that this could not be told again."""
        try:
            found = self.path.stat()
        except OSError as exc:
            return (exc.errno or 0,)
        if abs(time.time() - found.st_ctime) < _SETTLED_SECONDS:  # its clock ticks in milliseconds
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _load(path: Path) -> tuple[Token, ...]:
    missing = f"`counter token NAME --scope write --tokens {shlex.quote(str(path))}` makes it, with a token"
    with _opened(path, os.O_RDONLY, f"cannot read the tokens in {path}", missing) as file:
        return _parse(_content(file, path), path)


@contextlib.contextmanager
def _opened(path: Path, flags: int, failed: str, missing: str = "") -> Iterator[int]:
    """The file at *path*, open; what the system says against it is a sentence that begins with *failed*."""
    try:
        file = os.open(path, flags | os.O_NONBLOCK, 0o600)  # a fifo in its place must not hang us
        try:
            yield file
        finally:
            os.close(file)
    except OSError as exc:
        reason = isinstance(exc, FileNotFoundError) and missing
        raise InvalidRequest(f"{failed}: {reason or exc.strerror or exc}") from exc


def _content(file: int, path: Path) -> bytes:
    """What the open *file* holds, if nobody else may read or write it."""
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRequest(f"{path} is not a regular file")
    if found.st_uid != os.geteuid():
        whose = f"belongs to user {found.st_uid} and this is user {os.geteuid()}"
        raise InvalidRequest(f"the file of tokens {path} {whose}: `chown` it")
    if found.st_mode & 0o077:
        mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
        fix = f"`chmod 600 {shlex.quote(str(path))}`"
        raise InvalidRequest(f"the file of tokens {path} is open to other users ({mode}): {fix}")
    content = os.pread(file, MOST_BYTES + 1, 0)
    if len(content) > MOST_BYTES:
        raise InvalidRequest(f"the file of tokens {path} is larger than {MOST_BYTES} bytes")
    return content


def _parse(content: bytes, path: Path) -> tuple[Token, ...]:
    """The tokens in *content*. No sentence shows a line: somebody may have put the token itself there."""
    tokens: dict[bytes, Token] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").split("\n"), 1):
        told = line.partition("#")[0].strip()
        if not told:
            continue
        match = _LINE.fullmatch(told)
        if match is None:
            raise InvalidRequest(
                f"{path}, line {number}: not `read|write NAME SHA256HEX`; `counter token` makes it"
            )
        digest = bytes.fromhex(match["digest"])
        if digest in tokens:
            raise InvalidRequest(f"{path}, line {number}: this token stands in a line before, too")
        scope: Scope = "write" if match["scope"] == "write" else "read"
        tokens[digest] = Token(scope, match["name"], digest)
    return tuple(tokens.values())
