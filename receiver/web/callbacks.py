"""POST /callbacks/<token>[/<ref>]: upstream's one and only delivery of a result. Keep it, then judge it.

See "The life of a delivery" in docs/design.md.
"""

import contextlib
import logging
from datetime import datetime
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound, ServiceUnavailable

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import store
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.record import KEPT_OF_LARGE
from receiver.ledger.refusals import NOT_KEPT, SHORTENED, WRONG_TOKEN
from receiver.redact import MASK, mask_tokens
from receiver.upstream.results import Unreadable
from receiver.web.auth import is_same_secret
from receiver.web.current import current_settings
from receiver.web.errors import database_away
from receiver.web.intake import current_intake
from receiver.web.stalls import stall_guard
from receiver.web.writes import why_lost

log = logging.getLogger(__name__)
blueprint = Blueprint("callbacks", __name__)

# Of a body over the limit so much more is read and thrown away: a sender that is cut off while it
# is still sending sees a broken connection instead of the answer.
_READ_OVER_LIMIT = 8
_MOST_OF_HEADERS = 16384  # characters; the server takes up to 100 headers of 8 kB each
_CHUNK = 65536
_LARGEST_SIZE = 2**31 - 1  # what the column holds; a header may claim any number
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


@blueprint.post("/callbacks/<token>")
@blueprint.post("/callbacks/<token>/")
@blueprint.post("/callbacks/<token>/<text:ref>")
def receive(token: str, ref: str | None = None) -> ResponseReturnValue:
    """Keep a delivery and answer when it is on disk.

    200: it was readable, the task has the status given. 202: kept, but not readable as a result, or only by
    its beginning, or spooled because the database is away or recording it failed.
    404: not our token. 413: too large, only its beginning is kept. 503: neither database nor spool took it.
    """
    settings = current_settings()
    # Each comparison is made, so that the time tells nothing about which token came close.
    same = [is_same_secret(token, ours) for ours in settings.callback_tokens]
    if True not in same:
        current_intake().refused.note(WRONG_TOKEN, request.remote_addr)
        raise NotFound("No callbacks are taken in here: the token in the URL is none of ours.")
    with stall_guard.reading():
        callback, now = _read(settings.max_body_bytes, ref, same.index(True)), utcnow()
    try:
        recorded = record(callback, now, settings, may_shorten=True)
    except Exception as problem:  # noqa: BLE001 - whatever it is: there is no other copy of this callback
        return _spool(callback, now, problem)
    if recorded.problem and recorded.problem.code == SHORTENED:
        current_intake().refused.note(SHORTENED, callback.remote_addr)
    return _answer(recorded)


def record(
    callback: store.Callback, received_at: datetime, settings: Settings, may_shorten: bool
) -> store.Recorded:
    """Record a callback in the ledger, whether it comes from the network or from the spool."""
    return store.record(
        callback,
        received_at,
        grace=settings.reconcile_grace,
        confirm=settings.confirm_callbacks,
        largest=settings.max_body_bytes,
        may_shorten=may_shorten,
    )


def _spool(callback: store.Callback, received_at: datetime, problem: Exception) -> ResponseReturnValue:
    if isinstance(problem, DATABASE_ERRORS):
        refused = database_away(problem)
    else:
        log.error("A callback could not be recorded; it goes to the spool.", exc_info=problem)
        refused = ServiceUnavailable("The callback could not be kept; try again in a moment.", retry_after=10)
    try:
        current_intake().spool.append(callback, received_at)
    except Exception as full:  # noqa: BLE001 - whatever it is, the sender must know
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
    )


def _read_body(limit: int) -> tuple[bytes, int, Unreadable | None]:
    """Return the body's first `limit` bytes, how many bytes came, and what cut it short, if anything."""
    kept, size = bytearray(), 0
    stream: Any = None
    try:
        stream = request.stream
        while size <= limit * _READ_OVER_LIMIT and (chunk := stream.read(_CHUNK)):
            kept += chunk[: max(limit - size, 0)]
            size += len(chunk)
    except Exception:  # noqa: BLE001 - whatever the WSGI server raises for a body that breaks off: keep what came
        with contextlib.suppress(
            Exception
        ):  # what the server had read of a chunk, and gives when asked again
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
    except Exception:  # whatever they hold: the body is what counts
        log.exception("The headers of a callback cannot be read; it is kept without them.")
        return []


def _mask(name: str, value: str) -> str:
    return MASK if name.lower() in _SECRET_HEADERS else mask_tokens(value)
