"""Tells from the reconciler's runs whether it is at work, and whether upstream answers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.clock import SKEW
from receiver.ledger.models import Pause, ReconcileRun

# Single failures are normal, and the next look-up makes up for them. Upstream is failing after both of these.
FAILING_AFTER = timedelta(minutes=2)
FAILING_AFTER_RUNS = 3
_SILENT_AFTER_INTERVALS = 3
# An idle reconciler gives a sign of life every 15 s; a deployment takes longer.
_SILENT_AFTER_AT_LEAST = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Standing:
    """How upstream answers look-ups. `state` is unknown, answering, failing or paused.

    `failing_since` is when the present failure began. One failed run is enough to set it.
    """

    state: str
    last_answered_at: datetime | None = None
    failing_since: datetime | None = None


def is_silent(seen_at: datetime | None, interval: timedelta, now: datetime) -> bool:
    """Tell whether the reconciler, whose runs begin an `interval` apart, has written nothing for too long.

    `seen_at` is its last sign of life. One that has never run is not silent.
    """
    if seen_at is None:
        return False
    patience = interval * _SILENT_AFTER_INTERVALS + _SILENT_AFTER_AT_LEAST
    return is_in_future(seen_at, now) or now - seen_at > patience


def is_in_future(seen_at: datetime | None, now: datetime) -> bool:
    """Tell whether the reconciler's last sign of life has a future time, which proves nothing."""
    return seen_at is not None and seen_at > now + SKEW


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
