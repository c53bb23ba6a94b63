"""Rounds of power failures: callbacks come, the power is cut, Backstop starts again, and the ledger is looked at."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.powercut.checks import Finding, check, check_left, waiting_files
from tests.powercut.cut import Cut
from tests.powercut.disk import Disk
from tests.powercut.machine import Failure, Machine
from tests.powercut.outages import OUTAGES
from tests.powercut.traffic import Acknowledged, Traffic
from tests.processes import wait_until

# How many callbacks are acknowledged at most before an outage, and during it; how long a round waits for them.
_MOST_BEFORE, _MOST_DURING, _WITHIN_SECONDS = 300, 40, 3.0
_MOMENT_SECONDS = 0.02  # so that the power may fail between any two steps of the next callback
_ROUNDS_A_DISK = 10  # then a new machine is installed
_AGAIN, _AGAIN_WITHIN_SECONDS = 0.25, 0.1  # how often the power fails at the start too
_WORKER_KILLED = 0.25  # how often a worker dies before
_MOMENTS = 5  # before each power failure, at which it might have failed as well
_OUTAGE_ENDS = 0.5  # how often it ends before the power fails


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
    losses: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    killed: int = 0  # workers, before the power failed
    acknowledged: int = 0
    spooled: int = 0
    spooled_at_failure: int = 0
    uncovered: int = 0
    moments: int = 0
    missing: int = 0
    corrupt: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.missing and not self.corrupt

    def __str__(self) -> str:
        rows = {
            "rounds": self.rounds,
            **{f"power failures that took back {loss}": count for loss, count in sorted(self.losses.items())},
            **{f"rounds with the database {name}": count for name, count in sorted(self.outages.items())},
            "workers killed before": self.killed,
            "acknowledged callbacks": self.acknowledged,
            "of them through the spool": self.spooled,
            "power failures with deliveries in the spool": self.spooled_at_failure,
            "changes that no fsync had covered": self.uncovered,
            "other moments at which a failure was looked at": self.moments,
            "acknowledged but missing": self.missing,
            "failures that left the database corrupt": self.corrupt,
            "seconds a round": f"{self.seconds / max(self.rounds, 1):.2f}",
        }
        return "\n".join(f"{name:50}{value:>10}" for name, value in rows.items())


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
            self._play(number)
            if not self.report.is_good:
                break
        self.report.seconds = time.monotonic() - began
        return self.report

    def _play(self, number: int) -> None:
        rng = random.Random(f"{self._plan.seed}/{number}")
        told, sent = self._load_and_fail(number, rng), len(self._on_disk)
        self._machine.start(rng)
        while rng.random() < _AGAIN:
            time.sleep(rng.random() * _AGAIN_WITHIN_SECONDS)
            told += f"; again {self._fail(rng, [])}"
            self._machine.start(rng)
        self._note(finding := check(self._machine.disk, self._on_disk))
        self._say(f"{told}: of {sent} acknowledged {finding}")

    def _load_and_fail(self, number: int, rng: random.Random) -> str:
        """Let callbacks come, let the power fail, and say in words what happened."""
        name = rng.choice(list(OUTAGES))
        self.report.outages[name] += 1
        url, body = self._machine.backstop.callback_url, f"{self._plan.seed}-{number}"
        sender = Traffic(url, body, self._machine.place)
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
            failure = self._fail(rng, sender.acknowledged)
        known = [each for each in sender.acknowledged if each.place <= failure.place]
        spooled = sum(each.is_spooled for each in known)
        self._on_disk += known
        self.report.acknowledged += len(known)
        self.report.spooled += spooled
        return f"round {number}, database {name}; {len(known)} acknowledged, {spooled} of them spooled; {failure}"

    def _fail(self, rng: random.Random, latest: Sequence[Acknowledged]) -> Failure:
        def look(place: int, disk: Disk) -> None:
            """Look at what would be left if the power had failed at this place in the record."""
            self._machine.leave(disk, Cut.choose(disk, rng))
            known = [*self._on_disk, *(each for each in latest if each.place <= place)]
            self._note(finding := check_left(self._machine.copy_left(), known))
            self.report.moments += 1
            if not finding.is_good:
                self._say(f"At an earlier moment: of {len(known)} acknowledged {finding}")

        failure = self._machine.fail(rng, _MOMENTS, look)
        self.report.losses[failure.cut.loss.value] += 1
        self.report.uncovered += failure.uncovered
        self.report.spooled_at_failure += bool(waiting_files(self._machine.left))
        return failure

    def _note(self, finding: Finding) -> None:
        self.report.missing += finding.missing
        self.report.corrupt += bool(finding.corrupt)
        if not finding.is_good:
            self._machine.keep_left()


def _wait_for_more(sender: Traffic, rng: random.Random, most: int) -> None:
    """Wait for acknowledgements, as many as chance wants, and a moment longer."""
    enough = len(sender.acknowledged) + rng.randint(1, most)
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: len(sender.acknowledged) >= enough, _WITHIN_SECONDS, every=0.005)
    time.sleep(rng.random() * _MOMENT_SECONDS)
