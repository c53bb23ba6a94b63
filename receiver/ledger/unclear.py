"""Unclear submissions: those whose answer is lost, so that nobody knows whether upstream took them.

See "The life of a submission" in docs/design.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import Task, database
from receiver.ledger.submission import OPEN, Submission

# Clocks of other machines differ by less than this.
_SKEW = timedelta(minutes=1)
_MOST_LOOKED_FOR = 500
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Unclear:
    """How many submissions are unclear, and the oldest few of them."""

    count: int
    oldest: Sequence[Submission]


def list_unclear(now: datetime, limit: int) -> list[Submission]:
    """Return open submissions that are no longer in flight, oldest first."""
    query = Submission.select().where(OPEN, _is_not_in_flight(now)).order_by(Submission.sent_at)
    with database.connection_context():
        return list(query.limit(limit))


def unclear_by_service(now: datetime) -> dict[str, list[Submission]]:
    """Return the oldest open submissions of each service that are no longer in flight.

    They are read by service, so that those of a service that is away do not hide the others.
    """
    with database.connection_context():
        services = sorted(service for (service,) in _services.rows(now=now))
        return {service: _of_service.objects(Submission, now=now, service=service) for service in services}


def unclear_facts(now: datetime) -> Unclear:
    """Return how many submissions are unclear, and the oldest of them."""
    oldest = list_unclear(now, _MOST_NAMED)
    if len(oldest) < _MOST_NAMED:
        return Unclear(len(oldest), oldest)
    query = Submission.select().where(OPEN, _is_not_in_flight(now))
    with database.connection_context():
        return Unclear(int(query.count()), oldest)


def accepted_tasks(submissions: Sequence[Submission]) -> dict[int, str]:
    """Return the task of each submission that another process has found and registered meanwhile."""
    accepted = Submission.select(Submission.id, Submission.task_id).where(
        Submission.id.in_([one.id for one in submissions]), Submission.task_id.is_null(False)
    )
    with database.connection_context():
        return {one.id: str(one.task_id) for one in accepted}


def tasks_by_trace(submissions: Sequence[Submission]) -> dict[int, str]:
    """Return the task of each submission that the ledger knows by its trace id: a callback may have come."""
    traces = sorted({submission.trace_id for submission in submissions})
    with database.connection_context():
        known = _tasks_of_traces.objects(Task, traces=traces)
    taken = known_as_submitted([task.id for task in known])
    found: dict[int, str] = {}
    for task in known:
        for one in () if task.id in taken else submissions:
            if one.id not in found and one.trace_id == task.trace_id and _may_be(one, task):
                found[one.id] = task.id
                break
    return found


def give_to_submissions(
    submissions: Sequence[Submission], found: Mapping[str, Sequence[str]]
) -> dict[int, str]:
    """Give each submission one of the tasks that were found by its trace id, and no task to two of them."""
    taken = known_as_submitted([task_id for task_ids in found.values() for task_id in task_ids])
    given: dict[int, str] = {}
    for one in submissions:
        free = (task_id for task_id in found.get(one.trace_id, ()) if task_id not in taken)
        if (task_id := next(free, None)) is not None:
            taken.add(task_id)
            given[one.id] = task_id
    return given


def known_as_submitted(task_ids: Collection[str]) -> set[str]:
    """Return those of the tasks that a submission is known to have made."""
    if not task_ids:
        return set()
    with database.connection_context():
        return {task_id for (task_id,) in _tasks_of_submissions.rows(task_ids=list(task_ids))}


def is_since(submission: Submission, moment: datetime | None) -> bool:
    """Tell whether what was made at a moment may be the submission's."""
    return moment is None or moment >= submission.sent_at - _SKEW


def is_sent_in_future(submission: Submission, now: datetime) -> bool:
    """Tell whether a clock that was ahead has dated a submission."""
    return bool(submission.sent_at > now + _SKEW)


def mend_sent_in_future(now: datetime) -> None:
    """Let open submissions that a clock ahead has dated be sent now."""
    with writing():
        Submission.update(sent_at=now, leased_until=now).where(
            OPEN, Submission.sent_at > now + _SKEW
        ).execute()


def _is_not_in_flight(now: Any) -> Any:
    return (Submission.leased_until <= now) | (Submission.sent_at > now + _SKEW)


def _build_of_service(now: Any, service: Any) -> Any:
    unclear = Submission.select().where(OPEN, _is_not_in_flight(now), Submission.service == service)
    return unclear.order_by(Submission.sent_at).limit(_MOST_LOOKED_FOR)


_services = Query(
    lambda now: Submission.select(Submission.service).where(OPEN, _is_not_in_flight(now)).distinct()
)
_of_service = Query(_build_of_service)
_tasks_of_traces = Query(
    lambda traces: Task.select(Task.id, Task.trace_id, Task.submitted_at, Task.created_at).where(
        Task.trace_id.in_(traces)
    )
)
_tasks_of_submissions = Query(
    lambda task_ids: Submission.select(Submission.task_id).where(Submission.task_id.in_(task_ids))
)


def _may_be(submission: Submission, task: Task) -> bool:
    return is_since(submission, task.submitted_at or task.created_at)
