"""Who may use the gateway: callers with an API key or with upstream's token, always as a Bearer token."""

from flask import Response, g, request
from werkzeug.exceptions import NotFound

from receiver.api_keys import TOKEN_NAME, ApiKey, find_key
from receiver.upstream.services import SERVICES
from receiver.web import errors
from receiver.web.auth import bearer
from receiver.web.current import current_settings
from receiver.web.gateway.answers import Refused
from receiver.web.guesses import note_wrong_key

_ONLY_READS = "This API key may only read."


def require_caller() -> Response | None:
    """Require a caller whom we know. What a stranger sends leaves no row.

    401: no key, or a wrong one. 429: a wrong one, after many of them. 404 as elsewhere: no key, and no
    service of upstream's. 503: there is no ACEDATACLOUD_API_TOKEN to relay with.
    """
    given = bearer()
    if given is None and _first_segment() not in SERVICES:
        return errors.answer(NotFound())
    settings = current_settings()
    keys = settings.api_keys
    if settings.api_token is not None:
        keys = (*keys, ApiKey(TOKEN_NAME, settings.api_token))
    caller = find_key(keys, given) if given is not None else None
    if caller is None:
        if given:
            note_wrong_key()
        said = "is wrong" if given else "is missing"
        raise Refused(
            401,
            f"The Bearer token {said}. Send upstream's token, or an API key of this Backstop alone, without"
            " the name that may stand before it.",
        )
    if settings.api_token is None:
        raise Refused(503, "This Backstop cannot relay: ACEDATACLOUD_API_TOKEN is missing.", "no_token")
    g.caller = caller
    return None


def current_caller() -> ApiKey:
    """Return the key of the current request's caller."""
    caller: ApiKey = g.caller
    return caller


def require_writer(why: str = "") -> None:
    """Require a key that may do more than read. 403: it may not. `why` says more of the request."""
    if not current_caller().may_write:
        raise Refused(403, f"{_ONLY_READS}{why and f' {why}'}")


def _first_segment() -> str:
    return request.path.lstrip("/").partition("/")[0]
