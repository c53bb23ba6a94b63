"""Tells from the reconciler's runs whether upstream answers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.models import Pause, ReconcileRun

# Single failures are normal, and the next look-up makes up for them. Upstream is failing after both of these.
FAILING_AFTER = timedelta(minutes=2)
FAILING_AFTER_RUNS = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """How upstream answers look-ups. `state` is unknown, answering, failing or paused.

    `failing_since` is when the present failure began. One failed run is enough to set it.
    """

    state: str
    last_answered_at: datetime | None = None
    failing_since: datetime | None = None


def standing_of(
    now: datetime, pause: Pause | None, answered: ReconcileRun | None, failing: Sequence[ReconcileRun]
) -> Standing:
    """Return upstream's standing.

    `answered` is the newest run that upstream answered. `failing` are the first runs since then that called
    upstream, oldest first: at least FAILING_AFTER_RUNS of them, if there are so many.
    """
    return Standing(
        _state(now, pause, answered, failing),
        last_answered_at=answered.finished_at if answered else None,
        failing_since=failing[0].started_at if failing else None,
    )


def _state(
    now: datetime, pause: Pause | None, answered: ReconcileRun | None, failing: Sequence[ReconcileRun]
) -> str:
    if pause:
        return "paused"
    if len(failing) >= FAILING_AFTER_RUNS and now - failing[0].started_at >= FAILING_AFTER:
        return "failing"
    return "answering" if answered else "unknown"
