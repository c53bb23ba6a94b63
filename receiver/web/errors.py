"""Every error as JSON `{"error": {"code", "message"}}`, or as a page for people."""

import logging
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException, InternalServerError, ServiceUnavailable

from receiver.ledger.db import DATABASE_AWAY, describe

log = logging.getLogger(__name__)

# What programs ask for.
MACHINE_PATHS = ("/api/", "/callbacks", "/healthz", "/readyz")


class BadInput(HTTPException):
    """A request that the API cannot take; the message says what to change."""

    code = 400


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
    return ServiceUnavailable("The database cannot be used right now; try again in a moment.", retry_after=10)


def _answer(problem: HTTPException) -> Response:
    code = (problem.name or "error").lower().replace(" ", "_").replace("'", "")
    message = problem.description or problem.name
    if request.path.startswith(MACHINE_PATHS):
        response = error_body(code, message)
    else:
        page = "sign_in.html" if problem.code == 401 else "error.html"
        following = _path_as_sent() if request.method == "GET" else None
        response = make_response(render_template(page, problem=problem, message=message, following=following))
    response.status_code = problem.code or 500
    for name, value in problem.get_headers(request.environ):
        if name.lower() != "content-type":
            response.headers.add(name, value)
    return response


def _path_as_sent() -> str:
    parts = urlsplit(request.url)  # in which a %3F of the path still is one
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _answer_unexpected(problem: Exception) -> Response:
    if isinstance(problem, DATABASE_AWAY):
        return _answer(database_away(problem))
    log.exception("%s %r failed", request.method, request.path)
    return _answer(InternalServerError())
