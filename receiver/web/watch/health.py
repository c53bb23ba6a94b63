"""GET /healthz tells whether the process is up. GET /readyz tells whether the service can do its work."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue

from receiver.clock import to_iso, utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.web.auth import carries_key
from receiver.web.current import current_settings
from receiver.web.intake import Intake, current_intake
from receiver.web.watch import report
from receiver.web.watch.gathering import facts_without_ledger
from receiver.web.watch.reading import Known, LedgerReader
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


@dataclass(frozen=True, slots=True)
class _State:
    """Whether callbacks can be stored, and what the ledger tells; None while it cannot be read."""

    intake: Intake
    writes: Writes
    known: Known | None


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
    told = _report(_state(current_intake()), in_full=carries_key())
    return jsonify(told), 200 if told["ready"] else 503


def _state(intake: Intake) -> _State:
    reader: LedgerReader = current_app.extensions["backstop_ledger_reader"]
    writes = intake.writes()
    if writes.hangs:
        return _State(intake, writes, None)
    try:
        return _State(intake, writes, reader.read(writes, _READ_WITHIN_SECONDS))
    except DATABASE_ERRORS as problem:
        return _State(intake, writes.without_database(describe(problem), utcnow()), None)


def _report(state: _State, in_full: bool) -> dict[str, Any]:
    intake, known = state.intake, state.known
    facts = known.facts if known else None
    refused = facts.refused if facts else intake.refused.unrecorded()
    writes = intake.corrected(state.writes, refused)
    told: dict[str, Any] = dict.fromkeys(_FIELDS) | {
        "database": "ok" if known else "unreachable",
        "spooled": intake.spool.depth(),
        "set_aside": intake.spool.set_aside(),
        "callbacks": writes.callbacks,
        "refused": report.of_refused(refused, in_full),
        "troubles": [_trouble(one, in_full) for one in _found(state, writes)],
    }
    if known:
        told["schema"] = "current" if facts else "behind"
    if known and facts:
        told |= report.of_ledger(known, facts, bool(current_settings().forward_urls), in_full)
    if writes.database or writes.spool:
        told["cannot_write"] = _cannot_write(writes, in_full)
    return told | {"ready": told["schema"] == "current" and writes.callbacks == KEPT}


def _found(state: _State, writes: Writes) -> list[Trouble]:
    """Return what is wrong."""
    if state.known is None:
        facts = facts_without_ledger(utcnow(), current_settings(), state.intake, writes)
        return troubles(summarise_without_ledger(facts))
    return troubles(summarise(state.known.facts)) if state.known.facts else [SCHEMA_BEHIND]


def _trouble(trouble: Trouble, in_full: bool) -> dict[str, str]:
    return {"code": trouble.code, "message": trouble.message if in_full else f"{trouble.title}."}


def _cannot_write(writes: Writes, in_full: bool) -> dict[str, Any]:
    told = {"database": writes.database, "spool": writes.spool} if in_full else {}
    since = writes.refused_since or writes.since or writes.spool_since
    return {"since": to_iso(since), **told}
