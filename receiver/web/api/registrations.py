"""Parses registrations strictly: a mistake is an error, and nothing is guessed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver.api_keys import ApiKey
from receiver.clock import from_iso, from_unix
from receiver.ledger.registration import Registration
from receiver.redact import mask_tokens
from receiver.upstream.results import MAX_ID_LENGTH, clean_text, parse_json
from receiver.upstream.services import DEFAULT, SERVICES
from receiver.web.bodies import read_body
from receiver.web.callback_urls import check_callback_url
from receiver.web.current import current_settings
from receiver.web.errors import BadInput

MOST_TASKS = 1000
_TEXTS = ("id", "type", "ref", "trace_id")


def read_registrations(body: Any, key: ApiKey | None) -> list[Registration]:
    """Read one task, or {"tasks": [up to MOST_TASKS]}. Raises BadInput, which names the bad item."""
    if not isinstance(body, dict) or "tasks" not in body:
        return [read_registration(body, "", key)]
    if not isinstance(body["tasks"], list) or len(body["tasks"]) > MOST_TASKS:
        raise BadInput(f'"tasks" must be a list of at most {MOST_TASKS} tasks.')
    return [read_registration(item, f"tasks[{i}]: ", key) for i, item in enumerate(body["tasks"])]


def read_json(wanted: str) -> Any:
    """Return the JSON of the current request's body, which `wanted` is an example of.

    Raises BadInput, or 413 when it is too large.
    """
    body = read_body(current_settings().max_body_bytes, "MAX_BODY_BYTES")
    if not body:
        raise BadInput(f"The body is empty. Send JSON like {wanted}.")
    try:
        return parse_json(body.decode())
    except ValueError:
        raise BadInput("The body must be JSON in UTF-8.") from None


def read_registration(item: object, where: str, key: ApiKey | None = None) -> Registration:
    """Read one task. Raises BadInput, which begins with `where`."""
    if not isinstance(item, dict):
        raise BadInput(f'{where}A task must be an object like {{"id": "..."}}.')
    names = ("id", "service", "type", "ref", "trace_id", "submitted_at", "callback_url")
    if unknown := item.keys() - set(names):
        raise BadInput(f"{where}Unknown field {min(unknown)!r}; the known ones are {', '.join(names)}.")
    if item.get("id") is None:
        raise BadInput(f"{where}The id is missing.")
    texts = {name: _text(item, name, where) for name in _TEXTS if item.get(name) is not None}
    service, submitted_at = _service(item.get("service"), where), _moment(item.get("submitted_at"), where)
    callback_url = check_callback_url(item.get("callback_url"), where)
    return Registration(
        **texts,
        service=service,
        submitted_at=submitted_at,
        callback_url=callback_url,
        api_key=None if key is None else key.name,
    )


def _service(name: object, where: str) -> str:
    if name is None:
        return DEFAULT.name
    if not isinstance(name, str) or name not in SERVICES:
        raise BadInput(f"{where}The service must be one of {', '.join(SERVICES)}.")
    return name


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    text = clean_text(item[name])
    if text is None:
        raise BadInput(
            f"{where}The {name} must be a string of 1-{MAX_ID_LENGTH} characters, no NUL or lone surrogate."
        )
    if mask_tokens(text) != text:
        raise BadInput(f"{where}The {name} holds a callback URL, whose token is a secret.")
    return text


def _moment(value: object, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = from_iso(value) if isinstance(value, str) else from_unix(value)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise BadInput(f"{where}The submitted_at must be like 2026-01-31T12:00:00Z, or Unix seconds.")
    return moment
