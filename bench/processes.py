"""Starts, kills and ends the processes that are measured, and counts their fsyncs."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil
import urllib3

from bench.contenders import Contender
from receiver.spool.spool import Spool
from tests.processes import REPOSITORY, free_port, wait_until

CALLBACK_TOKEN = "callback-token-of-the-benchmark"
CALLBACK_PATH = f"/callbacks/{CALLBACK_TOKEN}"
API_KEY = "api-key-of-the-benchmark"
WORKERS = 2  # what Backstop starts by default; each contender gets as many
_START_WITHIN_SECONDS = 60
_STOP_WITHIN_SECONDS = 30
_FSYNC_SOURCE = Path(__file__).parent / "slow_fsync.c"


def environment(database_url: str, **variables: Any) -> dict[str, str]:
    """Return the environment of a measured process: nothing else is set."""
    return {
        "PATH": os.environ["PATH"],
        "TMPDIR": tempfile.gettempdir(),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "DATABASE_URL": database_url,
        "CALLBACK_TOKEN": CALLBACK_TOKEN,
        "API_KEY": API_KEY,
        "UNKNOWN_CALLBACKS_PER_MINUTE": "10000000",  # its load is of tasks that nobody has named
        "ACEDATACLOUD_API_TOKEN": "test-token",
        **{name: str(value) for name, value in variables.items()},
    }


class Fsyncs:
    """Counts the fsyncs of all processes that are started with `preload`, and makes each take longer."""

    def __init__(self, directory: Path, added_ms: float = 0) -> None:
        directory.mkdir()
        library, self._count = directory / "slow_fsync.so", directory / "count"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, _FSYNC_SOURCE, "-ldl"], check=True)
        self._count.write_bytes(bytes(8))
        self._count.chmod(0o666)  # PostgreSQL runs as another user when we are root
        self.preload = {
            "LD_PRELOAD": str(library),
            "FSYNC_COUNT_FILE": str(self._count),
            "FSYNC_DELAY_MICROSECONDS": str(round(added_ms * 1000)),
        }

    def count(self) -> int:
        """Return how many there have been."""
        return int.from_bytes(self._count.read_bytes(), sys.byteorder)


class Running:
    """A Python process in a directory, which holds its log. It ends with its context.

    It leads a session of its own. So Ctrl-C reaches the benchmark alone, which then ends all processes.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str], *arguments: str) -> None:
        self.log = directory / "log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=directory,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process and all that it has started."""
        try:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_WITHIN_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Server:
    """A contender's gunicorn, in a directory that holds its log and its spool. It ends with its context."""

    def __init__(
        self, contender: Contender, directory: Path, database_url: str, variables: Mapping[str, str]
    ) -> None:
        directory.mkdir()
        self.contender = contender
        self.database_url = database_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.seconds_to_start = 0.0
        self._directory = directory
        self._environ = environment(database_url, PORT=self.port, WEB_CONCURRENCY=WORKERS) | dict(variables)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.stop()

    def workers(self) -> list[psutil.Process]:
        """Return gunicorn's worker processes."""
        children: list[psutil.Process] = psutil.Process(self._running.process.pid).children()
        return children

    def cpu_seconds(self) -> float:
        """Return the CPU time that its workers have taken."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.workers())

    def kill_worker(self) -> None:
        """Kill one of the workers; gunicorn starts another."""
        self.workers()[0].kill()

    def kill_master(self) -> None:
        """Kill gunicorn's master, wait until its workers have ended too, and start it again."""
        workers = self.workers()
        self._running.process.kill()
        self._running.process.wait()
        psutil.wait_procs(workers, timeout=_START_WITHIN_SECONDS)
        self._start()

    def wait_for_spool(self) -> None:
        """Wait until it answers and its spool is empty."""
        wait_until(self._is_up, _START_WITHIN_SECONDS)
        wait_until(lambda: Spool(self._directory / "spool").depth() == 0, _START_WITHIN_SECONDS)

    def _start(self) -> None:
        began = time.monotonic()
        arguments = ["-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--no-control-socket"]
        app = [*self.contender.options, self.contender.app]
        self._running = Running(self._directory, self._environ, *arguments, *app)
        try:
            wait_until(self._is_up, _START_WITHIN_SECONDS, every=0.005)
        except BaseException:
            self._running.stop()
            raise
        self.seconds_to_start = time.monotonic() - began

    def _is_up(self) -> bool:
        if self._running.process.poll() is not None:
            raise RuntimeError(f"{self.contender.title} ended:\n{self._running.log.read_text()}")
        try:
            # Any answer will do: not every contender has this page.
            urllib3.request("GET", f"{self.url}/healthz", retries=False, timeout=5)
        except urllib3.exceptions.HTTPError:
            return False
        return True
