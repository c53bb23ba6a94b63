"""GET /openapi.json: the description of everything that is for programs."""

import re
from functools import cache
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.version import VERSION
from receiver.web.api.operation import ERROR, Operation
from receiver.web.api.operations import OPERATIONS, PATH_SCHEMAS
from receiver.web.api.schemas import ANY, SCHEMAS, Schema

blueprint = Blueprint("openapi", __name__)

# The errors that a request may meet before its view runs.
_ERRORS_OF: dict[str, dict[int, str]] = {
    "nobody": {},
    "token": {},
    "key": {
        401: "No key, or a wrong one.",
        403: "A key that may only read, or a request from another site's page.",
        429: "Too many wrong keys: see Retry-After.",
        503: "The database cannot be used now: see Retry-After.",
    },
    "caller": {
        400: "The path or the body cannot be relayed.",
        401: "No key, or a wrong one; in upstream's form.",
        403: "A key that may only read.",
        404: "Upstream knows no such path or task.",
        409: "The same submission is in flight.",
        413: "The body is too large.",
        422: "The Idempotency-Key was used for another request.",
        429: "Too many wrong keys, or upstream's own limit: see Retry-After.",
        503: "The database or this deployment is busy: see Retry-After.",
    },
}
_ANY_ANSWER = {"*/*": {"schema": ANY}}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "nobody": [],
    "token": [],
    "key": [{"key": []}, {"password": []}],
    "caller": [{"key": []}, {"upstreamToken": []}],
}


@blueprint.get("/openapi.json")
def show() -> ResponseReturnValue:
    """Show the description: 200."""
    return jsonify(description())


@cache
def description() -> dict[str, Any]:
    """Return the whole description, as OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    bearer, basic = ({"type": "http", "scheme": scheme} for scheme in ("bearer", "basic"))
    schemes = {"key": bearer, "password": basic, "upstreamToken": bearer}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Backstop", "version": VERSION},
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": schemes},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)\}", operation.path)
    told: dict[str, Any] = {
        "operationId": f"{operation.endpoint}.{operation.method}{len(in_path) or ''}",
        "summary": operation.summary,
        "security": _SECURITY[operation.access],
        "parameters": [
            *(_parameter(name, "path", PATH_SCHEMAS[name]) for name in in_path),
            *(_parameter(name, "query", schema) for name, schema in operation.query.items()),
        ],
        "responses": _answers(operation),
    }
    if operation.body is not None:
        content = {"application/json": {"schema": operation.body}}
        told["requestBody"] = {"required": bool(operation.body), "content": content}
    return told


def _parameter(name: str, place: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _answers(operation: Operation) -> dict[str, Any]:
    before = {status: (text, ERROR) for status, text in _ERRORS_OF[operation.access].items()}
    answers = {}
    for status, (text, schema) in sorted({**before, **operation.answers}.items()):
        kind = operation.kind if status < 300 else "application/json"
        answers[str(status)] = {"description": text, "content": {kind: {"schema": schema}}}
    if operation.access == "caller":
        # Upstream's own errors have the same numbers, and any form.
        answers = {status: answer | {"content": _ANY_ANSWER} for status, answer in answers.items()}
        answers["default"] = {"description": "Upstream's answer, whatever it is.", "content": _ANY_ANSWER}
    return answers
