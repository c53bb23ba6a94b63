"""The pages about forwards: the list with the endpoints and what failed, one forward, and sending again."""

from contextlib import suppress

from flask import Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.ledger import resending
from receiver.ledger.forward import GIVEN_UP
from receiver.ledger.reading import forwards as reading
from receiver.ledger.reading.endpoints import list_endpoints
from receiver.ledger.reading.next_attempt import next_of
from receiver.web import filters, forward_actions
from receiver.web.current import current_settings
from receiver.web.formatting import as_input
from receiver.web.offload import offload
from receiver.web.pages import forward_view
from receiver.web.pages.base import given, page_blueprint, with_query

blueprint = page_blueprint("forward_pages")

_MOST_FORWARDS = 50


@blueprint.get("/forwards")
def show_list() -> ResponseReturnValue:
    """Show the endpoints, what failed, and the newest forwards that match the URL's filter: 200.

    400: a bad filter.
    """
    query, now = given(filters.FORWARD_FIELDS), utcnow()
    path = url_for("forward_pages.show_list")
    wanted, before = filters.read_forward_filter(query), request.args.get("before")
    found = offload(reading.list_forwards, wanted, _MOST_FORWARDS, filters.read_delivery_cursor(before))
    return render_template(
        "forwards.html",
        now=now,
        found=found,
        query=query,
        wanted=wanted,
        before=before,
        older=found.next and with_query(path, query | {"before": filters.cursor(found.next)}),
        since=as_input(wanted.since),
        until=as_input(wanted.until),
        states=reading.STATES,
        types=filters.FORWARD_TYPES,
        forward_url_is_set=bool(current_settings().forward_urls),
        endpoints=[forward_view.endpoint_view(one) for one in offload(list_endpoints, now)],
        causes=offload(reading.causes) if query in ({}, {"status": GIVEN_UP}) and before is None else [],
        most_counted=reading.MOST_COUNTED,
        orders=forward_view.order_views(resending.newest(), now),
    )


@blueprint.get("/forwards/<int:forward_id>")
def show_forward(forward_id: int) -> ResponseReturnValue:
    """Show one forward with its body and its newest 100 attempts: 200. 404: none, or it was pruned."""
    now = utcnow()
    forward = forward_actions.find_forward_or_404(forward_id)
    attempts = reading.attempts_of(forward_id)
    body = forward_view.body_of(forward)
    return render_template(
        "forward.html",
        now=now,
        forward=forward,
        following=next_of(forward, now),
        attempts=[forward_view.attempt_view(attempt) for attempt in attempts],
        body=forward_view.body_view(body),
        curl=forward_view.curl(forward, attempts[0], body) if attempts else None,
        resendings=[one for one in reading.resendings_of(forward) if one.id != forward_id],
    )


@blueprint.get("/forwards/<int:forward_id>/body")
def download_body(forward_id: int) -> ResponseReturnValue:
    """Send the bytes of a forward's body, as they are posted: 200. 404: no such forward."""
    forward = forward_actions.find_forward_or_404(forward_id)
    # Never a type that browsers render: upstream's words are in it.
    headers = {"Content-Disposition": f'attachment; filename="{forward_view.file_name(forward)}"'}
    return Response(forward_view.body_of(forward), mimetype="application/octet-stream", headers=headers)


@blueprint.post("/forwards/<int:forward_id>")
def resend_or_dismiss(forward_id: int) -> ResponseReturnValue:
    """Send a forward's event again, or with `do=dismiss` give it up: 303 to the forward that is due.

    404: no such forward. 409: it cannot be sent again, or not be dismissed.
    """
    if request.form.get("do") == "dismiss":
        changed = forward_actions.dismiss_or_409(forward_id)
    else:
        changed = forward_actions.resend_or_409(forward_id)
    return redirect(url_for("forward_pages.show_forward", forward_id=changed.id), 303)


@blueprint.get("/forwards/resend")
def ask_to_resend() -> ResponseReturnValue:
    """Show how many match the URL's filter, and a form that sends them again: 200. 400: a bad filter."""
    query = given(filters.FORWARD_FIELDS)
    wanted = filters.read_forward_filter(query)
    return render_template(
        "resend.html",
        query=query,
        asked=forward_view.in_words(wanted),
        total=offload(reading.count_forwards, wanted) if query else None,
        rates=(resending.SLOWEST, resending.DEFAULT_RATE, resending.FASTEST),
    )


@blueprint.post("/forwards/resend")
def resend_all() -> ResponseReturnValue:
    """Send again all that match the URL's filter, `rate` a second: 303 to the list, which shows the progress.

    400: a bad filter or rate, no filter, or one that holds too many.
    """
    query = given(filters.FORWARD_FIELDS)
    forward_actions.order_or_400(filters.read_forward_filter(query), _rate())
    return redirect(url_for("forward_pages.show_list"), 303)


@blueprint.post("/resendings/<int:resending_id>")
def stop(resending_id: int) -> ResponseReturnValue:
    """Stop sending again: 303 to the list. 404: there is no such resending. 409: it has ended."""
    forward_actions.stop_or_409(resending_id)
    return redirect(url_for("forward_pages.show_list"), 303)


def _rate() -> float:
    rate: object = request.form.get("rate")
    with suppress(ValueError):  # what is no number is refused below
        rate = float(str(rate))
    return filters.read_rate(rate)
