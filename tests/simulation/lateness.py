"""How late lost results are recovered, with the real ledger and reconciler under virtual time.

`make simulate ARGS=--lateness` plays mixes of tasks, prints a table for docs/performance.md, and draws its plot.
"""

import logging
import math
import random
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from receiver.clock import to_unix
from receiver.config import Settings
from receiver.ledger import record, store
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import database
from receiver.ledger.pace import TaskKind
from receiver.ledger.paces import Paces
from receiver.ledger.registration import Registration
from receiver.ledger.timetable import LONGEST_WAIT, Timetable
from receiver.upstream.services import Service
from reconcile.calls import Caller
from reconcile.jobs import RECONCILE, Job, list_jobs
from reconcile.pacemaker import SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler
from tests.clocks import VirtualClock, VirtualThreads
from tests.factories import body, finished_item, item
from tests.simulation.lateness_plot import draw
from tests.sources import ROOT

PLOT = ROOT / "docs" / "lateness.svg"
_BEGIN = datetime(2026, 1, 31, 12)
_LATENCY = 0.05  # seconds an answer of upstream takes
_FIRST_AFTER, _THEN_AFTER = timedelta(minutes=3), timedelta(seconds=30)
_CALM = 4 * 3600.0  # seconds after the last submission


@dataclass(frozen=True)
class Kind:
    """A kind of task: its median time in seconds, and how far others are from that (sigma of a lognormal)."""

    type: str
    mode: str
    median: float
    sigma: float


TURBO = Kind("imagine", "turbo", 20, 0.4)
FAST = Kind("imagine", "fast", 60, 0.5)
RELAX = Kind("imagine", "relax", 300, 0.6)
VIDEO = Kind("videos", "", 150, 0.5)
QUICK = Kind("describe", "", 6, 0.4)
SLOW = Kind("videos", "long", 900, 0.8)


@dataclass(frozen=True)
class Mix:
    """What is submitted: `rate` tasks an hour for `hours`, of which so many callbacks are lost.

    Halfway somebody who knows the callback URL posts results of `forged` made-up ids within a minute. The gateway
    knows each task's mode from the beginning. Of others upstream tells it at the first look-up. `by_fixed_times`:
    nothing is learned.
    """

    name: str
    rate: float
    lost: float
    hours: float
    kinds: Sequence[Kind] = (TURBO, FAST, FAST, RELAX, VIDEO)
    forged: int = 0
    by_gateway: bool = False
    by_fixed_times: bool = False
    label: str = ""  # in the plot


MIXES = (
    Mix("30 an hour, 30 % lost", 30, 0.3, 12, label="30 tasks an hour"),
    Mix("600 an hour, 2 % lost", 600, 0.02, 6),
    Mix("600 an hour, 30 % lost", 600, 0.3, 6, label="600 tasks an hour"),
    Mix(
        "… with a first look-up after 3 min and waits that double",
        600,
        0.3,
        6,
        by_fixed_times=True,
        label="600 tasks an hour, at fixed times",
    ),
    Mix("6,000 an hour, 30 % lost", 6000, 0.3, 2),
    Mix("60,000 an hour, 30 % lost", 60_000, 0.3, 0.4, label="60,000 tasks an hour"),
    Mix("… submitted through the gateway", 60_000, 0.3, 0.4, by_gateway=True),
    Mix("600 an hour, all lost", 600, 1.0, 3),
    Mix("600 an hour of 6 s to 15 min", 600, 0.3, 6, (QUICK, TURBO, RELAX, SLOW)),
    Mix("200 an hour of videos", 200, 0.3, 12, (VIDEO,)),
    Mix("600 an hour, 30 % lost, for one hour", 600, 0.3, 1),
    Mix("… with 20,000 forged ids within a minute", 600, 0.3, 1, forged=20_000),
)


@dataclass
class Figures:
    """What came of a mix. `late` are seconds from upstream's end of a lost task to our knowing its result."""

    tasks: int
    late: Mapping[Kind, list[float]]
    first: Mapping[Kind, list[float]]  # of the first 50 tasks of a kind
    calls: int
    looked: int
    hours: float
    confirmed: list[float]  # seconds from a callback to its confirmation

    @property
    def all_late(self) -> list[float]:
        return [seconds for kind in self.late.values() for seconds in kind]


