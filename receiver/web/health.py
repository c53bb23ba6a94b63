"""GET /healthz and GET /readyz: whether the process is up, and whether the service can do its work."""

from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.ledger import queries
from receiver.ledger.clock import to_iso, utcnow
from receiver.ledger.db import DATABASE_AWAY, pending_migrations
from receiver.ledger.pauses import current_pause
from receiver.spool import Spool
from receiver.web.settings import current_settings

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """200 while the process answers at all: what a platform's health check should ask for."""
    return jsonify({"ok": True})


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """200 when the database is reachable and its schema current, else 503; tells of the reconciler too."""
    report: dict[str, Any] = dict.fromkeys(
        ("ready", "database", "schema", "spooled", "set_aside", "last_good_run", "paused")
    )
    report |= {
        "ready": False,
        "database": "unreachable",
        "spooled": Spool(current_settings().spool_dir).depth(),
        "set_aside": Spool(current_settings().spool_dir).set_aside(),
    }
    try:
        pending = pending_migrations()
        report |= {"database": "ok", "schema": "behind" if pending else "current"}
        if not pending:
            report |= {"ready": True, "last_good_run": _last_good_run(), "paused": _paused()}
    except DATABASE_AWAY:
        report |= {"ready": False}
    return jsonify(report), 200 if report["ready"] else 503


def _paused() -> dict[str, Any] | None:
    """Return why and since when upstream may not be asked; None when it may."""
    pause = current_pause(utcnow())
    return {"since": to_iso(pause.started_at), "reason": pause.reason} if pause else None


def _last_good_run() -> dict[str, Any] | None:
    run = queries.last_good_run()
    if run is None or run.finished_at is None:
        return None
    age = (utcnow() - run.finished_at).total_seconds()
    interval = current_settings().reconcile_interval.total_seconds()
    return {
        "finished_at": to_iso(run.finished_at),
        "age_seconds": round(age, 1),
        "interval_seconds": interval,
    }
