"""What a callback, a look-up or a discovery says about a task, as a row for `merge`: pure.

See "Two witnesses" in docs/design.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.kinds import (
    BY_CALLBACK,
    BY_LOOKUP,
    CallbackRow,
    CallbackTestimony,
    DiscoveryRow,
    LookupFacts,
    LookupRow,
    LookupTestimony,
    Settlement,
    Witness,
)
from receiver.ledger.models import Task
from receiver.ledger.pace import TaskKind
from receiver.ledger.patience import Clocks, Patience, Paused, Waiting
from receiver.ledger.timetable import Timetable
from receiver.upstream import services
from receiver.upstream.results import FINAL, PENDING, SUCCEEDED, Result, clean_text, no_result_yet

ABSENT = "upstream does not know this task"


@dataclass(frozen=True, slots=True)
class Discovered:
    """A task of ours in upstream's list of a service; `ref` is the one in its callback URL."""

    result: Result
    service: str
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one look-up brought: a result, or why there is none (ABSENT: upstream knew nothing of it).

    `refused`: the error is upstream's answer about this id alone, and asking again will not change it.
    `elsewhere`: the service in which to look next for an absent task whose service is only assumed.
    """

    result: Result | None = None
    error: str | None = None
    refused: bool = False
    elsewhere: str | None = None

    @property
    def verdict(self) -> str:
        """Return the result's status, `absent` or `error`."""
        if self.result:
            return self.result.status
        return "absent" if self.refused or self.error == ABSENT else "error"


def of_callback(
    result: Result,
    ref: str | None,
    now: datetime,
    timetable: Timetable,
    confirm: bool,
    service: str | None = None,
) -> CallbackRow:
    """Return what a callback says. With `confirm` a final one is asked about at once, else never.

    `service` is the one in its URL. A body does not tell it.
    """
    ref, asked_service = clean_text(ref), service or services.DEFAULT.name
    return {
        "id": result.task_id,
        "service": asked_service,
        "service_source": _source(BY_CALLBACK, service),
        "created_at": now,
        "silent_since": now,
        "next_lookup_at": _asked_next_at(result, asked_service, now, timetable, confirm),
        "attempts": 0,
        "delivery_count": 1,
        "ref": ref,
        "ref_source": _source(BY_CALLBACK, ref),
        "trace_id": result.trace_id,
        "trace_id_source": _source(BY_CALLBACK, result.trace_id),
        **_settlement("callback", result, now),
        **callback_testimony(result),
    }


def _asked_next_at(
    result: Result, service: str, now: datetime, timetable: Timetable, confirm: bool
) -> datetime | None:
    if result.status in FINAL:
        return now if confirm else None
    return now + timetable.first_wait(TaskKind(service))


def without_result(said: CallbackRow) -> CallbackRow:
    """Return what a callback says, except its result: a look-up at once shall bring that."""
    result, now = no_result_yet(said["id"]), said["created_at"]
    return {
        **said,
        "next_lookup_at": now,
        **_settlement("callback", result, now),
        **callback_testimony(result),
    }


def of_rereading(said: CallbackRow, received_at: datetime) -> CallbackRow:
    """Return what a callback that came earlier says, where `said` is its reading now.

    A task that it makes known was heard of when it came. Everything else happens now.
    """
    return {**said, "created_at": received_at, "delivery_count": 0}


def of_discovered(discovered: Discovered, now: datetime, timetable: Timetable) -> DiscoveryRow:
    """Return what upstream's list says about a task we had not heard of: a look-up that nobody had to make.

    A final one is settled by it and never asked about.
    """
    result, ref = discovered.result, clean_text(discovered.ref)
    next_lookup_at = None
    if result.status not in FINAL:
        kind = TaskKind(discovered.service, result.type or "", result.mode or "")
        next_lookup_at = now + timetable.wait(kind, _age(result.submitted_at or now, now), result.progress)
    return {
        "id": result.task_id,
        "service": discovered.service,
        "service_source": BY_LOOKUP,
        "created_at": now,
        "silent_since": now,
        "next_lookup_at": next_lookup_at,
        "looked_at": now,
        "lookup_count": 1,
        "ref": ref,
        "ref_source": _source(BY_LOOKUP, ref),
        **_settlement("lookup", result, now),
        **lookup_testimony(result),
        **_lookup_facts(result),
    }


def of_lookup(
    task: Task, answer: Answer, now: datetime, patience: Patience, pauses: Sequence[Paused]
) -> LookupRow:
    """Return what a look-up says about a claimed task; `pauses` are those since its last sign of life."""
    result = answer.result or _NO_RESULT
    return {
        "id": task.id,
        "service": _service_to_ask(task, answer),
        "service_source": _source(BY_LOOKUP, answer.result),
        "created_at": now,
        "leased_until": task.leased_until,
        "refused_at": _refused_at(task, answer, now),
        "last_lookup_error": answer.error,
        "looked_at": now,
        "lookup_count": 1,
        **_clocks(task, answer, now, patience, pauses),
        **_settlement("lookup", result, now),
        **(lookup_testimony(result) if answer.result else _NO_TESTIMONY),
        **_lookup_facts(result),
    }


