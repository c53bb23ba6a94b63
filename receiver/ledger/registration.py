"""What a caller says of a task it has submitted, as a row for `merge`: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from receiver.ledger.kinds import BY_CALLER, RegistrationRow
from receiver.ledger.pace import TaskKind
from receiver.ledger.timetable import Timetable
from receiver.upstream import services

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
    callback_url: str | None = None  # where the result is posted in upstream's own form
    api_key: str | None = None  # the name of the key that it was submitted or registered with
    mode: str | None = None  # only for the first look-up: upstream tells it with the request


def of_registrations(
    registrations: Sequence[Registration], now: datetime, timetable: Timetable
) -> list[RegistrationRow]:
    """Return what registrations say, one row a task: of several values the smallest counts."""
    return [_of_registration(registration, now, timetable) for registration in _fold(registrations)]


def _of_registration(registration: Registration, now: datetime, timetable: Timetable) -> RegistrationRow:
    kind = TaskKind(registration.service, registration.type or "", registration.mode or "")
    age = max(now - (registration.submitted_at or now), timedelta(0))
    return {
        "id": registration.id,
        "service": registration.service,
        "service_source": BY_CALLER,
        "created_at": now,
        "registered_at": now,
        "silent_since": now,
        "next_lookup_at": now + timetable.first_wait(kind, age),
        "type": registration.type,
        "type_source": _source(registration.type),
        "ref": registration.ref,
        "ref_source": _source(registration.ref),
        "trace_id": registration.trace_id,
        "trace_id_source": _source(registration.trace_id),
        "submitted_at": registration.submitted_at,
        "submitted_at_source": _source(registration.submitted_at),
        "callback_url": registration.callback_url,
        "api_key": registration.api_key,
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
            callback_url=_smaller(known.callback_url, registration.callback_url),
            api_key=_smaller(known.api_key, registration.api_key),
            mode=_smaller(known.mode, registration.mode),
        )
    # In the order of their ids, across all statements that write them: or two batches could deadlock.
    return [folded[task_id] for task_id in sorted(folded)]


def _smaller(one: _T | None, other: _T | None) -> _T | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _source(value: object) -> int | None:
    return None if value is None else BY_CALLER
