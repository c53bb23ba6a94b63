"""Reads the bodies of requests that are answered with an error unless they come whole."""

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from receiver.web.errors import BadInput
from receiver.web.stalls import READ_WITHIN_SECONDS, stall_guard


def read_body(limit: int, setting: str = "", within: float = READ_WITHIN_SECONDS) -> bytes:
    """Return the current request's body. `setting` names where its limit comes from.

    Raises RequestEntityTooLarge when it has more than `limit` bytes, and BadInput when it does not come whole
    within so many seconds.
    """
    request.max_content_length = limit + 1  # werkzeug cuts a larger chunked body there without an error
    too_large = RequestEntityTooLarge(f"The body is larger than {limit} bytes{setting and f' ({setting})'}.")
    not_whole = BadInput(
        "The body ended too early, came too slowly or is badly chunked. Send it again, whole."
    )
    try:
        with stall_guard.reading(within):
            body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise too_large from None
    except Exception:  # noqa: BLE001 - the server may raise anything for a body that breaks off
        raise not_whole from None
    if len(body) > limit:
        raise too_large
    if len(body) < (request.content_length or 0):
        raise not_whole
    return body
