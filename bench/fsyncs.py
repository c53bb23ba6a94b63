"""Counts the fsyncs of processes, and makes each take longer, with a library that is preloaded into them."""

import shutil
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).parent / "slow_fsync.c"
_BYTES = 8  # of the count


class Fsyncs:
    """The count of all processes that were started with `preload` in their environment."""

    def __init__(self, library: Path, file: Path, added_ms: float = 0) -> None:
        file.write_bytes(bytes(_BYTES))
        file.chmod(0o666)  # PostgreSQL runs as another user when we are root
        self._file = file
        self.preload = {
            "LD_PRELOAD": str(library),
            "FSYNC_COUNT_FILE": str(file),
            "FSYNC_DELAY_MICROSECONDS": str(round(added_ms * 1000)),
        }

    def count(self) -> int:
        """Return how many there have been."""
        return int.from_bytes(self._file.read_bytes(), sys.byteorder)


def build_library(directory: Path) -> Path | None:
    """Compile the library, or say that this is not possible and return None."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("SKIPPED: no C compiler is installed; nothing is said about fsyncs.", file=sys.stderr)
        return None
    library = directory / "slow_fsync.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    return library
