"""What a registration, a callback, a look-up or a discovery says about a task, as a row for `merge`: pure.

See "Two witnesses" in docs/design.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from receiver.ledger.models import Pause, Task
from receiver.ledger.pauses import paused_within
from receiver.upstream import services
from receiver.upstream.results import FINAL, PENDING, SUCCEEDED, Result, clean_text, no_result_yet

REGISTRATION, LOOKUP, CALLBACK = 1, 2, 3
ABSENT = "upstream does not know this task"
LONGEST_WAIT_AFTER_ERROR = timedelta(minutes=2)
# After a long absence of ours one answer is too little to give up: the task may be about to finish.
ENOUGH_LATE_ANSWERS = 3
WAIT_AFTER_LATE_ANSWER = timedelta(minutes=5)

Evidence = Mapping[str, Any]

_T = TypeVar("_T", str, datetime)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a caller says of a task it has submitted."""

    id: str
    service: str = services.DEFAULT.name
    type: str | None = None
    ref: str | None = None
    trace_id: str | None = None
    submitted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Discovered:
    """A task of ours in upstream's list; `ref` is the one in its callback URL."""

    result: Result
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one look-up brought: a result, or why there is none (ABSENT: upstream knew nothing of it).

    `refused`: the error is upstream's answer about this id alone, and asking again will not change it.
    """

    result: Result | None = None
    error: str | None = None
    refused: bool = False

    @property
    def verdict(self) -> str:
        """Return the result's status, `absent` or `error`."""
        if self.result:
            return self.result.status
        return "absent" if self.refused or self.error == ABSENT else "error"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long upstream is waited for; time in which it could not be asked does not count.

    `backoff` gives the wait after so many look-ups in silence; `unknown_backoff` that of a task which only
    callbacks have named while upstream does not know it. An answer without a final result is late when it
    comes later than `give_up_after` behind a task's last sign of life. After ENOUGH_LATE_ANSWERS the task is
    given up, but never while the clock is not steady: it may be wrong, and so may be what is late.
    Later than `doubt_after` behind a callback that told a success, that success is in doubt.
    """

    backoff: Callable[[int], timedelta]
    unknown_backoff: Callable[[int], timedelta]
    give_up_after: timedelta
    doubt_after: timedelta
    clock_is_steady: bool = True


def of_registrations(
    registrations: Sequence[Registration], now: datetime, grace: timedelta
) -> list[Evidence]:
    """Return what registrations say, one row a task: of several values the smallest counts."""
    return [
        {
            "id": registration.id,
            "service": registration.service,
            "created_at": now,
            "registered_at": now,
            "silent_since": now,
            "next_lookup_at": now + grace,
            **_facts(
                REGISTRATION,
                type=registration.type,
                ref=registration.ref,
                trace_id=registration.trace_id,
                submitted_at=registration.submitted_at,
            ),
        }
        for registration in _fold(registrations)
    ]


def of_callback(result: Result, ref: str | None, now: datetime, grace: timedelta, confirm: bool) -> Evidence:
    """Return what a callback says: after a final one a look-up comes at once or never, else after `grace`."""
    is_final = result.status in FINAL
    return {
        "id": result.task_id,
        "service": services.DEFAULT.name,
        "status": result.status,
        "created_at": now,
        "silent_since": now,
        "next_lookup_at": (now if confirm else None) if is_final else now + grace,
        "settled_by": "callback" if is_final else None,
        "settled_at": now if is_final else None,
        "delivery_count": 1,
        **testimony("callback", result),
        **_facts(CALLBACK, ref=clean_text(ref), trace_id=result.trace_id),
    }


def without_result(said: Evidence) -> Evidence:
    """Return what a callback says, except its result: a look-up at once shall bring that."""
    result = no_result_yet(said["id"])
    changes = {"status": result.status, "settled_by": None, "settled_at": None}
    return {**said, **changes, "next_lookup_at": said["created_at"], **testimony("callback", result)}


def of_discovered(discovered: Discovered, now: datetime, grace: timedelta) -> Evidence:
    """Return what upstream's list says about a task we had not heard of: a look-up that nobody had to make.

    A final one is settled by it and never asked about, another is asked about after `grace`.
    """
    result = discovered.result
    is_final = result.status in FINAL
    return {
        "id": result.task_id,
        "service": services.DEFAULT.name,
        "created_at": now,
        "silent_since": now,
        "next_lookup_at": None if is_final else now + grace,
        "settled_by": "lookup" if is_final else None,
        "settled_at": now if is_final else None,
        "lookup_count": 1,
        **_of_result(result),
        **_facts(LOOKUP, ref=clean_text(discovered.ref)),
    }


def of_lookup(
    task: Task, answer: Answer, now: datetime, patience: Patience, pauses: Sequence[Pause]
) -> Evidence:
    """Return what a look-up says about a claimed task; `pauses` are those since its last sign of life."""
    result = answer.result
    evidence: dict[str, Any] = {
        **_NOTHING_SAID,
        "id": task.id,
        "service": task.service,
        "created_at": now,
        "silent_since": task.silent_since,
        "attempts": task.attempts + 1,
        "next_lookup_at": now + _wait(task, answer, patience),
        "late_answers": task.late_answers,
        "refused_at": now if answer.refused else None,
        "last_lookup_error": answer.error,
        "lookup_count": 1,
    }
    if result:
        evidence |= _of_result(result)
        if result.status in FINAL:
            return evidence | {"settled_by": "lookup", "settled_at": now}
    if answer.verdict == "error":
        # It says nothing about the task, which must not wait an hour for upstream's having been down.
        wait = min(patience.backoff(task.attempts), LONGEST_WAIT_AFTER_ERROR)
        return {**evidence, "next_lookup_at": now + wait, "refused_at": task.refused_at}
    return {**evidence, **_without_a_final_answer(task, result, now, patience, pauses)}


def _without_a_final_answer(
    task: Task, result: Result | None, now: datetime, patience: Patience, pauses: Sequence[Pause]
) -> Evidence:
    if task.lookup_status in FINAL:
        return {"next_lookup_at": None}  # somebody asked again; what upstream said before still counts
    changes: dict[str, Any] = {}
    # A failure is not doubted: upstream calls back for submissions that it refuses, and may keep no record.
    told_at = task.settled_at if task.callback_status == SUCCEEDED else None
    if told_at and _waited(told_at, now, pauses) >= patience.doubt_after:
        changes["doubted_at"] = now
    known = [value for value in (task.callback_progress, task.lookup_progress) if value is not None]
    if result and result.progress is not None and all(result.progress > value for value in known):
        # Progress restarts the give-up clock, and the backoff with it.
        changes |= {"silent_since": now, "attempts": 1, "next_lookup_at": now + patience.backoff(0)}
    elif _waited(task.silent_since, now, pauses) >= patience.give_up_after:
        return {**changes, **_after_a_late_answer((task.late_answers or 0) + 1, now, patience)}
    return changes | {"late_answers": None}


def _after_a_late_answer(answers: int, now: datetime, patience: Patience) -> Evidence:
    if answers < ENOUGH_LATE_ANSWERS or not patience.clock_is_steady:
        return {
            "late_answers": min(answers, ENOUGH_LATE_ANSWERS),
            "next_lookup_at": now + WAIT_AFTER_LATE_ANSWER,
        }
    return {"late_answers": answers, "next_lookup_at": None, "gave_up_at": now}


def _wait(task: Task, answer: Answer, patience: Patience) -> timedelta:
    is_unknown = answer.verdict == "absent" and task.registered_at is None and task.lookup_status is None
    return (patience.unknown_backoff if is_unknown else patience.backoff)(task.attempts)


def _of_result(result: Result) -> dict[str, Any]:
    facts = _facts(
        LOOKUP,
        type=result.type,
        trace_id=result.trace_id,
        request=result.request,
        submitted_at=result.submitted_at,
    )
    rest = {"prompt": result.prompt, "finished_at": result.finished_at, "status": result.status}
    return testimony("lookup", result) | facts | rest


def _waited(since: datetime, now: datetime, pauses: Sequence[Pause]) -> timedelta:
    return now - since - paused_within(pauses, since, now)


def _facts(source: int, **values: Any) -> dict[str, Any]:
    """Return the columns of what `source` says; None says nothing, and has no source."""
    sources = {f"{name}_source": None if value is None else source for name, value in values.items()}
    return values | sources


def testimony(witness: str, result: Result) -> dict[str, Any]:
    """Return the columns in which the witness ("callback" or "lookup") testifies a result."""
    return {
        f"{witness}_key": result.key,
        f"{witness}_status": result.status,
        f"{witness}_progress": result.progress,
        f"{witness}_response": result.response,
        f"{witness}_error": result.error,
    }


def _fold(registrations: Sequence[Registration]) -> list[Registration]:
    """Join registrations of one task, since one upsert cannot touch a row twice."""
    folded: dict[str, Registration] = {}
    for registration in registrations:
        known = folded.get(registration.id, registration)
        folded[registration.id] = Registration(
            registration.id,
            service=known.service,
            type=_smaller(known.type, registration.type),
            ref=_smaller(known.ref, registration.ref),
            trace_id=_smaller(known.trace_id, registration.trace_id),
            submitted_at=_smaller(known.submitted_at, registration.submitted_at),
        )
    # In the order of their ids, across all statements that write them: or two batches could deadlock.
    return [folded[task_id] for task_id in sorted(folded)]


def _smaller(one: _T | None, other: _T | None) -> _T | None:
    return min((value for value in (one, other) if value is not None), default=None)


# The columns of which a look-up may say something: so each look-up's row has all of them.
_NOTHING_SAID: Evidence = {
    **_facts(LOOKUP, type=None, trace_id=None, request=None, submitted_at=None),
    **dict.fromkeys(("prompt", "finished_at", "settled_by", "settled_at", "gave_up_at", "doubted_at")),
    **dict.fromkeys(("lookup_status", "lookup_progress", "lookup_response", "lookup_error")),
    "lookup_key": b"",
    "status": PENDING,
}
