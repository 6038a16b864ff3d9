"""The reading rule: what a start finds is a prefix of what was written, or it refuses and says where."""

import errno
import random
from datetime import datetime

import pytest
from fake_disk import Ended, FakeDisk
from journal_files import (
    BOOT,
    NOW,
    OTHER_BOOT,
    counted,
    encode,
    log_bytes,
    name_of,
    offsets,
    outcome,
    snapshot_bytes,
    spoiled,
)

from counter.disk import Disk
from counter.records import HEADER_BYTES, FileFormat
from counter.recovery import SYNC_FAILED, Cut, Damaged, file_name, numbered, recover, repair
from counter.run import UNKNOWN_BOOT
from counter.state import Outcome


@pytest.fixture
def disk():
    return FakeDisk()


def put(disk, first, data, suffix=".log"):
    disk.put(name_of(first, suffix), data)
    return name_of(first, suffix)


def read(disk, boot=BOOT, **how):
    """What is there, and that reading changed nothing."""
    before = {name: disk.bytes_of(name) for name in disk.names}
    try:
        return recover(disk, boot, **how)
    finally:
        assert {name: disk.bytes_of(name) for name in disk.names} == before
        assert not disk.open_files


def refused(disk, boot=BOOT, **how):
    with pytest.raises(Damaged) as caught:
        read(disk, boot, **how)
    assert caught.value.exit_code == 3
    return str(caught.value)


# -- whole files


def test_an_empty_folder_is_an_empty_journal(disk):
    recovered = read(disk)
    assert recovered[1:] == (0, [], [], None) and counted(recovered.state) == 0
    assert recovered.state.at is None


def test_logs_are_replayed_in_the_order_of_their_numbers(disk):
    names = [put(disk, first, log_bytes(first, last)) for first, last in ((9, 12), (1, 4), (5, 8))]
    recovered = read(disk)
    assert counted(recovered.state) == recovered.last == 12
    assert recovered.logs == sorted(names) and not recovered.stale and recovered.cut is None


def test_an_empty_log_is_whole(disk):
    put(disk, 1, log_bytes(1, 3))
    put(disk, 4, log_bytes(4, 3))
    recovered = read(disk)
    assert (recovered.last, len(recovered.logs), recovered.cut) == (3, 2, None)
    put(disk, 4, log_bytes(4, 6))
    assert counted(read(disk).state) == 6


def test_a_snapshot_stands_for_what_is_before_it(disk):
    put(disk, 5, snapshot_bytes(4), ".snapshot")
    recovered = read(disk)
    assert counted(recovered.state) == recovered.last == 4 and not recovered.logs and not recovered.stale
    log = put(disk, 5, log_bytes(5, 7))
    recovered = read(disk)
    assert counted(recovered.state) == recovered.last == 7 and recovered.logs == [log]


def test_the_newest_snapshot_is_read_and_what_it_replaces_is_stale(disk):
    old = [
        put(disk, 3, snapshot_bytes(2), ".snapshot"),
        put(disk, 1, log_bytes(1, 2)),
        put(disk, 3, log_bytes(3, 4)),
    ]
    new = put(disk, 5, snapshot_bytes(4), ".snapshot")
    log = put(disk, 5, log_bytes(5, 7))
    recovered = read(disk)
    assert counted(recovered.state) == recovered.last == 7
    assert recovered.logs == [log] and sorted(recovered.stale) == sorted(old)
    repair(disk, recovered)
    assert sorted(disk.names) == sorted([new, log])
    assert recover(disk, BOOT).last == 7


def test_a_log_below_the_snapshot_is_not_even_read(disk):
    put(disk, 1, b"rubbish")
    put(disk, 5, snapshot_bytes(4), ".snapshot")
    recovered = read(disk)
    assert recovered.last == 4 and recovered.stale == [name_of(1)]


def test_unfinished_files_are_stale_and_others_are_left_alone(disk):
    put(disk, 1, log_bytes(1, 2))
    disk.put("1234.new", b"x")
    disk.put(name_of(9, ".snapshot.new"), b"x")
    others = ["notes.txt", SYNC_FAILED, "x.log", "-1.log", "²" + ".log"]
    for name in others:
        disk.put(name, b"x")
    recovered = read(disk)
    assert sorted(recovered.stale) == sorted(["1234.new", name_of(9, ".snapshot.new")])
    repair(disk, recovered)
    assert sorted(disk.names) == sorted([name_of(1), *others])


