"""Answers errors: as JSON `{"error": {"code", "message"}}` to programs, as a page to people."""

import logging
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, make_response, render_template, request
from peewee import ProgrammingError
from werkzeug.exceptions import (
    BadHost,
    HTTPException,
    InternalServerError,
    NotFound,
    SecurityError,
    ServiceUnavailable,
)

from receiver.clock import utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import pending_migrations
from receiver.ledger.refusals import NO_ROUTE
from receiver.web.intake import current_intake, kept_meanwhile

log = logging.getLogger(__name__)

# Paths for programs.
MACHINE_PATHS = ("/api/", "/callbacks", "/healthz", "/readyz", "/metrics", "/openapi.json")
RETRY_AFTER_SECONDS = 10
_WHERE_LISTED = " GET /openapi.json lists the paths for programs."


class BadInput(HTTPException):
    """A bad request. The message says what to change."""

    code = 400


class DatabaseDown(ServiceUnavailable):
    """A database operation failed with `problem`."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(
            "The database cannot be used right now; try again in a moment.", retry_after=RETRY_AFTER_SECONDS
        )
        self.problem = problem


def add_handlers(app: Flask) -> None:
    """Register the error handlers of the application."""
    app.register_error_handler(HTTPException, answer)
    app.register_error_handler(Exception, _answer_unexpected)


def error_body(code: str, message: str) -> Response:
    """Return an error in the JSON form that upstream uses too."""
    return jsonify({"error": {"code": code, "message": message}})


def database_down(problem: Exception) -> ServiceUnavailable:
    """Note and log why a database operation failed, and return a 503 without the details."""
    log.error("%s %r: the database failed: %s", request.method, request.path, describe(problem))
    current_intake().absence.note()
    return DatabaseDown(problem)


def answer(problem: HTTPException) -> Response:
    """Return an HTTP error as JSON to a program, and as a page to a person."""
    if request.routing_exception is not None and _means_callbacks(request.path):
        current_intake().refused.note(NO_ROUTE, request.remote_addr)
    code = (problem.name or "error").lower().replace(" ", "_").replace("'", "")
    message = _message(problem)
    # No page for a bad Host header: its links would need a valid host.
    if _is_from_a_program() or isinstance(problem, BadHost | SecurityError):
        response = error_body(code, message)
    else:
        page = "sign_in.html" if problem.code == 401 else "error.html"
        following = _path_as_sent() if request.method == "GET" else None
        more = _about_the_database(problem) if isinstance(problem, DatabaseDown) else {}
        response = make_response(
            render_template(page, problem=problem, message=message, following=following, **more)
        )
    response.status_code = problem.code or 500
    for name, value in problem.get_headers(request.environ):
        if name.lower() != "content-type":
            response.headers.add(name, value)
    return response


def _message(problem: HTTPException) -> str:
    if problem.description != NotFound.description:  # which is said where no view says what is missing
        return problem.description or problem.name
    return "There is nothing at this path." + (_WHERE_LISTED if _is_from_a_program() else "")


def _about_the_database(away: DatabaseDown) -> dict[str, Any]:
    """Return what the error page tells about the database and the spool."""
    return {
        "now": utcnow(),
        "kept": kept_meanwhile(),
        "lacks_schema": _lacks_schema(away.problem),
        "reason": describe(away.problem),
        "refresh_seconds": RETRY_AFTER_SECONDS,
    }


def _lacks_schema(problem: Exception) -> bool:
    """Tell whether a statement failed because migrations have not been applied."""
    # This is how PostgreSQL and SQLite report a missing table or column. Do not query for other problems: a
    # database that does not answer would make the visitor wait a second time.
    if not isinstance(problem, ProgrammingError) and "no such" not in str(problem):
        return False
    try:
        return bool(pending_migrations())
    except DATABASE_ERRORS:
        return False


def _is_from_a_program() -> bool:
    """Tell whether to answer a program: by the path, or since no browser sends a Bearer token by itself."""
    is_bearer = request.headers.get("Authorization", "").lower().startswith("bearer ")
    return is_bearer or request.path.startswith(MACHINE_PATHS)


def _means_callbacks(path: str) -> bool:
    """Tell whether a request may be a callback to a misspelled URL."""
    return path.lower().startswith("/callback") and path != "/callback-url"  # our own route for a button


def _path_as_sent() -> str:
    parts = urlsplit(request.url)  # which keeps an escaped %3F in the path
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _answer_unexpected(problem: Exception) -> Response:
    if isinstance(problem, DATABASE_ERRORS):
        return answer(database_down(problem))
    log.exception("%s %r failed", request.method, request.path)
    return answer(InternalServerError())
