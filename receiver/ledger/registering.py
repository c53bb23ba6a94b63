"""Registers submitted tasks, each in one upsert. `store` is the door to it.

See "Two witnesses" in docs/design.md.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from peewee import SQL

from receiver.ledger import dealing, registration
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Row, Statement, parts
from receiver.ledger.kinds import REGISTRATION, RegistrationRow
from receiver.ledger.merge import merge
from receiver.ledger.models import Task
from receiver.ledger.registration import Registration
from receiver.ledger.telling import When
from receiver.ledger.timetable import Timetable
from receiver.logs import log_lines
from receiver.upstream.results import FINAL

log = logging.getLogger(__name__)


class OtherService(ValueError):
    """A task is registered under one service, and known under another."""

    def __init__(self, task_id: str, service: str) -> None:
        super().__init__(f"Task {task_id!r} belongs to the service {service}.")


def register(
    registrations: Sequence[Registration],
    now: datetime,
    *,
    timetable: Timetable,
    forward_when: When = "confirmed",
) -> int:
    """Register submitted tasks and return how many are new.

    Registering a task again adds what was missing. Of two different values the smaller one counts. Raises
    OtherService if one of the tasks is known under another service. Then none is registered. A result that
    is known already is forwarded to the callback URL that a registration brings.
    """
    ids = {one.id for one in registrations}
    with writing():
        # On PostgreSQL the upsert itself tells which tasks are new. A second pass over the ids could deadlock
        # with a writer that inserts one of them. The `xmax` of a known row is the lock that ON CONFLICT took;
        # that of a new row is 0. SQLite has one writer, so we can count before.
        known = 0 if on_postgresql() else int(Task.select().where(Task.id.in_(ids)).count())
        new = register_within(registrations, now, timetable=timetable, forward_when=forward_when)
    log_registered(registrations)
    return new if on_postgresql() else len(ids) - known


def register_within(
    registrations: Sequence[Registration], now: datetime, *, timetable: Timetable, forward_when: When
) -> int:
    """Register submitted tasks within a transaction of the caller's. On PostgreSQL return how many are new.

    Call `log_registered` once the transaction has been committed. Raises OtherService.
    """
    created, finished = 0, set()
    for rows in parts(registration.of_registrations(registrations, now, timetable)):
        written = _merge_registered.returning(rows)
        _require_services(rows, {task_id: service for task_id, service, *_ in written})
        finished |= {task_id for task_id, _, status, _ in written if status in FINAL}
        created += sum(bool(new) for *_, new in written)
    late = finished & {one.id for one in registrations if one.callback_url is not None}
    # After the last task is locked. A dealer, for whose turn this waits, locks none.
    for some in parts(sorted(late)):
        dealing.deal_to_late_urls(some, now, forward_when)
    return created


def log_registered(registrations: Sequence[Registration]) -> None:
    """Log a line for each of these tasks."""
    log_lines(log, [(f"Task {one.id}: registered.", {"task": one.id}) for one in registrations])


def _build_merge_registered(rows: Sequence[Row]) -> Any:
    is_new = SQL("xmax = 0" if on_postgresql() else "NULL")
    return merge(REGISTRATION, rows).returning(Task.id, Task.service, Task.status, is_new)


def _require_services(rows: Sequence[RegistrationRow], known: Mapping[str, str]) -> None:
    for row in rows:
        if row["service"] != known[row["id"]]:
            raise OtherService(row["id"], known[row["id"]])


_merge_registered = Statement(_build_merge_registered)
