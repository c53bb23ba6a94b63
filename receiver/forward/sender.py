"""Posts a request to the customer's app. It asks once: its caller decides about trying again."""

import http.client
import ssl
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, cast

from receiver.forward.addresses import NotPublicError, is_public
from receiver.forward.attempt import Outcome as Outcome
from receiver.forward.attempt import Request as Request
from receiver.forward.failures import kind_of, words_for
from receiver.forward.idle import IdleConnections
from receiver.forward.names import Address, Names
from receiver.forward.target import InvalidRequestError, Target, parse_target
from receiver.forward.wire import Wire, connect
from receiver.retry_after import parse_retry_after
from receiver.version import VERSION

USER_AGENT = f"Backstop/{VERSION}"
ATTEMPT_WITHIN_SECONDS = 15.0  # all of it: the name, the connection, TLS, the request, the answer
CONNECT_WITHIN_SECONDS = 5.0
LARGEST_ANSWER = 1024  # bytes of its body that are read

# The errors of a connection that the server has closed, before or while we sent.
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass(slots=True)
class _Answer:
    status: int | None = None
    body: bytearray = field(default_factory=bytearray)
    retry_after: timedelta | None = None


class Sender:
    """Sends requests. Safe to share between threads."""

    def __init__(self, allow_private_urls: bool, connections: int) -> None:
        """`connections` is how many stay open while nobody uses them."""
        self._allow_private_urls = allow_private_urls
        self._idle = IdleConnections(connections)
        self._names = Names()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def send(self, request: Request) -> Outcome:
        """Send a request and return what came of it, within ATTEMPT_WITHIN_SECONDS.

        Follows no redirects and uses no proxies.
        """
        began = time.monotonic()
        answer, problem = _Answer(), None
        try:
            self._exchange(request, began + ATTEMPT_WITHIN_SECONDS, answer)
        except (OSError, http.client.HTTPException, InvalidRequestError) as caught:
            problem = caught
        return Outcome(
            status=answer.status,
            answer=bytes(answer.body),
            error=None if problem is None else words_for(problem),
            took=timedelta(seconds=time.monotonic() - began),
            retry_after=answer.retry_after,
            kind=kind_of(answer.status, problem),
        )

    def close(self) -> None:
        """Close the connections that nobody uses, and those in use as soon as they are done with."""
        self._idle.close()

    def _exchange(self, request: Request, deadline: float, answer: _Answer) -> None:
        target = parse_target(request.url)
        message = _head(target, request) + request.body
        may_be_private = request.may_be_private or self._allow_private_urls
        server = (target.scheme, target.host, target.port, may_be_private)
        wire = self._idle.take(server)
        if wire is not None:
            wire.deadline = deadline
            try:
                self._converse(server, wire, message, answer)
                return
            except _CLOSED:
                # The server closed it in the same moment, probably before it read anything. If it did read
                # the request, it gets it twice, and recognises it by its webhook-id.
                if wire.has_heard:
                    raise
        self._converse(server, self._open(target, may_be_private, deadline), message, answer)

    def _open(self, target: Target, may_be_private: bool, deadline: float) -> Wire:
        addresses = self._names.look_up(target.host, target.port, deadline - time.monotonic())
        if not may_be_private:
            addresses = _public(addresses)
        seconds = min(CONNECT_WITHIN_SECONDS, deadline - time.monotonic())
        wire = Wire(connect(addresses, seconds), deadline)
        if target.scheme == "https":
            try:
                wire.start_tls(self._tls, target.host.rstrip("."))
            except BaseException:
                wire.close()
                raise
        return wire

    def _converse(self, server: tuple[Any, ...], wire: Wire, message: bytes, answer: _Answer) -> None:
        """Send a message and read what comes into `answer`. Keep the connection if it can be used again."""
        can_be_kept = False
        try:
            was_sent = _send(wire, message)
            can_be_kept = _read(wire, answer) and was_sent
        finally:
            if can_be_kept:
                self._idle.put(server, wire)
            else:
                wire.close()


def _public(addresses: list[Address]) -> list[Address]:
    public = [address for address in addresses if is_public(address.ip)]
    if not public:
        found = ", ".join(address.ip for address in addresses[:3])
        raise NotPublicError(f"the URL leads to {found}, which is not a public address")
    return public


def _head(target: Target, request: Request) -> bytes:
    headers = {
        "Host": target.host_header,
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
        "Content-Length": str(len(request.body)),
    }
    if target.authorization is not None:
        headers["Authorization"] = target.authorization
    lines = [f"{name}: {value}" for name, value in (headers | dict(request.headers)).items()]
    if any(character in line for line in lines for character in "\r\n\0"):
        raise InvalidRequestError("a header has several lines")
    first = f"{request.method} {target.path} HTTP/1.1"
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1", "replace")


def _send(wire: Wire, message: bytes) -> bool:
    try:
        wire.sendall(message)
    except ConnectionError:
        return False  # the server may have answered before it had read everything, such as a 413
    return True


def _read(wire: Wire, answer: _Answer) -> bool:
    """Read the head and the beginning of the body. Return whether the connection can be used again."""
    response = http.client.HTTPResponse(cast(Any, wire), method="POST")
    try:
        response.begin()
        answer.status = response.status
        if kind_of(response.status, None) == "throttled":
            answer.retry_after = parse_retry_after(response.headers.get("Retry-After"))
        while len(answer.body) < LARGEST_ANSWER:
            part = response.read1(LARGEST_ANSWER - len(answer.body))
            if not part:
                break
            answer.body += part
        return response.isclosed() and not response.length and not response.will_close
    finally:
        response.close()
