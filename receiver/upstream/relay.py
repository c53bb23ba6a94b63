"""Relays one request of a caller to upstream, with our token, and its answer as it comes.

It sends once and follows no redirect. A failure tells whether upstream can have taken the request.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import urllib3

from receiver.redact import MASK

CONNECT_WITHIN_SECONDS = 5.0
# Upstream holds a synchronous request for 1-8 minutes and says nothing meanwhile.
SILENT_FOR_SECONDS = 600.0
# Upstream's own clients wait so long.
ANSWER_WITHIN_SECONDS = 1800.0
_CONNECTIONS = 256  # kept for the next request; as many as requests may last, and more
_CHUNK = 65536
_NOT_CONNECTED = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
# What is ours to say, the caller's secrets, and what proxies in front of us add for us.
_NOT_SENT = _HOP_BY_HOP | {
    *("host", "content-length", "expect", "idempotency-key"),
    *("authorization", "cookie", "x-api-key", "x-goog-api-key", "api-key"),
    *("forwarded", "via", "x-real-ip"),
}
_PREFIXES_NOT_SENT = ("x-forwarded-", "x-request-", "fly-", "cf-")
_NOT_RETURNED = _HOP_BY_HOP | {
    *("content-length", "server", "date", "set-cookie", "alt-svc", "strict-transport-security"),
}
# What HTTP allows: no server would send another header on.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class NotRelayed(Exception):
    """Upstream gave no answer. `maybe_taken`: it may have taken the request, and be working on it."""

    def __init__(self, reason: str, maybe_taken: bool) -> None:
        super().__init__(reason)
        self.maybe_taken = maybe_taken


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as the caller made it. `target` is its path with the query, as it came."""

    method: str
    target: str
    headers: Iterable[tuple[str, str]] = ()
    body: bytes = b""


class Relayed:
    """Upstream's answer. Read all of `chunks` or call `close`; both may be done."""

    def __init__(self, response: urllib3.BaseHTTPResponse, until: float, token: str) -> None:
        self._response = response
        self._until = until
        self._token = token
        self.status: int = response.status
        self.headers = _returned(response.headers) + _length(response)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's bytes as they come, still compressed. Raises NotRelayed where it breaks off."""
        try:
            while chunk := self._response.read1(_CHUNK, decode_content=False):
                yield chunk
                if time.monotonic() > self._until:
                    raise NotRelayed(f"it took longer than {ANSWER_WITHIN_SECONDS:g} s", maybe_taken=True)
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            raise NotRelayed(_reason(problem, self._token), maybe_taken=True) from None
        else:
            self._response.release_conn()
        finally:
            self._response.close()

    def read(self, most: int, within: float) -> bytes:
        """Return the whole body. Raises NotRelayed if it is larger, or takes longer than `within` seconds."""
        content, until = bytearray(), time.monotonic() + within
        for chunk in self.chunks():
            content += chunk
            if len(content) > most or time.monotonic() > until:
                self.close()
                raise NotRelayed("its answer is too large, or takes too long", maybe_taken=True)
        return bytes(content)

    def close(self) -> None:
        """Give up what has not been read."""
        self._response.close()


class Relay:
    """Sends requests to upstream for one account. Safe to share between threads and greenlets."""

    def __init__(self, base_url: str, token: str, silent_for: float = SILENT_FOR_SECONDS) -> None:
        url = urllib3.util.parse_url(base_url)
        self._pool = urllib3.connection_from_url(base_url, maxsize=_CONNECTIONS, retries=False)
        self._prefix = (url.path or "").rstrip("/")
        self._token = token
        self._silent_for = silent_for

    def send(self, outgoing: Outgoing, silent_for: float | None = None) -> Relayed:
        """Send a request and return the answer once its headers are there. Raises NotRelayed.

        `silent_for`: how many seconds upstream may say nothing.
        """
        body = _Body(outgoing.body)
        until = time.monotonic() + ANSWER_WITHIN_SECONDS
        try:
            response = self._pool.urlopen(
                outgoing.method,
                self._prefix + outgoing.target,
                body=body if outgoing.body else None,
                headers=self._headers(outgoing),
                redirect=False,  # the token goes to no other address
                timeout=urllib3.Timeout(connect=CONNECT_WITHIN_SECONDS, read=silent_for or self._silent_for),
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            is_connected = not isinstance(problem, _NOT_CONNECTED)
            maybe_taken = body.is_sent or (is_connected and not outgoing.body)
            raise NotRelayed(_reason(problem, self._token), maybe_taken) from None
        if response.status < HTTPStatus.OK:  # the client reads on after a 100 alone
            response.close()
            raise NotRelayed(f"a status {response.status} instead of an answer", maybe_taken=True)
        return Relayed(response, until, self._token)

    def _headers(self, outgoing: Outgoing) -> urllib3.HTTPHeaderDict:
        headers = urllib3.HTTPHeaderDict(_sent(outgoing.headers))
        headers["Authorization"] = f"Bearer {self._token}"
        if outgoing.body or outgoing.method in {"POST", "PUT", "PATCH"}:
            headers["Content-Length"] = str(len(outgoing.body))
        # Otherwise urllib3 would add its own.
        for name in ("Accept-Encoding", "User-Agent"):
            if name not in headers:
                headers[name] = urllib3.util.SKIP_HEADER
        return headers


class _Body:
    """A request's body that knows whether sending it has begun: before that upstream can take nothing."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.is_sent = False

    def __iter__(self) -> Iterator[bytes]:
        self.is_sent = True
        yield self._body


def _sent(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the caller's headers that upstream gets."""
    given = list(headers)
    named = {
        option.strip().lower()
        for name, value in given
        if name.lower() == "connection"
        for option in value.split(",")
    }
    return [
        (name, value)
        for name, value in given
        if (low := name.lower()) not in _NOT_SENT | named and not low.startswith(_PREFIXES_NOT_SENT)
    ]


def _returned(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return upstream's headers that the caller gets."""
    named = {option.strip().lower() for option in headers.get("Connection", "").split(",")}
    return [
        (name, value)
        for name, value in headers.items()
        if name.lower() not in _NOT_RETURNED | named and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    ]


def _length(response: urllib3.BaseHTTPResponse) -> list[tuple[str, str]]:
    """Return the length of the body, once, where upstream names one that holds: chunks have none."""
    length = response.headers.get("Content-Length", "").partition(",")[0]  # named twice, it must be the same
    holds = length.isascii() and length.isdigit() and not getattr(response, "chunked", False)
    return [("Content-Length", length)] if holds else []


def _reason(problem: Exception, token: str) -> str:
    cause = problem.args[-1] if isinstance(problem, urllib3.exceptions.ProtocolError) else problem
    # The last words of urllib3's messages; what stands before them is the connection's memory address.
    said = str(cause).rpartition(": ")[2]
    said = said if said and said.isprintable() else type(cause).__name__
    return " ".join(said.replace(token, MASK).split())[:300]
