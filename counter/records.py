"""The bytes of a journal file, and how what is damaged is told from what is whole.

A file is a log or a snapshot: a header, then records without a gap between them. All numbers are big-endian.

The header has a magic word, the format's version, the kind of file, the id of the boot in which it was
written (16 bytes), an id of 8 random bytes, and the highest sequence that was known to be on the disk (in a
snapshot: the last that it stands for); then the CRC-32 of all that.

A record has a tag, the length of its payload, its sequence, the highest sequence known to be on the disk when
it was written, a CRC-32 over all of this, and the payload: a list of outcomes, in msgpack. The tag and the
start of the CRC come from the file's random id. So nothing that a user can store looks like a record, and
after a damaged one the next whole one can be found.

Sequences go up by one, from file to file. A snapshot counts its own records from 1, and the last is empty.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Literal, NamedTuple

MAGIC = b"\x89counter"
FORMAT = 1
Kind = Literal["log", "snapshot"]
_KINDS: tuple[Kind, ...] = ("log", "snapshot")
_HEADER = struct.Struct("!8sBB16s8sQ")
_CRC = struct.Struct("!I")
_RECORD = struct.Struct("!4sIQQ")
HEADER_BYTES = _HEADER.size + _CRC.size
RECORD_BYTES = _RECORD.size + _CRC.size
"""What a record takes besides its payload."""


class Unreadable(ValueError):
    """The header is damaged, or of a format that this version does not know."""


class Record(NamedTuple):
    """A whole record; *end* is where the next one begins."""

    sequence: int
    synced: int
    payload: bytes
    end: int


class FileFormat:
    """What the header of one file says, and with it how its records are written and read.

    *boot*: 16 bytes; *synced*: a sequence; *file_id*: 8 random bytes.
    """

    def __init__(self, kind: Kind, boot: bytes, synced: int, file_id: bytes) -> None:
        self.kind = kind
        self.boot = boot
        self.synced = synced
        self.id = file_id
        self._tag = b"\xc1" + file_id[:3]  # a byte that msgpack never uses
        self._seed = zlib.crc32(file_id)

    @classmethod
    def new(cls, kind: Kind, boot: bytes, synced: int) -> FileFormat:
        """The format of a file to be written now."""
        return cls(kind, boot, synced, os.urandom(8))

    @classmethod
    def read(cls, data: bytes) -> FileFormat:
        """The format of the file that begins with *data*.

        Raises:
            Unreadable: it has no whole header, or another format.
        """
        if len(data) < HEADER_BYTES:
            raise Unreadable("its header is cut")
        magic, version, kind, boot, file_id, synced = _HEADER.unpack_from(data)
        if magic == MAGIC and version > FORMAT:  # looked at first: a newer header may be longer
            raise Unreadable(f"its format is {version}, of a newer version, or its header is damaged")
        if (zlib.crc32(data[: _HEADER.size]),) != _CRC.unpack_from(data, _HEADER.size) or magic != MAGIC:
            raise Unreadable("its header is damaged")
        if version != FORMAT or kind >= len(_KINDS):
            raise Unreadable(f"its format is {version}, which this version does not know")
        return cls(_KINDS[kind], boot, synced, file_id)

    def header(self) -> bytes:
        """The bytes that the file begins with."""
        head = _HEADER.pack(MAGIC, FORMAT, _KINDS.index(self.kind), self.boot, self.id, self.synced)
        return head + _CRC.pack(zlib.crc32(head))

    def record(self, sequence: int, synced: int, payload: bytes) -> bytes:
        """The bytes of a record."""
        head = _RECORD.pack(self._tag, len(payload), sequence, synced)
        return b"".join((head, _CRC.pack(self._checksum(head, payload)), payload))

    def record_at(self, data: bytes, at: int) -> Record | None:
        """The record that begins at *at*, None if no whole one does."""
        start = at + RECORD_BYTES
        if start > len(data):
            return None
        tag, length, sequence, synced = _RECORD.unpack_from(data, at)
        end = start + length
        if tag != self._tag or end > len(data):
            return None
        payload = data[start:end]
        (crc,) = _CRC.unpack_from(data, at + _RECORD.size)
        if crc != self._checksum(data[at : at + _RECORD.size], payload):
            return None
        return Record(sequence, synced, payload, end)

    def record_after(self, data: bytes, at: int) -> Record | None:
        """The first whole record that begins at *at* or later, over whatever is damaged."""
        while (at := data.find(self._tag, at)) >= 0:
            if (record := self.record_at(data, at)) is not None:
                return record
            at += 1
        return None

    def _checksum(self, head: bytes, payload: bytes) -> int:
        return zlib.crc32(payload, zlib.crc32(head, self._seed))
