"""Checks the token of a callback and reads its request, whatever it holds: there is no other copy of it."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from flask import request
from werkzeug.exceptions import NotFound

from receiver.api_keys import is_same_secret
from receiver.ledger.admission import KEPT_OF_LARGE
from receiver.ledger.refusals import UNKNOWN_SERVICE
from receiver.ledger.store import Callback
from receiver.redact import MASK, mask_tokens
from receiver.upstream.results import Unreadable
from receiver.upstream.services import SERVICES
from receiver.web.guesses import note_wrong_token
from receiver.web.intake import current_intake
from receiver.web.probe import PROBE_HEADER
from receiver.web.stalls import stall_guard

log = logging.getLogger(__name__)

# Read and discard a body up to this many times the limit. A sender that is cut off while it still sends would
# see a broken connection instead of the answer.
_READ_OVER_LIMIT = 8
_MOST_OF_HEADERS = 16384  # characters; the server takes up to 100 headers of 8 kB each
_LONGEST_SERVICE = 60  # characters
_CHUNK = 65536
_LARGEST_SIZE = 2**31 - 1  # the column's limit; a Content-Length may claim any number
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def place_of(token: str, callback_tokens: Sequence[str]) -> int:
    """Return a callback token's place in CALLBACK_TOKEN, from 0.

    404: it is not ours. 429: it is not, after many wrong ones.
    """
    # Compare with every token: the time that it takes must not show which token matched.
    same = [is_same_secret(token, ours) for ours in callback_tokens]
    if True not in same:
        note_wrong_token(is_probe=PROBE_HEADER in request.headers)
        raise NotFound("The callback token in this URL is not ours.")
    return same.index(True)


def read_callback(limit: int, ref: str | None, token: int) -> Callback:
    """Return the current request as a callback. `token` is its token's place in CALLBACK_TOKEN, from 0.

    A body over `limit` bytes, or one that breaks off or stalls, has `cut`: it is kept as far as that.
    """
    with stall_guard.reading():
        body, size, cut = _read_body(limit)
    if size > limit:
        body = body[:KEPT_OF_LARGE]
        size = min(max(size, request.content_length or 0), _LARGEST_SIZE)
        cut = Unreadable("too_large", f"The body is larger than {limit} bytes; only its beginning was kept.")
    return Callback(
        body=body,
        size=size,
        ref=ref,
        remote_addr=request.remote_addr,
        headers=_headers(),
        cut=cut,
        token=token,
        service=_service() if request.query_string else None,
    )


def _service() -> str | None:
    """Return the service that the URL names. One that is not known is noted, and loses no callback."""
    name = mask_tokens(request.args.get("service", ""))[:_LONGEST_SERVICE].replace("\0", "\ufffd")
    if name and name not in SERVICES:
        current_intake().refused.note(UNKNOWN_SERVICE, request.remote_addr, f"?service={name}")
    return name or None


def _read_body(limit: int) -> tuple[bytes, int, Unreadable | None]:
    """Return the body's first `limit` bytes, how many bytes arrived, and the problem if it was cut short."""
    kept, size = bytearray(), 0
    stream: Any = None
    try:
        stream = request.stream
        while size <= limit * _READ_OVER_LIMIT and (chunk := stream.read(_CHUNK)):
            kept += chunk[: max(limit - size, 0)]
            size += len(chunk)
    except Exception:  # noqa: BLE001 - the server may raise anything for a body that breaks off: keep what arrived
        # A second read returns the part of a chunk that the server had read.
        with contextlib.suppress(Exception):
            rest = stream.read(_CHUNK)
            kept += rest[: max(limit - size, 0)]
            size += len(rest)
        return bytes(kept), size, _incomplete()
    is_cut = size < (request.content_length or 0) and size <= limit
    return bytes(kept), size, _incomplete() if is_cut else None


def _incomplete() -> Unreadable:
    return Unreadable("incomplete", "The connection ended before the body did.")


def _headers() -> list[tuple[str, str]]:
    kept, room = [], _MOST_OF_HEADERS
    try:
        for name, value in request.headers:
            room -= len(name) + len(value)
            if room < 0:
                break
            kept.append((name, _mask(name, value)))
        return kept
    except Exception:  # the body counts, whatever the headers hold
        log.exception("The headers of a callback cannot be read; it is stored without them.")
        return []


def _mask(name: str, value: str) -> str:
    return MASK if name.lower() in _SECRET_HEADERS else mask_tokens(value)
