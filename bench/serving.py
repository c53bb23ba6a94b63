"""Serves a contender with gunicorn over one ledger, and kills parts of it where that is asked for."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import urllib3

from bench.contender import Contender
from bench.processes import CALLBACK_TOKEN, REPOSITORY, Running, environment
from receiver.spool.spool import Spool
from tests.processes import free_port, wait_until

START_WITHIN_SECONDS = 60
WORKERS = 2  # of each contender: what Backstop starts when nothing is set
CALLBACK_PATH = f"/callbacks/{CALLBACK_TOKEN}"


class Server:
    """A contender's gunicorn, in a directory that holds its log and its spool, within its context."""

    def __init__(
        self, contender: Contender, directory: Path, database_url: str, preload: dict[str, str] | None = None
    ) -> None:
        directory.mkdir(parents=True)
        self.contender = contender
        self.database_url = database_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._environ = environment(database_url, PORT=self.port, WEB_CONCURRENCY=WORKERS) | (preload or {})
        self._running: Running | None = None

    def __enter__(self) -> "Server":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> float:
        """Start gunicorn and return after how many seconds it answered."""
        config = REPOSITORY / self.contender.config
        command = [sys.executable, "-m", "gunicorn", "-c", str(config), "--bind", f"127.0.0.1:{self.port}"]
        began = time.monotonic()
        self._running = Running(
            self._directory, [*command, *self.contender.options, self.contender.app], self._environ, "web"
        )
        wait_until(self._is_up_or_over, START_WITHIN_SECONDS, every=0.005)
        if self._running.process.poll() is not None:
            raise RuntimeError(f"{self.contender.title} did not start:\n{self._running.log.read_text()}")
        return time.monotonic() - began

    def stop(self) -> None:
        """End gunicorn."""
        if self._running:
            self._running.stop()

    def workers(self) -> list[psutil.Process]:
        """Return gunicorn's worker processes."""
        assert self._running
        children: list[psutil.Process] = psutil.Process(self._running.process.pid).children()
        return children

    def kill_worker(self) -> None:
        """Kill one of the workers; gunicorn starts another."""
        self.workers()[0].send_signal(signal.SIGKILL)

    def kill_master(self) -> None:
        """Kill gunicorn's master, wait until its workers are gone too, and start it again."""
        assert self._running
        workers = self.workers()
        os.kill(self._running.process.pid, signal.SIGKILL)
        self._running.process.wait()
        psutil.wait_procs(workers, timeout=START_WITHIN_SECONDS)
        self.start()

    def wait_for_spool(self) -> None:
        """Wait until it answers and nothing is left in its spool."""
        wait_until(self._is_up, START_WITHIN_SECONDS)
        wait_until(lambda: Spool(self._directory / "spool").depth() == 0, START_WITHIN_SECONDS)

    def _is_up_or_over(self) -> bool:
        assert self._running
        return self._running.process.poll() is not None or self._is_up()

    def _is_up(self) -> bool:
        try:
            # Whatever it answers: not all of them have this page.
            urllib3.request("GET", f"{self.url}/healthz", retries=False, timeout=5)
        except urllib3.exceptions.HTTPError:
            return False
        return True
