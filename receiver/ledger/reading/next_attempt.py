"""Says when a pending forward is tried next, and why then."""

from dataclasses import dataclass
from datetime import datetime

from receiver.ledger.forward import PENDING_FORWARD
from receiver.ledger.models import Endpoint, Forward, database

_HELD_BECAUSE = {
    "person": "a person has paused its endpoint",
    "gone": "its endpoint is held, which has answered 410 Gone; one forward an hour is tried there",
    "failing": "its endpoint is held, which has failed for days; one forward an hour is tried there",
}


@dataclass(frozen=True, slots=True)
class Next:
    """The next attempt: when it is due, None where that is not known, and why."""

    at: datetime | None
    because: str


def next_of(forward: Forward, now: datetime) -> Next | None:
    """Return when a forward is tried next; None for one that is not pending."""
    if forward.status != "pending":
        return None
    if forward.leased_until is not None and forward.leased_until > now:
        return Next(None, "it is being sent")
    endpoint: Endpoint = forward.endpoint
    if endpoint.retired_at is not None:
        return Next(None, "its endpoint is no longer in FORWARD_URL")
    if (earlier := _earlier(forward)) is not None:
        return Next(None, f"it waits for forward {earlier}, an earlier one of the same task")
    if endpoint.held_at is not None and not forward.pushed:
        return Next(endpoint.probe_at, _HELD_BECAUSE.get(endpoint.held_because or "", "its endpoint is held"))
    return Next(forward.next_attempt_at, _reason(forward))


def _reason(forward: Forward) -> str:
    if forward.pushed:
        return "a person wants it sent now"
    return f"attempt {forward.attempts} failed: {forward.cause}" if forward.attempts else "it is due"


def _earlier(forward: Forward) -> int | None:
    query = Forward.select(Forward.id).where(
        Forward.task_id == forward.task_id,
        Forward.endpoint == forward.endpoint,
        Forward.id < forward.id,
        PENDING_FORWARD,
    )
    with database.connection_context():
        earlier: int | None = query.order_by(Forward.id).limit(1).scalar()
    return earlier
