"""Rounds of power failures: callbacks come, the power is cut, Backstop starts again, and the ledger is looked at."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.powercut.checks import Finding, check, waiting_files
from tests.powercut.machine import Machine
from tests.powercut.outages import OUTAGES
from tests.powercut.traffic import Acknowledged, Traffic
from tests.processes import wait_until

# Callbacks that are acknowledged before an outage, and then during it; a cut waits no longer for them.
_MOST_BEFORE, _MOST_DURING, _WITHIN_SECONDS = 300, 40, 3.0
_MOMENT_SECONDS = 0.02  # so that a cut may fall between any two steps of the next callback
_ROUNDS_A_DISK = 10  # then a new machine is installed
_AGAIN, _AGAIN_WITHIN_SECONDS = 0.25, 0.1  # how often the power fails at the start too
_WORKER_KILLED = 0.25
_OUTAGE_ENDS = 0.5  # how often before the cut


@dataclass(frozen=True)
class Plan:
    """What to do. `skip_fsync`, a pattern of paths, and `synchronous` plant faults."""

    rounds: int = 200
    seed: int = 1
    skip_fsync: str = ""
    synchronous: str = ""


@dataclass
class Report:
    """The outcome. `missing` and `corrupt` must be 0."""

    rounds: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    killed: int = 0  # workers, before the power failed
    acknowledged: int = 0
    spooled: int = 0
    spooled_at_cut: int = 0
    uncovered: int = 0
    missing: int = 0
    corrupt: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.missing and not self.corrupt

    def __str__(self) -> str:
        rows = {
            "rounds": self.rounds,
            **{f"power failures that took back {loss}": count for loss, count in sorted(self.cuts.items())},
            **{f"rounds with the database: {name}": count for name, count in sorted(self.outages.items())},
            "workers killed before": self.killed,
            "acknowledged callbacks": self.acknowledged,
            "of them through the spool": self.spooled,
            "power failures with deliveries in the spool": self.spooled_at_cut,
            "changes that no fsync had covered": self.uncovered,
            "acknowledged but missing": self.missing,
            "rounds after which the database is corrupt": self.corrupt,
            "seconds a round": f"{self.seconds / max(self.rounds, 1):.2f}",
        }
        return "\n".join(f"{name:46}{value:>10}" for name, value in rows.items())


class PowerCuts:
    """All rounds of a plan on one machine. `say` gets a line about each."""

    def __init__(self, plan: Plan, machine: Machine, say: Callable[[str], None]) -> None:
        self.report = Report()
        self._plan = plan
        self._machine = machine
        self._say = say
        self._on_disk: list[Acknowledged] = []

    def run(self) -> Report:
        """Run the rounds, until one finds a fault."""
        began = time.monotonic()
        for number in range(1, self._plan.rounds + 1):
            if number % _ROUNDS_A_DISK == 1:
                self._machine.install()
                self._on_disk.clear()
            self.report.rounds = number
            if not self._play(number).is_good:
                break
        self.report.seconds = time.monotonic() - began
        return self.report

    def _play(self, number: int) -> Finding:
        rng = random.Random(f"{self._plan.seed}/{number}")
        told, sent = self._load_and_cut(number, rng), len(self._on_disk)
        self._machine.start(rng)
        while rng.random() < _AGAIN:
            time.sleep(rng.random() * _AGAIN_WITHIN_SECONDS)
            told += f"; again {self._cut(rng)}"
            self._machine.start(rng)
        finding = check(self._machine.database, self._machine.spool, self._on_disk)
        self.report.missing += finding.missing
        self.report.corrupt += bool(finding.corrupt)
        problem = f", CORRUPT: {finding.corrupt}" if finding.corrupt else ""
        self._say(f"{told}: of {sent} acknowledged {finding.missing} are missing{problem}")
        return finding

    def _load_and_cut(self, number: int, rng: random.Random) -> str:
        """Let callbacks come, cut the power, and say in words what happened."""
        name = rng.choice(list(OUTAGES))
        self.report.outages[name] += 1
        sender = Traffic(self._machine.backstop.callback_url, f"{self._plan.seed}-{number}")
        with sender, contextlib.ExitStack() as outage:
            _wait_for_more(sender, rng, _MOST_BEFORE)
            if rng.random() < _WORKER_KILLED:
                self._machine.kill_worker(rng)
                self.report.killed += 1
            outage.enter_context(self._machine.outage(OUTAGES[name]))
            _wait_for_more(sender, rng, _MOST_DURING)
            if rng.random() < _OUTAGE_ENDS:
                outage.close()
                _wait_for_more(sender, rng, _MOST_DURING)
            told = self._cut(rng)
        spooled = sum(each.is_spooled for each in sender.acknowledged)
        self._on_disk += sender.acknowledged
        self.report.acknowledged += len(sender.acknowledged)
        self.report.spooled += spooled
        return f"round {number}, database: {name}; {len(sender.acknowledged)} acknowledged, {spooled} of them spooled; {told}"

    def _cut(self, rng: random.Random) -> str:
        cut, uncovered = self._machine.cut(rng)
        self.report.cuts[cut.loss.value] += 1
        self.report.uncovered += uncovered
        self.report.spooled_at_cut += bool(waiting_files(self._machine.spool))
        return f"{cut.loss.value} of {uncovered} changes taken back, sectors of {cut.sector}"


def _wait_for_more(sender: Traffic, rng: random.Random, most: int) -> None:
    """Wait for acknowledgements, as many as chance wants, and a moment longer."""
    enough = len(sender.acknowledged) + rng.randint(1, most)
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: len(sender.acknowledged) >= enough, _WITHIN_SECONDS, every=0.005)
    time.sleep(rng.random() * _MOMENT_SECONDS)
