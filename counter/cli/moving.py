"""`counter export` and `counter import`: all counters of a store as JSON Lines, and back, into any store.

Both go by a thousand counters at a time. An import first checks all of its input and copies it to a temporary
file; what is sent comes from there. So a mistake in the last line changes nothing, and neither command needs
memory for all counters.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click
import msgspec

from ..disk import Disk
from ..errors import CounterError, NotFound, OutcomeUnknown, StoreUnavailable
from ..fields import MAX_PAGE
from ..ops import AnyOp, Get, Info, List, Request
from ..results import Entry, Page, Problem
from . import output
from .client import Client, data_command
from .lines import Line, check, read

BATCH = 1000
"""Counters in one atomic request."""
REDRAWN = 64 * 1024
"""Bytes checked between two looks of the progress bar."""


class Imported(msgspec.Struct):
    """What an import did: counters set, how many of those it created, and lines whose time was over."""

    set: int = 0
    created: int = 0
    expired: int = 0

    def __str__(self) -> str:
        return f"{output.counters(self.set)} set, {self.created:,} of them new{_left_out(self.expired)}"


class Rehearsed(msgspec.Struct):
    """What an import would do: counters created, changed, set to what they are; lines whose time is over."""

    created: int = 0
    changed: int = 0
    equal: int = 0
    expired: int = 0

    def __str__(self) -> str:
        found = f"{self.created:,} new, {self.changed:,} to change, {self.equal:,} equal"
        return f"{found}{_left_out(self.expired)}; nothing was changed"


class NotMoved(click.ClickException):
    """The file of an export, or the temporary one of an import, cannot be written; nothing is changed."""

    exit_code = StoreUnavailable.exit_code


class Exported(msgspec.Struct):
    """How many counters an export wrote."""

    exported: int = 0

    def __str__(self) -> str:
        return f"{output.counters(self.exported)} exported"


def _left_out(expired: int) -> str:
    return f"; {expired:,} left out, as their time is over" if expired else ""


# -- export


@data_command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), default="-")
@click.option("--prefix", default="", help="Only names that begin with it.")
def export(client: Client, file: Path, prefix: str) -> None:
    """Write every counter to FILE, one line of JSON each, by name.

    Without FILE, or with -, they go to stdout. FILE gets its name only when it
    is complete and on the disk, and only you can read it.
    """
    to_stdout = file == Path("-")
    done = Exported()
    shown = _on_terminal() and not (to_stdout and sys.stdout.isatty())
    total = client.ask(Info()).counters if shown and not prefix else None
    encode = msgspec.json.Encoder().encode_lines
    with _sink(file) as write, _progress("exporting", total, shown) as tell:
        for counters in _pages(client, prefix):
            write(encode(counters))
            done.exported += len(counters)
            tell(len(counters))
    if not to_stdout:
        click.echo(msgspec.json.encode(done) if client.json else done, err=True)


def _pages(client: Client, prefix: str) -> Iterator[list[Entry]]:
    cursor = None
    while True:
        page: Page = client.ask(List(prefix, "name", MAX_PAGE, cursor))
        if page.counters:
            yield page.counters
        if page.next is None:
            return
        cursor = page.next


@contextmanager
def _sink(file: Path) -> Iterator[Callable[[bytes], object]]:
    """What takes the lines for *file*.

    A device or a pipe is written to as it is: only a regular file can be replaced.
    """
    if file == Path("-"):
        yield lambda lines: output.echo(lines[:-1])
    elif file.exists() and not stat.S_ISREG(file.stat().st_mode):
        with file.open("wb", buffering=0) as device:
            yield lambda lines: _write_all(file, device.fileno(), lines)
    else:
        with _replacing(Path(os.path.realpath(file))) as write:
            yield write


@contextmanager
def _replacing(file: Path) -> Iterator[Callable[[bytes], object]]:
    """What takes the content of a new file, which takes the place of *file* if the block ends well.

    It is synced before it gets the name, so a power cut leaves the old content or the new, never half of it.
    """
    disk, name = Disk(file.parent), f".counter-export-{secrets.token_hex(8)}"
    with _explained(file):
        new = disk.create(name)
    size = 0

    def write(lines: bytes) -> None:
        nonlocal size
        with _explained(file):
            new.write(lines, size)
        size += len(lines)

    try:
        yield write
        with _explained(file):
            new.sync()
            disk.rename(name, file.name)
    except BaseException:
        with suppress(OSError):  # what went wrong first is what is told
            disk.remove(name)
        raise
    finally:
        new.close()
    with _explained(file):
        disk.sync()


def _write_all(file: Path, descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        with _explained(file):
            left = left[os.write(descriptor, left) :]


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Tell why the disk does not take *file*."""
    try:
        yield
    except OSError as exc:
        raise NotMoved(f"cannot write {file}: {exc.strerror}") from exc


