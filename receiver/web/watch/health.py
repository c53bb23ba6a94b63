"""GET /healthz tells whether the process is up. GET /readyz tells whether the service can do its work."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.clock import SKEW, to_iso, utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import pending_migrations
from receiver.ledger.models import Endpoint, Pause, ReconcileRun
from receiver.ledger.pauses import current_pause, paused_services
from receiver.ledger.reading import queries
from receiver.ledger.reading.endpoints import forward_facts
from receiver.ledger.reading.standing import FAILING_AFTER_RUNS, standing_of
from receiver.ledger.refusals import Refused
from receiver.ledger.unclear import unclear_facts
from receiver.redact import mask_credentials
from receiver.web.auth import carries_key
from receiver.web.current import current_settings
from receiver.web.formatting import shown
from receiver.web.intake import Intake, current_intake
from receiver.web.offload import offload_within
from receiver.web.watch.gathering import facts_without_ledger, gather_facts
from receiver.web.watch.summary import summarise, summarise_without_ledger
from receiver.web.watch.troubles import SCHEMA_BEHIND, Trouble, troubles
from receiver.web.writes import KEPT, Writes

blueprint = Blueprint("health", __name__)

_READ_WITHIN_SECONDS = 2.0
# The report always has all of these fields; null means unknown.
_FIELDS = (
    *("ready", "callbacks", "refused", "database", "schema", "spooled", "set_aside"),
    *("last_run", "last_good_run", "upstream", "paused", "paused_services", "forwards", "unclear"),
    "troubles",
)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer 200 while the process runs. Platforms' health checks should use this."""
    return jsonify({"ok": True})


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Report the state of the service. It answers within 4 s, whatever the database does.

    200: callbacks go into the database and its schema is current. 503: otherwise. The report covers the
    reconciler too, which does not change the status. `troubles` has a code for each thing that is wrong, as
    the overview tells it. Reasons, addresses and error texts need the API key.
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
    refused: Mapping[str, Refused] = intake.refused.unrecorded()
    found: list[Trouble] | None = None
    try:
        if not writes.hangs:
            told, refused, found = offload_within(
                _READ_WITHIN_SECONDS, partial(_of_the_ledger, intake, writes)
            )
            report |= told
    except DATABASE_ERRORS as problem:
        writes = writes.without_database(describe(problem), utcnow())
    writes = intake.corrected(writes, refused)
    if found is None:
        facts = facts_without_ledger(utcnow(), current_settings(), intake, writes)
        found = troubles(summarise_without_ledger(facts))
    report["troubles"] = [_trouble(one) for one in found]
    report |= {"callbacks": writes.callbacks, "refused": _refused(refused)}
    if writes.database or writes.spool:
        report["cannot_write"] = _cannot_write(writes)
    report["ready"] = report["schema"] == "current" and writes.callbacks == KEPT
    return jsonify(report), 200 if report["ready"] else 503


def _of_the_ledger(
    intake: Intake, writes: Writes
) -> tuple[dict[str, Any], Mapping[str, Refused], list[Trouble]]:
    """Return the ledger's part of the report, the requests that were refused lately, and what is wrong."""
    if pending_migrations():
        return {"database": "ok", "schema": "behind"}, intake.refused.unrecorded(), [SCHEMA_BEHIND]
    told = {
        "database": "ok",
        "schema": "current",
        **_reconciler(),
        "paused": _paused(),
        "paused_services": _paused_services(),
        "forwards": _forwards(),
        "unclear": _unclear(),
    }
    facts = gather_facts(utcnow(), current_settings(), intake, writes)
    return told, facts.refused, troubles(summarise(facts))


def _trouble(trouble: Trouble) -> dict[str, str]:
    return {"code": trouble.code, "message": trouble.message if carries_key() else f"{trouble.title}."}


def _cannot_write(writes: Writes) -> dict[str, Any]:
    told = {"database": writes.database, "spool": writes.spool} if carries_key() else {}
    since = writes.refused_since or writes.since or writes.spool_since
    return {"since": to_iso(since), **told}


def _refused(counted: Mapping[str, Refused]) -> dict[str, Any]:
    """Return the refused requests by kind. Addresses and reasons need the API key."""
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
    """Return the current pause of look-ups; None without one. The reason needs the API key."""
    pause = current_pause(utcnow())
    return None if pause is None else _pause(pause)


def _paused_services() -> dict[str, Any]:
    """Return the pauses of single services, by their names."""
    return {pause.service: _pause(pause) for pause in paused_services(utcnow())}


def _pause(pause: Pause) -> dict[str, Any]:
    return {"since": to_iso(pause.started_at), **({"reason": pause.reason} if carries_key() else {})}


def _forwards() -> dict[str, Any] | None:
    """Return how the customer's app is told; None where there is nobody to tell."""
    now = utcnow()
    facts = forward_facts(now)
    if not facts.is_used and not current_settings().forward_urls:
        return None
    return {
        "delivered": facts.share.delivered,
        "of": facts.share.of,
        "waiting": facts.waiting,
        "oldest_age_seconds": _age(facts.oldest_waiting_at, now)["age_seconds"],
        "undealt_age_seconds": _age(facts.undealt_since, now)["age_seconds"],
        "failed": facts.failed,
        "held": len(facts.held),
        **({"held_endpoints": [_held(one) for one in facts.held]} if carries_key() else {}),
    }


def _unclear() -> dict[str, Any]:
    """Return how many submissions are unclear. The trace ids of the oldest need the API key."""
    now = utcnow()
    facts = unclear_facts(now)
    oldest_at = facts.oldest[0].sent_at if facts.oldest else None
    return {
        "submissions": facts.count,
        "oldest_age_seconds": _age(oldest_at, now)["age_seconds"],
        **({"trace_ids": [one.trace_id for one in facts.oldest]} if carries_key() else {}),
    }


def _held(endpoint: Endpoint) -> dict[str, Any]:
    since = to_iso(endpoint.held_at)
    url = mask_credentials(endpoint.url)
    return {"id": endpoint.id, "url": url, "because": endpoint.held_because, "since": since}


def _reconciler() -> dict[str, Any]:
    """Return the reconciler's last run, its last good run, and whether upstream answers."""
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
    """Return upstream's standing. `state` is unknown, answering, failing or paused."""
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
    """Return a moment's age; null if there is no moment, or if it is in the future and so unknown."""
    in_future = moment is not None and moment > now + SKEW
    if moment is None or in_future:
        return {"age_seconds": None, "in_future": in_future}
    return {"age_seconds": round(max((now - moment).total_seconds(), 0), 1), "in_future": False}
