"""POST /callbacks/<token>[/<ref>] receives a result, which upstream sends once. Store it, then judge it.

See "The life of a delivery" in docs/design.md.
"""

import contextlib
import logging
from datetime import datetime
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound, ServiceUnavailable

from receiver.api_keys import is_same_secret
from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import store
from receiver.ledger.admission import KEPT_OF_LARGE, UnknownBudget
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.refusals import NOT_KEPT, SHORTENED, UNKNOWN_REFUSED, WRONG_TOKEN
from receiver.ledger.timetable import Timetable
from receiver.redact import MASK, mask_tokens
from receiver.upstream.results import FINAL, Unreadable
from receiver.upstream.services import SERVICES
from receiver.web.current import current_settings, current_timetable
from receiver.web.errors import database_down
from receiver.web.guesses import note_wrong
from receiver.web.intake import current_intake
from receiver.web.probe import answer_to
from receiver.web.stalls import stall_guard
from receiver.web.waiting import current_waiting
from receiver.web.writes import why_lost

log = logging.getLogger(__name__)
blueprint = Blueprint("callbacks", __name__)

# Read and discard a body up to this many times the limit. A sender that is cut off while it still sends would
# see a broken connection instead of the answer.
_READ_OVER_LIMIT = 8
_MOST_OF_HEADERS = 16384  # characters; the server takes up to 100 headers of 8 kB each
_CHUNK = 65536
_LARGEST_SIZE = 2**31 - 1  # the column's limit; a Content-Length may claim any number
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


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
    # Compare with every token: the time that it takes must not show which token matched.
    same = [is_same_secret(token, ours) for ours in settings.callback_tokens]
    if True not in same:
        current_intake().refused.note(WRONG_TOKEN, request.remote_addr)
        note_wrong()
        raise NotFound("The callback token in this URL is not ours.")
    with stall_guard.reading():
        callback, now = _read(settings.max_body_bytes, ref, same.index(True)), utcnow()
    if probed := answer_to(callback.body, token):
        return jsonify(probed)
    try:
        recorded = record(callback, now, settings, current_timetable(), current_intake().unknown)
    except Exception as problem:  # noqa: BLE001 - after any error: there is no other copy of this callback
        return _spool(callback, now, problem)
    _log(recorded)
    if recorded.problem and recorded.problem.code in {SHORTENED, UNKNOWN_REFUSED}:
        current_intake().refused.note(recorded.problem.code, callback.remote_addr)
    if recorded.task_id is not None and recorded.status in FINAL:
        current_waiting().hurry(recorded.task_id)
    return _answer(recorded)


def _log(recorded: store.Recorded) -> None:
    if recorded.task_id is not None:
        told = (recorded.task_id, recorded.status)
        log.info("Task %s: a callback came, the task is %s.", *told, extra={"task": recorded.task_id})


def record(
    callback: store.Callback,
    received_at: datetime,
    settings: Settings,
    timetable: Timetable,
    unknown: UnknownBudget | None,
) -> store.Recorded:
    """Record a callback in the ledger. It comes from the network or from the spool."""
    return store.record(
        callback,
        received_at,
        timetable=timetable,
        confirm=settings.confirm_callbacks,
        largest=settings.max_body_bytes,
        unknown=unknown,
    )


def _spool(callback: store.Callback, received_at: datetime, problem: Exception) -> ResponseReturnValue:
    if isinstance(problem, DATABASE_ERRORS):
        refused = database_down(problem)
    else:
        log.error("A callback could not be recorded; it goes to the spool.", exc_info=problem)
        refused = ServiceUnavailable(
            "The callback could not be stored; try again in a moment.", retry_after=10
        )
    try:
        current_intake().spool.append(callback, received_at)
    except Exception as full:  # noqa: BLE001 - the sender must know of any error
        current_intake().refused.note(NOT_KEPT, callback.remote_addr, why_lost(problem, full))
        raise refused from None
    if callback.cut and callback.cut.code == "too_large":
        return _answer(store.Recorded(None, None, callback.cut))
    return jsonify({"received": True, "spooled": True}), 202


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


def _read(limit: int, ref: str | None, token: int) -> store.Callback:
    body, size, cut = _read_body(limit)
    if size > limit:
        body = body[:KEPT_OF_LARGE]
        size = min(max(size, request.content_length or 0), _LARGEST_SIZE)
        cut = Unreadable("too_large", f"The body is larger than {limit} bytes; only its beginning was kept.")
    return store.Callback(
        body=body,
        size=size,
        ref=ref,
        remote_addr=request.remote_addr,
        headers=_headers(),
        cut=cut,
        token=token,
        service=_service() if request.query_string else None,
    )


def _service() -> str | None:
    """Return the service that the URL names. An unknown name must lose no callback: one is assumed."""
    name = request.args.get("service")
    return name if name in SERVICES else None


def _read_body(limit: int) -> tuple[bytes, int, Unreadable | None]:
    """Return the body's first `limit` bytes, how many bytes arrived, and the problem if it was cut short."""
    kept, size = bytearray(), 0
    stream: Any = None
    try:
        stream = request.stream
        while size <= limit * _READ_OVER_LIMIT and (chunk := stream.read(_CHUNK)):
            kept += chunk[: max(limit - size, 0)]
            size += len(chunk)
    except Exception:  # noqa: BLE001 - the server may raise anything for a body that breaks off: keep what arrived
        # A second read returns the part of a chunk that the server had read.
        with contextlib.suppress(Exception):
            rest = stream.read(_CHUNK)
            kept += rest[: max(limit - size, 0)]
            size += len(rest)
        return bytes(kept), size, _incomplete()
    is_cut = size < (request.content_length or 0) and size <= limit
    return bytes(kept), size, _incomplete() if is_cut else None


def _incomplete() -> Unreadable:
    return Unreadable("incomplete", "The connection ended before the body did.")


def _headers() -> list[tuple[str, str]]:
    kept, room = [], _MOST_OF_HEADERS
    try:
        for name, value in request.headers:
            room -= len(name) + len(value)
            if room < 0:
                break
            kept.append((name, _mask(name, value)))
        return kept
    except Exception:  # the body counts, whatever the headers hold
        log.exception("The headers of a callback cannot be read; it is stored without them.")
        return []


def _mask(name: str, value: str) -> str:
    return MASK if name.lower() in _SECRET_HEADERS else mask_tokens(value)
