"""`/<service>/<operation>`: everything that upstream serves, for callers who name us as their base address.

Our own routes always win. What is not understood is relayed as it is.

See "The gateway" in docs/design.md.
"""

import re

from flask import Blueprint, Flask, Response, after_this_request, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from receiver.config import Settings
from receiver.upstream.client import Upstream
from receiver.upstream.services import service_of, takes_callback
from receiver.web.gateway import answers
from receiver.web.gateway.access import require_caller, require_writer
from receiver.web.gateway.finder import Finder
from receiver.web.gateway.passing import add_relay, pass_on
from receiver.web.gateway.submitting import submit
from receiver.web.lasting import Busy, Lasting, current_lasting

READS = ("GET", "HEAD")
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def add_gateway(app: Flask, settings: Settings) -> None:
    """Add the gateway after all other routes, so that it takes none of their paths."""
    own = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()}
    app.url_map.converters["upstream"] = _not_ours(own)
    app.extensions["backstop_lasting"] = Lasting()
    add_relay(app, settings)
    if settings.api_token is not None:
        app.extensions["backstop_finder"] = Finder(Upstream(settings.api_base_url, settings.api_token, 2))
    blueprint = Blueprint("gateway", __name__)
    blueprint.before_request(require_caller)
    blueprint.before_request(_let_it_last)
    blueprint.register_error_handler(HTTPException, answers.answer)
    blueprint.register_error_handler(Exception, answers.answer_unexpected)
    for view, methods in ((read, READS), (write, WRITES)):
        for rule in ("/<upstream:service>", "/<upstream:service>/<text:operation>"):
            blueprint.add_url_rule(
                rule, view_func=view, methods=list(methods), provide_automatic_options=False
            )
    app.register_blueprint(blueprint)


def read(service: str, operation: str = "") -> ResponseReturnValue:
    """Relay a request that changes nothing: upstream's answer, whatever it is.

    401, 403, 503: ours, in upstream's form. 502: upstream cannot be reached. 504: it gave no answer.
    """
    return pass_on()


def write(service: str, operation: str = "") -> ResponseReturnValue:
    """Submit where upstream understands a callback URL, and relay everything else: upstream's answer.

    401, 403, 409, 413, 422, 503: ours, in upstream's form, and nothing was sent. 502: upstream cannot be
    reached, and has not taken it. 504: it gave no answer, and may have taken it.
    """
    require_writer()
    known = service_of(request.path)
    if known is not None and request.method == "POST" and takes_callback(request.path):
        return submit(known, operation)
    return pass_on()


def _let_it_last() -> None:
    """503 before anything is sent: too many requests are in progress."""
    try:
        end = current_lasting().begin()
    except Busy:
        raise answers.Refused(503, "Too many requests are in progress.", retry_after=5) from None

    @after_this_request
    def end_with_the_answer(response: Response) -> Response:
        response.call_on_close(end)
        return response


def _not_ours(own: set[str]) -> type[BaseConverter]:
    """Return what matches a path's first segment if none of our own routes begins with it."""
    names = "|".join(re.escape(name) for name in own if name and not name.startswith("<"))

    class NotOurs(BaseConverter):
        # A misspelt callback must stay an error that is counted, and never go to upstream.
        regex = rf"(?!(?:{names}|(?i:callback)[^/]*)(?:/|$))[^/]+"

    return NotOurs
