"""Whether the service can do its work, and what is wrong: for /readyz and for the terminal."""

from dataclasses import dataclass
from typing import Any

from flask import current_app

from receiver.clock import to_iso, utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.web.current import current_settings
from receiver.web.intake import Intake, current_intake
from receiver.web.watch import report
from receiver.web.watch.facts import Summary
from receiver.web.watch.gathering import facts_without_ledger
from receiver.web.watch.reading import Known, LedgerReader
from receiver.web.watch.summary import summarise, summarise_without_ledger
from receiver.web.watch.troubles import SCHEMA_BEHIND, Trouble, troubles
from receiver.web.writes import KEPT, Writes

_READ_WITHIN_SECONDS = 2.0
# The report always has all of these fields; null means unknown.
_FIELDS = (
    *("ready", "callbacks", "refused", "database", "schema", "spooled", "set_aside"),
    *("last_run", "last_good_run", "upstream", "paused", "paused_services", "forwards", "unclear"),
    "troubles",
)


@dataclass(frozen=True, slots=True)
class State:
    """Whether callbacks can be stored, and what the ledger tells; None while it cannot be read."""

    intake: Intake
    writes: Writes
    known: Known | None


def read_state() -> State:
    """Return the state of the application that serves the current request. This takes 4 s at most."""
    reader: LedgerReader = current_app.extensions["backstop_ledger_reader"]
    intake = current_intake()
    writes = intake.writes()
    if writes.hangs:
        return State(intake, writes, None)
    try:
        return State(intake, writes, reader.read(writes, _READ_WITHIN_SECONDS))
    except DATABASE_ERRORS as problem:
        return State(intake, writes.without_database(describe(problem), utcnow()), None)


def report_of(state: State, in_full: bool) -> dict[str, Any]:
    """Return the report of /readyz. `in_full` adds what needs the API key: reasons, addresses, errors."""
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
        "troubles": [_trouble(one, in_full) for one in _found(state)],
    }
    if known:
        told["schema"] = "current" if facts else "behind"
    if known and facts:
        told |= report.of_ledger(known, facts, bool(current_settings().forward_urls), in_full)
    if writes.database or writes.spool:
        told["cannot_write"] = _cannot_write(writes, in_full)
    return told | {"ready": told["schema"] == "current" and writes.callbacks == KEPT}


def notices_of(state: State) -> list[Summary]:
    """Return the overview's notices, the most important first; none while the schema is behind."""
    if state.known is None:
        known = facts_without_ledger(utcnow(), current_settings(), state.intake, state.writes)
        return summarise_without_ledger(known)
    return summarise(state.known.facts) if state.known.facts else []


def _found(state: State) -> list[Trouble]:
    """Return what is wrong."""
    is_behind = state.known is not None and state.known.facts is None
    return [SCHEMA_BEHIND] if is_behind else troubles(notices_of(state))


def _trouble(trouble: Trouble, in_full: bool) -> dict[str, str]:
    return {"code": trouble.code, "message": trouble.message if in_full else f"{trouble.title}."}


def _cannot_write(writes: Writes, in_full: bool) -> dict[str, Any]:
    told = {"database": writes.database, "spool": writes.spool} if in_full else {}
    since = writes.refused_since or writes.since or writes.spool_since
    return {"since": to_iso(since), **told}
