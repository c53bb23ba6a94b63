"""GET /healthz and GET /readyz: whether the process is up, and whether the service can do its work."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.clock import SKEW, to_iso, utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import pending_migrations
from receiver.ledger.models import ReconcileRun
from receiver.ledger.pauses import current_pause
from receiver.ledger.reading import queries
from receiver.ledger.reading.standing import FAILING_AFTER_RUNS, standing_of
from receiver.ledger.refusals import Refused
from receiver.web.auth import carries_key
from receiver.web.current import current_settings
from receiver.web.formatting import shown
from receiver.web.intake import REFUSED_TOLD_FOR, Intake, current_intake
from receiver.web.offload import offload_within
from receiver.web.writes import KEPT, Writes

blueprint = Blueprint("health", __name__)

_READ_WITHIN_SECONDS = 2.0
# All are told in every state, null where nothing is known.
_FIELDS = (
    *("ready", "callbacks", "refused", "database", "schema", "spooled", "set_aside"),
    *("last_run", "last_good_run", "upstream", "paused"),
)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """200 while the process answers at all: what a platform's health check should ask for."""
    return jsonify({"ok": True})


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """200 when callbacks are kept and the schema is current, else 503; tells of the reconciler too.

    It answers within 4 s, whatever the database does.
    Reasons, addresses and error texts are told only to whoever sends the API key.
    """
    report: dict[str, Any] = dict.fromkeys(_FIELDS)
    intake = current_intake()
    writes = intake.writes()
    report |= {
        "ready": False,
        "database": "unreachable",
        "spooled": intake.spool.depth(),
        "set_aside": intake.spool.set_aside(),
    }
    refused: Mapping[str, Refused] = intake.refused.everywhere()
    try:
        if not writes.hangs:
            told, refused = offload_within(_READ_WITHIN_SECONDS, partial(_of_the_ledger, intake))
            report |= told
    except DATABASE_ERRORS as problem:
        writes = writes.without_database(describe(problem), utcnow())
    writes = intake.corrected(writes, refused)
    report |= {"callbacks": writes.callbacks, "refused": _refused(refused)}
    if writes.database or writes.spool:
        report["cannot_write"] = _cannot_write(writes)
    report["ready"] = report["schema"] == "current" and writes.callbacks == KEPT
    return jsonify(report), 200 if report["ready"] else 503


def _of_the_ledger(intake: Intake) -> tuple[dict[str, Any], Mapping[str, Refused]]:
    """Return what the ledger tells, and what was refused lately."""
    if pending_migrations():
        return {"database": "ok", "schema": "behind"}, intake.refused.everywhere()
    told = {"database": "ok", "schema": "current", **_reconciler(), "paused": _paused()}
    return told, intake.refused_since(utcnow() - REFUSED_TOLD_FOR)


def _cannot_write(writes: Writes) -> dict[str, Any]:
    told = {"database": writes.database, "spool": writes.spool} if carries_key() else {}
    since = writes.refused_since or writes.since or writes.spool_since
    return {"since": to_iso(since), **told}


def _refused(counted: Mapping[str, Refused]) -> dict[str, Any]:
    """Return what was refused, by kind. Addresses and reasons are for whoever has the key."""
    shown_fields = ("remote_addr", "reason") if carries_key() else ()
    return {
        kind: {
            "requests": one.requests,
            "first_at": to_iso(one.first_at),
            "last_at": to_iso(one.last_at),
            **{name: getattr(one, name) for name in shown_fields},
        }
        for kind, one in counted.items()
    }


def _paused() -> dict[str, Any] | None:
    """Return since when upstream may not be asked, and why if the API key came; None when it may."""
    pause = current_pause(utcnow())
    if pause is None:
        return None
    return {"since": to_iso(pause.started_at), **({"reason": pause.reason} if carries_key() else {})}


def _reconciler() -> dict[str, Any]:
    """Return when the reconciler last ran, when it last had its answers, and whether upstream gives any."""
    now, last = utcnow(), queries.list_runs(1)
    return {
        "last_run": _run(last[0] if last else None, now),
        "last_good_run": _run(queries.last_good_run(), now),
        "upstream": _upstream(now),
    }


def _run(run: ReconcileRun | None, now: datetime) -> dict[str, Any] | None:
    if run is None:
        return None
    ended_at = run.finished_at or run.started_at
    interval = current_settings().reconcile_interval.total_seconds()
    return {"finished_at": to_iso(ended_at), "interval_seconds": interval, **_age(ended_at, now)}


def _upstream(now: datetime) -> dict[str, Any]:
    """Return whether upstream answers look-ups; `state` is unknown, answering, failing or paused."""
    failing = queries.failing_runs(FAILING_AFTER_RUNS)
    standing = standing_of(now, current_pause(now), queries.last_answered_run(), failing)
    newest = queries.list_runs(1, asked=True) if failing else []
    return {
        "state": standing.state,
        "last_answered_at": to_iso(standing.last_answered_at),
        **{f"answered_{name}": value for name, value in _age(standing.last_answered_at, now).items()},
        "failing_since": to_iso(standing.failing_since),
        **({"reason": shown(newest[0].error) if newest else None} if carries_key() else {}),
    }


def _age(moment: datetime | None, now: datetime) -> dict[str, Any]:
    """Return how long ago something was: null where nobody knows, since it lies in the future."""
    in_future = moment is not None and moment > now + SKEW
    if moment is None or in_future:
        return {"age_seconds": None, "in_future": in_future}
    return {"age_seconds": round(max((now - moment).total_seconds(), 0), 1), "in_future": False}