class _Doubling(Timetable):
    """Asks first after three minutes, then 30 s later, and each time after twice the wait."""

    def first_wait(self, kind: TaskKind, age: timedelta = timedelta(0)) -> timedelta:
        return max(_FIRST_AFTER - age, timedelta(0))

    def wait(self, kind: TaskKind, age: timedelta, progress: float | None = None) -> timedelta:
        return min(max(age - _FIRST_AFTER + _THEN_AFTER, _THEN_AFTER), LONGEST_WAIT)


class _FixedTimes(Paces):
    """What a reconciler knows that learns nothing."""

    def __init__(self) -> None:
        self.timetable = _Doubling(_FIRST_AFTER)

    def read(self) -> None:
        """Read nothing."""


class _World:
    """The reconciler's jobs, an application that submits, and an upstream that loses callbacks."""

    clock_ahead = None  # its answers have no Date

    def compare_clocks(self) -> None:
        """Tell nothing."""

    def __init__(self, mix: Mix, settings: Settings, seed: int) -> None:
        self.rng = random.Random(seed)
        self.mix, self.clock = mix, VirtualClock(_BEGIN)
        self.truth: dict[str, tuple[Kind, datetime, datetime, bool]] = {}
        self.known_at: dict[str, datetime] = {}
        self.called_at: dict[str, datetime] = {}
        self.confirmed: list[float] = []
        self.calls = self.looked = 0
        limiter = RateLimiter(settings.reconcile_max_rate, self.clock)
        caller = Caller(self, VirtualThreads(self.clock, _LATENCY), limiter, self.clock)  # type: ignore[arg-type]
        self.paces = _FixedTimes() if mix.by_fixed_times else Paces(settings.reconcile_grace)
        reconciler = Reconciler(
            settings, caller, self.paces, SteadyClock(self.clock), random.Random(seed), threading.Event()
        )
        self.jobs = list_jobs(settings, self, reconciler, (), self.paces, self.clock, lambda *_: None)  # type: ignore[arg-type]

    def retrieve_batch(self, service: Service, ids: list[str], before_page: Any) -> list[Any]:
        """Answer as upstream does, with whole items for what it knows."""
        self.calls, self.looked, now = self.calls + 1, self.looked + len(ids), self.clock.now()
        return [self._item(task_id, now) for task_id in ids if task_id in self.truth]

    def _item(self, task_id: str, now: datetime) -> dict[str, Any]:
        kind, began_at, ended_at, _ = self.truth[task_id]
        facts = {"type": kind.type, "created_at": to_unix(began_at), "request": {"mode": kind.mode}}
        if now < ended_at:
            return item(task_id, None, **facts)
        self.known_at.setdefault(task_id, now)
        if called_at := self.called_at.pop(task_id, None):
            self.confirmed.append((now - called_at).total_seconds())
        return finished_item(task_id) | facts | {"finished_at": to_unix(ended_at)}

    def submit(self) -> None:
        """Submit a task, register it, and plan its end and the next submission."""
        now, task_id = self.clock.now(), f"t{len(self.truth)}"
        kind = self.rng.choice(self.mix.kinds)
        seconds = kind.median * self.rng.lognormvariate(0, kind.sigma)
        is_lost = self.rng.random() < self.mix.lost
        self.truth[task_id] = (kind, now, now + timedelta(seconds=seconds), is_lost)
        mode = kind.mode if self.mix.by_gateway else None
        store.register(
            [Registration(task_id, type=kind.type, mode=mode)], now, timetable=self.paces.timetable
        )
        if not is_lost:
            self.clock.plan(seconds, lambda: self._call_back(task_id))
        wait = self.rng.expovariate(self.mix.rate / 3600)
        if self.clock.monotonic() + wait < self.mix.hours * 3600:
            self.clock.plan(wait, self.submit)

    def _call_back(self, task_id: str) -> None:
        now = self.clock.now()
        self.known_at.setdefault(task_id, now)
        self.called_at[task_id] = now
        self._post(task_id)

    def _post(self, task_id: str) -> None:
        payload = body(task_id)
        callback = store.Callback(body=payload, size=len(payload))
        store.record(callback, self.clock.now(), timetable=self.paces.timetable, confirm=True)

    def live(self) -> None:
        """Run the jobs when they are due, until all results are known."""
        self.clock.plan(0, self.submit)
        for number in range(self.mix.forged):
            moment = self.mix.hours * 1800 + 60 * number / self.mix.forged
            self.clock.plan(moment, partial(self._post, f"forged-{number}"))
        for job in self.jobs:
            if job.name != RECONCILE:
                self._run_in(job.first_in, job)
        (reconcile,) = (job for job in self.jobs if job.name == RECONCILE)
        while not self._is_over():
            reconcile.run()
            self.clock.wait(reconcile.every.total_seconds())

    def _run_in(self, wait: timedelta, job: Job) -> None:
        """Run a job every so often, also during a run of the reconciler: each has a thread of its own."""

        def run() -> None:
            job.run()
            self._run_in(job.every, job)

        self.clock.plan(wait.total_seconds(), run)

    def _is_over(self) -> bool:
        seconds = self.clock.monotonic() - self.mix.hours * 3600
        return seconds > _CALM or (seconds > 0 and len(self.known_at) == len(self.truth))


