"""What goes wrong in a world: drawn from its seed, a random half of all kinds in each world.

Each kind draws from a source of its own, so that leaving one out changes the others as little as possible.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass

from tests.simulation.clock import WorldClock

# Kinds with moments: in a call, a callback or a step of a process each is as likely as that world's chance.
MOMENTS = {
    "deaths": (0.001, 0.01),  # before a statement, around a commit, between two steps
    "stops": (0.0005, 0.004),  # a process stands still for seconds or minutes
    "lost": (0.1, 0.6),  # callbacks
    "late": (0.1, 0.5),
    "doubled": (0.1, 0.5),
    "disordered": (0.1, 0.5),
    "progress": (0.2, 0.8),
    "forged": (0.1, 0.5),
    "failing": (0.1, 0.5),  # tasks
    "endless": (0.02, 0.2),
    "mute": (0.02, 0.2),  # upstream has the result and never calls the task finished
    "reveals_late": (0.1, 0.5),
    "unregistered": (0.2, 0.8),
    "of_others": (0.1, 0.4),
    "poison": (0.02, 0.1),  # an id that spoils each call about it, until the calm
    "hangs": (0.02, 0.1),  # calls
    "slow": (0.05, 0.3),
    "busy": (0.05, 0.2),  # 500
    "cut": (0.02, 0.1),
    "throttled": (0.02, 0.1),  # 429
    "stale": (0.05, 0.3),  # items
    "broken_items": (0.05, 0.3),
    "foreign_items": (0.05, 0.3),
    "repeated_items": (0.05, 0.3),
    "short_pages": (0.1, 0.5),
    "torn": (0.2, 0.8),  # of deaths while the spool is written
    "people": (0.2, 1.0),
    "answers_lost": (0.1, 0.5),  # of submissions through the gateway that upstream has taken
}
# Kinds with times: how many a world has at most, and how many seconds each lasts.
TIMES = {
    "account": (2, 60, 5400),  # each call is answered with an error of the account
    "outage": (3, 30, 3600),  # upstream answers 5xx
    "refusals": (1, 60, 1800),  # upstream refuses each call with a code that nobody knows
    "flood": (1, 60, 1800),  # 429 for each call
    "too_large": (1, 300, 3600),  # 413 beyond some tasks
    "database": (3, 5, 900),
    "full_disk": (1, 5, 300),  # of the spool
    "receiver_away": (2, 30, 3600),
    "reconciler_away": (2, 30, 7200),
    "clock_ahead": (1, 600, 7200),
    "clock_behind": (1, 120, 7200),
    "deploys": (3, 1, 20),
}
# Kinds that hold for a whole world.
TRAITS = (
    *("ignored_limits", "forgetful", "second_reconciler", "no_confirmation", "no_room_for_strangers"),
    "short_retention",
)
KINDS = (*MOMENTS, *TIMES, *TRAITS)
# What a kind needs to happen at all.
NEEDS = {"torn": ("deaths", "database"), "full_disk": ("deaths", "database")}


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which one kind of fault lasts, in seconds of the world; `draw` shapes it, from 0 to 1."""

    kind: str
    start: float
    end: float
    draw: float


class Faults:
    """Which faults a world has. None lasts beyond `calm_at`."""

    def __init__(self, seed: int, calm_at: float, without: Collection[str] = ()) -> None:
        rng = random.Random(f"{seed}:kinds")
        drawn = {kind for kind in KINDS if rng.random() < 0.5}
        drawn |= {needed for kind in drawn & NEEDS.keys() for needed in NEEDS[kind]}
        self.kinds = drawn - set(without)
        self.calm_at = calm_at
        self._seed = seed
        self._sources: dict[str, random.Random] = {}
        self._chances = {kind: self.rng(kind).uniform(*bounds) for kind, bounds in MOMENTS.items()}
        self.spans: list[Span] = []
        for kind in TIMES:
            self.spans += self._draw(kind) if kind in self.kinds else []

    def rng(self, kind: str) -> random.Random:
        """Return the source of chance of that name."""
        if kind not in self._sources:
            self._sources[kind] = random.Random(f"{self._seed}:{kind}")
        return self._sources[kind]

    def has(self, trait: str) -> bool:
        return trait in self.kinds

    def happens(self, kind: str, clock: WorldClock) -> bool:
        """Draw whether a fault happens at this moment."""
        if kind not in self.kinds or clock.passed >= self.calm_at:
            return False
        return self.rng(kind).random() < self._chances[kind]

    def lasting(self, kind: str, clock: WorldClock) -> Span | None:
        """Return the span of that kind that lasts now."""
        now = clock.passed
        return next((span for span in self.spans if span.kind == kind and span.start <= now < span.end), None)

    def _draw(self, kind: str) -> list[Span]:
        most, shortest, longest = TIMES[kind]
        rng, spans = self.rng(f"{kind}:times"), []
        for _ in range(rng.randint(1, most)):
            start = rng.uniform(0, self.calm_at)
            if kind == "full_disk":  # alone it does no harm
                start = rng.choice([span.start for span in self.spans if span.kind == "database"] or [start])
            lasts = shortest * (longest / shortest) ** rng.random()
            spans.append(Span(kind, start, min(start + lasts, self.calm_at), rng.random()))
        return spans
