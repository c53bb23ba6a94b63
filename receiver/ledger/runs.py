"""The reconciler's runs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from peewee import fn

from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import ReconcileRun

# It finished without anything to ask about.
_IS_IDLE = (
    ReconcileRun.finished_at.is_null(False)
    & (ReconcileRun.due == 0)
    & (ReconcileRun.calls == 0)
    & ReconcileRun.error.is_null()
)


def _build_repeat_idle(reconciler: Any, now: Any, clock_ahead: Any) -> Any:
    again = ReconcileRun.update(started_at=now, finished_at=now, clock_ahead=clock_ahead)
    is_newest = ReconcileRun.id == ReconcileRun.select(fn.MAX(ReconcileRun.id))
    # One of the future is kept: it tells that a clock was ahead, whose work is to be mended.
    is_past = ReconcileRun.started_at <= now
    return again.where(is_newest, is_past, ReconcileRun.reconciler == reconciler, _IS_IDLE)


_repeat_idle = Query(_build_repeat_idle)
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


def note_idle(reconciler: str, now: datetime, clock_ahead: int | None) -> None:
    """Record a run that found nothing to do. It takes the place of the newest one if that was ours and idle.

    So a reconciler that is idle for days leaves one row, which tells when it was last at work.
    """
    with writing():
        if not _repeat_idle.execute(reconciler=reconciler, now=now, clock_ahead=clock_ahead):
            run_id = _open.scalar(reconciler=reconciler, now=now)
            _change.execute(run_id=run_id, finished_at=now, clock_ahead=clock_ahead)


def note_progress(run_id: int, now: datetime, counts: Mapping[str, Any]) -> None:
    """Record the counts so far of a run in progress."""
    with writing():
        _change.execute(run_id=run_id, noted_at=now, **counts)
