"""Submissions: each is written before it is sent, and its task is registered before its caller is answered.

So a submission whose answer is lost is known, and neither Backstop nor a caller who repeats it pays twice.

See "The life of a submission" in docs/design.md.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from peewee import fn

from receiver.ledger import store
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.group_commit import GroupCommit
from receiver.ledger.engine.statements import Query, Row, Statement
from receiver.ledger.lost import list_lost
from receiver.ledger.registration import Registration
from receiver.ledger.submission import OPEN, Submission
from receiver.ledger.telling import When
from receiver.ledger.timetable import Timetable

# Longer than one submission may take in all: to connect, to be answered, and to be looked for.
IN_FLIGHT_FOR = timedelta(minutes=2)
# After so long without a trace upstream never had it: discovery and look-ups would have found it.
UNCLEAR_FOR = timedelta(minutes=10)
# Longer than a caller waits while a lost submission is looked for.
_LOOKED_FOR_FOR = timedelta(seconds=30)
_WITHIN_SECONDS = 10.0


class State(Enum):
    """What is known of a submission that a caller repeats."""

    NEW = "new"  # it is this caller's to send
    IN_FLIGHT = "in_flight"
    UNCLEAR = "unclear"
    TAKEN = "taken"
    OTHER = "other"  # the same key, with another body


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants to submit."""

    api_key: str
    service: str
    type: str
    trace_id: str
    digest: bytes
    repeat_key: str | None = None
    callback_url: str | None = None
    in_flight_for: timedelta = IN_FLIGHT_FOR


@dataclass(frozen=True, slots=True)
class Begun:
    """A submission as it stands when a caller asks for it."""

    state: State
    submission: Submission


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A submission of which upstream has told the task."""

    submission: Submission
    task_id: str
    now: datetime
    timetable: Timetable
    forward_when: When
    is_told: bool
    mode: str | None


def digest_of(path: str, body: bytes) -> bytes:
    """Return what identifies a request's content."""
    return hashlib.sha256(path.encode() + b"\0" + body).digest()


def repeat_key(idempotency_key: str | None, trace_id: str | None, digest: bytes) -> str | None:
    """Return what a repetition shares with the submission; None where the caller gave neither.

    A caller may use one trace id for several submissions: those have other bodies.
    """
    if idempotency_key is not None:
        return f"key:{idempotency_key}"
    return None if trace_id is None else f"trace:{digest.hex()}:{trace_id}"


def begin(asked: Asked, now: datetime) -> Begun:
    """Write a submission that is about to be sent, or return the one that the caller repeats.

    Without a key a submission repeats one whose answer was lost and whose task no caller was told.
    """
    return _begin.commit((asked, now))


def accept(
    submission: Submission,
    task_id: str,
    now: datetime,
    *,
    timetable: Timetable,
    forward_when: When,
    is_told: bool = True,
    mode: str | None = None,
) -> None:
    """Register the task of a submission. `is_told`: a caller hears of it now.

    Otherwise its answer counts as lost: the next caller who repeats it without a key gets the task. `mode` is
    the request's. It tells how long the task takes.
    """
    _accept.commit(_Accepted(submission, task_id, now, timetable, forward_when, is_told, mode))


def free(submission: Submission) -> None:
    """Forget a submission of which upstream has taken nothing. Its key is free again."""
    with writing():
        Submission.delete().where(Submission.id == submission.id, OPEN).execute()


def note_unclear(submission: Submission, now: datetime) -> None:
    """Note that a submission's answer is lost."""
    with writing():
        Submission.update(unclear_at=now, leased_until=now).where(
            Submission.id == submission.id, OPEN
        ).execute()


def note_told(submission: Submission, now: datetime) -> None:
    """Note that a caller was told the task of a submission."""
    with writing():
        Submission.update(told_at=now).where(
            Submission.id == submission.id, Submission.told_at.is_null()
        ).execute()


def note_untold(submission: Submission, now: datetime) -> None:
    """Note that the caller of a submission, whose task is known, has hung up before the answer."""
    lost = Submission.update(told_at=None, unclear_at=now, leased_until=now)
    with writing():
        lost.where(Submission.id == submission.id).execute()


def note_task(submission: Submission, task_id: str, now: datetime, *, is_told: bool = True) -> None:
    """Note the task of a submission without registering it. `is_told` is as for `accept`."""
    with writing():
        _note_task(submission, task_id, now, is_told)


def end(submissions: Collection[Submission], now: datetime) -> int:
    """Note that upstream never had these submissions. Their keys are free again."""
    ids = [submission.id for submission in submissions]
    with writing():
        ended = Submission.update(ended_at=now, repeat_key=None).where(Submission.id.in_(ids), OPEN)
        return int(ended.execute())


