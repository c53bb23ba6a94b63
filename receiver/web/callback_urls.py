"""Callback URLs: which of them lead to us, which one upstream gets, and which a caller may name."""

import re
from urllib.parse import unquote, urlencode, urlsplit

from flask import request

from receiver.forward.target import InvalidRequestError, parse_target
from receiver.ledger.endpoints import host_of
from receiver.web.current import address, current_settings
from receiver.web.errors import BadInput

_LONGEST_URL = 2000


def our_callback_url(service: str) -> str:
    """Return the URL to which upstream shall post the result of a task of a service."""
    token = current_settings().callback_tokens[0]
    return f"{address()}/callbacks/{token}/?{urlencode({'service': service})}"


def check_callback_url(url: object, where: str = "") -> str | None:
    """Return where a caller wants a task's result posted. Raises BadInput, which `where` begins."""
    if url is None:
        return None
    if not isinstance(url, str) or not re.fullmatch(rf"[\x21-\x7e]{{1,{_LONGEST_URL}}}", url):
        raise BadInput(
            f"{where}The callback_url must be a string of at most {_LONGEST_URL} printable ASCII characters"
            " without spaces, like https://app.example.com/hooks?order=7."
        )
    try:
        parse_target(url)
    except InvalidRequestError:
        raise BadInput(f"{where}The callback_url must be an http or https address.") from None
    settings = current_settings()
    if settings.forward_when == "confirmed" and not settings.confirm_callbacks:
        raise BadInput(
            f"{where}The callback_url would never be told what a callback says: FORWARD_WHEN=confirmed needs"
            " CONFIRM_CALLBACKS=true."
        )
    if is_ours(url):
        raise BadInput(
            f"{where}The callback_url is one of this Backstop's own, so it would tell itself. Name where your"
            " app is to be told."
        )
    return url


def is_ours(url: str) -> bool:
    """Tell whether a URL leads to our own callback route, under whatever name. A broken one does not."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return False
    segments = [segment for segment in path.split("/") if segment]
    if "callbacks" not in segments:
        return False
    our_hosts = {host_of(address()), host_of(request.host_url)}
    is_our_host = segments[0] == "callbacks" and host_of(url) in our_hosts
    return is_our_host or not set(current_settings().callback_tokens).isdisjoint(segments)