def _service_to_ask(task: Task, answer: Answer) -> str:
    """Return where to ask about a task next. One that no service knows is looked for from the first again."""
    is_unknown = answer.verdict == "absent" and task.service_is_assumed
    return answer.elsewhere or (services.DEFAULT.name if is_unknown else task.service)


def _clocks(
    task: Task, answer: Answer, now: datetime, patience: Patience, pauses: Sequence[Paused]
) -> Clocks:
    """Choose by the outcome of a look-up what becomes of the task's clocks. The first that applies counts:

    1. A final result. The task is settled, or confirmed, and is asked about no more.
    2. An error that may pass. It says nothing about the task. Ask again within minutes; nothing is given up.
       Or another service may know the task. Ask there at once.
    3. No final result, though upstream gave one before. That one stands; ask no more.
    4. More progress than was known. It is a sign of life: the give-up clock and the backoff start anew.
    5. A late answer: the task is running, or absent, for longer than we wait. Ask a few times more, minutes
       apart, then give up (`giving_up` looks for a result in hand).
    6. Running or absent. Wait for the backoff.

    In 4 to 6 the success that a callback told may also fall into doubt. A refused id counts as absent.
    """
    waiting, result = _waiting(task, answer.result, now), answer.result
    if result and result.status in FINAL:
        return patience.after_result(waiting)
    if answer.verdict == "error":
        return patience.after_error(waiting, now)
    if answer.elsewhere:
        return patience.before_next_service(waiting, now)
    progress = result.progress if result else None
    return patience.after_answer(waiting, now, pauses, progress, is_absent=answer.verdict == "absent")


def _waiting(task: Task, result: Result | None, now: datetime) -> Waiting:
    told = (task.callback_progress, task.lookup_progress)
    type_, mode, submitted_at = (
        getattr(result, name, None) or getattr(task, name) for name in ("type", "mode", "submitted_at")
    )
    return Waiting(
        kind=TaskKind(task.service, type_ or "", mode or ""),
        age=_age(submitted_at or task.registered_at or task.created_at, now),
        attempts=task.attempts,
        silent_since=_silent_since(task, result, now),
        late_answers=task.late_answers,
        # A failure is not doubted: upstream calls back for submissions that it refuses, and may keep no
        # record of them.
        succeeded_at=task.settled_at if task.callback_status == SUCCEEDED else None,
        progress=max((value for value in told if value is not None), default=None),
        is_named=task.registered_at is not None or task.lookup_status is not None,
        is_over=task.lookup_status in FINAL,
    )


def _silent_since(task: Task, result: Result | None, now: datetime) -> datetime:
    # A clock that was wrong may have dated it: before upstream had the task, or in the future.
    submitted_at = result.submitted_at if result else None
    return min(max(task.silent_since, submitted_at or task.silent_since), now)


def _age(began_at: datetime, now: datetime) -> timedelta:
    return max(now - began_at, timedelta(0))  # upstream's clock may be ahead of ours


def _refused_at(task: Task, answer: Answer, now: datetime) -> datetime | None:
    if answer.verdict == "error":
        return task.refused_at
    return now if answer.refused else None


def _settlement(witness: Witness, result: Result, now: datetime) -> Settlement:
    is_final = result.status in FINAL
    return {
        "status": result.status,
        "settled_by": witness if is_final else None,
        "settled_at": now if is_final else None,
    }


def callback_testimony(result: Result) -> CallbackTestimony:
    """Return the columns in which callbacks testify a result."""
    return {
        "callback_key": result.key,
        "callback_status": result.status,
        "callback_progress": result.progress,
        "callback_response": result.response,
        "callback_error": result.error,
    }


def lookup_testimony(result: Result) -> LookupTestimony:
    """Return the columns in which look-ups testify a result."""
    return {
        "lookup_key": result.key,
        "lookup_status": result.status,
        "lookup_progress": result.progress,
        "lookup_response": result.response,
        "lookup_error": result.error,
        "lookup_envelope": result.envelope,
    }


def _lookup_facts(result: Result) -> LookupFacts:
    return {
        "type": result.type,
        "type_source": _source(BY_LOOKUP, result.type),
        "trace_id": result.trace_id,
        "trace_id_source": _source(BY_LOOKUP, result.trace_id),
        "request": result.request,
        "request_source": _source(BY_LOOKUP, result.request),
        "prompt": result.prompt,
        "mode": result.mode,
        "submitted_at": result.submitted_at,
        "submitted_at_source": _source(BY_LOOKUP, result.submitted_at),
        "finished_at": result.finished_at,
    }


def _source(source: int, value: object) -> int | None:
    """Return who told a fact; None says nothing, and has no source."""
    return None if value is None else source


# A look-up without a result says nothing of the task, not even that it is running.
_NO_RESULT = Result("", PENDING, None, None, None, key=b"")
_NO_TESTIMONY: LookupTestimony = {
    "lookup_key": b"",
    "lookup_status": None,
    "lookup_progress": None,
    "lookup_response": None,
    "lookup_error": None,
    "lookup_envelope": None,
}
