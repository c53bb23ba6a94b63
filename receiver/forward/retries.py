"""When a forward is sent again, and when it is given up. Pure."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.forward.attempt import Outcome

# The waits after the first counted attempt, the second and so on. The last one repeats.
WAITS = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
)
GIVE_UP_AFTER = timedelta(days=8)  # of trying: while the endpoint is held, this clock stands still
# A clock that was wrong, or a reconciler that was away, makes a forward old that was hardly tried. By WAITS
# so many attempts take a day and a half.
ENOUGH_ATTEMPTS = 10
_SHORTEST_REST = timedelta(seconds=60)  # for a target that is overloaded
_LONGEST_REST = timedelta(hours=24)  # that a target can ask for
_JITTER = 0.1  # of the wait, added


@dataclass(frozen=True, slots=True)
class Retry:
    """What happens to a forward after an attempt that failed."""

    at: datetime | None  # when the next attempt is due; None means that the forward is given up
    counted: int  # the attempts that count


def next_attempt(
    outcome: Outcome, attempts: int, counted: int, tried_for: timedelta, now: datetime, rng: random.Random
) -> Retry:
    """Return when to try again after a failed attempt.

    `attempts` tells how many there were, this one included, and `counted` those that counted before it.
    `tried_for` is the time since the first of all began, without that in which the endpoint was held.
    """
    counts = outcome.retry_after is None
    counted_now = counted + 1 if counts else counted
    if tried_for >= GIVE_UP_AFTER and attempts >= ENOUGH_ATTEMPTS:
        return Retry(None, counted_now)
    wait = _wait(outcome, counted)
    return Retry(now + wait * (1 + _JITTER * rng.random()), counted_now)


def _wait(outcome: Outcome, counted: int) -> timedelta:
    if outcome.retry_after is not None:
        return min(max(outcome.retry_after, _SHORTEST_REST), _LONGEST_REST)
    wait = WAITS[min(counted, len(WAITS) - 1)]
    return max(wait, _SHORTEST_REST) if outcome.kind in ("timeout", "throttled") else wait
