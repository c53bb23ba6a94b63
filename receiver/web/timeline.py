"""A task's history in order, for the API and for its page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from receiver.ledger.endpoints import host_of
from receiver.ledger.evidence import ABSENT
from receiver.ledger.forward import DISMISSED, GIVEN_UP, RESENT
from receiver.ledger.models import Attempt, Delivery, Forward, Lookup, Task
from receiver.ledger.reading.forwards import attempts_of_all, forwards_of
from receiver.ledger.reading.queries import deliveries_of, lookups_of
from receiver.upstream.results import FINAL, PENDING

_CONSEQUENCES = {"settled", "gave_up", "disputed", "changed"}  # sorted after their causes of the same moment
_ENDS = {GIVEN_UP: "given up", RESENT: "given up", DISMISSED: "dismissed by a person"}
_WITNESSES = {"callback": "a callback", "lookup": "a look-up"}


@dataclass(frozen=True, slots=True)
class History:
    """What the ledger keeps of a task's past. `attempts` are those of the forwards."""

    deliveries: Sequence[Delivery]
    lookups: Sequence[Lookup]
    forwards: Sequence[Forward]
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True)
class Event:
    """An event in a task's history. `name` is for programs, `detail` for people."""

    at: datetime
    name: str
    detail: str
    forward: int | None = None  # the number of the forward that it is about


@dataclass(frozen=True, slots=True)
class Version:
    """What one witness, `callback` or `upstream`, says about a task. `response` is JSON text."""

    witness: str
    status: str | None
    response: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A change of upstream's final answer about a task."""

    at: datetime
    before: str
    after: str


def upstream_changed(lookups: Sequence[Lookup]) -> list[Change]:
    """Return the changes of upstream's final answer about one task, oldest first."""
    final = sorted((one for one in lookups if one.verdict in FINAL), key=lambda one: one.id)
    return [
        Change(after.answered_at, before.verdict, after.verdict)
        for before, after in pairwise(final)
        if before.verdict != after.verdict
    ]


def versions(task: Task) -> list[Version]:
    """Return what callbacks and what upstream say about a disputed task; [] for any other task."""
    if not task.disputed:
        return []
    return [
        Version("callback", task.callback_status, task.callback_response),
        Version("upstream", task.lookup_status, task.lookup_response),
    ]


def history_of(task: Task) -> History:
    """Return the newest that is kept of a task's past."""
    forwards = forwards_of(task.id)
    return History(deliveries_of(task.id), lookups_of(task.id), forwards, attempts_of_all(forwards))


def timeline(task: Task, history: History) -> list[Event]:
    """Return a task's events, oldest first."""
    events = [_delivery_event(delivery) for delivery in history.deliveries]
    events += [_reread_event(one, one.reread_at) for one in history.deliveries if one.reread_at]
    events += [_lookup_event(lookup) for lookup in history.lookups]
    events += _task_events(task)
    if task.disputed:
        events.append(_dispute_event(task, history))
    events += _forward_events(history.forwards, history.attempts)
    events += [_change_event(task, change) for change in upstream_changed(history.lookups)]
    return sorted(events, key=lambda event: (event.at, event.name in _CONSEQUENCES))


def _task_events(task: Task) -> list[Event]:
    """Return the events that the task's own row tells of."""
    events = []
    if task.submitted_at:
        events.append(Event(task.submitted_at, "submitted", "submitted to upstream"))
    if task.registered_at:
        events.append(Event(task.registered_at, "registered", "registered by the caller"))
    if task.settled_at:
        witness = _WITNESSES.get(task.settled_by or "", task.settled_by)
        events.append(Event(task.settled_at, "settled", f"settled as {task.status} by {witness}"))
    if task.gave_up_at:
        events.append(Event(task.gave_up_at, "gave_up", "gave up asking; a late result may still settle it"))
    if task.acknowledged_at:
        events.append(Event(task.acknowledged_at, "acknowledged", "a person acknowledged the dispute"))
    return events


def _change_event(task: Task, change: Change) -> Event:
    what = f"from {change.before} to {change.after}: {task.lookup_status} counts"
    return Event(change.at, "changed", f"upstream changed its final answer {what}")


def _forward_events(forwards: Sequence[Forward], attempts: Sequence[Attempt]) -> list[Event]:
    """Return what happened to a task's forwards: each attempt, and what a person or time ended."""
    types = {forward.id: forward.type for forward in forwards}
    events = [_attempt_event(attempt, types[attempt.forward_id]) for attempt in attempts]  # type: ignore[attr-defined]
    for forward in forwards:
        words = _ENDS.get(forward.status)
        if words and forward.ended_at:
            events.append(Event(forward.ended_at, "forward_ended", f"{forward.type} {words}", forward.id))
        if forward.resends:
            words = f"{forward.type} is sent again at a person's word"
            events.append(Event(forward.created_at, "resent", words, forward.id))
    return events


def _attempt_event(attempt: Attempt, type_: str) -> Event:
    where = host_of(attempt.url)
    ended_at = attempt.began_at + timedelta(seconds=attempt.took)
    number = attempt.forward_id  # type: ignore[attr-defined]
    if attempt.kind == "delivered":
        return Event(ended_at, "delivered", f"{type_} delivered to {where}: HTTP {attempt.status}", number)
    why = attempt.error or f"HTTP {attempt.status}"
    return Event(ended_at, "attempt", f"{type_} not delivered to {where}: {why}", number)


def _dispute_event(task: Task, history: History) -> Event:
    if task.lookup_status not in FINAL:
        doubt = f"disputed: a callback says {task.callback_status}, upstream did not confirm it in time"
        return Event(task.doubted_at or task.created_at, "disputed", doubt)
    told = [_read_at(one) for one in history.deliveries if one.verdict == task.callback_status]
    answered = [one.answered_at for one in history.lookups if one.verdict == task.lookup_status]
    # The dispute began when the later of the two witnesses first spoke. Old rows may be pruned.
    heard = [min(times) for times in (told, answered) if times]
    detail = f"disputed: a callback says {task.callback_status}, upstream says {task.lookup_status}"
    return Event(max(heard, default=task.settled_at or task.created_at), "disputed", detail)


def _read_at(delivery: Delivery) -> datetime:
    """Return since when a delivery is read as it is now."""
    return (delivery.first_reading and delivery.reread_at) or delivery.received_at


def _delivery_event(delivery: Delivery) -> Event:
    first = delivery.read_at_first
    says = "is unreadable" if first.verdict == "unreadable" else f"says {_in_words(first.verdict)}"
    detail = f"callback of {delivery.size} bytes {says}"
    if delivery.duplicate:
        detail += ", the same as an earlier one"
    if first.problem and first.verdict != "unreadable":
        detail += "; only its beginning was kept"
    return Event(delivery.received_at, "delivery", detail)


def _reread_event(delivery: Delivery, reread_at: datetime) -> Event:
    says = "no longer readable" if delivery.verdict == "unreadable" else _in_words(delivery.verdict)
    return Event(reread_at, "reread", f"delivery {delivery.id} was read again: {says}")


def _lookup_event(lookup: Lookup) -> Event:
    if lookup.error:
        return Event(lookup.answered_at, "lookup", f"look-up failed: {lookup.error}")
    at_progress = "" if lookup.progress is None else f", {lookup.progress:g} %"
    return Event(lookup.answered_at, "lookup", f"upstream answered: {_in_words(lookup.verdict)}{at_progress}")


def _in_words(verdict: str) -> str:
    return {PENDING: "still running", ABSENT: "it knows no such task"}.get(verdict, verdict)
