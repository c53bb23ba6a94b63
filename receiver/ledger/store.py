"""The one door for state: record, register, adopt, claim, apply.

Callback routes and reconciler both go through it. Every function that writes does so in one transaction of
its own, durable when the function returns.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

from peewee import SQL, Case, Insert, Select, chunked, fn

from receiver.ledger import evidence, giving_up
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Row, Statement
from receiver.ledger.evidence import Answer, Discovered, Evidence, Patience, Registration
from receiver.ledger.mending import unleased
from receiver.ledger.merge import insert_new, merge, schedule_of_lookup
from receiver.ledger.models import (
    DOUBTFUL,
    KNOWN,
    OPEN,
    SETTLED,
    UNACKNOWLEDGED,
    Lookup,
    Pause,
    Task,
    database,
)
from receiver.ledger.pauses import in_force, pauses_since
from receiver.ledger.record import Callback, Recorded, record

__all__ = [
    "Callback",
    "Claim",
    "OtherService",
    "Recorded",
    "acknowledge",
    "adopt",
    "apply",
    "ask_now",
    "claim",
    "is_anything_due",
    "record",
    "register",
    "release",
]

_NEVER = datetime(9999, 12, 31)
# What waits for an answer, by the index that holds it.
_OVERDUE, _UNCONFIRMED, _DOUBTFUL = (OPEN, KNOWN), (SETTLED, KNOWN), (DOUBTFUL,)
_ROWS_AT_ONCE = 500  # SQLite takes 32,766 parameters in a statement


class OtherService(ValueError):
    """A task is registered under one service, and known under another."""

    def __init__(self, task_id: str, service: str) -> None:
        super().__init__(f"Task {task_id!r} is one of the service {service}.")


@dataclass(frozen=True, slots=True)
class Claim:
    """Due tasks of one service that are ours to ask about until `leased_until`.

    All of them are known, or all are doubtful.
    """

    tasks: tuple[Task, ...]
    leased_until: datetime
    doubtful: bool = False
    depth: int = 0  # how often it was halved

    @property
    def ids(self) -> list[str]:
        return [task.id for task in self.tasks]

    @property
    def service(self) -> str:
        return self.tasks[0].service

    def halves(self) -> "tuple[Claim, Claim]":
        """Split the tasks in two, under the same lease."""
        middle = len(self.tasks) // 2
        first, second = self.tasks[:middle], self.tasks[middle:]
        depth = self.depth + 1
        return replace(self, tasks=first, depth=depth), replace(self, tasks=second, depth=depth)


def register(registrations: Sequence[Registration], now: datetime, *, grace: timedelta) -> int:
    """Take note of submitted tasks and return how many are new. Repeating it fills only what was empty.

    Raises OtherService, and takes note of none, when one of them is known under another service.
    """
    created = 0
    with writing():
        for rows in chunked(evidence.of_registrations(registrations, now, grace), _ROWS_AT_ONCE):
            # In one statement: a second pass over the ids could deadlock with a writer that makes one.
            written = list(merge(rows, {}).returning(Task.id, Task.service, Task.created_at).execute())
            _require_services({row["id"]: row["service"] for row in rows}, written)
            created += sum(1 for task in written if task.created_at == now)
    return created


def _require_services(told: Mapping[str, str], written: Sequence[Task]) -> None:
    for task in written:
        if task.service != told[task.id]:
            raise OtherService(task.id, task.service)


def adopt(discovered: Sequence[Discovered], now: datetime, *, grace: timedelta) -> int:
    """Take in those of our tasks in upstream's list that we have not heard of, and return how many they are.

    What we have heard of stays as it is. Of several items of one task the one that says most counts.
    """
    best: dict[str, Discovered] = {}
    for one in sorted(discovered, key=lambda one: one.result.key):
        best[one.result.task_id] = one
    adopted = 0
    with writing():
        for some in chunked(sorted(best), _ROWS_AT_ONCE):
            rows = [evidence.of_discovered(best[task_id], now, grace) for task_id in some]
            new = [task.id for task in insert_new(rows).returning(Task.id).execute()]
            adopted += len(new)
            lookups = [_lookup(task_id, Answer(best[task_id].result), None, now, now) for task_id in new]
            if lookups:
                Lookup.insert_many(lookups).execute()
    return adopted


def is_anything_due(now: datetime) -> bool:
    """Tell whether any task is due: one query that looks into three indexes, however many tasks there are."""
    with database.connection_context():
        return bool(_anything_due(now).scalar())


def _anything_due(now: datetime) -> Any:
    # The earliest of each kind, rather than whether any is due: PostgreSQL's plan for any moment expects to
    # meet one that is due soon when it reads all tasks.
    earliest = (
        fn.COALESCE(
            Task.select(fn.MIN(Task.next_lookup_at)).where(Task.next_lookup_at.is_null(False), *kind), _NEVER
        )
        for kind in (_OVERDUE, _UNCONFIRMED, _DOUBTFUL)
    )
    return Select([], [reduce(or_, (moment <= now for moment in earliest))]).bind(database)


def claim(
    now: datetime,
    *,
    limit: int,
    lease: timedelta,
    doubtful: bool = False,
    due_by: datetime | None = None,
    probing: bool = False,
) -> Claim:
    """Take up to `limit` tasks that are due, or were by `due_by`, for as long as the lease.

    All of them are of one service: that of the first. Known tasks without a result come before known ones to
    be confirmed, the longest due first; or, with `doubtful`, doubtful ones alone. While asking is paused
    nothing is claimed, except for the probe that finds out whether that is over.
    """
    conditions = [Task.next_lookup_at <= min(now, due_by or now)]
    if not probing:
        conditions.append(~fn.EXISTS(Pause.select(SQL("1")).where(in_force(now))))
    tasks: list[Task] = []
    with writing():
        for kind in (_DOUBTFUL,) if doubtful else (_OVERDUE, _UNCONFIRMED):
            if len(tasks) < limit:
                service = tasks[0].service if tasks else None
                tasks += _claim_some(now, lease, limit - len(tasks), service, *kind, *conditions)
    return Claim(tuple(tasks), now + lease, doubtful)


def release(claimed: Claim, now: datetime) -> None:
    """Return tasks that were claimed and not asked about: they are due again at once, and charged nothing."""
    ours = Task.select(Task.id).where(Task.id.in_(claimed.ids), Task.leased_until == claimed.leased_until)
    if on_postgresql():
        # As all who lock several rows, or two could deadlock: by the bytes of their ids.
        ours = ours.order_by(Task.id.collate('"C"')).for_update()
    due_at = Case(None, [(Task.next_lookup_at == claimed.leased_until, now)], Task.next_lookup_at)
    with writing():
        Task.update(next_lookup_at=due_at, leased_until=None).where(Task.id.in_(ours)).execute()


def apply(
    claimed: Claim,
    answers: Mapping[str, Answer],
    run_id: int,
    asked_at: datetime,
    now: datetime,
    patience: Patience,
) -> int:
    """Join what look-ups brought about claimed tasks, and return how many of them it settled."""
    pauses = pauses_since(min(task.silent_since for task in claimed.tasks))
    # In the order of their ids, as all who lock several rows, or two could deadlock.
    tasks = sorted(claimed.tasks, key=lambda task: task.id)
    said = [evidence.of_lookup(task, answers[task.id], now, patience, pauses) for task in tasks]
    lookups = [_lookup(task.id, answers[task.id], run_id, asked_at, now) for task in tasks]
    said, claims = _with_results_in_hand(said, now)
    settled = Task.select().where(
        Task.id.in_(claimed.ids), Task.settled_by == "lookup", Task.settled_at == now
    )
    with writing():
        _merge_answers.execute([{**row, _LEASE: claimed.leased_until} for row in said])
        _insert_lookups.execute(lookups)
        if claims:
            merge(claims, {}).execute()
        return int(settled.count())


def _with_results_in_hand(said: list[Evidence], now: datetime) -> tuple[list[Evidence], list[Evidence]]:
    """Settle what is given up with a result in hand: by look-ups, or where they have none by callbacks."""
    given_up = [row["id"] for row in said if row["gave_up_at"]]
    if not given_up:
        return said, []
    # Claims leave the responses out: they may be large, and are needed here alone.
    known = Task.select(
        *(Task.id, Task.service, Task.lookup_status, Task.lookup_progress, Task.lookup_response),
        *(Task.callback_status, Task.callback_progress, Task.callback_response),
    )
    with database.connection_context():
        before = {task.id: task for task in known.where(Task.id.in_(given_up))}
    told = [
        giving_up.with_result_in_hand(row, before[row["id"]], now) if row["id"] in before else row
        for row in said
    ]
    still = [before[row["id"]] for row in told if row["gave_up_at"] and row["id"] in before]
    claims = (giving_up.of_callback_in_hand(task, now) for task in still)
    return told, [claim for claim in claims if claim]


def ask_now(task_id: str, now: datetime) -> bool:
    """Make a task due at once, whatever its status. Returns False for a task we never heard of."""
    with writing():
        return bool(Task.update(next_lookup_at=now).where(Task.id == task_id).execute())


def acknowledge(task_ids: Collection[str], now: datetime) -> int:
    """Note that a person has seen the disputes of these tasks, and return of how many that is new."""
    seen = Task.select(Task.id).where(Task.id.in_(task_ids), UNACKNOWLEDGED)
    if on_postgresql():
        # Lock rows in the order of their ids, as all writers do, so that two of them cannot deadlock.
        seen = seen.order_by(Task.id.collate('"C"')).for_update()
    with writing():
        return int(Task.update(acknowledged_at=now).where(Task.id.in_(seen)).execute())


def _claim_some(
    now: datetime, lease: timedelta, limit: int, service: str | None, *conditions: Any
) -> list[Task]:
    # A task may be due while somebody asks about it: a callback came, or a person wants to know now.
    is_due = (unleased(now, lease), *conditions)
    first = Task.select(Task.service).where(*is_due).order_by(Task.next_lookup_at).limit(1)
    due = (
        Task.select(Task.id)
        .where(*is_due, Task.service == (service or first))
        .order_by(Task.next_lookup_at)
        .limit(limit)
    )
    if on_postgresql():
        due = due.for_update("FOR UPDATE SKIP LOCKED")  # type: ignore[arg-type]  # the stubs know bool only
    return list(
        Task.update(next_lookup_at=now + lease, leased_until=now + lease)
        .where(Task.id.in_(due))
        .returning(
            Task.id,
            Task.service,
            Task.attempts,
            Task.late_answers,
            Task.registered_at,
            Task.refused_at,
            Task.silent_since,
            Task.settled_at,
            Task.callback_status,
            Task.callback_progress,
            Task.lookup_progress,
            Task.lookup_status,
        )
        .execute()
    )


def _lookup(
    task_id: str, answer: Answer, run_id: int | None, asked_at: datetime, now: datetime
) -> dict[str, Any]:
    return {
        "task": task_id,
        "run": run_id,
        "asked_at": asked_at,
        "answered_at": now,
        "verdict": answer.verdict,
        "progress": answer.result.progress if answer.result else None,
        "error": answer.error,
    }


def _merge_under_lease(rows: Sequence[Row]) -> Insert:
    said = [{column: value for column, value in row.items() if column != _LEASE} for row in rows]
    return merge(said, schedule_of_lookup(rows[0][_LEASE]))


_LEASE = "lease"  # beside the columns of the evidence: until when the task was claimed
_merge_answers = Statement(_merge_under_lease)
_insert_lookups = Statement(Lookup.insert_many)
