"""Whether upstream answers, by the runs that asked it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.models import Pause, ReconcileRun

# Upstream fails now and then, which the next look-up mends. It fails persistently after so long and so often.
FAILING_AFTER = timedelta(minutes=2)
FAILING_AFTER_RUNS = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """How upstream has answered look-ups. `state` is unknown, answering, failing or paused.

    `failing_since` is when the present failure began; one failed run is enough.
    """

    state: str
    last_answered_at: datetime | None = None
    failing_since: datetime | None = None


def standing_of(
    now: datetime, pause: Pause | None, answered: ReconcileRun | None, failing: Sequence[ReconcileRun]
) -> Standing:
    """Return whether upstream answers.

    `answered` is the newest run that it answered, `failing` are the first runs since then that asked, oldest
    first, FAILING_AFTER_RUNS of them at least, where there are so many.
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
