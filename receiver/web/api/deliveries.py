"""The API's list of deliveries."""

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from receiver.ledger.reading.deliveries import list_deliveries
from receiver.web.api.details_json import listed_delivery_json
from receiver.web.auth import require_api_key
from receiver.web.filters import (
    DELIVERY_FIELDS,
    cursor,
    read_delivery_cursor,
    read_delivery_filter,
    read_limit,
    read_query,
)
from receiver.web.offload import offload

blueprint = Blueprint("deliveries", __name__, url_prefix="/api/deliveries")
blueprint.before_request(require_api_key)


@blueprint.get("")
def list_them() -> ResponseReturnValue:
    """List deliveries without their bodies, newest first: 200 with a page and the next page's cursor.

    400: a bad parameter.
    """
    arguments = read_query(request.args, DELIVERY_FIELDS)
    wanted, before = read_delivery_filter(arguments), read_delivery_cursor(arguments.get("before"))
    found = offload(list_deliveries, wanted, read_limit(arguments.get("limit", "50")), before)
    items = [listed_delivery_json(delivery) for delivery in found.deliveries]
    return jsonify({"items": items, "next": found.next and cursor(found.next)})
