"""Answers about settled tasks, as bytes: the last word of upstream's, which clients ask for again and again.

An answer is kept for a minute. Little can change it: a registration that brings a callback URL later, or a
person who has upstream asked again.
"""

import time
from collections import OrderedDict

from flask import Flask, current_app

from receiver.ledger.reading.items import find_settled
from receiver.upstream.items import Known, item_of
from receiver.upstream.services import Service
from receiver.upstream.strict_json import dump

_KEPT_FOR_SECONDS = 60.0
_MOST_KEPT, _LARGEST_KEPT = 2000, 16_384  # answers, and bytes of each


class Answers:
    """The answers that an application keeps."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()

    def find(self, service: Service, task_id: str) -> bytes | None:
        """Return the answer about a task; None where upstream has not said its last word."""
        key, now = (service.name, task_id), time.monotonic()
        kept_until, answer = self._kept.get(key, (0.0, None))
        if answer is None or kept_until < now:
            answer = _answer(service, task_id)
            if answer is not None and len(answer) <= _LARGEST_KEPT:
                self._keep(key, now + _KEPT_FOR_SECONDS, answer)
        return answer

    def _keep(self, key: tuple[str, str], until: float, answer: bytes) -> None:
        self._kept[key] = (until, answer)
        self._kept.move_to_end(key)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


def _answer(service: Service, task_id: str) -> bytes | None:
    told = find_settled(task_id)
    if told is None or told.service != service.name:
        return None
    item = item_of(
        Known(told.id, told.status, told.response, told.request, told.envelope, told.callback_url), service
    )
    under = service.form.under
    return dump(item if under is None else {under: item}).encode()


def add_answers(app: Flask) -> None:
    """Let an application keep answers."""
    app.extensions["backstop_settled"] = Answers()


def current_answers() -> Answers:
    """Return the answers of the application that serves the current request."""
    answers: Answers = current_app.extensions["backstop_settled"]
    return answers
