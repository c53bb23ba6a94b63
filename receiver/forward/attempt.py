"""What one attempt sends, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, Protocol

# delivered: 2xx. throttled: 429 or 503. gone: 410. refused: any other status, a redirect too.
# timeout: no status in time. forbidden: no address of the host may be connected to. network: everything else.
Kind = Literal["delivered", "refused", "throttled", "gone", "timeout", "network", "forbidden"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the customer's app, or to a monitor. `repr` shows no secrets."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    may_be_private: bool  # the operator named the URL, so it may lead into a private network
    method: Literal["POST", "GET"] = "POST"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request."""

    status: int | None  # None without an answer
    answer: bytes  # the first bytes of the answer's body
    error: str | None  # why there is no whole answer; never holds the URL or a secret
    took: timedelta
    retry_after: timedelta | None  # as a throttled answer says it
    kind: Kind


class Sends(Protocol):
    """What sends a request: a `sender.Sender`, or a simulation's."""

    def send(self, request: Request) -> Outcome:
        """Send a request once. Whatever goes wrong is the outcome."""
