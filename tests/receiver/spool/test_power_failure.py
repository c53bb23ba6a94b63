"""What was appended to the spool is there after a power failure, whatever other processes did before."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.spool.records import decode
from tests.powercut.cut import Cut, Loss, write_out
from tests.powercut.disk import Disk
from tests.powercut.recorder import Recorder
from tests.processes import REPOSITORY

pytestmark = pytest.mark.usefixtures("c_compiler")

BEGIN = """
import os, stat
from receiver.clock import utcnow
from pathlib import Path
from receiver.ledger.store import Callback
from receiver.spool.spool import Spool
spool = Spool(Path("waiting/spool"))
"""
APPEND = "spool.append(Callback(body=b'{}', size=2, ref='kept'), utcnow())\n"
MAKE_DIRECTORY = "spool.depth()\n"
# The process dies when it is about to sync what it has written.
DIE_AT_THE_SYNC = """
real = os.fsync
os.fsync = lambda file: real(file) if stat.S_ISDIR(os.fstat(file).st_mode) else os._exit(0)
spool.append(Callback(body=b'{}', size=2, ref='died'), utcnow())
"""


def refs_left(directory: Path, *programs: str) -> set[str | None]:
    """Run programs one after the other on an empty disk, and cut the power. Return the refs that the spool still has."""
    disk, left = directory / "disk", directory / "left"
    disk.mkdir()
    with Recorder(directory, disk) as recorder:
        model = Disk.read(disk)
        environ = {**os.environ, **recorder.preload, "PYTHONPATH": str(REPOSITORY)}
        for program in programs:
            command = [sys.executable, "-c", BEGIN + program]
            subprocess.run(command, cwd=disk, env=environ, check=True, timeout=60)
        model.apply(recorder.operations())
    write_out(model, Cut(Loss.ALL, 512, 0, random.Random(0)), left)
    files = (left / "waiting" / "spool").glob("*")
    records = [decode(line) for path in files for line in path.read_bytes().splitlines(keepends=True)]
    return {record[0].ref for record in records if record}


@pytest.mark.parametrize("before", [(), (MAKE_DIRECTORY,), (DIE_AT_THE_SYNC,)])
def test_a_delivery_stays_in_a_directory_that_is_new(tmp_path, before):
    assert "kept" in refs_left(tmp_path, *before, APPEND)
