"""The model of a disk, and what a power failure leaves of it."""

import random
from pathlib import Path

import pytest

from tests.powercut.cut import Cut, Loss, write_out
from tests.powercut.disk import Disk
from tests.powercut.operations import (
    Create,
    MakeDirectory,
    Map,
    Remove,
    Rename,
    SyncEnds,
    Truncate,
    Unsupported,
    Write,
)

ROOT, FILE, OTHER = 1, 2, 3


def left(disk: Disk, path: Path, loss: Loss, sector: int = 512, place: int = 0, seed: int = 0):
    """Return the files that a power failure leaves, with their contents."""
    write_out(disk, Cut(loss, sector, place, random.Random(seed)), path)
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def disk_of(*operations) -> Disk:
    disk = Disk(ROOT)
    disk.apply(operations)
    return disk


def create(place, inode=FILE, name=b"a", directory=ROOT):
    return Create(place, inode, directory, name)


def synced(place, inode=FILE):
    """An fsync that began when all before had been done."""
    return SyncEnds(place, inode, place, b"")


def test_a_synced_file_of_a_synced_directory_stays(tmp_path):
    disk = disk_of(create(1), Write(2, FILE, 0, b"kept"), synced(3), synced(4, ROOT))
    assert disk.pending() == []
    assert left(disk, tmp_path / "left", Loss.ALL) == {"a": b"kept"}


def test_a_files_sync_does_not_cover_its_name(tmp_path):
    disk = disk_of(create(1), Write(2, FILE, 0, b"kept"), synced(3))
    assert left(disk, tmp_path / "all", Loss.ALL) == {}
    assert left(disk, tmp_path / "nothing", Loss.NOTHING) == {"a": b"kept"}


def test_a_directorys_sync_does_not_cover_what_is_in_its_files(tmp_path):
    disk = disk_of(create(1), Write(2, FILE, 0, b"lost"), synced(3, ROOT))
    assert left(disk, tmp_path / "left", Loss.ALL) == {"a": b""}


def test_a_sync_does_not_cover_what_was_done_while_it_ran(tmp_path):
    late = SyncEnds(4, FILE, 2, b"")
    disk = disk_of(create(0), synced(1, ROOT), Write(1, FILE, 0, b"old"), Write(3, FILE, 0, b"new"), late)
    assert left(disk, tmp_path / "left", Loss.ALL) == {"a": b"old"}


def test_a_rename_and_a_removal_are_taken_back(tmp_path):
    began = [create(1), create(2, OTHER, b"b"), synced(3, ROOT)]
    disk = disk_of(*began, Rename(4, 0, ROOT, b"a/c"), Remove(5, 0, ROOT, b"b"))
    assert set(left(disk, tmp_path / "all", Loss.ALL)) == {"a", "b"}
    assert set(left(disk, tmp_path / "tail", Loss.TAIL, place=5)) == {"b", "c"}
    assert set(left(disk, tmp_path / "nothing", Loss.NOTHING)) == {"c"}


def test_an_inode_that_is_used_again_is_another_file(tmp_path):
    began = [create(1), Write(2, FILE, 0, b"first"), synced(3), synced(4, ROOT)]
    disk = disk_of(*began, Remove(5, 0, ROOT, b"a"), create(6, FILE, b"b"), Write(7, FILE, 0, b"second"))
    assert left(disk, tmp_path / "all", Loss.ALL) == {"a": b"first"}
    assert left(disk, tmp_path / "nothing", Loss.NOTHING) == {"b": b"second"}


def test_a_new_directory_goes_with_all_that_is_in_it(tmp_path):
    made = MakeDirectory(1, OTHER, ROOT, b"spool")
    disk = disk_of(made, create(2, directory=OTHER), synced(3), synced(4, OTHER))
    assert left(disk, tmp_path / "left", Loss.ALL) == {}


def test_a_tail_is_torn_at_a_sector(tmp_path):
    began = [create(1), synced(2, ROOT), Write(3, FILE, 0, b"x" * 100), synced(4)]
    disk = disk_of(*began, Write(5, FILE, 100, b"y" * 2000), Write(6, FILE, 2100, b"z"))
    contents = {left(disk, tmp_path / str(seed), Loss.TAIL, place=5, seed=seed)["a"] for seed in range(50)}
    assert {len(content) for content in contents} == {100, 512, 1024, 1536}
    assert all(content == (b"x" * 100).ljust(len(content), b"y") for content in contents)


def test_some_sectors_are_old_and_some_are_new_and_none_is_half(tmp_path):
    began = [create(1), synced(2, ROOT), Write(3, FILE, 0, b"o" * 1024), synced(4)]
    disk = disk_of(*began, Write(5, FILE, 256, b"n" * 512))
    seen = {left(disk, tmp_path / str(seed), Loss.SOME, seed=seed)["a"] for seed in range(50)}
    first, second = (b"o" * 512, b"o" * 256 + b"n" * 256), (b"o" * 512, b"n" * 256 + b"o" * 256)
    assert seen == {a + b for a in first for b in second}


def test_a_longer_file_may_be_there_without_what_was_written(tmp_path):
    disk = disk_of(create(1), synced(2, ROOT), Write(3, FILE, 0, b"new"), Truncate(4, FILE, 1, b""))
    seen = {left(disk, tmp_path / str(seed), Loss.SOME, seed=seed)["a"] for seed in range(100)}
    assert seen == {b"", b"\0", b"n", b"\0\0\0", b"new", b"n\0\0"}


def test_what_is_mapped_may_hold_anything_and_nothing_else_may_be_mapped(tmp_path):
    disk = disk_of(create(1, name=b"db-shm"), synced(2, ROOT), Map(3, FILE, 0, b"/disk/db-shm"))
    seen = {
        len(left(disk, tmp_path / str(seed), Loss.ALL, seed=seed).get("db-shm", b"-")) for seed in range(20)
    }
    assert seen == {0, 1, 32768}
    for unknown in (Map(4, FILE, 0, b"/disk/db"), Unsupported(4, FILE, 0, b"fallocate")):
        with pytest.raises(RuntimeError, match="knows no"):
            disk.apply([unknown])


def test_a_start_finds_all_that_is_there_durable(tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "a").write_bytes(b"kept")
    disk = Disk.read(tmp_path / "disk")
    assert left(disk, tmp_path / "left", Loss.ALL) == {"deep/a": b"kept"}
