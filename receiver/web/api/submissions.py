"""The submission API: lists those whose answer was lost."""

from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver.clock import to_iso, utcnow
from receiver.ledger.models import Submission
from receiver.ledger.unclear import list_unclear
from receiver.web.auth import require_api_key
from receiver.web.offload import offload

blueprint = Blueprint("submissions", __name__, url_prefix="/api/submissions")
blueprint.before_request(require_api_key)

_MOST_LISTED = 200


@blueprint.get("/unclear")
def show_unclear() -> ResponseReturnValue:
    """List the oldest 200 unclear submissions: 200."""
    found = offload(list_unclear, utcnow(), _MOST_LISTED)
    return jsonify({"items": [_json(one) for one in found]})


def _json(submission: Submission) -> dict[str, Any]:
    return {
        "trace_id": submission.trace_id,
        "service": submission.service,
        "type": submission.type,
        "key": submission.api_key,
        "sent_at": to_iso(submission.sent_at),
        "unclear_at": to_iso(submission.unclear_at),
    }
