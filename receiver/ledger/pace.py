"""How long tasks of one kind take: a small histogram, in which recent results count more. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

# The buckets' upper bounds in seconds. Each is a fifth wider than the one before; the last is 2.5 days.
BOUNDS = tuple(4.0 * 2 ** (step / 4) for step in range(64))
# A result's weight halves with each 280 that come after it: what upstream changes is known soon.
_REMEMBERED = 400


class TaskKind(NamedTuple):
    """What tells how long a task takes. "" where it is not known."""

    service: str
    type: str = ""
    mode: str = ""

    @property
    def wider(self) -> "tuple[TaskKind, ...]":
        """Return the kind itself and the wider ones that hold it, the narrowest first."""
        kinds = (self, TaskKind(self.service, self.type), TaskKind(self.service))
        return tuple(dict.fromkeys(kinds))


@dataclass(frozen=True, slots=True)
class Pace:
    """The weights of results by how long their tasks took, one for each of BOUNDS."""

    weights: tuple[float, ...] = (0.0,) * len(BOUNDS)

    def with_results(self, seconds: Iterable[float]) -> "Pace":
        """Return the pace with more results; `seconds` is how long each took, the latest last."""
        weights = list(self.weights)
        for length in seconds:
            weights = [weight * (1 - 1 / _REMEMBERED) for weight in weights]
            weights[min(bisect_right(BOUNDS, length), len(BOUNDS) - 1)] += 1
        return Pace(tuple(weights))

    @property
    def results(self) -> float:
        """Return the weight of all results. It is below their number, and _REMEMBERED at most."""
        return sum(self.weights)

    def finished_by(self, age: float) -> float:
        """Return the weight of the results that came by that age, in seconds."""
        at = min(bisect_right(BOUNDS, age), len(BOUNDS) - 1)
        low, high = _bounds(at)
        within = min((age - low) / (high - low), 1.0) * self.weights[at]
        return sum(self.weights[:at]) + within

    def age_when(self, finished: float) -> float:
        """Return the age in seconds by which so much weight has finished."""
        sums: Sequence[float] = list(accumulate(self.weights))
        at = next((place for place, reached in enumerate(sums) if reached >= finished), len(BOUNDS) - 1)
        low, high = _bounds(at)
        weight = self.weights[at]
        share = (finished - (sums[at] - weight)) / weight if weight else 1.0
        return low + (high - low) * min(max(share, 0.0), 1.0)

    def quantile(self, share: float) -> float:
        """Return the age in seconds by which that share of all results came."""
        return self.age_when(share * self.results)


def _bounds(place: int) -> tuple[float, float]:
    return (BOUNDS[place - 1] if place else 0.0), BOUNDS[place]
