"""The filter of a list of tasks as the query of a URL says it, and a place in the list as a cursor."""

import base64
import json
from collections.abc import Mapping
from datetime import datetime

from receiver.ledger.clock import from_iso, to_iso
from receiver.ledger.listing import Cursor, TaskFilter
from receiver.ledger.results import STATUSES, clean_text, is_storable
from receiver.web.errors import BadInput

SETTLERS = ("callback", "lookup", "submit")
FIELDS = ("status", "type", "settled_by", "disputed", "acknowledged", "missed", "since", "until", "q")
_TRUTHS = {"true": True, "false": False, None: None}
_NO_CURSOR = "before must be a cursor as `next` gave it."


def read_filter(arguments: Mapping[str, str]) -> TaskFilter:
    """Return the filter that a URL's query asks for. Raises BadInput, naming what is wrong."""
    if not all(is_storable(arguments.get(name, "")) for name in ("type", "q")):
        raise BadInput("The type or the text to look for holds a NUL or bytes that are not UTF-8.")
    since, until = _moment(arguments, "since"), _moment(arguments, "until")
    if since and until and since > until:
        raise BadInput("since must not be after until.")
    return TaskFilter(
        status=_one_of(arguments, "status", STATUSES),
        type=arguments.get("type"),
        settled_by=_one_of(arguments, "settled_by", SETTLERS),
        disputed=_TRUTHS[_one_of(arguments, "disputed", ("true", "false"))],
        acknowledged=_TRUTHS[_one_of(arguments, "acknowledged", ("true", "false"))],
        missed=_TRUTHS[_one_of(arguments, "missed", ("true", "false"))],
        since=since,
        until=until,
        text=arguments.get("q"),
    )


def cursor(place: Cursor) -> str:
    """Return a place in the list as a URL carries it."""
    created_at, task_id = place
    return base64.urlsafe_b64encode(json.dumps([to_iso(created_at), task_id]).encode()).decode()


def read_cursor(text: str | None) -> Cursor | None:
    """Return the place that a cursor names. Raises BadInput for what is none of ours."""
    if text is None:
        return None
    try:
        created_at, task_id = json.loads(base64.urlsafe_b64decode(text.encode()))
        moment = from_iso(created_at)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise BadInput(_NO_CURSOR) from None
    if clean_text(task_id) is None:
        raise BadInput(_NO_CURSOR)
    return moment, task_id


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
        raise BadInput(f"{name} must be a moment like 2026-01-31T12:00Z, or without the Z, in UTC.") from None
