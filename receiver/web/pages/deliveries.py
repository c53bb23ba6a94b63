"""The pages about deliveries: the list with its filters, one delivery verbatim, and its bytes."""

from flask import Response, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from receiver.clock import utcnow
from receiver.ledger.models import Delivery
from receiver.ledger.reading import queries
from receiver.ledger.reading.deliveries import list_deliveries
from receiver.upstream.services import SERVICES
from receiver.web import response_view
from receiver.web.current import current_settings
from receiver.web.filters import (
    DELIVERY_FIELDS,
    VERDICTS,
    cursor,
    read_delivery_cursor,
    read_delivery_filter,
)
from receiver.web.formatting import as_input
from receiver.web.offload import offload
from receiver.web.pages.base import given, page_blueprint, with_query
from receiver.web.pages.callback_answers import answer_to, may_have_been_spooled

blueprint = page_blueprint("delivery_pages")

_MOST_DELIVERIES = 50
_LARGEST_ID = 2**63 - 1


@blueprint.get("/deliveries")
def show_list() -> ResponseReturnValue:
    """Show the newest deliveries that match the URL's filter: 200. 400: a bad filter."""
    query, path = given(DELIVERY_FIELDS), url_for("delivery_pages.show_list")
    wanted, before = read_delivery_filter(query), request.args.get("before")
    found = offload(list_deliveries, wanted, _MOST_DELIVERIES, read_delivery_cursor(before))
    return render_template(
        "deliveries.html",
        now=utcnow(),
        found=found,
        query=query,
        before=before,
        older=found.next and with_query(path, query | {"before": cursor(found.next)}),
        since=as_input(wanted.since),
        until=as_input(wanted.until),
        verdicts=VERDICTS,
    )


@blueprint.get("/deliveries/<int:delivery_id>")
def show_delivery(delivery_id: int) -> ResponseReturnValue:
    """Show one delivery verbatim, and what we answered: 200. 404: it does not exist or was pruned."""
    delivery = _find_or_404(delivery_id)
    answer = answer_to(delivery)
    return render_template(
        "delivery.html",
        now=utcnow(),
        delivery=delivery,
        came=response_view.verbatim(delivery, current_settings().callback_tokens),
        answer=answer,
        unknown_service=delivery.service is not None and delivery.service not in SERVICES,
        perhaps_spooled=may_have_been_spooled(answer),
    )


@blueprint.get("/deliveries/<int:delivery_id>/body")
def download_body(delivery_id: int) -> ResponseReturnValue:
    """Send the stored bytes of a delivery's body, unchanged: 200. 404: no such delivery."""
    body = bytes(_find_or_404(delivery_id).body)
    # Never a type that browsers render: anybody with the callback URL may have sent this.
    headers = {"Content-Disposition": f'attachment; filename="backstop-delivery-{delivery_id}.bin"'}
    return Response(body, mimetype="application/octet-stream", headers=headers)


def _find_or_404(delivery_id: int) -> Delivery:
    delivery = queries.find_delivery(delivery_id) if delivery_id <= _LARGEST_ID else None
    if delivery is None:
        raise NotFound(
            "No such delivery: there was none with this number, or it is so old that it was deleted."
        )
    return delivery
