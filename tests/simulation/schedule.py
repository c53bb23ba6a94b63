"""All that a world knows of the product's schedule: its settings, and how it is handed to the doors and the jobs."""

import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from receiver.config import Settings
from receiver.ledger import store
from receiver.ledger.admission import UnknownBudget
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.paces import Paces
from receiver.ledger.registration import Registration
from receiver.ledger.telling import When
from receiver.ledger.timetable import Timetable
from receiver.upstream import services
from receiver.upstream.client import Upstream
from reconcile.calls import Caller
from reconcile.discover import Discoverer
from reconcile.forward import AT_ONCE, Forwarder
from reconcile.jobs import PRUNE, Job, forward_job, list_jobs, unclear_job
from reconcile.pacemaker import SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler
from reconcile.unclear import UnclearSubmissions
from tests.simulation.clock import Process, Threads, WorldClock
from tests.simulation.told import SECRET, URL, ToldApp

HERE = "https://backstop.example.com"
TOKEN = "callback-token-of-the-world"
GRACE = timedelta(seconds=60)
_FORWARD_EVERY = timedelta(seconds=20)  # more often would only take longer
UNCLEAR = "SELECT trace_id FROM submission WHERE task_id IS NULL AND ended_at IS NULL"
# A submission may be repeated for a shorter time: its key goes with its task.
_SHORT_RETENTION, _SHORT_RETENTION_OF_TASKS = timedelta(minutes=20), timedelta(hours=2)
_PRUNE_EVERY = timedelta(minutes=10)  # where the retention is short
# Not runs and pauses: there are always some, and no check asks whether they are gone.
_DATED = (
    ("delivery", "received_at"),
    ("lookup", "asked_at"),
    ("refusal", "last_at"),
    ("submission", "ended_at"),
    ("forward", "ended_at"),
)
_ENDED_TASK = "status <> 'pending' AND next_lookup_at IS NULL AND COALESCE(settled_at, gave_up_at)"


@dataclass(frozen=True, slots=True)
class Pace:
    """What a world draws of the schedule's settings."""

    settings: Settings

    @classmethod
    def draw(cls, rng: random.Random, directory: Path, confirm: bool, prune: bool) -> "Pace":
        """Draw settings for a ledger in a directory. With `prune` its rows are old after minutes."""
        drawn = {
            "RECONCILE_INTERVAL": rng.choice((120, 300, 900)),
            "RECONCILE_GRACE": GRACE.total_seconds(),
            "RECONCILE_BATCH_SIZE": rng.choice((3, 10, 50)),
            "RECONCILE_CONCURRENCY": rng.choice((1, 2, 4)),
            "RECONCILE_GIVE_UP_AFTER": rng.choice((1800, 7200, 6 * 3600)),
            "RECONCILE_MAX_RATE": rng.choice((0.2, 0.5, 1, 5)),
        }
        fixed = {
            "DATABASE_URL": f"sqlite:///{directory / 'backstop.db'}",
            "CALLBACK_TOKEN": TOKEN,
            "API_KEY": "api-key-of-the-world",
            "ACEDATACLOUD_API_TOKEN": "test-token",
            "SPOOL_DIR": str(directory / "spool"),
            "PUBLIC_URL": HERE,
            "CONFIRM_CALLBACKS": str(confirm).lower(),
            "FORWARD_URL": URL,
            "FORWARD_SECRET": SECRET,
            "FORWARD_WHEN": "confirmed" if confirm else "settled",
        }
        settings = Settings.from_env(fixed | {name: str(value) for name, value in drawn.items()})
        if prune:
            settings = replace(settings, retention=_SHORT_RETENTION, task_retention=_SHORT_RETENTION_OF_TASKS)
        return cls(settings)

    @property
    def gives_up_after(self) -> timedelta:
        return self.settings.reconcile_give_up_after

    @property
    def rate(self) -> float:
        return self.settings.reconcile_max_rate

    @property
    def calm_at_most(self) -> float:
        """Return after how many seconds of calm a known task must have ended."""
        return 2 * self.gives_up_after.total_seconds() + 8 * 3600