def test_file_names_sort_by_their_numbers():
    names = [file_name(number, ".log") for number in (1, 9, 10, 2**63)]
    assert names == sorted(names)
    assert numbered(dict.fromkeys(reversed(names), 0), ".log") == dict(
        zip((1, 9, 10, 2**63), names, strict=True)
    )
    assert list(numbered(dict.fromkeys(reversed(names), 0), ".log").values()) == names
    assert numbered(dict.fromkeys(names, 0), ".snapshot") == {}


def test_logs_from_a_sequence_on_can_be_left_out(disk):
    for first in (1, 4, 7):
        put(disk, first, log_bytes(first, first + 2))
    assert (read(disk, before=7).last, read(disk, before=4).last) == (6, 3)
    recovered = read(disk, before=7)
    assert name_of(7) not in recovered.logs + recovered.stale


# -- callers and boots


def asked(number, caller=b"anna"):
    return outcome(number, reply=b"reply", caller=caller, seq=number, deadline=9.0)


def test_callers_of_another_boot_are_forgotten(disk):
    form = FileFormat("log", OTHER_BOOT, 0, b"12345678")
    put(disk, 1, form.header() + form.record(1, 0, encode(asked(1))))
    assert not read(disk).state.callers and read(disk).state.entries
    assert list(read(disk, OTHER_BOOT).state.callers) == [b"anna"]
    form = FileFormat("log", BOOT, 1, b"12345679")
    put(disk, 2, form.header() + form.record(2, 1, encode(asked(2, b"bert"))))
    assert list(read(disk).state.callers) == [b"bert"]


def test_callers_in_a_snapshot_of_another_boot_are_forgotten(disk):
    put(disk, 3, snapshot_bytes(2, callers=[Outcome(NOW, {}, b"r", b"anna", 1, 9.0)]), ".snapshot")
    assert list(read(disk).state.callers) == [b"anna"]
    assert not read(disk, OTHER_BOOT).state.callers


def test_keys_outlive_a_boot(disk):
    form = FileFormat("log", OTHER_BOOT, 0, b"12345678")
    keyed = outcome(1, reply=b"reply", key="k", digest=b"d")
    put(disk, 1, form.header() + form.record(1, 0, encode(keyed)))
    assert read(disk).state.keys["k"].reply == b"reply"


# -- damage at the end


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT])
def test_a_log_cut_at_any_byte_is_its_whole_records(disk, boot):
    data = log_bytes(1, 3, boot=OTHER_BOOT)
    ends = offsets(data)
    for size in range(HEADER_BYTES, len(data) + 1):
        name = put(disk, 1, data[:size])
        whole = sum(end <= size for end in ends) - 1
        recovered = read(disk, boot)
        assert counted(recovered.state) == recovered.last == whole
        cut = None if size == ends[whole] else Cut(name, ends[whole], size - ends[whole])
        assert recovered.cut == cut and recovered.logs == [name]
        repair(disk, recovered)
        assert disk.bytes_of(name) == data[: ends[whole]] and not disk.open_files
        assert recover(disk, boot).cut is None


def test_a_damaged_last_record_is_cut_off(disk):
    data = log_bytes(1, 4)
    name = put(disk, 1, spoiled(data, len(data) - 1))
    at = offsets(data)[3]
    recovered = read(disk)
    assert recovered.last == 3 and recovered.cut == Cut(name, at, len(data) - at)
    assert str(recovered.cut) == f"{len(data) - at} bytes were cut off, from byte {at} of {name} on"


def test_a_damaged_record_with_something_whole_behind_it_in_this_boot_is_refused(disk):
    data = log_bytes(1, 4)
    at = offsets(data)[1]
    put(disk, 1, spoiled(data, at + 40))
    told = refused(disk)
    assert name_of(1) in told and f"at byte {at}:" in told and "record 2" in told and "3 behind it" in told


