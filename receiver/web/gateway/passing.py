"""Passes a request on to upstream as it is, and upstream's answer back as it comes."""

import logging
import re
from collections.abc import Iterator

from flask import Flask, Response, current_app, request

from receiver.config import Settings
from receiver.upstream.relay import NotRelayed, Outgoing, Relay, Relayed
from receiver.web import bodies
from receiver.web.gateway.answers import Refused, passed_on, trace_id

log = logging.getLogger(__name__)

LARGEST_BODY_BYTES = 32 * 2**20  # a submission may hold several pictures as base64
_READ_WITHIN_SECONDS = 60.0
_TARGET = re.compile(r"/[\x21-\x7e]*")
_DOT_SEGMENT = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


def pass_on(body: bytes | None = None) -> Response:
    """Relay the current request and return upstream's answer. `body` is the request's, if it was read."""
    return respond(send(outgoing(read_body() if body is None else body)))


def read_body() -> bytes:
    """Return the request's body. Raises 413 when it is too large, and 400 when it does not come whole."""
    return bodies.read_body(LARGEST_BODY_BYTES, within=_READ_WITHIN_SECONDS)


def outgoing(body: bytes) -> Outgoing:
    """Return the current request, with a body that may be another."""
    return Outgoing(request.method, _target(), list(request.headers), body)


def send(sent: Outgoing) -> Relayed:
    """Send a request to upstream. Raises 502 when upstream cannot have taken it, 504 when it may have."""
    try:
        return relay_of(current_app).send(sent)
    except NotRelayed as problem:
        raise refused(problem) from None


def refused(problem: NotRelayed) -> Refused:
    """Return the error for a request that upstream did not answer."""
    if problem.maybe_taken:
        said = f"Upstream gave no answer ({problem}). It may have taken the request."
        return Refused(504, f"{said} The trace id is {trace_id()}.")
    return Refused(502, f"Upstream cannot be reached ({problem}). It has not taken the request.")


def respond(relayed: Relayed) -> Response:
    """Return upstream's answer, streamed."""
    response = passed_on(relayed, _chunks(relayed))
    response.call_on_close(relayed.close)
    return response


def _chunks(relayed: Relayed) -> Iterator[bytes]:
    try:
        yield from relayed.chunks()
    except NotRelayed as problem:
        log.warning("An answer of upstream's broke off: %s", problem)
        # So that the server ends the connection: the client must see that the answer is not whole.
        raise ConnectionResetError(str(problem)) from None


def add_relay(app: Flask, settings: Settings) -> None:
    """Keep the connections to upstream. Without a token there is nothing to relay with."""
    if settings.api_token is not None:
        app.extensions["backstop_relay"] = Relay(settings.api_base_url, settings.api_token)


def relay_of(app: Flask) -> Relay:
    """Return the connections of an application to upstream."""
    relay: Relay = app.extensions["backstop_relay"]
    return relay


def _target() -> str:
    """Return the path and the query as they came, so that upstream decides about them."""
    raw = str(request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or "")
    if not raw.startswith("/"):  # the form that names the host too
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    if not _TARGET.fullmatch(raw):
        raise Refused(400, "The path must be printable ASCII.")
    path = raw.partition("?")[0]
    # Upstream would serve another path than the one that was checked here.
    if _DOT_SEGMENT.search(path) or "\\" in path or "//" in path:
        raise Refused(400, "The path must hold no empty segment, no dot segment and no backslash.")
    return raw.partition("#")[0]