def _write_begun(entries: Sequence[tuple[Asked, datetime]]) -> list[Begun]:
    with writing(pipelined=True):
        now = max(now for _, now in entries)
        digests = [asked.digest for asked, _ in entries if asked.repeat_key is None]
        lost = list_lost(digests, now, since=now - UNCLEAR_FOR)
        begun = [_known(asked, now, lost) or _begin_with_key(asked, now) for asked, now in entries]
        new = [_row(*entry) for entry, known in zip(entries, begun, strict=True) if known is None]
        # Those without a key conflict with none, so they are written together.
        written = _insert.returning_later(new)
    ids = dict(written())
    return [
        known or Begun(State.NEW, Submission(**_row(asked, now), id=ids[asked.trace_id]))
        for (asked, now), known in zip(entries, begun, strict=True)
    ]


def _begin_with_key(asked: Asked, now: datetime) -> Begun | None:
    if asked.repeat_key is None:
        return None
    row = _row(asked, now)
    same = (Submission.api_key == asked.api_key) & (Submission.repeat_key == asked.repeat_key)
    while True:
        if written := _insert.returning([row]):
            return Begun(State.NEW, Submission(**row, id=written[0][1]))
        known = Submission.get_or_none(same)
        if known is not None:  # otherwise its key has just become free
            return Begun(_state(known, asked, now), known)


def _row(asked: Asked, now: datetime) -> dict[str, Any]:
    return {
        "api_key": asked.api_key,
        "repeat_key": asked.repeat_key,
        "digest": asked.digest,
        "service": asked.service,
        "type": asked.type,
        "trace_id": asked.trace_id,
        "callback_url": asked.callback_url,
        "sent_at": now,
        "leased_until": now + asked.in_flight_for,
    }


def _known(asked: Asked, now: datetime, lost: list[Submission]) -> Begun | None:
    """Return the oldest lost submission of the same content, if the caller repeats that.

    Each goes to one caller, for as long as that may look for it. Others are told that it is in flight.
    """
    same = [one for one in lost if (one.api_key, bytes(one.digest)) == (asked.api_key, asked.digest)]
    if asked.repeat_key is not None or not same:
        return None
    for one in same:
        if one.leased_until <= now and _lease.execute(id=one.id, now=now):
            state = _state(one, asked, now)
            one.leased_until = now + _LOOKED_FOR_FOR
            return Begun(state, one)
    return Begun(_state(same[0], asked, now), same[0])


def _state(known: Submission, asked: Asked, now: datetime) -> State:
    if bytes(known.digest) != asked.digest:
        return State.OTHER
    if known.task_id is not None:
        return State.TAKEN
    return State.IN_FLIGHT if known.leased_until > now else State.UNCLEAR


def _write_accepted(entries: Sequence[_Accepted]) -> list[None]:
    first, registrations = entries[0], [_registration(entry) for entry in entries]
    with writing(pipelined=True):
        store.register_within(
            registrations, first.now, timetable=first.timetable, forward_when=first.forward_when
        )
        for entry in entries:
            _note_task(entry.submission, entry.task_id, entry.now, entry.is_told)
    store.log_registered(registrations)
    return [None] * len(entries)


def _note_task(submission: Submission, task_id: str, now: datetime, is_told: bool) -> None:
    told_at = now if is_told else None
    _set_task.execute([{"id": submission.id, "task_id": task_id, "told_at": told_at}])
    if not is_told:
        lost = Submission.update(unclear_at=now, leased_until=now)
        lost.where(Submission.id == submission.id, Submission.unclear_at.is_null()).execute()


def _registration(entry: _Accepted) -> Registration:
    submission = entry.submission
    return Registration(
        entry.task_id,
        service=submission.service,
        type=submission.type,
        trace_id=submission.trace_id,
        submitted_at=submission.sent_at,
        callback_url=submission.callback_url,
        api_key=submission.api_key,
        mode=entry.mode,
    )


def _build_lease(*, id: Any, now: Any) -> Any:
    leased = Submission.update(leased_until=now + _LOOKED_FOR_FOR)
    return leased.where(Submission.id == id, Submission.leased_until <= now)


def _build_set_task(rows: Sequence[Row]) -> Any:
    (row,) = rows
    # Another process may have found the same task first, and told nobody.
    told_at = fn.COALESCE(Submission.told_at, row["told_at"])
    known = Submission.update(task_id=row["task_id"], ended_at=None, told_at=told_at)
    is_same = Submission.task_id.is_null() | (Submission.task_id == row["task_id"])
    return known.where(Submission.id == row["id"], is_same)


_lease = Query(_build_lease)
_set_task = Statement(_build_set_task)
_insert = Statement(
    lambda rows: (
        Submission.insert_many(rows).on_conflict_ignore().returning(Submission.trace_id, Submission.id)
    )
)
_begin: GroupCommit[tuple[Asked, datetime], Begun] = GroupCommit(_write_begun, within=_WITHIN_SECONDS)
_accept: GroupCommit[_Accepted, None] = GroupCommit(_write_accepted, within=_WITHIN_SECONDS)
