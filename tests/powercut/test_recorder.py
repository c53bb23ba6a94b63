"""The preload library: it records all that a process does to the disk, and nothing else."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.powercut.cut import Cut, Loss, write_out
from tests.powercut.disk import Disk
from tests.powercut.machine import contents
from tests.powercut.operations import Operation, SyncEnds, Write
from tests.powercut.recorder import Recorder

pytestmark = pytest.mark.usefixtures("c_compiler")

CHANGES = """
import os, sqlite3
os.makedirs("deep/er")
with open("deep/a", "wb", buffering=0) as file:
    file.write(b"one"), file.seek(10), file.write(b"two"), file.truncate(12)
with open("deep/a", "ab", buffering=0) as file:
    file.write(b"three")
    os.writev(file.fileno(), [b"four", b"five"])
handle = os.open("deep/er/b", os.O_CREAT | os.O_EXCL | os.O_RDWR)
os.pwrite(handle, b"at five", 5), os.pwritev(handle, [b"at", b"twenty"], 20)
os.rename("deep/er/b", "deep/er/c"), os.ftruncate(handle, 24)
directory = os.open("deep", os.O_RDONLY)
os.close(os.open("d", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
os.rename("d", "e", src_dir_fd=directory, dst_dir_fd=directory)
open("deep/f", "w").write("gone"), os.unlink("deep/f"), os.mkdir("deep/g"), os.rmdir("deep/g")
open("deep/h", "w").write("longer"), open("deep/h", "w").write("short")
database = sqlite3.connect("db")
database.execute("PRAGMA journal_mode = wal")
for n in range(100):
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS t (x)"), database.execute("INSERT INTO t VALUES (?)", (n,))
open("../elsewhere", "w").write("not of the disk")
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def recorder(tmp_path: Path, disk: Path) -> Iterator[Recorder]:
    with Recorder(tmp_path, disk, skip_fsync="*/left-out") as recorder:
        yield recorder


def run(recorder: Recorder, disk: Path, code: str) -> list[Operation]:
    """Run a program on the disk; return what it did."""
    environ = {**os.environ, **recorder.preload}
    subprocess.run([sys.executable, "-c", code], cwd=disk, env=environ, check=True, timeout=60)
    return list(recorder.operations())


def test_what_is_recorded_makes_the_same_disk(tmp_path, disk, recorder):
    model = Disk.read(disk)
    # Ended at once: otherwise SQLite would remove its log.
    operations = run(recorder, disk, f"{CHANGES}\nos._exit(0)")
    model.apply(operations)
    write_out(model, Cut(Loss.NOTHING, 512, 0, random.Random(0)), tmp_path / "modelled")
    real = contents(disk)
    assert set(real) == {"db", "db-wal", "deep/a", "deep/e", "deep/er/c", "deep/h"}
    assert contents(tmp_path / "modelled") == real


def test_a_process_that_forks_records_what_its_children_do(tmp_path, disk, recorder):
    model = Disk.read(disk)
    code = "import os\nfor n in range(4):\n if not os.fork():\n  [open('a', 'ab', 0).write(b'%d' % n * 50) for _ in range(200)]; os._exit(0)\nfor n in range(4): os.wait()"
    model.apply(run(recorder, disk, code))
    write_out(model, Cut(Loss.NOTHING, 512, 0, random.Random(0)), tmp_path / "modelled")
    assert len(contents(disk)["a"]) == 40_000
    assert contents(tmp_path / "modelled") == contents(disk)


def test_syncs_are_recorded_except_those_that_are_to_be_left_out(disk, recorder):
    code = "import os\nfor name in ('a', 'left-out'):\n file = os.open(name, os.O_CREAT | os.O_WRONLY); os.write(file, b'x'); os.fsync(file); os.fdatasync(file)"
    operations = run(recorder, disk, code)
    written = {each.inode for each in operations if isinstance(each, Write)}
    assert len(written) == 2
    assert [each.inode for each in operations if isinstance(each, SyncEnds)] == [
        (disk / "a").stat().st_ino
    ] * 2


def test_it_says_what_it_cannot_record(disk, recorder):
    code = "import os\nwith open('a', 'wb') as file: os.posix_fallocate(file.fileno(), 0, 100)"
    with pytest.raises(RuntimeError, match="posix_fallocate"):
        Disk.read(disk).apply(run(recorder, disk, code))


def test_a_full_log_takes_no_more(disk, recorder):
    recorder.fill_log(True)
    code = "import sqlite3\ndb = sqlite3.connect('db')\ndb.execute('PRAGMA journal_mode = wal')\ntry: db.execute('CREATE TABLE t (x)')\nexcept sqlite3.OperationalError as problem: open('said', 'w').write(str(problem))"
    run(recorder, disk, code)
    assert "full" in (disk / "said").read_text()


def test_nothing_changes_during_a_standstill(disk, recorder):
    environ = {**os.environ, **recorder.preload}
    code = "print(1, flush=True); open('a', 'w')"
    with recorder.standstill():
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=disk, env=environ, stdout=subprocess.PIPE
        )
        assert process.stdout
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert not (disk / "a").exists()
    process.communicate(timeout=30)
    assert (disk / "a").exists()