def test_of_another_boot_it_is_what_a_power_cut_leaves(disk):
    data = log_bytes(1, 4, boot=OTHER_BOOT)
    at = offsets(data)[1]
    name = put(disk, 1, spoiled(data, at + 40))
    put(disk, 5, log_bytes(5, 6, boot=OTHER_BOOT))
    last = put(disk, 7, log_bytes(7, 8, boot=OTHER_BOOT))
    recovered = read(disk)
    assert counted(recovered.state) == recovered.last == 1
    size = sum(len(disk.bytes_of(each)) for each in disk.names) - at
    assert recovered.cut == Cut(name, at, size)
    assert recovered.logs == [name] and recovered.stale == [name_of(5), last]
    repair(disk, recovered)
    assert list(disk.names) == [name] and len(disk.bytes_of(name)) == at


def test_rubbish_behind_the_end_is_cut_off(disk):
    data = log_bytes(1, 2)
    name = put(disk, 1, data + bytes(100))
    assert read(disk).cut == Cut(name, len(data), 100)


def test_a_whole_record_that_is_not_the_next_one_ends_the_log(disk):
    form = FileFormat("log", OTHER_BOOT, 0, b"12345678")
    records = [form.record(each, 0, encode(outcome(each))) for each in (1, 3)]
    put(disk, 1, form.header() + b"".join(records))
    assert read(disk).last == 1
    form = FileFormat("log", BOOT, 0, b"12345678")
    put(disk, 1, form.header() + b"".join(form.record(each, 0, encode(outcome(each))) for each in (1, 1, 2)))
    assert "record 2 is damaged" in refused(disk)


# -- what was known to be on the disk


@pytest.mark.parametrize(("mark", "whole"), [(1, True), (2, False), (3, False)])
@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT])
def test_a_record_at_or_below_a_mark_behind_it_cannot_be_lost(disk, mark, whole, boot):
    form = FileFormat("log", OTHER_BOOT, 0, b"12345678")
    data = form.header() + form.record(1, 0, encode(outcome(1)))
    at = len(data)
    data += spoiled(form.record(2, 0, encode(outcome(2))), 60)
    data += form.record(3, 1, encode(outcome(3))) + form.record(4, mark, encode(outcome(4)))
    put(disk, 1, data)
    if whole and boot == BOOT:
        assert read(disk, boot).last == 1
    else:
        assert f"{name_of(1)} at byte {at}: record 2 is" in refused(disk, boot)


@pytest.mark.parametrize(("mark", "whole"), [(2, True), (3, False), (4, False)])
def test_a_mark_in_the_header_of_a_later_log_counts_though_it_holds_nothing(disk, mark, whole):
    data = log_bytes(1, 4, boot=OTHER_BOOT)
    put(disk, 1, data[: offsets(data)[2]])
    put(disk, 5, log_bytes(5, 4, synced=mark, boot=OTHER_BOOT))
    if whole:
        recovered = read(disk)
        assert recovered.last == 2 and recovered.cut == Cut(name_of(1), offsets(data)[2], HEADER_BYTES)
        assert recovered.stale == [name_of(5)]
    else:
        assert "record 3 is lost, and up to" in refused(disk)


def test_a_mark_in_a_whole_record_counts(disk):
    data = log_bytes(1, 4, boot=OTHER_BOOT, marks=4)
    put(disk, 1, data[: offsets(data)[3]] + b"x")
    assert "record 4 is lost, and up to 4 all were on the disk" in refused(disk)


# -- gaps


@pytest.mark.parametrize(("mark", "whole"), [(2, True), (3, False)])
def test_a_log_that_is_missing_in_the_middle(disk, mark, whole):
    data = log_bytes(1, 2, boot=OTHER_BOOT)
    first = put(disk, 1, data)
    put(disk, 5, log_bytes(5, 6, synced=mark, boot=OTHER_BOOT))
    if whole:
        recovered = read(disk)
        assert recovered.last == 2 and recovered.cut == Cut(first, len(data), len(disk.bytes_of(name_of(5))))
        assert recovered.logs == [first] and recovered.stale == [name_of(5)]
        repair(disk, recovered)
        assert disk.bytes_of(first) == data and list(disk.names) == [first]
    else:
        assert f"{first} at byte {len(data)}" in refused(disk)


