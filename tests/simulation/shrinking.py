"""Finds the few faults that a failure needs: turns kinds off one by one while the world still fails."""

from collections.abc import Callable, Collection

from tests.simulation.faults import KINDS
from tests.simulation.living import Outcome, run


def shrink(
    failed: Outcome, without: Collection[str] = (), live: Callable[..., Outcome] = run
) -> tuple[Outcome, list[str]]:
    """Return the outcome with the fewest kinds of faults that still fails, and the kinds left out."""
    left_out, smallest = list(without), failed
    for kind in KINDS:
        if kind not in smallest.kinds:
            continue
        outcome = live(failed.seed, [*left_out, kind])
        if _fails_alike(outcome, failed):
            smallest = outcome
            left_out.append(kind)
    return smallest, left_out


def _fails_alike(outcome: Outcome, failed: Outcome) -> bool:
    """Tell whether a world fails for the same reason: leaving a fault out may bring up another one."""
    return bool({one.what for one in outcome.failures} & {one.what for one in failed.failures[:1]})
