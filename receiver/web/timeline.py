"""What happened to a task, in order, for the API and for its page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from receiver.ledger.models import Delivery, Lookup, Task
from receiver.ledger.results import PENDING

_WITNESSES = {"callback": "a callback", "lookup": "a look-up"}


@dataclass(frozen=True, slots=True)
class Event:
    """One moment of a task; `name` is a word for programs, `detail` a line for people."""

    at: datetime
    name: str
    detail: str


def timeline(task: Task, deliveries: Sequence[Delivery], lookups: Sequence[Lookup]) -> list[Event]:
    """Return a task's events, oldest first."""
    events = [_delivery_event(delivery) for delivery in deliveries]
    events += [_lookup_event(lookup) for lookup in lookups]
    if task.submitted_at:
        events.append(Event(task.submitted_at, "submitted", "submitted to upstream"))
    if task.registered_at:
        events.append(Event(task.registered_at, "registered", "registered by the caller"))
    if task.settled_at:
        witness = _WITNESSES.get(task.settled_by or "", task.settled_by)
        events.append(Event(task.settled_at, "settled", f"settled as {task.status} by {witness}"))
    if task.gave_up_at:
        events.append(Event(task.gave_up_at, "gave_up", "gave up asking; a late result may still settle it"))
    return sorted(events, key=lambda event: (event.at, event.name in {"settled", "gave_up"}))


def _delivery_event(delivery: Delivery) -> Event:
    detail = f"callback of {delivery.size} bytes says {_in_words(delivery.verdict)}"
    if delivery.duplicate:
        detail += ", the same as an earlier one"
    return Event(delivery.received_at, "delivery", detail)


def _lookup_event(lookup: Lookup) -> Event:
    if lookup.error:
        return Event(lookup.answered_at, "lookup", f"asked upstream: {lookup.error}")
    at_progress = "" if lookup.progress is None else f", {lookup.progress:g} %"
    return Event(lookup.answered_at, "lookup", f"asked upstream: {_in_words(lookup.verdict)}{at_progress}")


def _in_words(verdict: str) -> str:
    return "still running" if verdict == PENDING else verdict
