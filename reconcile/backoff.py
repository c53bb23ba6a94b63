"""How long to wait before asking upstream about a silent task again: pure."""

import random
from datetime import timedelta

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
JITTER = 0.2


def backoff(attempts: int) -> timedelta:
    """Return the wait after a look-up, when `attempts` came before it in the same silence.

    30 s doubling to 1 h, each within 20 % of it either way, so that tasks submitted together spread out.
    """
    # The exponent is bounded: a task that has been asked about for years must not overflow.
    wait = min(FIRST_WAIT * 2 ** min(attempts, 10), LONGEST_WAIT)
    return timedelta(seconds=wait.total_seconds() * random.uniform(1 - JITTER, 1 + JITTER))
