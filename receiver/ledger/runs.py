"""The reconciler's own rows: its runs, and what it deletes when that is old enough."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver.ledger.engine.db import writing
from receiver.ledger.models import Delivery, Lookup, Pause, ReconcileRun, Refusal

_PRUNE_AT_ONCE = 1000


def open_run(reconciler: str, now: datetime) -> int:
    """Note that a run has begun and return its id. `reconciler` names the process, as host:pid."""
    with writing():
        return int(ReconcileRun.insert(reconciler=reconciler, started_at=now).execute())


def close_run(run_id: int, now: datetime, counts: Mapping[str, Any]) -> None:
    """Note that a run is over, with what it counted (the columns of ReconcileRun)."""
    with writing():
        ReconcileRun.update(finished_at=now, **counts).where(ReconcileRun.id == run_id).execute()


def note_progress(run_id: int, now: datetime, counts: Mapping[str, Any]) -> None:
    """Note what a run in progress has counted so far."""
    with writing():
        ReconcileRun.update(noted_at=now, **counts).where(ReconcileRun.id == run_id).execute()


def prune(before: datetime) -> int:
    """Delete what is older than `before`, tasks excepted, and return how many rows that were."""
    deleted = 0
    for model, time in (
        (Delivery, Delivery.received_at),
        (Lookup, Lookup.asked_at),
        (ReconcileRun, ReconcileRun.started_at),
        (Pause, Pause.ended_at),
        (Refusal, Refusal.last_at),
    ):
        old = model.select(model.id).where(time < before).order_by(time).limit(_PRUNE_AT_ONCE)
        gone = _PRUNE_AT_ONCE
        while gone == _PRUNE_AT_ONCE:  # in portions: a long transaction would keep callbacks waiting
            with writing():
                gone = model.delete().where(model.id.in_(old)).execute()
            deleted += gone
    return deleted
