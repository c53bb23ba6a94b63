"""A machine whose power can be cut: a disk, the recorder of what happens to it, and Backstop's web process on it."""

import os
import random
import shutil
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import psutil

from tests.powercut.cut import Cut, Loss, write_out
from tests.powercut.disk import Disk
from tests.powercut.outages import Outage
from tests.powercut.recorder import Recorder
from tests.processes import Backstop, wait_until

_FSYNC_MICROSECONDS = (0, 500, 3000)
_NO_UPSTREAM = "http://127.0.0.1:9"


class Machine:
    """One machine. Its disk is a directory, empty at first. What is not of the disk lies beside it.

    Use it as a context manager, which kills all processes at its end.
    """

    def __init__(self, directory: Path, skip_fsync: str = "", synchronous: str = "") -> None:
        self.disk = directory / "disk"
        self.database = self.disk / "backstop.db"
        # Its parent is made with it.
        self.spool = self.disk / "waiting" / "spool"
        self._fresh, self.left = directory / "fresh", directory / "left"
        self._recorder = Recorder(directory, self.disk, skip_fsync)
        self.backstop = Backstop(
            directory,
            _NO_UPSTREAM,
            DATABASE_URL=f"sqlite:///{self.database}",
            SPOOL_DIR=self.spool,
            WEB_CONCURRENCY=2,
            POWERCUT_SYNCHRONOUS=synchronous,
            **self._recorder.preload,
        )
        self.backstop.application = "tests.powercut.app:app"
        self.backstop.handicap = os.setsid  # so that all its processes can be killed at once
        self._web: subprocess.Popen[bytes] | None = None
        self._before: Disk | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._recorder.__exit__()

    def install(self) -> None:
        """Bring up a machine with an empty disk."""
        self.kill()
        shutil.rmtree(self.disk, ignore_errors=True)
        self.disk.mkdir()
        self._begin(fsync_microseconds=0)
        self.backstop.migrate()
        self._web = self.backstop.start_web()

    def cut(self, rng: random.Random) -> tuple[Cut, int]:
        """Cut the power. Return what kind of failure it was, and how many changes no fsync had covered.

        Raises RuntimeError when the recorder has missed a change.
        """
        with self._recorder.standstill():
            self.kill()
            assert self._before
            disk = self._before
            disk.apply(self._recorder.operations())
            self._compare(disk)
        cut = Cut.choose(disk, rng)
        shutil.rmtree(self._fresh, ignore_errors=True)
        write_out(disk, cut, self._fresh)
        return cut, len(disk.pending())

    def start(self, rng: random.Random) -> None:
        """Start Backstop on what the power failure left. Keep a copy of that in `left`."""
        for old in (self.disk, self.left):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(self._fresh, self.left)
        self._fresh.rename(self.disk)
        self._begin(rng.choice(_FSYNC_MICROSECONDS))
        self._web = self.backstop.start_web()

    def outage(self, outage: Outage) -> AbstractContextManager[None]:
        """Let the database take no callback within the block."""
        return outage(self.database, self._recorder)

    def kill_worker(self, rng: random.Random) -> None:
        """Kill one of the web process's workers, which is no power failure."""
        with self._recorder.standstill():
            assert self._web
            if workers := psutil.Process(self._web.pid).children():
                victim = rng.choice(workers)
                victim.kill()
                _wait_for_end([victim])

    def kill(self) -> None:
        """Kill all processes at once."""
        if self._web is None:
            return
        processes = [psutil.Process(self._web.pid), *psutil.Process(self._web.pid).children()]
        os.killpg(self._web.pid, signal.SIGKILL)
        _wait_for_end(processes)
        self._web.wait()
        self.backstop.processes.remove(self._web)
        self._web = None

    def _begin(self, fsync_microseconds: int) -> None:
        self._recorder.reset(fsync_microseconds)
        self._before = Disk.read(self.disk)

    def _compare(self, disk: Disk) -> None:
        """Compare the files with what the model makes of them when nothing is taken back."""
        shutil.rmtree(self._fresh, ignore_errors=True)
        write_out(disk, Cut(Loss.NOTHING, 1, 0, random.Random(0)), self._fresh)
        real, modelled = contents(self.disk), contents(self._fresh)
        if real != modelled:
            names = {name for name in real | modelled if real.get(name) != modelled.get(name)}
            raise RuntimeError(f"the recorder has missed a change of {', '.join(sorted(names))}")


def contents(directory: Path) -> dict[str, bytes]:
    """Return all files below a directory, except what SQLite maps."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


def _wait_for_end(processes: list[psutil.Process]) -> None:
    def are_over() -> bool:
        return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)

    wait_until(are_over, every=0.002)
