"""Asks upstream on behalf of callers about what the ledger does not know: other tasks, and lists.

No row is made of the answers. Callers who ask the same at once share one, and a list for some seconds.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Flask, Response, current_app, jsonify
from werkzeug.exceptions import HTTPException

from receiver.config import Settings
from receiver.upstream.items import Item, with_error_object
from receiver.upstream.relay import NotRelayed, Outgoing, Relay
from receiver.upstream.services import Service
from receiver.upstream.strict_json import parse_json
from receiver.web.gateway import answers
from receiver.web.gateway.answers import Refused
from receiver.web.gateway.sharing import Shared, Told

# Clients that show a list look at it each 5 s.
LIST_FRESH_FOR_SECONDS, LIST_USEFUL_FOR_SECONDS = 8.0, 600.0
_SILENT_FOR_SECONDS = 20.0  # the worker ends a request after 40 s
_LARGEST_ANSWER_BYTES = 32 * 2**20
_PASSED = ("x-trace-id", "retry-after")
# An answer about tasks has one of these. In an item an error is about its task.
_OF_TASKS = {"id", "task_id", "task", "items"}
_UNKNOWN = ("not_found", "no_task")
_HEADERS = (
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
    ("User-Agent", "backstop"),
    ("x-record-exempt", "true"),  # as upstream's own clients mark their look-ups
)


class NoTask(HTTPException):
    """Upstream answered with an error, or with something that is no task."""

    def __init__(self, told: Told) -> None:
        super().__init__("Upstream answered with something that is no task.")
        self.code = told.status
        self.told = told


class Questions:
    """What callers ask upstream through one application."""

    def __init__(self, settings: Settings) -> None:
        assert settings.api_token is not None
        self._relay = Relay(settings.api_base_url, settings.api_token, silent_for=_SILENT_FOR_SECONDS)
        self._shared = Shared()

    def ask(self, service: Service, asked: Mapping[str, Any]) -> Told:
        """Return upstream's answer. Callers who ask the same at once share it. Raises 502 and 504."""
        key, body = _encoded(service, asked)
        return self._shared.get(key, partial(self._send, service, body))

    def ask_list(self, service: Service, asked: Mapping[str, Any]) -> Told:
        """Return upstream's list, or one of some seconds ago. While it gives none, an older one is better."""
        key, body = _encoded(service, asked)
        send = partial(self._send, service, body)
        return self._shared.get(key, send, LIST_FRESH_FOR_SECONDS, LIST_USEFUL_FOR_SECONDS)

    def _send(self, service: Service, body: bytes) -> Told:
        content = bytearray()
        try:
            relayed = self._relay.send(Outgoing("POST", service.tasks_path, _HEADERS, body))
            for chunk in relayed.chunks():
                content += chunk
                if len(content) > _LARGEST_ANSWER_BYTES:
                    relayed.close()
                    raise Refused(502, "Upstream's answer is too large.")
        except NotRelayed as problem:
            raise Refused(504, f"Upstream gave no answer ({problem}).") from None
        headers = [(name, value) for name, value in relayed.headers if name.lower() in _PASSED]
        return Told(relayed.status, headers, bytes(content))


def _encoded(service: Service, asked: Mapping[str, Any]) -> tuple[bytes, bytes]:
    body = json.dumps(asked, sort_keys=True).encode()
    return f"{service.tasks_path} ".encode() + body, body


def read_answer(told: Told) -> Item:
    """Return the object that upstream answered, without an `error` of null: clients read that as a failure.

    Raises NoTask when the answer is an error, whatever its status, or no object.
    """
    answer = _parsed(told)
    if answer is None or not told.is_good or (answer.get("error") and not answer.keys() & _OF_TASKS):
        raise NoTask(told)
    return {name: value for name, value in answer.items() if (name, value) != ("error", None)}


def items_in(answer: Item) -> list[Any]:
    """Return the task objects of a batch or a list."""
    items = answer.get("items")
    return items if isinstance(items, list) else []


def is_unknown(told: Told) -> bool:
    """Tell whether upstream says that it does not know the task."""
    error = (_parsed(told) or {}).get("error")
    return told.status == 404 and isinstance(error, dict) and error.get("code") in _UNKNOWN


def failure(problem: NoTask) -> Response:
    """Return an answer that is no task in upstream's form: its error is always an object."""
    told = problem.told
    said = with_error_object(_parsed(told) or {})
    if isinstance(said.get("error"), dict):
        response = jsonify(said)
        response.status_code = told.status
    elif told.is_good:
        response = answers.error(502, "Upstream answered with something that is no task.")
    else:
        response = answers.error(told.status, f"Upstream answered {told.status} and named no error.")
    for name, value in told.headers:
        response.headers[name] = value
    return response


def _parsed(told: Told) -> Item | None:
    try:
        value = parse_json(told.body.decode("utf-8-sig"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def add_questions(app: Flask, settings: Settings) -> None:
    """Let callers ask upstream. Without a token there is nobody to ask."""
    if settings.api_token is not None:
        app.extensions["backstop_questions"] = Questions(settings)


def current_questions() -> Questions:
    """Return what callers ask upstream through the application that serves the current request."""
    questions: Questions = current_app.extensions["backstop_questions"]
    return questions