@pytest.mark.parametrize("first_is_there", [False, True])
@pytest.mark.parametrize("last", [4, 6])
def test_a_log_of_this_boot_was_opened_when_all_before_it_was_there(disk, first_is_there, last):
    if first_is_there:
        put(disk, 1, log_bytes(1, 2, boot=OTHER_BOOT))
    put(disk, 5, log_bytes(5, last, synced=0))
    missing = 3 if first_is_there else 1
    assert f"{name_of(5)} at byte 0: records from {missing} on are missing" in refused(disk)


def test_a_damaged_end_with_an_empty_log_of_this_boot_behind_it_is_refused(disk):
    data = log_bytes(1, 4)
    put(disk, 1, spoiled(data, len(data) - 1))
    put(disk, 5, log_bytes(5, 4, synced=0))
    assert name_of(1) in refused(disk) or name_of(5) in refused(disk)


def test_a_log_that_is_missing_at_the_beginning(disk):
    name = put(disk, 5, log_bytes(5, 6, synced=0, boot=OTHER_BOOT))
    recovered = read(disk)
    assert recovered.cut == Cut(name, 0, len(disk.bytes_of(name)))
    assert (recovered.last, recovered.logs, recovered.stale) == (0, [], [name])
    repair(disk, recovered)
    assert not disk.names
    put(disk, 5, log_bytes(5, 6, synced=1, boot=OTHER_BOOT))
    assert f"{name} at byte 0: record 1 is lost" in refused(disk)


def test_a_log_that_is_missing_behind_a_snapshot(disk):
    put(disk, 5, snapshot_bytes(4), ".snapshot")
    name = put(disk, 8, log_bytes(8, 9, synced=4, boot=OTHER_BOOT))
    recovered = read(disk)
    assert recovered.last == 4 and recovered.stale == [name] and recovered.cut.offset == 0
    put(disk, 8, log_bytes(8, 9, synced=5, boot=OTHER_BOOT))
    assert "record 5 is lost" in refused(disk)


# -- headers, kinds, formats


def test_a_log_with_a_bad_header_is_refused_wherever_it_is_cut(disk):
    data = log_bytes(1, 2)
    for size in (0, 1, HEADER_BYTES - 1):
        put(disk, 1, data[:size])
        assert f"{name_of(1)} at byte 0: its header is cut" in refused(disk)
    put(disk, 1, spoiled(data, 20))
    assert f"{name_of(1)} at byte 0: its header is damaged" in refused(disk)


def test_a_newer_format_is_refused_with_its_number(disk, monkeypatch):
    monkeypatch.setattr("counter.records.FORMAT", 7)
    data = log_bytes(1, 2)
    monkeypatch.undo()
    put(disk, 1, data)
    assert "format is 7, of a newer version" in refused(disk)


def test_the_kind_of_a_file_must_be_what_its_name_says(disk):
    put(disk, 1, snapshot_bytes(2))
    assert "it is a snapshot and not a log" in refused(disk)
    disk = FakeDisk()
    put(disk, 3, log_bytes(1, 2), ".snapshot")
    assert "it is a log and not a snapshot" in refused(disk)


def test_a_whole_record_that_is_no_list_of_outcomes_is_refused(disk):
    form = FileFormat("log", BOOT, 0, b"12345678")
    cut_text = encode(outcome(1)).replace(b"n1", b"\xaen")
    deep = b"\x91\x99" + encode(outcome(1))[2:] + b"\x91" * 100_000 + b"\xc0"
    without_zone = encode(Outcome(datetime(2030, 1, 1), {}))
    for payload in (b"\x01", b"\xc1", b"", encode({"at": 1}), cut_text, deep, without_zone):
        put(disk, 1, form.header() + form.record(1, 0, payload))
        assert f"{name_of(1)} at byte {HEADER_BYTES}: record 1 cannot be read" in refused(disk)


# -- snapshots


def test_a_snapshot_damaged_anywhere_is_refused(disk):
    data = snapshot_bytes(2)
    for at in range(len(data)):
        put(disk, 3, spoiled(data, at), ".snapshot")
        assert name_of(3, ".snapshot") in refused(disk)
    for size in range(len(data)):
        put(disk, 3, data[:size], ".snapshot")
        assert name_of(3, ".snapshot") in refused(disk)


def test_a_snapshot_with_something_behind_its_end_is_refused(disk):
    data = snapshot_bytes(3)
    put(disk, 4, data + b"\0", ".snapshot")
    assert f"at byte {len(data)}: something follows the end" in refused(disk)


