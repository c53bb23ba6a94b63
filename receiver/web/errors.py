"""Every error as JSON `{"error": {"code", "message"}}`, or as a page for people."""

import logging
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, make_response, render_template, request
from peewee import ProgrammingError
from werkzeug.exceptions import (
    BadHost,
    HTTPException,
    InternalServerError,
    SecurityError,
    ServiceUnavailable,
)

from receiver.clock import utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import pending_migrations
from receiver.ledger.refusals import NO_ROUTE
from receiver.web.intake import current_intake, kept_meanwhile

log = logging.getLogger(__name__)

# What programs ask for.
MACHINE_PATHS = ("/api/", "/callbacks", "/healthz", "/readyz")
RETRY_AFTER_SECONDS = 10


class BadInput(HTTPException):
    """A request that the API cannot take; the message says what to change."""

    code = 400


class DatabaseAway(ServiceUnavailable):
    """The database did not do what was asked of it; `problem` says why."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(
            "The database cannot be used right now; try again in a moment.", retry_after=RETRY_AFTER_SECONDS
        )
        self.problem = problem


def add_handlers(app: Flask) -> None:
    """Make the application answer its errors in one form."""
    app.register_error_handler(HTTPException, _answer)
    app.register_error_handler(Exception, _answer_unexpected)


def error_body(code: str, message: str) -> Response:
    """Return an error as upstream's and ours look."""
    return jsonify({"error": {"code": code, "message": message}})


def database_away(problem: Exception) -> ServiceUnavailable:
    """Log why the database did not do its work, and return the error that says so without details."""
    log.error("%s %r: the database did not take it: %s", request.method, request.path, describe(problem))
    return DatabaseAway(problem)


def _answer(problem: HTTPException) -> Response:
    if request.routing_exception is not None and _means_callbacks(request.path):
        current_intake().refused.note(NO_ROUTE, request.remote_addr)
    code = (problem.name or "error").lower().replace(" ", "_").replace("'", "")
    message = problem.description or problem.name
    # No page can be drawn for a host that is none: links need one.
    if request.path.startswith(MACHINE_PATHS) or isinstance(problem, BadHost | SecurityError):
        response = error_body(code, message)
    else:
        page = "sign_in.html" if problem.code == 401 else "error.html"
        following = _path_as_sent() if request.method == "GET" else None
        more = _about_the_database(problem) if isinstance(problem, DatabaseAway) else {}
        response = make_response(
            render_template(page, problem=problem, message=message, following=following, **more)
        )
    response.status_code = problem.code or 500
    for name, value in problem.get_headers(request.environ):
        if name.lower() != "content-type":
            response.headers.add(name, value)
    return response


def _about_the_database(away: DatabaseAway) -> dict[str, Any]:
    """Return what the page for a database that is away tells beside the error."""
    return {
        "now": utcnow(),
        "kept": kept_meanwhile(),
        "lacks_schema": _lacks_schema(away.problem),
        "refresh_seconds": RETRY_AFTER_SECONDS,
    }


def _lacks_schema(problem: Exception) -> bool:
    """Tell whether a statement failed because migrations have not been applied."""
    # PostgreSQL and SQLite name a table or a column that is not there in these ways. Other problems are not
    # looked into: a database that does not answer would be waited for once more.
    if not isinstance(problem, ProgrammingError) and "no such" not in str(problem):
        return False
    try:
        return bool(pending_migrations())
    except DATABASE_ERRORS:
        return False


def _means_callbacks(path: str) -> bool:
    """Tell whether a request may have been meant as a callback, also by a URL that is spelled badly."""
    return path.lower().startswith("/callback") and path != "/callback-url"  # a button of ours


def _path_as_sent() -> str:
    parts = urlsplit(request.url)  # in which a %3F of the path still is one
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _answer_unexpected(problem: Exception) -> Response:
    if isinstance(problem, DATABASE_ERRORS):
        return _answer(database_away(problem))
    log.exception("%s %r failed", request.method, request.path)
    return _answer(InternalServerError())
