"""The one door for state: record, register, claim, apply. Callback routes and reconciler both go through it.

Every function that writes does so in one transaction of its own, durable when the function returns.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from peewee import chunked

from receiver.ledger.db import on_postgresql
from receiver.ledger.merge import (
    CALLBACK,
    LOOKUP,
    REGISTRATION,
    Evidence,
    facts,
    insert_new,
    merge,
    schedule_of_callback,
    schedule_of_lookup,
    testimony,
)
from receiver.ledger.models import Delivery, Lookup, ReconcileRun, Task, database
from receiver.ledger.results import FINAL, Result, Unreadable, clean_text, read_callback

ABSENT = "upstream does not know this task"
_PRUNE_AT_ONCE = 1000
_ROWS_AT_ONCE = 500  # SQLite takes 32,766 parameters in a statement

_T = TypeVar("_T", str, datetime)


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback as it came, `size` bytes long; `cut` says why `body` is not all of it, if so."""

    body: bytes
    size: int
    ref: str | None = None
    remote_addr: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    cut: Unreadable | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a callback: its task with that task's status, or why it is no result."""

    task_id: str | None
    status: str | None
    problem: Unreadable | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """What a caller says of a task it has submitted."""

    id: str
    type: str | None = None
    ref: str | None = None
    trace_id: str | None = None
    submitted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Due tasks that are ours to ask about until `leased_until`."""

    tasks: tuple[Task, ...]
    leased_until: datetime

    @property
    def ids(self) -> list[str]:
        return [task.id for task in self.tasks]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one look-up brought: a result, or why there is none (ABSENT: upstream knew nothing of it)."""

    result: Result | None = None
    error: str | None = None

    @property
    def verdict(self) -> str:
        """Return the result's status, `absent` or `error`."""
        if self.result:
            return self.result.status
        return "absent" if self.error == ABSENT else "error"


def record(callback: Callback, now: datetime, *, grace: timedelta, confirm: bool) -> Recorded:
    """Keep a callback and join what it says of its task. After progress a look-up waits for `grace`."""
    try:
        if callback.cut:
            raise callback.cut
        result = read_callback(callback.body)
    except Unreadable as problem:
        with database.connection_context():
            _insert_delivery(callback, now, "unreadable", problem=problem)
        return Recorded(None, None, problem)

    is_final = result.status in FINAL
    evidence = {
        "id": result.task_id,
        "status": result.status,
        "created_at": now,
        "silent_since": now,
        "next_lookup_at": (now if confirm else None) if is_final else now + grace,
        "settled_by": "callback" if is_final else None,
        "settled_at": now if is_final else None,
        "delivery_count": 1,
        **testimony("claim", result),
        **facts(CALLBACK, ref=clean_text(callback.ref), trace_id=result.trace_id),
    }
    with database.connection_context(), database.atomic():
        (row,) = merge([evidence], schedule_of_callback()).returning(Task.status).execute()
        _insert_delivery(callback, now, result.status, task_id=result.task_id)
    return Recorded(result.task_id, row.status)


def register(registrations: Sequence[Registration], now: datetime, *, grace: timedelta) -> int:
    """Take note of submitted tasks and return how many are new. Repeating it fills only what was empty."""
    evidence = [
        {
            "id": registration.id,
            "created_at": now,
            "registered_at": now,
            "silent_since": now,
            "next_lookup_at": now + grace,
            **facts(
                REGISTRATION,
                type=registration.type,
                ref=registration.ref,
                trace_id=registration.trace_id,
                submitted_at=registration.submitted_at,
            ),
        }
        for registration in _fold(registrations)
    ]
    created = 0
    with database.connection_context(), database.atomic():
        for rows in chunked(evidence, _ROWS_AT_ONCE):
            created += insert_new(rows).as_rowcount().execute()
            merge(rows, {}).execute()
    return created


def claim(due_at: datetime, now: datetime, *, limit: int, lease: timedelta) -> Claim:
    """Take up to `limit` tasks that are due at `due_at`, longest due first, for as long as the lease."""
    leased_until = now + lease
    due = Task.select(Task.id).where(Task.next_lookup_at <= due_at).order_by(Task.next_lookup_at).limit(limit)
    if on_postgresql():
        due = due.for_update("FOR UPDATE SKIP LOCKED")  # type: ignore[arg-type]  # the stubs know bool only
    with database.connection_context(), database.atomic():
        rows = (
            Task.update(next_lookup_at=leased_until)
            .where(Task.id.in_(due))
            .returning(
                Task.id,
                Task.attempts,
                Task.silent_since,
                Task.claim_progress,
                Task.lookup_progress,
                Task.lookup_status,
            )
            .execute()
        )
        return Claim(tuple(rows), leased_until)


def give_back(claimed: Claim, now: datetime) -> None:
    """Return tasks that were claimed and not asked about: they are due again at once, and charged nothing."""
    with database.connection_context(), database.atomic():
        (
            Task.update(next_lookup_at=now)
            .where(Task.id.in_(sorted(claimed.ids)), Task.next_lookup_at == claimed.leased_until)
            .execute()
        )