def test_after_a_failed_sync_what_is_missing_may_have_been_dropped_by_the_kernel(disk):
    """It is cut off as after a power cut, and what was synced is still not given up."""
    data = log_bytes(1, 5, marks=2)
    third, fourth = offsets(data)[2:4]
    put(disk, 1, data[:third] + bytes(fourth - third) + data[fourth:])
    assert "is whole" in refused(disk)
    disk.put(SYNC_FAILED, b"")
    recovered = read(disk)
    assert recovered.last == 2 and recovered.cut.offset == third
    put(disk, 1, data[:HEADER_BYTES] + bytes(third - HEADER_BYTES) + data[third:])
    assert "all were on the disk" in refused(disk)


def test_where_the_boot_is_unknown_callers_stay_and_a_loss_may_be_of_a_power_cut(disk):
    """Forgetting a caller of this boot would count twice, and refusing a power cut would help nobody."""
    caller = {"reply": b"r", "caller": b"c" * 16, "seq": 1, "deadline": 9.0}
    form = FileFormat("log", UNKNOWN_BOOT, 0, b"12345678")
    records = [form.record(n, 0, encode(outcome(n, **caller))) for n in (1, 2, 3)]
    put(disk, 1, form.header() + records[0] + bytes(len(records[1])) + records[2])
    recovered = read(disk, UNKNOWN_BOOT)
    assert recovered.last == 1 and recovered.cut is not None
    assert list(recovered.state.callers) == [b"c" * 16]


def test_a_snapshot_under_another_name_is_refused(disk):
    """Named later than it is, it would hide the logs in between."""
    put(disk, 9, snapshot_bytes(4), ".snapshot")
    assert f"{name_of(9, '.snapshot')} at byte 0: it goes up to 4" in refused(disk)


def test_a_snapshot_that_lacks_a_record_is_refused(disk):
    form = FileFormat("snapshot", BOOT, 3, b"12345678")
    data = form.header() + form.record(1, 0, encode(outcome(1))) + form.record(3, 0, encode())
    put(disk, 4, data, ".snapshot")
    assert "a record of the snapshot is damaged" in refused(disk)


# -- repair


def spoiled_journal():
    """A journal of another boot with a hole, and stale files of each kind."""
    disk = FakeDisk()
    put(disk, 1, log_bytes(1, 2, boot=OTHER_BOOT))
    put(disk, 3, snapshot_bytes(2, boot=OTHER_BOOT), ".snapshot")
    data = log_bytes(3, 6, boot=OTHER_BOOT)
    put(disk, 3, spoiled(data, offsets(data)[2] + 30))
    put(disk, 7, log_bytes(7, 8, boot=OTHER_BOOT))
    put(disk, 9, log_bytes(9, 10, boot=OTHER_BOOT))
    disk.put("abc.new", b"x")
    return disk


@pytest.mark.parametrize("power", [False, True])
def test_whatever_interrupts_a_repair_the_next_one_finds_the_same(power):
    calls = 0
    while True:
        disk = spoiled_journal()
        recovered = recover(disk, BOOT)
        assert counted(recovered.state) == recovered.last == 4
        disk.end_after(calls)
        try:
            repair(disk, recovered)
        except Ended:
            disk.crash(random.Random(calls)) if power else disk.kill()
        else:
            break
        again = recover(disk, BOOT)
        assert counted(again.state) == again.last == 4
        repair(disk, again)
        assert sorted(disk.names) == [name_of(3), name_of(3, ".snapshot")]
        assert recover(disk, BOOT).cut is None
        calls += 1
    assert calls == 6


def test_a_repair_that_the_disk_refuses_gives_its_file_back():
    disk = spoiled_journal()
    recovered = recover(disk, BOOT)
    disk.fail("cut", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        repair(disk, recovered)
    assert not disk.open_files


def test_real_files_are_read_and_repaired_as_well(tmp_path):
    data = log_bytes(1, 3)
    (tmp_path / name_of(1)).write_bytes(data + b"half a record")
    (tmp_path / "abc.new").write_bytes(b"x")
    disk = Disk(tmp_path)
    recovered = recover(disk, BOOT)
    assert counted(recovered.state) == 3 and recovered.stale == ["abc.new"]
    repair(disk, recovered)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name_of(1), data)]
