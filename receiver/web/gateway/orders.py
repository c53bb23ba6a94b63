"""Reads what a caller wants to submit. Raises Refused and BadInput before anything is sent."""

import re
from datetime import timedelta

from flask import request

from receiver.ledger.submissions import IN_FLIGHT_FOR, Asked, digest_of, repeat_key
from receiver.upstream.relay import ANSWER_WITHIN_SECONDS
from receiver.upstream.services import Service
from receiver.upstream.submitting import Order, Wants, canonical
from receiver.web.callback_urls import check_callback_url, is_ours
from receiver.web.gateway.access import current_caller
from receiver.web.gateway.answers import Refused, trace_id, use_trace_id

_LINES_FOR = timedelta(seconds=ANSWER_WITHIN_SECONDS) + IN_FLIGHT_FOR
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def read_asked(service: Service, operation: str, order: Order) -> Asked:
    """Return what the current request asks for. 400: a bad callback URL, or a bad Idempotency-Key."""
    if order.trace_id is not None:
        use_trace_id(order.trace_id)
    digest = digest_of(request.path, canonical(order))
    return Asked(
        api_key=current_caller().name,
        service=service.name,
        type=operation.replace("/", "_")[:200],
        trace_id=trace_id(),
        digest=digest,
        repeat_key=repeat_key(_idempotency_key(), order.trace_id, digest),
        callback_url=_callback_url(order),
        in_flight_for=_LINES_FOR if order.wants is Wants.LINES else IN_FLIGHT_FOR,
    )


def own_callback_url(order: Order) -> str | None:
    """Return the order's callback URL if it leads to us: upstream then gets it as it is."""
    url = order.callback_url
    return url if isinstance(url, str) and is_ours(url) else None


def _callback_url(order: Order) -> str | None:
    return None if own_callback_url(order) else check_callback_url(order.callback_url)


def _idempotency_key() -> str | None:
    given = request.headers.get("Idempotency-Key")
    if given is not None and not _IDEMPOTENCY_KEY.fullmatch(given):
        raise Refused(400, "The Idempotency-Key must be 1-255 printable ASCII characters.")
    return given
