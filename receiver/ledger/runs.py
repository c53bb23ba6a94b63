"""The reconciler's runs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import ReconcileRun

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
