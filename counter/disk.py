"""A folder of files that must survive: the only way from the journal to the disk, one method a system call.

Every method raises `OSError` as the system does. What is written may reach the disk in any order, or not at
all, until `DiskFile.sync` has returned; a name, until `Disk.sync` has.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .folder import sync_folder


class DiskFile:
    """An open file; *at* and *size* are bytes from its beginning."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, data: bytes, at: int) -> None:
        """Write all of *data*; after an error any part of it may be there."""
        written = os.pwrite(self._file, data, at)
        while written < len(data):  # a short write: the next one tells why
            written += os.pwrite(self._file, data[written:], at + written)

    def cut(self, size: int) -> None:
        """Take off what is behind *size*."""
        os.ftruncate(self._file, size)

    def sync(self) -> None:
        """Return when what was written is on the disk.

        After an error the kernel may take what it could not write for written: never sync this file again.
        """
        if hasattr(os, "fdatasync"):
            os.fdatasync(self._file)
        else:
            os.fsync(self._file)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._file)


class Disk:
    """The files in *folder*, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sizes(self) -> dict[str, int]:
        """The names there are, each with its size in bytes."""
        sizes = {}
        with os.scandir(self.folder) as found:
            for each in found:
                with contextlib.suppress(FileNotFoundError):  # another thread has just removed it
                    sizes[each.name] = each.stat().st_size
        return sizes

    def read(self, name: str) -> bytes:
        """All of a file."""
        return (self.folder / name).read_bytes()

    def create(self, name: str) -> DiskFile:
        """A new, empty file, for its owner alone."""
        return self._open(name, os.O_CREAT | os.O_EXCL)

    def open(self, name: str) -> DiskFile:
        """An existing file."""
        return self._open(name, 0)

    def rename(self, old: str, new: str) -> None:
        """Give the file *old* the name *new*, in place of what has that name."""
        (self.folder / old).rename(self.folder / new)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink()

    def sync(self) -> None:
        """Return when the names are on the disk as they are now."""
        sync_folder(self.folder)

    def _open(self, name: str, flags: int) -> DiskFile:
        return DiskFile(os.open(self.folder / name, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600))
