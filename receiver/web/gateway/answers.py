"""Upstream's answers, passed on, and answers of our own in upstream's form: its clients read nothing else."""

import logging
import uuid
from collections.abc import Iterable
from typing import Any

from flask import Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.upstream.relay import Relayed
from receiver.web.current import note_relayed
from receiver.web.errors import database_down

log = logging.getLogger(__name__)

_CODES = {
    400: "bad_request",
    401: "invalid_token",
    403: "forbidden",
    404: "not_found",
    405: "api_not_implemented",
    409: "conflict",
    413: "request_too_large",
    422: "invalid_request",
    429: "too_many_requests",
    502: "api_error",
    503: "busy",
    504: "timeout",
}


class Refused(HTTPException):
    """A request that the gateway refuses, with upstream's word for the reason.

    `code` is the HTTP status, as in every HTTPException.
    """

    def __init__(
        self, status: int, message: str, word: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = status
        self.word = word
        self.retry_after = retry_after


def passed_on(relayed: Relayed, body: bytes | Iterable[bytes]) -> Response:
    """Return upstream's answer with its status and its headers, and none of ours."""
    note_relayed()
    response = Response(body, status=relayed.status)
    response.headers.clear()
    response.headers.extend(relayed.headers)
    return response


def use_trace_id(given: str) -> None:
    """Let the current request have the trace id that its submission has."""
    g.trace_id = given


def trace_id() -> str:
    """Return the trace id of the current request. The gateway makes one where the caller gives none."""
    if "trace_id" not in g:
        g.trace_id = str(uuid.uuid4())
    made: str = g.trace_id
    return made


def error(status: int, message: str, word: str | None = None) -> Response:
    """Return an error in upstream's form: `success`, `error` with `code` and `message`, and `trace_id`."""
    response = jsonify(error_body(word or _CODES.get(status, "api_error"), message, trace_id()))
    response.status_code = status
    response.headers["x-trace-id"] = trace_id()
    return response


def error_body(code: str, message: str, trace_id: str) -> dict[str, Any]:
    """Return an error as upstream writes it."""
    return {"success": False, "error": {"code": code, "message": message}, "trace_id": trace_id}


def answer(problem: HTTPException) -> Response:
    """Return an HTTP error in upstream's form."""
    status = problem.code or 500
    word = problem.word if isinstance(problem, Refused) else None
    response = error(status, problem.description or problem.name, word)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="Backstop"'
    if (retry_after := getattr(problem, "retry_after", None)) is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def answer_unexpected(problem: Exception) -> Response:
    """Log an error that nobody expected and return a 500 without its details."""
    if isinstance(problem, DATABASE_ERRORS):
        return answer(database_down(problem))
    log.error("%s %r failed", request.method, request.path, exc_info=problem)
    return error(500, "Backstop could not handle this request. Its log says why.")
