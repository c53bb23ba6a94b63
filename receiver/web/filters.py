"""Reads lists' filters and cursors from a URL's query."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from werkzeug.datastructures import MultiDict

from receiver.clock import from_iso, to_iso
from receiver.ledger.reading.deliveries import DeliveryFilter, DeliveryPlace
from receiver.ledger.reading.forwards import STATES, ForwardFilter, ForwardPlace
from receiver.ledger.reading.listing import Cursor, TaskFilter
from receiver.ledger.resending import DEFAULT_RATE, FASTEST, SLOWEST
from receiver.upstream.results import FAILED, PENDING, STATUSES, SUCCEEDED, clean_text, is_storable
from receiver.upstream.services import SERVICES
from receiver.web.errors import BadInput

SETTLERS = ("callback", "lookup")
FIELDS = (
    *("service", "status", "type", "settled_by", "disputed", "acknowledged", "missed"),
    *("key", "since", "until", "q"),
)
DELIVERY_FIELDS = ("verdict", "task", "since", "until")
FORWARD_FIELDS = ("status", "endpoint", "type", "task", "cause", "since", "until")
ORDER_EXAMPLE = '{"status": "failed", "rate": 10}'  # which forwards to send again, and how fast
FORWARD_TYPES = ("task.succeeded", "task.failed", "task.expired", "task.disputed")
VERDICTS = ("unreadable", PENDING, SUCCEEDED, FAILED)  # of deliveries
MOST_LISTED = 200
LONGEST_WAIT = 25  # seconds; platforms' routers end a request after 30 s
LARGEST_ID = 2**63 - 1
_TRUTHS = {"true": True, "false": False, None: None}
_NO_CURSOR = "before must be a cursor as `next` gave it."


def read_query(
    query: MultiDict[str, str], fields: Iterable[str], paging: Iterable[str] = ("limit", "before")
) -> dict[str, str]:
    """Return the parameters of a URL, each of which is one of `fields` or of `paging`, and there once.

    Raises BadInput for any other: a list that ignored one would hold what was not asked for.
    """
    _refuse_unknown(query, {*fields, *paging})
    if repeated := [name for name, values in query.lists() if len(values) > 1]:
        raise BadInput(f"{min(repeated)} is there more than once. Give it once.")
    return query.to_dict()


def _refuse_unknown(arguments: Mapping[str, Any], known: set[str]) -> None:
    if unknown := arguments.keys() - known:
        raise BadInput(f"Unknown parameter {min(unknown)!r}; the known ones are {', '.join(sorted(known))}.")


def read_filter(arguments: Mapping[str, str]) -> TaskFilter:
    """Return the filter in a URL's query. Raises BadInput, which names the bad parameter."""
    if not all(is_storable(arguments.get(name, "")) for name in ("type", "key", "q")):
        raise BadInput("The type, the key or the text to look for holds a NUL or bytes that are not UTF-8.")
    since, until = _span(arguments)
    return TaskFilter(
        service=_one_of(arguments, "service", tuple(SERVICES)),
        status=_one_of(arguments, "status", STATUSES),
        type=arguments.get("type"),
        settled_by=_one_of(arguments, "settled_by", SETTLERS),
        disputed=_TRUTHS[_one_of(arguments, "disputed", ("true", "false"))],
        acknowledged=_TRUTHS[_one_of(arguments, "acknowledged", ("true", "false"))],
        missed=_TRUTHS[_one_of(arguments, "missed", ("true", "false"))],
        since=since,
        until=until,
        text=arguments.get("q"),
        api_key=arguments.get("key"),
    )


def read_delivery_filter(arguments: Mapping[str, str]) -> DeliveryFilter:
    """Return the filter of deliveries in a URL's query. Raises BadInput, which names the bad parameter."""
    if not is_storable(arguments.get("task", "")):
        raise BadInput("The task holds a NUL or bytes that are not UTF-8.")
    since, until = _span(arguments)
    return DeliveryFilter(
        verdict=_one_of(arguments, "verdict", VERDICTS),
        task=arguments.get("task"),
        since=since,
        until=until,
    )


def read_forward_filter(arguments: Mapping[str, str]) -> ForwardFilter:
    """Return the filter of forwards in a URL's query. Raises BadInput, which names the bad parameter."""
    if not all(is_storable(arguments.get(name, "")) for name in ("task", "cause")):
        raise BadInput("The task or the cause holds a NUL or bytes that are not UTF-8.")
    endpoint = arguments.get("endpoint")
    if endpoint is not None and not re.fullmatch("[0-9]{1,9}", endpoint):
        raise BadInput("endpoint must be the number of an endpoint, as GET /api/endpoints lists them.")
    since, until = _span(arguments)
    return ForwardFilter(
        status=_one_of(arguments, "status", STATES),
        endpoint=None if endpoint is None else int(endpoint),
        type=_one_of(arguments, "type", FORWARD_TYPES),
        task=arguments.get("task"),
        cause=arguments.get("cause"),
        since=since,
        until=until,
    )


