"""Journal files made by hand, and outcomes that are told apart by a number."""

from datetime import UTC, datetime, timedelta

import msgspec

from counter.records import FileFormat
from counter.results import Entry
from counter.state import Outcome

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
BOOT, OTHER_BOOT = b"this boot's id..", b"an earlier boot."


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def entry(name, value, **fields):
    return Entry(name, value, "run.1", NOW, NOW, **fields)


def outcome(number, **fields):
    """That one counter of its own, and one of all, got the value *number*."""
    name = f"n{number}"
    changed = {name: entry(name, number), "all": entry("all", number)}
    return Outcome(at(number), changed, **fields)


def counted(state):
    """The number up to which *state* has every outcome, and has it whole."""
    number = state.entries["all"].value if "all" in state.entries else 0
    expected = {f"n{each}": each for each in range(1, number + 1)} | ({"all": number} if number else {})
    assert {name: entry.value for name, entry in state.entries.items()} == expected
    return number


def name_of(first, suffix=".log"):
    return f"{first:020}{suffix}"


def encode(*outcomes):
    return msgspec.msgpack.encode(outcomes)


def log_bytes(first, last, synced=0, boot=BOOT, marks=0, file_id=None):
    """A log with the records *first* to *last*; *synced* is in its header, *marks* in its records."""
    form = FileFormat("log", boot, synced, file_id or f"id{first:06}".encode())
    records = [form.record(each, marks, encode(outcome(each))) for each in range(first, last + 1)]
    return form.header() + b"".join(records)


def offsets(data):
    """Where the records of the log *data* begin, and where the last one ends."""
    form, at = FileFormat.read(data), len(FileFormat.read(data).header())
    found = [at]
    while (record := form.record_at(data, at)) is not None:
        found.append(at := record.end)
    return found


def snapshot_bytes(last, boot=BOOT, callers=(), up_to=None):
    """A snapshot that stands for everything up to *last*."""
    form = FileFormat("snapshot", boot, last, f"sn{last:06}".encode())
    payloads = [encode(outcome(each)) for each in range(1, (last if up_to is None else up_to) + 1)]
    payloads += [encode(each) for each in callers]
    payloads.append(encode())
    records = [form.record(number + 1, 0, payload) for number, payload in enumerate(payloads)]
    return form.header() + b"".join(records)


def spoiled(data, at):
    """*data* with one bit changed."""
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
