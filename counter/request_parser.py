"""What a client of waitress sends, read: where it ends is plain, and it is not kept without end."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# pyright: reportAssignmentType=false, reportOptionalMemberAccess=false
# (waitress has no type hints; the ones that pyright brings for it are of another version)

from __future__ import annotations

import re

from waitress.parser import HTTPRequestParser, ParsingError  # type: ignore[import-untyped]
from waitress.utilities import BadRequest  # type: ignore[import-untyped]

HEADER_BYTES = 32 * 1024
CHUNK_LINE_BYTES = 1024

_CODINGS = re.compile(rb"\ntransfer-encoding:[ \t]*(chunked(?=[ \t]*(?:\r|\Z)))?", re.IGNORECASE)
"""Each Transfer-Encoding, empty where it is another than `chunked`."""


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """What a client sends, read; refused where a server in front of us could see another end of the body.

    waitress takes the chunks where there is a Content-Length too, and neither with HTTP/1.0, so that the body
    would be read as the next request (RFC 9112, 6.1 and 11.2). It takes `chunked` several times, an empty
    Transfer-Encoding for none, and lines that go on in the next one.
    """

    completed = False
    command = path = "-"  # until they are read, which may fail

    def received(self, data: bytes) -> int:
        """As waitress does, which would keep the line of a chunk, or a trailer, however long it gets."""
        taken: int = super().received(data)
        if self.chunked and not self.completed:
            body = self.body_rcv
            if len(body.control_line) > CHUNK_LINE_BYTES or len(body.trailer) > HEADER_BYTES:
                self.error = BadRequest("The line of a chunk, or a trailer, is too long")
                self.completed = True
        return taken

    def parse_header(self, header_plus: bytes) -> None:
        """As waitress does, which takes Transfer-Encoding away where it follows it.

        Raises:
            ParsingError: the end of the body can be read in two ways.
        """
        if b"\r\n " in header_plus or b"\r\n\t" in header_plus:
            raise ParsingError("A header has one line")
        try:
            super().parse_header(header_plus)
        except ValueError:  # more digits than Python reads
            raise ParsingError("Content-Length is invalid") from None
        if b"\ntransfer-encoding" in header_plus.lower():
            codings = _CODINGS.findall(header_plus)
            if (
                self.version != "1.1"
                or "CONTENT_LENGTH" in self.headers
                or len(codings) != 1
                or not codings[0]
            ):
                raise ParsingError(
                    "Send a Content-Length, or with HTTP/1.1 'Transfer-Encoding: chunked', once and not both"
                )