def play(mix: Mix, seed: int = 1, **settings: object) -> Figures:
    """Play a mix on a fresh ledger and return its figures."""
    with (
        patch.object(record, "_commits", _Direct()),  # no thread beside ours
        tempfile.TemporaryDirectory(prefix="backstop-lateness-", dir=_memory()) as directory,
    ):
        url = f"sqlite:///{directory}/ledger.db"
        init_database(url)
        try:
            migrate()
            secrets = {"CALLBACK_TOKEN": "x" * 20, "API_KEY": "y" * 20, "ACEDATACLOUD_API_TOKEN": "z"}
            environ = {
                "DATABASE_URL": url,
                **secrets,
                **{name: str(value) for name, value in settings.items()},
            }
            world = _World(mix, Settings.from_env(environ), seed)
            world.live()
        finally:
            database.obj.close_all()
    return _figures(world)


class _Direct:
    def commit(self, entry: Any) -> Any:
        return record._write([entry])[0]


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _figures(world: _World) -> Figures:
    late: dict[Kind, list[float]] = {}
    first: dict[Kind, list[float]] = {}
    seen: dict[Kind, int] = {}
    for task_id, (kind, _, ended_at, is_lost) in world.truth.items():
        seen[kind] = seen.get(kind, 0) + 1
        known_at = world.known_at.get(task_id)
        if is_lost:
            seconds = (known_at - ended_at).total_seconds() if known_at else math.inf
            late.setdefault(kind, []).append(seconds)
            if seen[kind] <= 50:
                first.setdefault(kind, []).append(seconds)
    hours = world.clock.monotonic() / 3600
    return Figures(len(world.truth), late, first, world.calls, world.looked, hours, world.confirmed)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies; 0 for none."""
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


def row(mix: Mix, figures: Figures) -> str:
    """Return a mix's row of the table."""
    quantiles = " | ".join(f"{quantile(figures.all_late, share):,.0f}" for share in (0.5, 0.9, 0.99))
    worst = max((quantile(values, 0.5) for values in figures.late.values()), default=0.0)
    new = quantile([seconds for kind in figures.first.values() for seconds in kind], 0.5)
    calls = figures.calls / max(figures.hours, mix.hours)
    return (
        f"| {mix.name} | {quantiles} | {worst:,.0f} | {new:,.0f} | {quantile(figures.confirmed, 0.5):.1f}"
        f" | {calls:,.0f} | {figures.looked / figures.tasks:.1f} |"
    )


HEAD = """| tasks | p50 s | p90 s | p99 s | slowest kind's p50 s | first 50 of a kind, p50 s | confirmed after s | calls an hour | look-ups a task |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def print_table(mixes: Sequence[Mix] = MIXES, seed: int = 1) -> None:
    """Play the mixes and print their table, a row as soon as it is known. Then draw those that have a label."""
    logging.disable(logging.CRITICAL)
    print(HEAD)
    curves: list[tuple[str, Sequence[float]]] = []
    for mix in mixes:
        figures = play(mix, seed)
        print(row(mix, figures), flush=True)
        if mix.label:
            curves.append((mix.label, figures.all_late))
    PLOT.write_text(draw(curves))
    print(f"The plot is in {PLOT}.")
