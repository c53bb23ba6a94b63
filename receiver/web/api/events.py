"""The change feed: all events in their order, for those who read instead of being told."""

from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from receiver.ledger.event_json import event_json
from receiver.ledger.models import Event, Task
from receiver.ledger.reading.events import list_events, newest_event
from receiver.web.auth import require_api_key
from receiver.web.errors import BadInput
from receiver.web.filters import read_event_cursor, read_limit, read_query, read_wait
from receiver.web.offload import offload
from receiver.web.waiting import current_waiting

blueprint = Blueprint("events", __name__, url_prefix="/api/events")
blueprint.before_request(require_api_key)


@blueprint.get("")
def list_them() -> ResponseReturnValue:
    """List events, oldest first: 200 with those that follow the cursor `after`, and the next cursor.

    With `wait` it answers as soon as there is an event, or after so many seconds. 400: a bad parameter, or a
    cursor that is not of this ledger.
    """
    arguments = read_query(request.args, (), paging=("after", "limit", "wait"))
    after, limit = read_event_cursor(arguments.get("after")), read_limit(arguments.get("limit", "50"))
    seconds = read_wait(arguments.get("wait"))
    found = offload(list_events, after, limit)
    if not found:
        require_known(after)
        if seconds:
            current_waiting().until_event(after, seconds)
            found = offload(list_events, after, limit)
    following = found[-1][0].id if found else after
    return jsonify({"items": [event_item(event, task) for event, task in found], "next": following})


def require_known(after: int) -> None:
    """Raise BadInput for a cursor from before the ledger was restored: it would miss the next events."""
    newest = offload(newest_event)
    if after > newest:
        raise BadInput(
            f"after is beyond the newest event, which is {newest}: it is not a cursor of this ledger, or the"
            f" ledger was restored from an older copy. Go on after {newest}, or from the beginning."
        )


def event_item(event: Event, task: Task | None) -> dict[str, Any]:
    """Return an event of the feed, with its task as the task is now."""
    said = {"status": event.status, "settled_by": event.settled_by, "confirmed": event.confirmed}
    return {"id": event.id} | said | event_json(event, task)
