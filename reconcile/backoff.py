"""How long to wait before asking upstream about a silent task again: pure."""

import random
from datetime import timedelta

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
# Anyone with the callback URL can name ids that upstream does not know; such an id costs six look-ups a day.
UNKNOWN_FACTOR = 6
LONGEST_UNKNOWN_WAIT = timedelta(days=1)
JITTER = 0.2


def backoff(attempts: int) -> timedelta:
    """Return the wait after a look-up, when `attempts` came before it in the same silence.

    30 s doubling to 1 h, each within 20 % of it either way, so that tasks submitted together spread out.
    """
    return _jittered(FIRST_WAIT, 2, attempts, LONGEST_WAIT)


def unknown_backoff(attempts: int) -> timedelta:
    """Return the wait after a look-up of a task that only callbacks have named and upstream does not know.

    30 s, 3 min, 18 min and so on to a day, each within 20 % of it either way.
    """
    return _jittered(FIRST_WAIT, UNKNOWN_FACTOR, attempts, LONGEST_UNKNOWN_WAIT)


def _jittered(first: timedelta, factor: int, attempts: int, longest: timedelta) -> timedelta:
    # The exponent is bounded: a task that has been asked about for years must not overflow.
    wait = min(first * factor ** min(attempts, 10), longest)
    return timedelta(seconds=wait.total_seconds() * random.uniform(1 - JITTER, 1 + JITTER))
