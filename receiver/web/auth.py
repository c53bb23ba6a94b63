"""The API key's check, for the API and the pages."""

import hmac
from typing import Any

from flask import request
from werkzeug.exceptions import Forbidden, Unauthorized

from receiver.web.settings import current_settings


class KeyNeeded(Unauthorized):
    """A request without the API key, or with a wrong one."""

    description = "Send the API key, as `Authorization: Bearer` or as the password of HTTP Basic."

    def get_headers(self, *arguments: Any, **named: Any) -> list[tuple[str, str]]:
        """Return the headers of a 401, the challenges written as every client reads them."""
        challenges = ('Basic realm="Backstop", charset="UTF-8"', 'Bearer realm="Backstop"')
        return [
            *super().get_headers(*arguments, **named),
            *(("WWW-Authenticate", challenge) for challenge in challenges),
        ]


def require_api_key() -> None:
    """Let a request through that carries the API key, as a Bearer token or as the password of HTTP Basic.

    401 without it or with a wrong one. 403 for a change that another site's page asks a browser for: the
    browser adds the Basic password by itself.
    """
    given = request.authorization
    secret = given.token if given and given.type == "bearer" else given.password if given else None
    if not secret or not is_same_secret(secret, current_settings().api_key):
        raise KeyNeeded
    if request.method not in {"GET", "HEAD", "OPTIONS"} and request.headers.get(
        "Sec-Fetch-Site", "none"
    ) not in {"none", "same-origin"}:
        raise Forbidden("Another site's page may not change anything here.")


def is_same_secret(given: str, secret: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())
