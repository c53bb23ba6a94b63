"""POST /callbacks/<token>[/<ref>]: upstream's one and only delivery of a result. Keep it, then judge it."""

import logging
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from peewee import PeeweeException
from werkzeug.exceptions import NotFound

from receiver.ledger import store
from receiver.ledger.clock import utcnow
from receiver.ledger.redact import MASK, mask_tokens
from receiver.ledger.results import Unreadable
from receiver.web.auth import is_same_secret
from receiver.web.errors import database_away
from receiver.web.settings import current_settings

log = logging.getLogger(__name__)
blueprint = Blueprint("callbacks", __name__)

# Of a body over the limit so much more is read and thrown away: a sender that is cut off while it
# is still sending sees a broken connection instead of the answer.
_READ_OVER_LIMIT = 8
_KEPT_OF_TOO_LARGE = 4096
_CHUNK = 65536
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


@blueprint.post("/callbacks/<token>")
@blueprint.post("/callbacks/<token>/")
@blueprint.post("/callbacks/<token>/<text:ref>")
def receive(token: str, ref: str | None = None) -> ResponseReturnValue:
    """Keep a delivery and answer when it is on disk.

    200: it was readable, the task has the status given. 202: kept, but not readable as a result.
    404: not our token. 413: too large, only its beginning is kept. 503: the database is away.
    """
    settings = current_settings()
    # A list: each comparison is made, so that the time tells nothing about which token came close.
    if not any([is_same_secret(token, ours) for ours in settings.callback_tokens]):  # noqa: C419
        raise NotFound
    callback = _read(settings.max_body_bytes, ref)
    try:
        recorded = store.record(
            callback, utcnow(), grace=settings.reconcile_grace, confirm=settings.confirm_callbacks
        )
    except PeeweeException as problem:
        raise database_away(problem) from None
    return _answer(recorded)


def _answer(recorded: store.Recorded) -> ResponseReturnValue:
    problem = recorded.problem
    if problem is None:
        return jsonify({"received": True, "task_id": recorded.task_id, "status": recorded.status})
    error = {"code": problem.code, "message": str(problem)}
    if problem.code == "too_large":
        return jsonify({"error": error}), 413
    return jsonify({"received": True, "readable": False, "error": error}), 202


def _read(limit: int, ref: str | None) -> store.Callback:
    body, size, cut = _read_body(limit)
    if size > limit:
        body = body[:_KEPT_OF_TOO_LARGE]
        size = max(size, request.content_length or 0)
        cut = Unreadable("too_large", f"The body is larger than {limit} bytes; only its beginning was kept.")
    return store.Callback(
        body=body,
        size=size,
        ref=ref,
        remote_addr=request.remote_addr,
        headers=[(name, _mask(name, value)) for name, value in request.headers],
        cut=cut,
    )


def _read_body(limit: int) -> tuple[bytes, int, Unreadable | None]:
    """Return the body's first `limit` bytes, how many bytes came, and what cut it short, if anything."""
    kept, size = bytearray(), 0
    cut = Unreadable("incomplete", "The connection ended before the body did.")
    stream: Any = request.stream
    try:
        while size <= limit * _READ_OVER_LIMIT and (chunk := stream.read(_CHUNK)):
            kept += chunk[: max(limit - size, 0)]
            size += len(chunk)
    except Exception:  # noqa: BLE001 - whatever the WSGI server raises for a body that breaks off: keep what came
        return bytes(kept), size, cut
    return bytes(kept), size, cut if size < (request.content_length or 0) and size <= limit else None


def _mask(name: str, value: str) -> str:
    return MASK if name.lower() in _SECRET_HEADERS else mask_tokens(value)
