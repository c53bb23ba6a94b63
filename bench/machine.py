"""What the benchmark ran on: the machine, its disk and the versions of what is measured."""

import os
import platform
import re
import sqlite3
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.postgresql import postgresql_version

_PACKAGES = ("gunicorn", "flask", "peewee", "psycopg", "flask-sqlalchemy", "fastapi", "sqlalchemy", "uvicorn")
_FSYNCS = 200
_BLOCK = bytes(4096)


def describe(directory: Path) -> dict[str, Any]:
    """Return the machine's description; `directory` is on the disk that everything is measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(directory),
        "fsync_ms": round(_fsync_ms(directory / "fsync"), 3),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": postgresql_version(),
        "wrk": _wrk(),
        **{name: version(name) for name in _PACKAGES},
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _filesystem(directory: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if directory.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"


def _fsync_ms(path: Path) -> float:
    """Return how long it takes to append a block and to sync it, in the median."""
    times = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            began = time.perf_counter()
            file.write(_BLOCK)
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _wrk() -> str:
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", said)
    return found[0] if found else "unknown"
