"""The API of what is asked of upstream: probe while it is paused, discover."""

from datetime import datetime

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.clock import to_iso
from receiver.web import upstream_actions
from receiver.web.auth import require_api_key

blueprint = Blueprint("upstream", __name__, url_prefix="/api/upstream")
blueprint.before_request(require_api_key)


@blueprint.post("/probe")
def probe() -> ResponseReturnValue:
    """Find out now whether upstream's pause is over: 202, a reconciler asks. 409: none waits for a probe."""
    return _ordered(upstream_actions.probe_or_409())


@blueprint.post("/discover")
def discover() -> ResponseReturnValue:
    """Look for your tasks in upstream's lists now: 202, a reconciler does it. 409: PUBLIC_URL is missing."""
    return _ordered(upstream_actions.discover_or_409())


def _ordered(at: datetime) -> ResponseReturnValue:
    return jsonify({"ordered_at": to_iso(at)}), 202
