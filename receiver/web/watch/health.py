"""GET /healthz tells whether the process is up. GET /readyz tells whether the service can do its work."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.web.auth import carries_key
from receiver.web.watch.readiness import read_state, report_of

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer 200 while the process runs. Platforms' health checks should use this."""
    return jsonify({"ok": True})


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Report the state of the service. It answers within 4 s, whatever the database does.

    200: callbacks go into the database and its schema is current. 503: otherwise. The report covers the
    reconciler too, which does not change the status. `troubles` has a code for each thing that is wrong, as
    the overview tells it. Reasons, addresses and error texts need the API key.
    """
    told = report_of(read_state(), in_full=carries_key())
    return jsonify(told), 200 if told["ready"] else 503
