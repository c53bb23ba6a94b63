"""A machine whose power can be cut: a disk, the recorder of what happens to it, and Backstop's web process on it."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import psutil

from tests.powercut.checks import DATABASE, SPOOL
from tests.powercut.cut import Cut, Loss, write_out
from tests.powercut.disk import Disk
from tests.powercut.outages import Outage
from tests.powercut.recorder import Recorder
from tests.processes import Backstop, wait_until

Look = Callable[[int, Disk], None]

_FSYNC_MICROSECONDS = (0, 500, 3000)  # what an fsync takes longer
_JUST_BEFORE = 60  # operations
_NO_UPSTREAM = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Failure:
    """A power failure: what is taken back, at which place in the record, and how many changes no fsync had covered."""

    cut: Cut
    place: int
    uncovered: int

    def __str__(self) -> str:
        return f"{self.cut.loss.value} of {self.uncovered} changes taken back, sectors of {self.cut.sector}"


class Machine:
    """One machine. Its disk is a directory, empty at first. What is not of the disk lies beside it.

    Use it as a context manager, which kills all processes at its end.
    """

    def __init__(self, directory: Path, skip_fsync: str = "", synchronous: str = "") -> None:
        self.disk = directory / "disk"
        self.left, self.found, self._copy = directory / "left", directory / "found", directory / "copy"
        self._recorder = Recorder(directory, self.disk, skip_fsync)
        self.backstop = Backstop(
            directory,
            _NO_UPSTREAM,
            DATABASE_URL=f"sqlite:///{self.disk / DATABASE}",
            SPOOL_DIR=self.disk / SPOOL,
            WEB_CONCURRENCY=2,
            POWERCUT_SYNCHRONOUS=synchronous,
            **self._recorder.preload,
        )
        self.backstop.application = "tests.powercut.app:app"
        self.backstop.handicap = os.setsid  # so that all its processes can be killed at once
        self._before = Disk(0)  # as it was when it was started

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
        self.backstop.start_web()

    def place(self) -> int:
        """Return the present place in the record of what happens to the disk."""
        return self._recorder.place()

    def fail(self, rng: random.Random, moments: int, look: Look) -> Failure:
        """Kill all processes, and choose when the power failed: just before that. Leave what a failure leaves then.

        Before that, call `look` for some random moments since the last start: with the place in the record, and with
        the disk as it was then. Raises RuntimeError when the recorder has missed a change.
        """
        with self._recorder.standstill():
            self.kill()
            operations = list(self._recorder.operations())
        disk, last = self._before, max(len(operations) - rng.randint(0, _JUST_BEFORE), 0)
        for begin, end in pairwise([0, *sorted(rng.sample(range(last), min(moments, last))), last]):
            disk.apply(operations[begin:end])
            if end < last:
                look(operations[end].place, disk)
        place = operations[last].place if last < len(operations) else self.place()
        failure = Failure(Cut.choose(disk, rng), place, len(disk.pending()))
        self.leave(disk, failure.cut)
        disk.apply(operations[last:])
        self._compare(disk)
        return failure

    def start(self, rng: random.Random) -> None:
        """Start Backstop on a copy of what the power failure left."""
        shutil.rmtree(self.disk)
        shutil.copytree(self.left, self.disk)
        self._begin(rng.choice(_FSYNC_MICROSECONDS))
        self.backstop.start_web()

    def leave(self, disk: Disk, cut: Cut) -> None:
        """Write what a power failure leaves of a disk into the directory `left`."""
        shutil.rmtree(self.left, ignore_errors=True)
        write_out(disk, cut, self.left)

    def copy_left(self) -> Path:
        """Return a copy of what was left, to be changed."""
        shutil.rmtree(self._copy, ignore_errors=True)
        return Path(shutil.copytree(self.left, self._copy))

    def keep_left(self) -> None:
        """Keep a copy of what was left in the directory `found`, unless there is one."""
        if not self.found.exists():
            shutil.copytree(self.left, self.found)

    def outage(self, outage: Outage) -> AbstractContextManager[None]:
        """Let the database take no callback within the block."""
        return outage(self.disk / DATABASE, self._recorder)

    def kill_worker(self, rng: random.Random) -> None:
        """Kill one of the web process's workers, which is no power failure."""
        with self._recorder.standstill():
            if workers := psutil.Process(self.backstop.processes[0].pid).children():
                victim = rng.choice(workers)
                victim.kill()
                _wait_for_end([victim])

    def kill(self) -> None:
        """Kill all processes at once, also those of a web process that does not answer yet."""
        while self.backstop.processes:
            web = self.backstop.processes.pop()
            if web.poll() is not None:
                continue  # it could not start
            family = [psutil.Process(web.pid), *psutil.Process(web.pid).children()]
            os.killpg(web.pid, signal.SIGKILL)
            _wait_for_end(family)
            web.wait()

    def _begin(self, fsync_microseconds: int) -> None:
        self._recorder.reset(fsync_microseconds)
        self._before = Disk.read(self.disk)

    def _compare(self, disk: Disk) -> None:
        """Compare the files with what the model makes of them when nothing is taken back."""
        shutil.rmtree(self._copy, ignore_errors=True)
        write_out(disk, Cut(Loss.NOTHING, 1, 0, random.Random(0)), self._copy)
        real, modelled = contents(self.disk), contents(self._copy)
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
    def is_over(process: psutil.Process) -> bool:
        try:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    wait_until(lambda: all(map(is_over, processes)), every=0.002)