# -- import


@data_command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
def import_(client: Client, file: IO[bytes], dry_run: bool) -> None:
    """Set the counters that FILE holds, as export writes them.

    Without FILE, or with -, they come from stdin. All of it is checked before
    the first is set. Counters that FILE does not name stay as they are.
    """
    with tempfile.TemporaryFile() as checked:
        with _progress("checking", _size(file), _on_terminal(), REDRAWN) as tell:
            try:
                total = check(file, checked, datetime.now(UTC), tell)
            except OSError as exc:
                folder = tempfile.gettempdir()
                raise NotMoved(
                    f"cannot keep it in {folder} (TMPDIR): {exc.strerror}; nothing was imported"
                ) from exc
        with _progress("comparing" if dry_run else "importing", total, _on_terminal()) as tell:
            batches = _batches(read(checked), tell)
            done = _rehearse(client, batches) if dry_run else _send(client, batches, total)
    output.echo(msgspec.json.encode(done) if client.json else done)


def _batches(lines: Iterator[Line], tell: Callable[[int], None]) -> Iterator[list[Line]]:
    """*lines* by the thousand; *tell* is told of those that are done."""
    while batch := list(islice(lines, BATCH)):
        yield batch
        tell(len(batch))


def _send(client: Client, batches: Iterator[list[Line]], total: int) -> Imported:
    done = Imported()
    for lines in batches:
        now = datetime.now(UTC)
        ops: list[AnyOp] = [op for line in lines if (op := line.op(now)) is not None]
        done.expired += len(lines) - len(ops)
        if ops:
            changes = _set(client, ops, done.set, total)
            done.set += len(ops)
            done.created += sum(change.created for change in changes)
    return done


def _set(client: Client, ops: list[AnyOp], done: int, total: int) -> list[Any]:
    try:
        return client.store.execute(Request(ops), client.timeout).unwrap()
    except CounterError as error:
        perhaps = f" and perhaps {len(ops):,} more" if isinstance(error, OutcomeUnknown) else ""
        where = f"{done:,} of {output.counters(total)} are in{perhaps}; importing again is harmless"
        raise type(error)(f"{error.detail} ({where})", error.current, error.index) from error


def _rehearse(client: Client, batches: Iterator[list[Line]]) -> Rehearsed:
    done = Rehearsed()
    for lines in batches:
        now = datetime.now(UTC)
        living = [line for line in lines if line.op(now) is not None]
        done.expired += len(lines) - len(living)
        for line, entry in zip(living, _entries(client, living), strict=True):
            if entry is None:
                done.created += 1
            elif line.same_as(entry):
                done.equal += 1
            else:
                done.changed += 1
    return done


def _entries(client: Client, lines: list[Line]) -> list[Entry | None]:
    """The counters that *lines* name, as they are; None where there is none."""
    if not lines:
        return []
    request = Request([Get(line.name) for line in lines], atomic=False)
    return [_entry(result) for result in client.store.execute(request, client.timeout).unwrap()]


def _entry(result: Any) -> Entry | None:  # noqa: ANN401  (an Entry, or the Problem in its place)
    if isinstance(result, Problem):
        if result.code != NotFound.code:
            raise result.error()
        return None
    entry: Entry = result
    return entry


# -- progress


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _size(file: IO[bytes]) -> int | None:
    """Its bytes, None where the end is not known: a pipe, or what is no file of the system at all."""
    with suppress(OSError):
        return os.fstat(file.fileno()).st_size or None
    return None


@contextmanager
def _progress(label: str, length: int | None, shown: bool, step: int = 1) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, drawn anew every *step*; what it gives is to be told how far it went on."""
    nothing: Iterator[None] = (None for _ in ())  # without a length click wants something to go through
    bar = click.progressbar(
        nothing,
        length,
        label,
        hidden=not shown,
        show_pos=length is None,
        update_min_steps=step,
        file=sys.stderr,
    )
    with bar:
        yield bar.update
