"""Actions on forwards and endpoints that the API and the pages share."""

from flask import current_app
from werkzeug.exceptions import Conflict, NotFound

from receiver.clock import utcnow
from receiver.ledger import endpoints, resending
from receiver.ledger.models import Endpoint, Forward, Resending
from receiver.ledger.reading.endpoints import EndpointHealth, find_endpoint
from receiver.ledger.reading.forwards import ForwardFilter, find_forward
from receiver.web.errors import BadInput
from receiver.web.filters import LARGEST_ID
from receiver.web.offload import offload
from receiver.web.trial import Trial, try_endpoint


def find_forward_or_404(forward_id: int) -> Forward:
    """Return the forward with its endpoint and body. 404: there is none, or it was pruned."""
    forward = find_forward(forward_id) if forward_id <= LARGEST_ID else None
    if forward is None:
        raise NotFound("No such forward. It may have been deleted: see RETENTION_DAYS.")
    return forward


def resend_or_409(forward_id: int) -> Forward:
    """Send a forward's event again and return the forward that is due. 409: nobody is to be told there."""
    find_forward_or_404(forward_id)
    sent = resending.resend(forward_id, utcnow())
    if sent is None:
        raise Conflict("FORWARD_URL no longer names the endpoint of this forward.")
    return find_forward_or_404(sent)


def dismiss_or_409(forward_id: int) -> Forward:
    """Give a forward up for good and return it. 409: it is neither pending nor failed."""
    forward = find_forward_or_404(forward_id)
    if not resending.dismiss(forward_id, utcnow()):
        raise Conflict(f"This forward is {forward.status}: only a pending or a failed one can be dismissed.")
    return find_forward_or_404(forward_id)


def order_or_400(wanted: ForwardFilter, rate: float) -> Resending:
    """Order that all is sent again that a filter holds. 400: it holds too much, or is no filter."""
    if wanted == ForwardFilter():
        raise BadInput("Say which forwards to send again, for example those with the status failed.")
    try:
        return offload(resending.order, wanted, rate, utcnow())
    except resending.TooMany as problem:
        raise BadInput(str(problem)) from None


def find_resending_or_404(resending_id: int) -> Resending:
    """Return a resending. 404: there is none."""
    found = resending.find(resending_id) if resending_id <= LARGEST_ID else None
    if found is None:
        raise NotFound("No such resending.")
    return found


def stop_or_409(resending_id: int) -> Resending:
    """Stop a resending and return it. 409: it has ended."""
    find_resending_or_404(resending_id)
    if not resending.stop(resending_id, utcnow()):
        raise Conflict("This resending has ended.")
    return find_resending_or_404(resending_id)


def find_endpoint_or_404(endpoint_id: int) -> EndpointHealth:
    """Return an endpoint with its health. 404: there is none."""
    found = offload(find_endpoint, endpoint_id, utcnow()) if endpoint_id <= LARGEST_ID else None
    if found is None:
        raise NotFound("No such endpoint.")
    return found


def pause(endpoint_id: int) -> EndpointHealth:
    """Hold an endpoint until a person resumes it. This is idempotent. 404: there is none."""
    find_endpoint_or_404(endpoint_id)
    endpoints.pause(endpoint_id, utcnow())
    return find_endpoint_or_404(endpoint_id)


def resume(endpoint_id: int) -> EndpointHealth:
    """End the hold of an endpoint. This is idempotent. 404: there is none."""
    find_endpoint_or_404(endpoint_id)
    endpoints.resume(endpoint_id, utcnow())
    return find_endpoint_or_404(endpoint_id)


def send_test_event(endpoint_id: int) -> Trial:
    """Send a test event to an endpoint at once. 404: there is none. 409: FORWARD_URL does not name it."""
    endpoint: Endpoint = find_endpoint_or_404(endpoint_id).endpoint
    if not endpoint.is_app or endpoint.retired_at is not None:
        raise Conflict("FORWARD_URL does not name this endpoint, so it gets no test events.")
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # the stubs know the proxy alone
    return try_endpoint(app, endpoint.url, utcnow())
