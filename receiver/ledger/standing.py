"""Whether upstream answers: what machines are told, and the log."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger import queries
from receiver.ledger.models import ANSWERED, Pause, ReconcileRun, database

# Upstream fails now and then, which the next look-up mends. It fails persistently after so long and so often.
FAILING_AFTER = timedelta(minutes=2)
FAILING_AFTER_RUNS = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """How upstream has answered look-ups. `state` is unknown, answering, failing or paused.

    `failing_since` and `error` are those of the failure that lasts, be it a single call as yet.
    """

    state: str
    last_answered_at: datetime | None = None
    failing_since: datetime | None = None
    error: str | None = None


def read_standing(now: datetime, pause: Pause | None) -> Standing:
    """Return whether upstream answers, from the newest runs that asked; `pause` is the one in force."""
    with database.connection_context():
        answered = ReconcileRun.select().where(ANSWERED).order_by(ReconcileRun.id.desc()).first()
        failing = queries.failing_runs(FAILING_AFTER_RUNS)
        newest = queries.list_runs(1, asked=True) if failing else []
    return Standing(
        _state(now, pause, answered, failing),
        last_answered_at=answered.finished_at if answered else None,
        failing_since=failing[0].started_at if failing else None,
        error=newest[0].error if newest else None,
    )


def _state(
    now: datetime, pause: Pause | None, answered: ReconcileRun | None, failing: list[ReconcileRun]
) -> str:
    if pause:
        return "paused"
    if len(failing) >= FAILING_AFTER_RUNS and now - failing[0].started_at >= FAILING_AFTER:
        return "failing"
    return "answering" if answered else "unknown"
