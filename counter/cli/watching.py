"""`counter watch`: a line a counter, as it changes."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from ..results import ChangesPage, Entry
from ..shared_counter import SharedCounter
from . import output
from .client import Client, data_command


class Gone(msgspec.Struct, frozen=True):
    """A counter that is not there any more."""

    name: str
    gone: bool = True


class News:
    """What pages tell that was not told before: when all is told again, what is as it was is no news."""

    def __init__(self) -> None:
        self._told: dict[str, Entry] = {}
        self._missing: dict[str, Entry] = {}  # not listed yet, where everything is being listed
        self._complete = False

    def of(self, page: ChangesPage) -> Iterator[Entry | Gone]:
        """That of *page*, the one after those before it."""
        if page.complete:
            self._missing, self._complete = dict(self._told), True
        for entry in page.counters:
            self._missing.pop(entry.name, None)
            before = self._told.get(entry.name)
            self._told[entry.name] = entry
            if before is None or not _same(before, entry):
                yield entry
        gone = [*page.gone]
        if self._complete and not page.more:
            self._complete = False
            gone += self._missing
        for name in gone:
            if self._told.pop(name, None) is not None:  # else it came and went untold
                yield Gone(name)


def _same(before: Entry, after: Entry) -> bool:
    """Whether nothing was changed but the version, which is new in each run of the manager."""
    return msgspec.structs.replace(before, version=after.version) == after


@data_command("watch")
@click.argument("prefix", default="")
def watch(client: Client, prefix: str) -> None:
    """Print counters as they change, a line each; first those there are.

    PREFIX: only names that begin with it. One that was deleted or has expired
    is shown as gone; with --json {"name":…,"gone":true}. Ctrl-C ends it. A
    manager that is restarted is waited for, for about a minute.
    """
    news = News()
    for page in SharedCounter(client.store).watch(prefix, timeout=client.timeout):
        lines = [_line(each, client.json) for each in news.of(page)]
        if lines:
            output.echo(b"\n".join(lines))


def _line(each: Entry | Gone, json: bool) -> bytes:
    if json:
        return msgspec.json.encode(each)
    return f"{each.name}\t{'gone' if isinstance(each, Gone) else each.value}".encode()