def read_order(body: Any) -> tuple[ForwardFilter, float]:
    """Return which forwards to send again and how many a second, from a request's JSON. Raises BadInput."""
    if not isinstance(body, dict):
        raise BadInput(f"The body must be an object like {ORDER_EXAMPLE}.")
    _refuse_unknown(body, {*FORWARD_FIELDS, "rate"})
    known = {name: value for name, value in body.items() if name != "rate" and value is not None}
    if isinstance(number := known.get("endpoint"), int) and not isinstance(number, bool):
        known["endpoint"] = str(number)
    for name, value in known.items():
        if not isinstance(value, str):
            raise BadInput(f"{name} must be a text, as in the parameters of GET /api/forwards.")
    return read_forward_filter(known), read_rate(body.get("rate", DEFAULT_RATE))


def read_rate(rate: object) -> float:
    """Return how many forwards to send again a second. Raises BadInput."""
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not is_number or not SLOWEST <= float(rate) <= FASTEST:  # type: ignore[arg-type]
        raise BadInput(f"rate must be a number of forwards a second, from {SLOWEST:g} to {FASTEST:g}.")
    return float(rate)  # type: ignore[arg-type]


def cursor(place: Cursor | DeliveryPlace | ForwardPlace) -> str:
    """Return a place in a list as a cursor for a URL."""
    moment, row_id = place
    return base64.urlsafe_b64encode(json.dumps([to_iso(moment), row_id]).encode()).decode()


def read_cursor(text: str | None) -> Cursor | None:
    """Return a cursor's place among tasks. Raises BadInput for a text that is not our cursor."""
    if text is None:
        return None
    moment, task_id = _place(text)
    if clean_text(task_id) is None:
        raise BadInput(_NO_CURSOR)
    return moment, task_id


def read_delivery_cursor(text: str | None) -> DeliveryPlace | None:
    """Return a cursor's place among deliveries. Raises BadInput for a text that is not our cursor."""
    if text is None:
        return None
    moment, delivery_id = _place(text)
    if type(delivery_id) is not int or not 0 <= delivery_id <= LARGEST_ID:
        raise BadInput(_NO_CURSOR)
    return moment, delivery_id


def read_limit(text: str) -> int:
    """Return the largest number of rows in a page of a list. Raises BadInput."""
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_LISTED:
        raise BadInput(f"limit must be a whole number from 1 to {MOST_LISTED}.")
    return int(text)


def read_event_cursor(text: str | None) -> int:
    """Return the number of the event that a page follows; 0 for none. Raises BadInput."""
    if text is None:
        return 0
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) > LARGEST_ID:
        raise BadInput("after must be a cursor as `next` gave it, or 0 for the beginning.")
    return int(text)


def read_wait(text: str | None) -> int:
    """Return for how many seconds to wait for news. Raises BadInput."""
    if text is None:
        return 0
    if not re.fullmatch("[0-9]{1,2}", text) or int(text) > LONGEST_WAIT:
        raise BadInput(f"wait must be a whole number of seconds from 0 to {LONGEST_WAIT}.")
    return int(text)


def _place(text: str) -> tuple[datetime, Any]:
    try:
        moment, row_id = json.loads(base64.urlsafe_b64decode(text.encode()))
        return from_iso(moment), row_id
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError):
        raise BadInput(_NO_CURSOR) from None


def _span(arguments: Mapping[str, str]) -> tuple[datetime | None, datetime | None]:
    since, until = _moment(arguments, "since"), _moment(arguments, "until")
    if since and until and since > until:
        raise BadInput("since must not be after until.")
    return since, until


def _one_of(arguments: Mapping[str, str], name: str, words: tuple[str, ...]) -> str | None:
    word = arguments.get(name)
    if word is not None and word not in words:
        raise BadInput(f"{name} must be one of {', '.join(words)}.")
    return word


def _moment(arguments: Mapping[str, str], name: str) -> datetime | None:
    text = arguments.get(name)
    if text is None:
        return None
    try:
        return from_iso(text)
    except (ValueError, OverflowError):
        raise BadInput(
            f"{name} must be a moment like 2026-01-31T12:00Z, or without the Z, in UTC. Write the + of a"
            " zone as %2B, since a + in a URL is a space."
        ) from None
