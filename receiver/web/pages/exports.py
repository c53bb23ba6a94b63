"""Streams lists of tasks as files: CSV for spreadsheets, JSON Lines for programs."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from receiver.clock import to_iso
from receiver.ledger.models import Task
from receiver.ledger.reading.listing import Found
from receiver.ledger.task_json import task_json
from receiver.redact import mask_tokens
from receiver.web.response_view import failure_of, image_among, links_of

_COLUMNS = (
    *("id", "service", "type", "ref", "trace_id", "status", "progress", "settled_by", "confirmed"),
    "disputed",
    *("prompt", "image_url", "links", "error_code", "error_message", "first_heard_at", "registered_at"),
    *("submitted_at", "settled_at", "finished_at", "deliveries", "lookups", "next_lookup_at"),
    *("last_lookup_error", "acknowledged_at", "key"),
)
_NAMED_OTHERWISE = {
    "first_heard_at": "created_at",
    "deliveries": "delivery_count",
    "key": "api_key",
    "lookups": "lookup_count",
}
# CSV injection: a spreadsheet would run such a cell as a formula. Look in the middle of a text too: in many
# countries spreadsheets treat a semicolon as the end of a cell, and a quote as the start of the next.
_BEFORE_SIGN = re.compile(r'(?<![\s;"])[\s;"]*+(?=[=+\-@])')
_ENDS_CELL = re.compile(r"[;\t\r\n]")


def as_json_lines(pages: Iterable[Found]) -> Iterator[str]:
    """Yield each task as a line of the API's JSON."""
    for found in pages:
        lines = (json.dumps(task_json(task), ensure_ascii=False, allow_nan=False) for task in found.tasks)
        yield _sendable("".join(f"{mask_tokens(line)}\n" for line in lines))


def as_csv(pages: Iterable[Found]) -> Iterator[str]:
    """Yield a line of column names and a line for each task. A ' before a formula disables it."""
    yield _csv_lines([_COLUMNS])
    for found in pages:
        yield _csv_lines([_cells(task) for task in found.tasks])


def _cells(task: Task) -> list[str]:
    failure, links = failure_of(task), links_of(task)
    found_within = {
        "image_url": image_among(links),
        "links": " ".join(link.url for link in links),
        "error_code": failure and failure.code,
        "error_message": failure and failure.message,
    }
    return [
        _cell(found_within[name] if name in found_within else getattr(task, _NAMED_OTHERWISE.get(name, name)))
        for name in _COLUMNS
    ]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = _BEFORE_SIGN.sub(_with_quote, mask_tokens(value))
        return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text
    return str(to_iso(value) if isinstance(value, datetime) else value)


def _with_quote(found: re.Match[str]) -> str:
    begins_cell = found.start() == 0 or _ENDS_CELL.search(found[0])
    return f"{found[0]}'" if begins_cell else found[0]


def _csv_lines(rows: Iterable[Iterable[str]]) -> str:
    lines = io.StringIO()
    csv.writer(lines).writerows(rows)
    return _sendable(lines.getvalue())


def _sendable(text: str) -> str:
    """Return the text with lone surrogates as escapes, as UTF-8 cannot encode them."""
    return text.encode(errors="backslashreplace").decode()
