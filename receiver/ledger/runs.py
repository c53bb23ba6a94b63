"""The reconciler's runs, and pruning of old rows."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver.ledger.choosing import ForwardFilter, find_next
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.forward import DELIVERED, DISMISSED, RESENT
from receiver.ledger.models import (
    Delivery,
    Forward,
    Incident,
    Lookup,
    Pause,
    ReconcileRun,
    Refusal,
    Resending,
    Submission,
)

_PRUNE_AT_ONCE = 1000
_open = Query(
    lambda reconciler, now: ReconcileRun.insert(reconciler=reconciler, started_at=now).returning(
        ReconcileRun.id
    )
)
_change = Query(lambda run_id, **columns: ReconcileRun.update(**columns).where(ReconcileRun.id == run_id))


def open_run(reconciler: str, now: datetime) -> int:
    """Record the start of a run and return its id. `reconciler` names the process as host:pid."""
    with writing():
        return int(_open.scalar(reconciler=reconciler, now=now))


def close_run(run_id: int, now: datetime, counts: Mapping[str, Any]) -> None:
    """Record the end of a run with its counts (columns of ReconcileRun)."""
    with writing():
        _change.execute(run_id=run_id, finished_at=now, **counts)


def note_progress(run_id: int, now: datetime, counts: Mapping[str, Any]) -> None:
    """Record the counts so far of a run in progress."""
    with writing():
        _change.execute(run_id=run_id, noted_at=now, **counts)


def prune(before: datetime) -> int:
    """Delete rows older than `before`, except tasks and what was not delivered to the customer's app.

    Returns how many were deleted.
    """
    deleted = sum(_prune_forwards(status, before) for status in (DELIVERED, DISMISSED))
    for model, time in (
        (Delivery, Delivery.received_at),
        (Lookup, Lookup.asked_at),
        (ReconcileRun, ReconcileRun.started_at),
        (Pause, Pause.ended_at),
        (Refusal, Refusal.last_at),
        (Resending, Resending.ended_at),
        (Incident, Incident.closed_at),
        (Submission, Submission.ended_at),
    ):
        old = model.select(model.id).where(time < before).order_by(time).limit(_PRUNE_AT_ONCE)
        gone = _PRUNE_AT_ONCE
        while gone == _PRUNE_AT_ONCE:  # in portions, as a long transaction would block callbacks
            with writing():
                gone = model.delete().where(model.id.in_(old)).execute()
            deleted += gone
    return deleted


def _prune_forwards(status: str, before: datetime) -> int:
    """Delete forwards that ended before a moment, with their attempts, and return how many."""
    deleted, place = 0, None
    while True:
        with writing():
            some, place = find_next(ForwardFilter(status=status, until=before), _PRUNE_AT_ONCE, place)
            old: Any = Forward.select(Forward.id).where(Forward.id.in_(some), Forward.ended_at < before)
            if on_postgresql():  # what is being sent again stays for now
                old = old.for_update("FOR UPDATE SKIP LOCKED")
            gone = list(Forward.delete().where(Forward.id.in_(old)).returning(Forward.resends).execute())
            deleted += len(gone) + _prune_resent({row.resends for row in gone if row.resends is not None})
        if place is None:
            return deleted


def _prune_resent(firsts: set[int]) -> int:
    """Delete the failed forwards of events that were sent again, with a result that has been deleted."""
    of_events = Forward.select(Forward.id, Forward.status).where(
        Forward.id.in_(firsts) | Forward.resends.in_(firsts)
    )
    resent = [forward.id for forward in of_events if forward.status == RESENT] if firsts else []
    return int(Forward.delete().where(Forward.id.in_(resent)).execute()) if resent else 0
