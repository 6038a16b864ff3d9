"""Edges of the journal that no other test comes to: each is here because a mistake there went unseen."""

import pytest
from fake_disk import FakeDisk
from journal_files import BOOT, NOW, log_bytes, name_of, outcome, snapshot_bytes, spoiled

from counter import snapshot
from counter.disk import Disk
from counter.errors import JournalFull
from counter.log import Log
from counter.records import HEADER_BYTES, FileFormat
from counter.recovery import Damaged, recover
from counter.state import Outcome, State

NEW = "1.snapshot.new"


class CountingFile:
    """Notes how much is written at once."""

    def __init__(self, file, sizes):
        self._file, self._sizes = file, sizes

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data, at):
        self._sizes.append(len(data))
        self._file.write(data, at)


def test_a_snapshot_is_written_in_pieces(monkeypatch):
    """However large a state is, it is not in memory a second time."""
    sizes, disk = [], FakeDisk()
    create = disk.create
    monkeypatch.setattr(disk, "create", lambda name: CountingFile(create(name), sizes))
    monkeypatch.setattr(snapshot, "_CHUNK", 4000)
    state = State()
    for number in range(300):
        state.assign(Outcome(NOW, {}, b"reply" * 10, key=f"{number}", digest=b"d"))
    snapshot.write(disk, NEW, BOOT, state, 300, 0.0)
    assert sum(sizes) == len(disk.bytes_of(NEW)) > 5 * 4000
    assert len(sizes) > 5
    assert all(4000 <= size < 4300 for size in sizes[:-1])


@pytest.mark.parametrize(
    ("name", "data"),
    [(name_of(1), snapshot_bytes(2)), (name_of(3, ".snapshot"), log_bytes(1, 2)), (name_of(1), b"short")],
)
def test_a_file_that_is_no_such_file_is_named(name, data):
    disk = FakeDisk()
    disk.put(name, data)
    with pytest.raises(Damaged, match=f"in {name} at byte 0: "):
        recover(disk, BOOT)


def test_a_file_that_is_removed_while_sizes_are_asked_for_has_none(tmp_path):
    (tmp_path / "there").write_bytes(b"12345")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")  # listed, and then not found
    assert Disk(tmp_path).sizes() == {"there": 5}


def test_that_changes_are_refused_is_said_at_the_first_and_once(caplog):
    disk = FakeDisk()
    log = Log(disk, BOOT, 0, always=False)
    disk.room = 0
    for _ in range(3):
        with pytest.raises(JournalFull):
            log.append([outcome(1)])
        assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "changes are refused" in caplog.text


def test_a_snapshot_with_a_damaged_record_is_named_with_its_byte():
    disk, name = FakeDisk(), name_of(3, ".snapshot")
    disk.put(name, spoiled(snapshot_bytes(2), HEADER_BYTES + 1))
    with pytest.raises(Damaged, match=f"in {name} at byte {HEADER_BYTES}: "):
        recover(disk, BOOT)


def test_a_record_is_found_one_byte_behind_what_only_begins_like_one():
    form = FileFormat("log", BOOT, 0, b"\xc1" * 8)
    record = form.record_after(b"\xc1" + form.record(7, 0, b"payload"), 0)
    assert record is not None
    assert record.sequence == 7
