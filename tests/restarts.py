"""python -m tests.restarts: restarts a deployment again and again while callbacks come, as platforms do it.

A callback is begun when its connection was accepted. What is begun must be answered, and what is acknowledged
must be in the ledger. What comes while nobody listens is counted apart: upstream's look-ups bring it.
"""

import argparse
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.factories import body
from tests.processes import Backstop, wait_until

KEPT, NOBODY, BROKEN = "acknowledged", "nobody listened", "begun and not answered"
KILLED_AFTER_SECONDS = 30.0


def to_the_first_process(process: subprocess.Popen[bytes]) -> None:
    """Docker, Fly, Render, and systemd with KillMode=mixed: SIGTERM to the first process."""
    process.send_signal(signal.SIGTERM)


def to_all_processes(process: subprocess.Popen[bytes]) -> None:
    """Heroku: SIGTERM to every process of the dyno at once."""
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        each.send_signal(signal.SIGTERM)


def of_a_terminal(process: subprocess.Popen[bytes]) -> None:
    """A terminal: SIGINT, for `make run`."""
    process.send_signal(signal.SIGINT)


FORMS: dict[str, tuple[list[str], Callable[[subprocess.Popen[bytes]], None]]] = {
    "service": (["-m", "receiver"], to_the_first_process),
    "terminal": (["-m", "receiver"], of_a_terminal),
    "web": (["-m", "receiver.web"], to_the_first_process),
    "heroku": (["-m", "receiver.web"], to_all_processes),
}


@dataclass
class Traffic:
    """Posts callbacks at a steady pace, each over a connection of its own, as upstream does."""

    port: int
    path: str
    rate: float
    outcomes: Counter[str] = field(default_factory=Counter)
    kept: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Post until `stop`, and wait for the last answers."""
        began, sent = time.monotonic(), 0
        with ThreadPoolExecutor(256) as threads:
            while not self._stop.wait(max(began + sent / self.rate - time.monotonic(), 0)):
                threads.submit(self._post, f"task-{sent}-{secrets.token_hex(4)}")
                sent += 1

    def stop(self) -> None:
        self._stop.set()

    def _post(self, task_id: str) -> None:
        outcome, why = self._outcome_of(task_id)
        self.outcomes[outcome] += 1
        if outcome == KEPT:
            self.kept.add(task_id)
        elif outcome == BROKEN:
            self.reasons[why] += 1

    def _outcome_of(self, task_id: str) -> tuple[str, str]:
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        except OSError as problem:
            return NOBODY, str(problem)
        payload = body(task_id)
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n"
        try:
            with connection:
                connection.sendall(head.encode() + payload)
                answer = connection.recv(65536)
        except OSError as problem:
            return BROKEN, str(problem)
        status = answer.split(b" ", 2)[1:2]
        return (KEPT, "") if status in ([b"200"], [b"202"]) else (BROKEN, f"answered {answer[:40]!r}")


@dataclass(frozen=True)
class Figures:
    """What came of the restarts."""

    outcomes: Counter[str]
    reasons: Counter[str]
    missing: int
    killed: int
    slowest_stop: float


def restart_often(form: str, restarts: int, rate: float, backstop: Backstop, pause: float = 1.0) -> Figures:
    """Restart a deployment under callbacks, and count what came of them."""
    command, tell = FORMS[form]
    backstop.migrate()
    process = backstop.start("restarted", *command)
    wait_until(backstop._is_up)
    traffic = Traffic(backstop.port, backstop.callback_url.removeprefix(backstop.url), rate)
    running = threading.Thread(target=traffic.run)
    running.start()
    stops: list[float] = []
    for _ in range(restarts):
        time.sleep(pause)  # the load runs on
        began = time.monotonic()
        tell(process)
        try:
            process.wait(KILLED_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        stops.append(time.monotonic() - began)
        process = backstop.start("restarted", *command)
        wait_until(backstop._is_up)
    traffic.stop()
    running.join()
    missing = _missing(backstop, traffic.kept)
    backstop.stop(process)
    killed = sum(seconds >= KILLED_AFTER_SECONDS for seconds in stops)
    return Figures(traffic.outcomes, traffic.reasons, missing, killed, max(stops))


def _missing(backstop: Backstop, kept: set[str]) -> int:
    """Return how many acknowledged callbacks are not in the ledger; what was spooled comes soon."""

    def missing() -> set[str]:
        with closing(sqlite3.connect(backstop.database_url.removeprefix("sqlite:///"))) as ledger:
            return kept - {task_id for (task_id,) in ledger.execute("SELECT id FROM task")}

    try:
        wait_until(lambda: not missing(), seconds=60, every=1)
    except TimeoutError:
        return len(missing())
    return 0


def main() -> int:
    """Restart, print the figures, and return 1 if something begun was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.restarts", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--form", choices=FORMS, default="service")
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200, help="callbacks a second")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        with Backstop(Path(directory), "http://127.0.0.1:9") as backstop:
            figures = restart_often(arguments.form, arguments.restarts, arguments.rate, backstop)
        print(
            f"{arguments.form}: {arguments.restarts} restarts, {dict(figures.outcomes)},"
            f" missing: {figures.missing}, killed: {figures.killed}, slowest stop: {figures.slowest_stop:.1f} s"
        )
        if figures.reasons:
            print(dict(figures.reasons))
    return 1 if figures.outcomes[BROKEN] or figures.missing or figures.killed else 0


if __name__ == "__main__":
    sys.exit(main())
