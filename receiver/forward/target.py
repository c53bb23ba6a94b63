"""Where a URL leads: the parts of it that a request needs. Pure."""

import base64
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

_PORTS = {"http": 80, "https": 443}
_NOT_QUOTED = "%/?:=&~+!$,;'@()*[]|"


class InvalidRequestError(ValueError):
    """A request cannot be sent as it is. The message holds no URL and no secret."""


@dataclass(frozen=True, slots=True)
class Target:
    """A place on a server."""

    scheme: str
    host: str  # in ASCII, as name servers know it
    port: int
    path: str  # with the query
    host_header: str
    authorization: str | None  # of the user and the password in the URL


def parse_target(url: str) -> Target:
    """Return where a URL leads. Raises InvalidRequestError for all but http and https addresses."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:  # also UnicodeError
        raise InvalidRequestError("the URL is not valid") from None
    if scheme not in _PORTS or not re.fullmatch(r"[\x21-\x7e]+", host):
        raise InvalidRequestError("the URL is not an http or https address")
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_NOT_QUOTED)
    name = f"[{host.partition('%')[0]}]" if ":" in host else host
    return Target(
        scheme=scheme,
        host=host,
        port=_PORTS[scheme] if port is None else port,
        path=path if path.startswith("/") else f"/{path}",
        host_header=name if port in (None, _PORTS[scheme]) else f"{name}:{port}",
        authorization=_basic(parts.username, parts.password),
    )


def _basic(user: str | None, password: str | None) -> str | None:
    if user is None:
        return None
    credentials = unquote_to_bytes(user) + b":" + unquote_to_bytes(password or "")
    return f"Basic {base64.b64encode(credentials).decode()}"
