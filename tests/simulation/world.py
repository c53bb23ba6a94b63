"""One world, from its seed: who lives in it, what happens when, its faults until the calm, and the calm."""

import sqlite3
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from receiver.ledger.models import database
from tests.simulation import checks, pruned
from tests.simulation.application import Application
from tests.simulation.calm import is_idle, is_over
from tests.simulation.clock import Process, WorldClock, process_now
from tests.simulation.deaths import Deaths
from tests.simulation.faults import Faults, Span
from tests.simulation.receiver import Web
from tests.simulation.reconciler import ReconcilerProcess
from tests.simulation.schedule import Pace
from tests.simulation.strangers import People, Strangers
from tests.simulation.told import ToldApp
from tests.simulation.trace import Trace
from tests.simulation.upstream import Account
from tests.simulation.watched import bind

NOON = datetime(2026, 1, 31, 12)
_LOOK_EVERY_SECONDS = 600.0


class World:
    """Everything there is, and the processes that live and die in it."""

    def __init__(self, seed: int, directory: Path, without: Collection[str] = ()) -> None:
        self.seed = seed
        self.directory = directory
        self.clock = WorldClock(NOON)
        self.faults = Faults(seed, calm_at=_calm_at(seed), without=without)
        self.rng = self.faults.rng("world")
        self.trace = Trace(self.clock)
        self.account = Account(self.clock, self.faults, self.trace)
        self.told = ToldApp(self.clock, self.faults, self.trace)
        self.confirms = not self.faults.has("no_confirmation")
        self.prunes = self.faults.has("short_retention")
        self.pace = Pace.draw(self.rng, directory, self.confirms, self.prunes)
        self.deaths = Deaths(seed, self.faults, self.trace)
        self.ledger = bind(directory, self.deaths, self.clock.monotonic)
        self.ledger.outage = self._outage
        self.web: Web | None = None
        self.reconcilers: dict[str, ReconcilerProcess] = {}
        self.lives = 0
        self._idle_at: dict[str, int] = {}  # the ledger's commits, by job
        self.is_over = False
        self.is_calm = False
        self.beside = self._connect()  # looks into the ledger beside the product
        self.lost_leases: list[str] = []
        self.application = Application(
            seed, self.clock, self.faults, self.account, self.trace, lambda: self.web
        )
        self.clock.before_waiting = _require_no_connection

    def live(self) -> None:
        """Live through the faults, and then through as much calm as the tasks need."""
        self._plan()
        self.clock.run(self.faults.calm_at)
        self.trace.note("the calm begins")
        limit = self.faults.calm_at + self.pace.calm_at_most
        self.is_calm = True
        # As a person would do when the app is well again. The waits have tests of their own.
        self.beside.execute(
            "UPDATE forward SET next_attempt_at = created_at WHERE status = 'pending' AND leased_until IS NULL"
        )
        self._run_until_over(limit)
        if retention := self.pace.settings.task_retention:
            self.clock.run(retention.total_seconds() + pruned.LATEST_SECONDS)
            self._run_until_over(limit)  # a discovery may have found a task again that was deleted
        self.is_over = True
        self._end_reconcilers()
        self.clock.run(60)
        self.application.read_events()
        self.clock.run(60)

    def _run_until_over(self, limit: float) -> None:
        while self.clock.passed < limit and not is_over(self, self.beside):
            self.clock.run(_LOOK_EVERY_SECONDS)

    def end(self) -> None:
        """End all processes, so that no strand outlives its world."""
        for process in (self.web, *self.reconcilers.values()):
            if process:
                process.bury()

    def _connect(self) -> sqlite3.Connection:
        ledger = sqlite3.connect(self.directory / "backstop.db", isolation_level=None)
        ledger.row_factory = sqlite3.Row
        return ledger

    def _plan(self) -> None:
        calm_at, faults = self.faults.calm_at, self.faults
        self._start_web()
        self._start_reconciler("reconciler 1")
        if faults.has("second_reconciler"):
            self._start_reconciler("reconciler 2")
        if faults.has("forgetful"):
            self.account.forgets_after = self.rng.uniform(3600, 4 * 3600)
        for _ in range(self.rng.randint(8, 24)):
            self.clock.plan(self.rng.uniform(0, calm_at), self.application.submit)
        strangers = Strangers(self.seed, faults, self.account, self.application)
        people = People(faults, self.clock, self.account, lambda: self.web)
        for kind, act, most in (("forged", strangers.post, 12), ("people", people.act, 8)):
            rng = faults.rng(f"{kind}:acts")
            for _ in range(rng.randint(1, most) if faults.has(kind) else 0):
                self.clock.plan(rng.uniform(0, calm_at), act)
        for hour in range(1, int(calm_at / 1800)):
            self.clock.plan(hour * 1800, self.application.read_events)
        for span in faults.spans:
            self._plan_span(span)
            if span.kind == "database":  # or the spool would hardly ever hold several
                for _ in range(self.rng.randint(0, 8)):
                    self.clock.plan(self.rng.uniform(span.start, span.end), strangers.post_junk)

    def _plan_span(self, span: Span) -> None:
        begin = {
            "receiver_away": self._end_web,
            "reconciler_away": self._end_reconcilers,
            "clock_ahead": lambda: self._set_clock(timedelta(seconds=90 * 3000**span.draw)),
            "clock_behind": lambda: self._set_clock(-timedelta(seconds=90 * 3000**span.draw)),
            "deploys": self._deploy,
        }.get(span.kind)
        self.clock.plan(
            span.start, lambda: self.trace.note(f"{span.kind} begins, for {span.end - span.start:.0f} s")
        )
        if begin:
            self.clock.plan(span.start, begin)
        if span.kind.startswith("clock_"):
            self.clock.plan(span.end, lambda: self._set_clock(timedelta(0)))

    def _is_idle(self, job: str) -> bool:
        """Tell whether a job would find nothing to do, and can be left out: in the calm, or if it comes often."""
        if job == "forward":
            return is_idle(self, self.beside, job)
        comes_often = job in {"learn", "follow", "unclear"}
        if not self.is_calm and not comes_often and job not in ("prune", "mend"):
            return False
        if self.rng.random() < (0.02 if comes_often else 0.1):
            return False  # it may well find nothing
        if not comes_often:
            return is_idle(self, self.beside, job)
        # What comes often depends on the ledger alone, and not on the time.
        if self._idle_at.get(job) != self.ledger.commits:
            if not is_idle(self, self.beside, job):
                return False
            self._idle_at[job] = self.ledger.commits
        return True

    def _end_web(self) -> None:
        if self.web:
            self.web.die()

    def _end_reconcilers(self) -> None:
        for process in list(self.reconcilers.values()):
            process.die()

    def _set_clock(self, ahead: timedelta) -> None:
        self.trace.note(f"the wall clock is {ahead.total_seconds():.0f} s ahead")
        self.clock.ahead = ahead
        for reconciler in self.reconcilers.values():
            self.clock.plan(self.rng.random(), reconciler.look_at_clock)

    def _start_web(self) -> None:
        if self.faults.lasting("receiver_away", self.clock):
            self.clock.plan(10, self._start_web)
            return
        keeps = not self.faults.has("no_room_for_strangers")
        self.web = Web(self.clock, self._on_death, self.directory / "spool", self.confirms, keeps)

    def _start_reconciler(self, name: str) -> None:
        if self.faults.lasting("reconciler_away", self.clock):
            self.clock.plan(10, lambda: self._start_reconciler(name))
            return
        self.lives += 1
        rng = self.faults.rng(f"life {self.lives}")
        life = f"{name}, life {self.lives}"
        process = ReconcilerProcess(
            life, self.clock, self._on_death, self.pace, self.account, rng, self._is_idle, self.told
        )
        self.reconcilers[name] = process

    def _on_death(self, process: Process) -> None:
        after = self.rng.expovariate(1 / 15)
        if process is self.web:
            self.web = None
            self.clock.plan(after, self._start_web)
            return
        name = process.name.partition(",")[0]
        del self.reconcilers[name]
        if not self.is_over:
            self.clock.plan(after, lambda: self._start_reconciler(name))

    def _deploy(self, tries: int = 600) -> None:
        """Stop the reconcilers, preferably while a call takes long: then claims are left to be released."""
        takes_long = any(ids and self.clock.passed - at > 3 for at, _, ids in self.account.in_flight)
        if tries and not takes_long and self.clock.passed < self.faults.calm_at:
            self.clock.plan(1, partial(self._deploy, tries - 1))
            return
        for process in self.reconcilers.values():
            process.stop.set()
            calls = [ids for _, caller, ids in self.account.in_flight if caller == process.name]
            asked = frozenset[str]().union(*calls)
            self.clock.plan(1, partial(self._await_stop, process, self.clock.passed, asked, self.lives))

    def _await_stop(
        self, process: ReconcilerProcess, since: float, asked: frozenset[str], lives: int
    ) -> None:
        if not process.is_alive:
            return
        if not process.has_stopped and self.clock.passed < since + 600:
            self.clock.plan(1, partial(self._await_stop, process, since, asked, lives))
            return
        self.trace.note(f"{process.name} has stopped")
        self.lost_leases += checks.left_leased(self, asked, since, lives)
        process.die()

    def _outage(self, what: str) -> str | None:
        span = process_now() and self.faults.lasting("database", self.clock)
        if not span:
            return None
        if span.draw < 0.4:
            return "disk I/O error"
        if span.draw < 0.7:
            return "database or disk is full" if what[:6] in _WRITES else None
        return "disk I/O error" if what == "COMMIT" else None


def _require_no_connection() -> None:
    if not database.obj.is_closed():
        raise AssertionError("a strand waits while it holds a connection to the database")


def _calm_at(seed: int) -> float:
    return 3600.0 * (1 + seed % 3)


_WRITES = {"INSERT", "UPDATE", "DELETE", "BEGIN"}
