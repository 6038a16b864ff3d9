"""Files of a journal: whatever is done to them, what is found is a prefix of what was written, or a refusal.

The first byte of an input says what it is: a file by itself, the payload of a record that is whole, or edits
to a real journal.
"""

import functools

import msgspec
from fake_disk import FakeDisk
from journal_files import BOOT, NOW, OTHER_BOOT, counted, encode, log_bytes, name_of, outcome, snapshot_bytes

from counter.records import HEADER_BYTES, MAGIC, FileFormat, Unreadable
from counter.recovery import SYNC_FAILED, Damaged, recover, repair
from counter.snapshot import write
from counter.state import Outcome
from counter.table import CounterTable

FORM = FileFormat("log", BOOT, 0, b"id000001")
EDIT_BYTES = 8
MOST_EDITS = 12
MOST_BYTES = 64 * 1024  # a file gets no longer by edits
WORDS = [
    *(MAGIC, b"\xc1id0", b"\xc1sn0", b"run.1", *(bytes([kind]) for kind in b"fpe")),
    *map(
        msgspec.msgpack.encode, (NOW, "2030-01-01T12:00:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z")
    ),
    *map(msgspec.msgpack.encode, ([], {}, None, 2**63, "created_at", "expires_at", "reply", b"reply")),
]


def asked(number, **fields):
    return outcome(number, reply=b"reply", caller=b"anna", seq=number, deadline=9.0, **fields)


@functools.cache
def journals():
    """Real ones, the parts of which are told by name."""
    keyed = FORM.header() + b"".join(
        FORM.record(each, each - 1, encode(asked(each, key=f"key{each}", digest=b"d"))) for each in (1, 2, 3)
    )
    logs = {name_of(1): log_bytes(1, 4), name_of(5): log_bytes(5, 7, synced=4), name_of(8): log_bytes(8, 9)}
    older = {name_of(1): log_bytes(1, 4, boot=OTHER_BOOT), name_of(5): log_bytes(5, 6, boot=OTHER_BOOT)}
    snapped = {
        name_of(1): log_bytes(1, 2),
        name_of(3, ".snapshot"): snapshot_bytes(2),
        name_of(3): log_bytes(3, 4, synced=2),
        name_of(5, ".snapshot"): snapshot_bytes(4, callers=[Outcome(NOW, {}, b"r", b"anna", 1, 9.0)]),
        name_of(5): log_bytes(5, 8, synced=4, marks=5),
    }
    return [
        logs,
        older,
        older | {name_of(7): log_bytes(7, 9, synced=6)},
        snapped,
        {name_of(1): keyed, name_of(4): log_bytes(4, 5, marks=3)},
        {name_of(1): log_bytes(1, 6), SYNC_FAILED: b""},
    ]


def one_input(data):
    kind, rest = data[:1], data[1:]
    if kind == b"f":
        single_file(rest)
    elif kind == b"p":
        payload(rest)
    elif rest:
        edited(rest)


def single_file(data):
    """Nobody wrote it: there is no right answer, only a refusal or some state."""
    try:
        form = FileFormat.read(data)
    except Unreadable:
        form = FORM
    else:
        assert form.header() == data[:HEADER_BYTES]
    at = 0
    while (record := form.record_after(data, at)) is not None:
        assert at <= record.end <= len(data)
        assert form.record(record.sequence, record.synced, record.payload) in data
        at = record.end
    for suffix in (".log", ".snapshot"):
        disk = FakeDisk()
        disk.put(name_of(1, suffix), data)
        found(disk)


def payload(data):
    """A record that is whole, with *data* in it: no damage makes this, but another program may."""
    disk = FakeDisk()
    disk.put(name_of(1), FORM.header() + FORM.record(1, 0, data) + FORM.record(2, 1, encode(outcome(1))))
    recovered = found(disk)
    if recovered is None:
        return
    table = CounterTable("run2", 100)
    write(disk, "copy.new", BOOT, recovered.state, 2, 0.0)
    table.restore(recovered.state, 0.0)
    assert {*table.entries} == {*table.names.after("", True)}


def edited(data):
    files = dict(journals()[data[0] % len(journals())])
    boot = OTHER_BOOT if data[0] & 128 else BOOT
    edits = data[1:]
    for at in range(0, min(len(edits), MOST_EDITS * EDIT_BYTES), EDIT_BYTES):
        edit(files, edits[at : at + EDIT_BYTES].ljust(EDIT_BYTES, b"\0"))
    disk = FakeDisk()
    for name, content in files.items():
        disk.put(name, content)
    recovered = found(disk, boot)
    if recovered is not None:
        assert counted(recovered.state) == recovered.last
        repair(disk, recovered)
        again = recover(disk, boot)
        assert (again.last, again.cut, again.stale) == (recovered.last, None, [])
        assert again.state.entries == recovered.state.entries


def edit(files, eight):
    """What *eight* bytes say: what to do, with which file, where, how much, and with what."""
    names = sorted(files)
    name, other = names[eight[1] % len(names)], names[eight[2] % len(names)]
    content, source = files[name], files[other]
    where = int.from_bytes(eight[3:5], "big") % (len(content) + 1)
    size, value = eight[5], eight[6:7]
    start = eight[7] * 4 % (len(source) + 1)
    head, tail = content[:where], content[where:]
    made = {
        0: lambda: head + bytes([content[where] ^ (1 << size % 8)]) + tail[1:] if tail else content,
        1: lambda: head + value * size + tail[size:],
        2: lambda: head + value * size + tail,
        3: lambda: head + tail[size:],
        4: lambda: head,
        5: lambda: head + source[start : start + size] + tail[size:],
        6: lambda: head + source[start:],
        7: lambda: source,
    }[eight[0] % 8]()
    files[name] = made[:MOST_BYTES]


def found(disk, boot=BOOT):
    """What a start finds; None: it refuses. Anything else that is raised is a mistake."""
    before = {name: disk.bytes_of(name) for name in disk.names}
    try:
        return recover(disk, boot)
    except Damaged as refusal:
        assert " at byte " in refusal.detail
        return None
    finally:
        assert {name: disk.bytes_of(name) for name in disk.names} == before


def seeds():
    for files in journals():
        yield from (b"f" + content for content in files.values())
    for each in (outcome(1), asked(2, key="k", digest=b"d"), Outcome(NOW, {"n1": None})):
        yield b"p" + encode(each)
    yield b"p" + msgspec.msgpack.encode([])
    a_value = journals()[0][name_of(1)].index(b"\xa5value") + 6
    yield b"e" + bytes([0, 0, 0, 0]) + a_value.to_bytes(2, "big") + bytes(3)
    for number in range(len(journals())):
        for boot in (0, 128):
            yield bytes([ord("e"), number + boot])
        for kind in range(8):
            yield bytes([ord("e"), number, kind, kind, kind + 1, 0, 90, 20, 1, 30])
            yield bytes([ord("e"), number, kind, 2, 0, 2, 44, 9, 0, 10, 4, 1, 0, 1, 0, 0, 0, 0])
