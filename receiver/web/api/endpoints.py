"""The API of endpoints: list, pause, resume, test."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.ledger.reading.endpoints import list_endpoints
from receiver.web import forward_actions
from receiver.web.api.forward_json import endpoint_json, trial_json
from receiver.web.auth import require_api_key
from receiver.web.offload import offload

blueprint = Blueprint("endpoints", __name__, url_prefix="/api/endpoints")
blueprint.before_request(require_api_key)


@blueprint.get("")
def list_them() -> ResponseReturnValue:
    """List endpoints with their health: 200 with up to 100, those in FORWARD_URL first."""
    return jsonify({"items": [endpoint_json(one) for one in offload(list_endpoints, utcnow())]})


@blueprint.post("/<int:endpoint_id>/pause")
def pause(endpoint_id: int) -> ResponseReturnValue:
    """Send nothing to an endpoint until it is resumed: 200 with it. This is idempotent. 404: no such one."""
    return jsonify(endpoint_json(forward_actions.pause(endpoint_id)))


@blueprint.post("/<int:endpoint_id>/resume")
def resume(endpoint_id: int) -> ResponseReturnValue:
    """End the hold of an endpoint: 200 with it. This is idempotent. 404: no such endpoint."""
    return jsonify(endpoint_json(forward_actions.resume(endpoint_id)))


@blueprint.post("/<int:endpoint_id>/test")
def test(endpoint_id: int) -> ResponseReturnValue:
    """Send a test event to an endpoint: 200 with what was sent and answered, good or bad, within 15 s.

    404: no such endpoint. 409: FORWARD_URL does not name it.
    """
    return jsonify(trial_json(forward_actions.send_test_event(endpoint_id)))
