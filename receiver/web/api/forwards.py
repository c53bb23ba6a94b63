"""The API of forwards: list, show, send again, dismiss; and of resendings: show, stop."""

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.ledger import resending
from receiver.ledger.reading.forwards import attempts_of, list_forwards
from receiver.web.api.forward_json import forward_json, resending_json, whole_forward_json
from receiver.web.api.registrations import read_json
from receiver.web.auth import require_api_key
from receiver.web.filters import (
    FORWARD_FIELDS,
    ORDER_EXAMPLE,
    cursor,
    read_delivery_cursor,
    read_forward_filter,
    read_limit,
    read_order,
    read_query,
)
from receiver.web.forward_actions import (
    dismiss_or_409,
    find_forward_or_404,
    find_resending_or_404,
    order_or_400,
    resend_or_409,
    stop_or_409,
)
from receiver.web.offload import offload

blueprint = Blueprint("forwards", __name__, url_prefix="/api")
blueprint.before_request(require_api_key)


@blueprint.get("/forwards")
def list_them() -> ResponseReturnValue:
    """List forwards, newest first: 200 with a page and the next page's cursor. 400: a bad parameter."""
    arguments = read_query(request.args, FORWARD_FIELDS)
    wanted, before = read_forward_filter(arguments), read_delivery_cursor(arguments.get("before"))
    found = offload(list_forwards, wanted, read_limit(arguments.get("limit", "50")), before)
    items = [forward_json(forward) for forward in found.forwards]
    return jsonify({"items": items, "next": found.next and cursor(found.next)})


@blueprint.get("/forwards/<int:forward_id>")
def show(forward_id: int) -> ResponseReturnValue:
    """Show a forward with its body and its newest 100 attempts. 404: there is none, or it was pruned."""
    forward = find_forward_or_404(forward_id)
    return jsonify(whole_forward_json(forward, attempts_of(forward_id), utcnow()))


@blueprint.post("/forwards/<int:forward_id>/resend")
def resend(forward_id: int) -> ResponseReturnValue:
    """Send a forward's event again: 202 with the forward that is due now, which may be this one.

    404: no such forward. 409: FORWARD_URL no longer names its endpoint.
    """
    return jsonify(forward_json(resend_or_409(forward_id))), 202


@blueprint.post("/forwards/<int:forward_id>/dismiss")
def dismiss(forward_id: int) -> ResponseReturnValue:
    """Give a forward up for good: 200 with it. 404: no such forward. 409: neither pending nor failed."""
    return jsonify(forward_json(dismiss_or_409(forward_id)))


@blueprint.post("/forwards/resend")
def resend_all() -> ResponseReturnValue:
    """Send again all that the filter in the body holds: 202 with the resending, which tells their number.

    400: a bad filter or rate, no filter, or one that holds too many.
    """
    wanted, rate = read_order(read_json(ORDER_EXAMPLE))
    return jsonify(resending_json(order_or_400(wanted, rate))), 202


@blueprint.get("/resendings")
def list_resendings() -> ResponseReturnValue:
    """List the newest 20 resendings, newest first: 200."""
    return jsonify({"items": [resending_json(one) for one in resending.newest()]})


@blueprint.get("/resendings/<int:resending_id>")
def show_resending(resending_id: int) -> ResponseReturnValue:
    """Show how far a resending is: 200. 404: there is none."""
    return jsonify(resending_json(find_resending_or_404(resending_id)))


@blueprint.post("/resendings/<int:resending_id>/stop")
def stop(resending_id: int) -> ResponseReturnValue:
    """Stop a resending: 200 with it. 404: there is none. 409: it has ended."""
    return jsonify(resending_json(stop_or_409(resending_id)))
