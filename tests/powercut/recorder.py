"""The preload library in Python: compiles it, and reads the journal in which it records what processes do to a disk."""

import ctypes
import mmap
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.powercut.operations import KINDS, Operation

MISSING = "no C compiler is installed (on Debian: apt-get install gcc libc6-dev), or this is not Linux"
_SOURCE = Path(__file__).with_name("recorder.c")
# Sparse: only what is written takes memory.
_BYTES = 2**30
_HEAD, _RECORD = struct.Struct("=QQIII"), struct.Struct("=IIQQ")
_DELAY_AT, _FULL_AT, _END_AT = 16, 20, 8


def find_compiler() -> str | None:
    """Return the path of this machine's C compiler; None without one, or where the library cannot work."""
    return shutil.which("cc") if sys.platform == "linux" else None


class Recorder:
    """Records what the processes that are started with `preload` do below the directory `disk`.

    `skip_fsync` is a pattern of paths: their fsyncs are left out. Use it as a context manager.
    """

    def __init__(self, directory: Path, disk: Path, skip_fsync: str = "") -> None:
        library, journal = directory / "recorder.so", directory / "journal"
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-lpthread"]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))
        self._begins = self._library.prepare(str(journal).encode(), ctypes.c_uint64(_BYTES))
        with open(journal, "r+b") as file:
            self._journal = mmap.mmap(file.fileno(), _BYTES)
        self.preload = {
            "LD_PRELOAD": str(library),
            "POWERCUT_DISK": str(disk.resolve()),
            "POWERCUT_JOURNAL": str(journal),
            "POWERCUT_SKIP_FSYNC": skip_fsync,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.end()
        self._journal.close()

    def reset(self, fsync_microseconds: int = 0) -> None:
        """Forget what was recorded. From now on an fsync takes so much longer. No process may run."""
        struct.pack_into("=Q", self._journal, _END_AT, self._begins)
        struct.pack_into("=I", self._journal, _DELAY_AT, fsync_microseconds)

    def fill_log(self, is_full: bool) -> None:
        """Let each write to SQLite's write-ahead log fail for want of space, or no more."""
        struct.pack_into("=I", self._journal, _FULL_AT, is_full)

    def place(self) -> int:
        """Return where the next operation will be recorded."""
        place: int = struct.unpack_from("=Q", self._journal, _END_AT)[0]
        return place

    @contextmanager
    def standstill(self) -> Iterator[None]:
        """Let no process change the disk. Within the block the journal is as the disk is."""
        self._library.hold()
        try:
            yield
        finally:
            self._library.let_go()

    def operations(self) -> Iterator[Operation]:
        """Read what was recorded, in order."""
        _, end, _, _, overflowed = _HEAD.unpack_from(self._journal)
        if overflowed:
            raise RuntimeError(f"more was written than the journal takes: {_BYTES:,} bytes")
        at = self._begins
        while at < end:
            kind, length, inode, number = _RECORD.unpack_from(self._journal, at)
            begins = at + _RECORD.size
            yield KINDS[kind](at, inode, number, self._journal[begins : begins + length])
            at = begins + (length + 7) // 8 * 8