def apply(
    claimed: Claim,
    answers: Mapping[str, Answer],
    run_id: int,
    asked_at: datetime,
    now: datetime,
    *,
    backoff: Callable[[int], timedelta],
    give_up_after: timedelta,
) -> int:
    """Join what look-ups brought about claimed tasks, and return how many of them it settled.

    `backoff` gives the wait after so many look-ups in silence. A task is given up when upstream has answered,
    without a final result, later than `give_up_after` behind its last sign of life.
    """
    evidence, lookups = [], []
    for task in claimed.tasks:
        answer = answers[task.id]
        evidence.append(_evidence_of(task, answer, now, backoff, give_up_after))
        lookups.append(
            {
                "task": task.id,
                "run": run_id,
                "asked_at": asked_at,
                "answered_at": now,
                "verdict": answer.verdict,
                "progress": answer.result.progress if answer.result else None,
                "error": answer.error,
            }
        )
    with database.connection_context(), database.atomic():
        joined = (
            merge(evidence, schedule_of_lookup(claimed.leased_until))
            .returning(Task.settled_by, Task.settled_at)
            .execute()
        )
        settled = sum(1 for task in joined if (task.settled_by, task.settled_at) == ("lookup", now))
        Lookup.insert_many(lookups).execute()
    return settled


def ask_now(task_id: str, now: datetime) -> bool:
    """Make a task due at once, whatever its status. Returns False for a task we never heard of."""
    with database.connection_context():
        return bool(Task.update(next_lookup_at=now).where(Task.id == task_id).execute())


def open_run(reconciler: str, now: datetime) -> int:
    """Note that a run has begun and return its id. `reconciler` names the process, as host:pid."""
    with database.connection_context():
        return int(ReconcileRun.insert(reconciler=reconciler, started_at=now).execute())


def close_run(run_id: int, now: datetime, counts: Mapping[str, Any]) -> None:
    """Note that a run is over, with what it counted (the columns of ReconcileRun)."""
    with database.connection_context():
        ReconcileRun.update(finished_at=now, **counts).where(ReconcileRun.id == run_id).execute()


def prune(before: datetime) -> int:
    """Delete deliveries, look-ups and runs older than `before` and return how many; tasks are kept."""
    deleted = 0
    for model, time in (
        (Delivery, Delivery.received_at),
        (Lookup, Lookup.asked_at),
        (ReconcileRun, ReconcileRun.started_at),
    ):
        old = model.select(model.id).where(time < before).order_by(time).limit(_PRUNE_AT_ONCE)
        gone = _PRUNE_AT_ONCE
        while gone == _PRUNE_AT_ONCE:  # in portions: a long transaction would keep callbacks waiting
            with database.connection_context(), database.atomic():
                gone = model.delete().where(model.id.in_(old)).execute()
            deleted += gone
    return deleted


def _insert_delivery(
    callback: Callback,
    now: datetime,
    verdict: str,
    task_id: str | None = None,
    problem: Unreadable | None = None,
) -> None:
    Delivery.insert(
        task=task_id,
        received_at=now,
        verdict=verdict,
        problem=problem and json.dumps({"code": problem.code, "message": str(problem)}),
        ref=callback.ref and callback.ref.encode(errors="replace").decode().replace("\0", "\ufffd"),
        remote_addr=callback.remote_addr,
        headers=json.dumps(list(callback.headers)),
        body=callback.body,
        size=callback.size,
        digest=hashlib.sha256(callback.body).digest(),
    ).execute()


def _fold(registrations: Sequence[Registration]) -> list[Registration]:
    """Join registrations of one task, since one upsert cannot touch a row twice: the smallest value wins."""
    folded: dict[str, Registration] = {}
    for registration in registrations:
        known = folded.get(registration.id, registration)
        folded[registration.id] = Registration(
            registration.id,
            type=_smaller(known.type, registration.type),
            ref=_smaller(known.ref, registration.ref),
            trace_id=_smaller(known.trace_id, registration.trace_id),
            submitted_at=_smaller(known.submitted_at, registration.submitted_at),
        )
    return list(folded.values())


def _smaller(one: _T | None, other: _T | None) -> _T | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _evidence_of(
    task: Task,
    answer: Answer,
    now: datetime,
    backoff: Callable[[int], timedelta],
    give_up_after: timedelta,
) -> Evidence:
    result = answer.result
    evidence: dict[str, Any] = {
        "id": task.id,
        "created_at": now,
        "silent_since": task.silent_since,
        "attempts": task.attempts + 1,
        "next_lookup_at": now + backoff(task.attempts),
        "last_lookup_error": answer.error,
        "lookup_count": 1,
    }
    if result:
        evidence |= testimony("lookup", result) | facts(
            LOOKUP,
            type=result.type,
            trace_id=result.trace_id,
            request=result.request,
            submitted_at=result.submitted_at,
        )
        evidence |= {"prompt": result.prompt, "finished_at": result.finished_at, "status": result.status}
        if result.status in FINAL:
            return evidence | {"settled_by": "lookup", "settled_at": now}
    known = [value for value in (task.claim_progress, task.lookup_progress) if value is not None]
    if result and result.progress is not None and all(result.progress > value for value in known):
        evidence |= {"silent_since": now}  # progress restarts the give-up clock
    elif answer.verdict != "error" and (
        task.lookup_status in FINAL or now >= task.silent_since + give_up_after
    ):
        evidence |= {"next_lookup_at": None, "gave_up_at": None if task.lookup_status in FINAL else now}
    return evidence
