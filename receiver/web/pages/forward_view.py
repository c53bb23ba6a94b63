"""Prepares forwards, attempts, endpoints and resendings for the pages: no credentials, safe texts. Pure."""

import json
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.models import Attempt, Endpoint, Forward, Resending
from receiver.ledger.reading.endpoints import EndpointHealth
from receiver.ledger.reading.forwards import ForwardFilter
from receiver.ledger.resending import wanted_of
from receiver.redact import mask_credentials
from receiver.web.formatting import exact, shown
from receiver.web.trial import Trial

_MOST_CHARACTERS = 100_000
_MOST_IN_COMMAND = 8000  # characters of a body; a longer one is posted from a file
_TOLD_FOR = timedelta(hours=1)  # how long the page tells of a resending that has ended
_STATES = {"person": "paused", "gone": "held", "failing": "held"}


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One HTTP request as it was sent, and the answer."""

    began_at: datetime | None  # None for a test event, which was sent just now
    took: timedelta
    url: str
    headers: Sequence[tuple[str, str]]
    is_delivered: bool
    status: int | None
    answer: str
    error: str | None

    @property
    def milliseconds(self) -> str:
        return f"{self.took.total_seconds() * 1000:,.0f} ms"


@dataclass(frozen=True, slots=True)
class BodyView:
    """A body as it is posted, with tokens masked, and its JSON with indentation."""

    text: str
    indented: str | None
    size: int


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint with its health, and its state in one word."""

    endpoint: Endpoint
    health: EndpointHealth
    url: str
    state: str  # working, new, failing, held, paused or retired
    may_be_tested: bool

    @property
    def is_quiet(self) -> bool:
        """Tell whether a person need not look at it."""
        return self.state in {"working", "new"} and not self.health.waiting


@dataclass(frozen=True, slots=True)
class OrderView:
    """A resending: what it sends again, and how far it is."""

    resending: Resending
    asked: str
    is_open: bool


def endpoint_view(health: EndpointHealth) -> EndpointView:
    """Return an endpoint for the page."""
    one = health.endpoint
    may_be_tested = one.is_app and one.retired_at is None
    return EndpointView(one, health, shown(mask_credentials(one.url)), _state(one), may_be_tested)


def attempt_view(attempt: Attempt) -> AttemptView:
    """Return an attempt for the page."""
    return AttemptView(
        began_at=attempt.began_at,
        took=timedelta(seconds=attempt.took),
        url=_address(attempt.url),
        headers=_headers(json.loads(attempt.headers)),
        is_delivered=attempt.kind == "delivered",
        status=attempt.status,
        answer=_answer(attempt.answer),
        error=attempt.error,
    )


def trial_view(trial: Trial) -> AttemptView:
    """Return a test event and its answer for the page."""
    outcome = trial.outcome
    return AttemptView(
        began_at=None,
        took=outcome.took,
        url=_address(trial.url),
        headers=_headers(trial.headers),
        is_delivered=trial.is_delivered,
        status=outcome.status,
        answer=_answer(outcome.answer),
        error=outcome.error,
    )


def body_of(forward: Forward) -> bytes:
    """Return the bytes that are posted."""
    return zlib.decompress(forward.body)


def body_view(body: bytes) -> BodyView:
    """Return a body for the page, cut at a length that a browser can display."""
    text = body.decode(errors="backslashreplace")
    try:
        indented = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        indented = None
    return BodyView(shown(text, _MOST_CHARACTERS), indented and shown(indented, _MOST_CHARACTERS), len(body))


def file_name(forward: Forward) -> str:
    """Return the name under which a browser keeps a forward's body."""
    return f"backstop-forward-{forward.id}.json"


def curl(forward: Forward, attempt: Attempt, body: bytes) -> str:
    """Return a shell command that posts what an attempt posted, except for user and password in the URL."""
    text = body.decode(errors="backslashreplace")
    is_whole = len(text) <= _MOST_IN_COMMAND and shown(text, len(text)).encode() == body
    data = text if is_whole else f"@{file_name(forward)}"
    headers = [
        f"-H {shlex.quote(f'{name}: {value}')}" for name, value in _headers(json.loads(attempt.headers))
    ]
    address = shlex.quote(_address(attempt.url))
    option = "--data-raw" if is_whole else "--data-binary"
    return " \\\n  ".join([f"curl {address}", *headers, f"{option} {shlex.quote(data)}"])


def order_views(orders: Sequence[Resending], now: datetime) -> list[OrderView]:
    """Return the resendings that go on, then those that ended lately, newest first."""
    told = [one for one in orders if one.ended_at is None or now - one.ended_at < _TOLD_FOR]
    views = [OrderView(one, in_words(wanted_of(one)), one.ended_at is None) for one in told]
    return sorted(views, key=lambda view: not view.is_open)


def in_words(wanted: ForwardFilter) -> str:
    """Return a filter as a list of what it asks for, such as `status failed, cause “HTTP 500”`."""
    asked: Mapping[str, object] = {
        "status": wanted.status,
        "endpoint": wanted.endpoint,
        "type": wanted.type,
        "task": wanted.task and f"“{shown(wanted.task, 60)}”",
        "cause": wanted.cause and f"“{shown(wanted.cause, 100)}”",
        "made from": wanted.since and exact(wanted.since),
        "made before": wanted.until and exact(wanted.until),
    }
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)


def _state(endpoint: Endpoint) -> str:
    if endpoint.retired_at is not None:
        return "retired"
    if endpoint.held_at is not None:
        return _STATES.get(endpoint.held_because or "", "held")
    if endpoint.failing_since is not None:
        return "failing"
    return "working" if endpoint.succeeded_at is not None else "new"


def _address(url: str) -> str:
    return shown(mask_credentials(url), 4000)


def _headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(shown(name, 200), shown(value, 2000)) for name, value in headers.items()]


def _answer(answer: bytes) -> str:
    return shown(bytes(answer).decode(errors="replace"), 2000)