class Door:
    """The one door of the ledger, as one life of the web process uses it: it has read the paces at its start."""

    def __init__(self) -> None:
        self._paces = Paces(GRACE)

    def read(self) -> None:
        """Read what is learned of how long tasks take, as far as the database answers."""
        with contextlib.suppress(*DATABASE_ERRORS):
            self._paces.read()

    def register(self, registrations: Sequence[Registration], now: datetime) -> int:
        """Take note of submitted tasks."""
        return store.register(registrations, now, timetable=self._paces.timetable)

    def registers(self, confirm: bool) -> tuple[Timetable, When]:
        """Return by what rules submissions are registered."""
        return self._paces.timetable, "confirmed" if confirm else "settled"

    def record(
        self, callback: store.Callback, now: datetime, confirm: bool, unknown: UnknownBudget | None
    ) -> None:
        """Record a callback."""
        timetable = self._paces.timetable
        store.record(callback, now, timetable=timetable, confirm=confirm, unknown=unknown)


def has_nothing_to_learn(ledger: sqlite3.Connection) -> bool:
    """Tell whether the job that learns from results would find none."""
    return not ledger.execute(
        "SELECT 1 FROM event WHERE id > COALESCE((SELECT event FROM reader WHERE name = 'paces'), 0) LIMIT 1"
    ).fetchone()


def has_nothing_old(ledger: sqlite3.Connection, now: datetime, settings: Settings) -> bool:
    """Tell whether the job that deletes and joins old rows would find none."""
    dated = [f"SELECT 1 FROM {table} WHERE {time} < :rows" for table, time in _DATED]
    dated += ["SELECT 1 FROM tally WHERE hour < :hours", f"SELECT 1 FROM task WHERE {_ENDED_TASK} < :tasks"]
    dated.append("SELECT 1 FROM event WHERE happened_at < :tasks AND task_id NOT IN (SELECT id FROM task)")
    day = timedelta(days=1)
    kept = {
        "rows": min(settings.retention, day),
        "hours": day,
        "tasks": settings.task_retention or 1000 * day,
    }
    moments = {name: str(now - retention) for name, retention in kept.items()}
    return not ledger.execute(f"{' UNION ALL '.join(dated)} LIMIT 1", moments).fetchone()


def has_nothing_ahead(ledger: sqlite3.Connection, now: datetime) -> bool:
    """Tell whether the job that mends times of the future would find none."""
    ahead = (
        "SELECT 1 FROM reconcile_run WHERE started_at > :now UNION ALL SELECT 1 FROM pause WHERE ended_at > :now"
        " UNION ALL SELECT 1 FROM forward WHERE next_attempt_at > :now"
    )
    return not ledger.execute(f"{ahead} LIMIT 1", {"now": str(now)}).fetchone()


def make_jobs(
    pace: Pace,
    process: Process,
    upstream: Upstream,
    rng: random.Random,
    stop: threading.Event,
    run_in: Callable[[str, timedelta], None],
    told: ToldApp,
) -> tuple[list[Job], SteadyClock]:
    """Return the jobs of a reconciler's process, made as the process makes them, and its steady clock."""
    settings, clock = pace.settings, process.clock
    assert isinstance(clock, WorldClock)
    limiter = RateLimiter(settings.reconcile_max_rate, clock)
    caller = Caller(upstream, Threads(process, settings.reconcile_concurrency), limiter, clock)
    lister = replace(caller, threads=Threads(process, 1))
    steady, paces = SteadyClock(clock), Paces(settings.reconcile_grace)
    reconciler = Reconciler(settings, caller, paces, steady, rng, stop)
    discoverer = Discoverer(settings, lister, paces, services.DEFAULT, stop)
    threads, chance = Threads(process, AT_ONCE), random.Random(process.name)
    forwarder = Forwarder(settings, told, clock, chance, stop, threads)
    forward = replace(forward_job(forwarder, run_in), every=_FORWARD_EVERY)
    unclear = unclear_job(UnclearSubmissions(lister, paces, settings.forward_when, stop))
    jobs = list_jobs(settings, upstream, reconciler, [discoverer], paces, clock, run_in, stop=stop)
    if settings.task_retention:
        jobs = [replace(job, every=_PRUNE_EVERY) if job.name == PRUNE else job for job in jobs]
    return [*jobs, forward, unclear], steady


def has_nothing_unclear(ledger: sqlite3.Connection) -> bool:
    """Tell whether it is known of each submission what became of it."""
    return not ledger.execute(f"{UNCLEAR} LIMIT 1").fetchone()
