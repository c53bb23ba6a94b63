"""POST /callbacks/<token>[/<ref>] receives a result, which upstream sends once. Store it, then judge it.

See "The life of a delivery" in docs/design.md.
"""

import logging
from datetime import datetime

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import ServiceUnavailable

from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.refusals import NOT_KEPT, UNKNOWN_REFUSED
from receiver.upstream.results import FINAL
from receiver.web.callback_request import place_of, read_callback
from receiver.web.current import current_settings, current_timetable
from receiver.web.errors import database_down
from receiver.web.intake import LIMITED, current_intake, record
from receiver.web.probe import answer_to
from receiver.web.waiting import current_waiting
from receiver.web.writes import why_lost

log = logging.getLogger(__name__)
blueprint = Blueprint("callbacks", __name__)


@blueprint.post("/callbacks/<token>")
@blueprint.post("/callbacks/<token>/")
@blueprint.post("/callbacks/<token>/<text:ref>")
def receive(token: str, ref: str | None = None) -> ResponseReturnValue:
    """Receive a delivery and answer once it is on disk. `?service=` names the task's service.

    200: recorded; the answer has the task's status. A probe of `check` gets 200 too, and is not recorded.
    202: stored, but the body is unreadable, incomplete or shortened; or spooled, as the database is down or
    recording failed. 404: a wrong token. 413: too large, only the beginning is stored. 429: not stored, as
    too many came of unknown tasks; or a wrong token, after many of them. 503: lost, as neither the database
    nor the spool could store it.
    """
    settings = current_settings()
    place = place_of(token, settings.callback_tokens)
    callback, now = read_callback(settings.max_body_bytes, ref, place), utcnow()
    if probed := answer_to(callback.body, token):
        return jsonify(probed)
    try:
        recorded = record(callback, now, settings, current_timetable(), current_intake().unknown)
    except Exception as problem:  # noqa: BLE001 - after any error: there is no other copy of this callback
        return _spool(callback, now, problem)
    if recorded.problem and recorded.problem.code in LIMITED:
        current_intake().refused.note(recorded.problem.code, callback.remote_addr)
    if recorded.task_id is not None and recorded.status in FINAL:
        current_waiting().hurry(recorded.task_id)
    return _answer(recorded)


def _spool(callback: store.Callback, received_at: datetime, problem: Exception) -> ResponseReturnValue:
    try:
        current_intake().spool.append(callback, received_at)
    except Exception as full:  # noqa: BLE001 - the sender must know of any error
        current_intake().refused.note(NOT_KEPT, callback.remote_addr, why_lost(problem, full))
        raise _refused(problem) from None
    _note_spooled(problem)
    if callback.cut and callback.cut.code == "too_large":
        return _answer(store.Recorded(None, None, callback.cut))
    return jsonify({"received": True, "spooled": True}), 202


def _refused(problem: Exception) -> ServiceUnavailable:
    """Log why a callback is lost, and return the answer to its sender."""
    if isinstance(problem, DATABASE_ERRORS):
        return database_down(problem)
    log.error("A callback could not be recorded.", exc_info=problem)
    return ServiceUnavailable("The callback could not be stored; try again in a moment.", retry_after=10)


def _note_spooled(problem: Exception) -> None:
    # No error while nothing is lost: an outage would send one to Sentry for each callback.
    if isinstance(problem, DATABASE_ERRORS):
        current_intake().absence.note()
        log.warning("%r waits in the spool: the database failed: %s", request.path, describe(problem))
    else:
        log.error("A callback could not be recorded; it waits in the spool.", exc_info=problem)


def _answer(recorded: store.Recorded) -> ResponseReturnValue:
    problem = recorded.problem
    if problem is None:
        return jsonify({"received": True, "task_id": recorded.task_id, "status": recorded.status})
    error = {"code": problem.code, "message": str(problem)}
    if problem.code == "too_large":
        return jsonify({"error": error}), 413
    if problem.code == UNKNOWN_REFUSED:
        return jsonify({"error": error}), 429, {"Retry-After": "60"}
    return jsonify({"received": True, "readable": False, "error": error}), 202
