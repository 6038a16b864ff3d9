"""The bytes of a journal file: what is whole is read as it was written, and nothing else is."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counter.records import FORMAT, HEADER_BYTES, MAGIC, RECORD_BYTES, FileFormat, Record, Unreadable

BOOT = bytes(range(16))


@pytest.fixture
def form():
    return FileFormat("log", BOOT, 41, b"file-id!")


def test_a_header_is_read_as_it_was_written(form):
    for kind in ("log", "snapshot"):
        written = FileFormat(kind, BOOT, 2**63, b"12345678")
        assert len(written.header()) == HEADER_BYTES
        read = FileFormat.read(written.header() + b"records")
        assert (read.kind, read.boot, read.synced, read.id) == (kind, BOOT, 2**63, b"12345678")


def test_the_format_on_the_disk_is_this_one(form):
    head = b"\x89counter" + bytes([1, 0]) + BOOT + b"file-id!" + struct.pack("!Q", 41)
    assert form.header() == head + struct.pack("!I", zlib.crc32(head))
    head = b"\xc1fil" + struct.pack("!IQQ", 3, 42, 41)
    crc = zlib.crc32(head + b"abc", zlib.crc32(b"file-id!"))
    assert form.record(42, 41, b"abc") == head + struct.pack("!I", crc) + b"abc"


def test_each_file_has_an_id_of_its_own():
    ids = {FileFormat.new("log", BOOT, 0).id for _ in range(100)}
    assert len(ids) == 100 and {len(each) for each in ids} == {8}


def test_a_cut_or_damaged_header_is_unreadable_whichever_byte_it_is(form):
    header = form.header()
    for size in range(HEADER_BYTES):
        with pytest.raises(Unreadable, match="cut"):
            FileFormat.read(header[:size])
    for at in range(HEADER_BYTES):
        with pytest.raises(Unreadable, match="damaged"):
            FileFormat.read(header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :])


def reheaded(magic, version, kind):
    head = struct.pack("!8sBB16s8sQ", magic, version, kind, BOOT, b"file-id!", 0)
    return head + struct.pack("!I", zlib.crc32(head))


def test_another_format_kind_or_program_is_unreadable():
    assert FileFormat.read(reheaded(MAGIC, FORMAT, 1)).kind == "snapshot"
    with pytest.raises(Unreadable, match=f"format is {FORMAT + 1}, of a newer"):
        FileFormat.read(reheaded(MAGIC, FORMAT + 1, 0))
    with pytest.raises(Unreadable):
        FileFormat.read(reheaded(MAGIC, FORMAT, 2))
    with pytest.raises(Unreadable, match="damaged"):
        FileFormat.read(reheaded(b"\x89counted", FORMAT, 0))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=200))))
def test_records_are_read_one_after_the_other_as_they_were_written(written):
    form = FileFormat("log", BOOT, 0, b"file-id!")
    data = form.header() + b"".join(form.record(*each) for each in written)
    read, at = [], HEADER_BYTES
    while (record := form.record_at(data, at)) is not None:
        read.append(tuple(record[:3]))
        at = record.end
    assert read == written and at == len(data)


def test_a_record_takes_what_is_said(form):
    assert len(form.record(1, 0, b"")) == RECORD_BYTES
    record = form.record_at(form.record(7, 5, b"payload"), 0)
    assert record == Record(7, 5, b"payload", RECORD_BYTES + len(b"payload"))


def test_a_record_cut_anywhere_or_with_any_bit_changed_is_none(form):
    data = form.record(7, 5, b"payload")
    for size in range(len(data)):
        assert form.record_at(data[:size], 0) is None
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert form.record_at(bytes(changed), 0) is None, bit


def test_a_record_of_another_file_is_none(form):
    same_tag = FileFormat("log", BOOT, 41, b"file-ID!")
    data = same_tag.record(7, 5, b"payload")
    assert data[:4] == form.record(7, 5, b"payload")[:4]
    assert form.record_at(data, 0) is None and form.record_after(data, 0) is None


def test_the_next_whole_record_is_found_behind_damage(form):
    first, second = form.record(1, 0, b"one"), form.record(2, 0, b"two")
    damaged = first[:-1] + b"?"
    assert form.record_after(damaged + second, 0).sequence == 2
    assert form.record_after(first + second, 0).sequence == 1
    assert form.record_after(first + second, 1).sequence == 2
    assert form.record_after(b"\xc1fil" * 20 + b"rubbish" + second + first, 0).sequence == 2
    assert form.record_after(damaged, 0) is None
    assert form.record_after(b"", 0) is None


def test_a_length_out_of_all_reason_is_no_record(form):
    data = bytearray(form.record(1, 0, b"one"))
    data[4:8] = b"\xff" * 4
    assert form.record_at(bytes(data), 0) is None


@given(st.binary(max_size=400), st.binary(max_size=40))
def test_nothing_in_a_payload_is_taken_for_a_record(payload, more):
    form = FileFormat.new("log", BOOT, 0)
    other = FileFormat.new("log", BOOT, 0)
    inner = other.record(9, 9, payload)  # what somebody may have read in another file
    data = form.record(1, 0, inner + more)
    assert form.record_at(data, 0).end == len(data)
    assert form.record_after(data[1:], 0) is None
