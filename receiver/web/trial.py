"""Sends a test event to an endpoint at once, and returns the answer. Pages, API and commands share it.

It leaves no forward, and nothing follows from what comes of it.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from flask import Flask

from receiver.config import Settings
from receiver.forward.sender import Outcome, Request, Sender
from receiver.forward.signing import sign
from receiver.ledger.event_json import event_json
from receiver.ledger.models import Event, Task
from receiver.upstream.results import SUCCEEDED, dump
from receiver.upstream.services import DEFAULT


@dataclass(frozen=True, slots=True)
class Trial:
    """A test event as it was sent, and what came of it. The URL may hold a password."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    outcome: Outcome

    @property
    def is_delivered(self) -> bool:
        return self.outcome.kind == "delivered"


def trial_sender(settings: Settings) -> Sender:
    """Return what sends test events. It keeps no connections."""
    return Sender(allow_private_urls=settings.forward_allow_private, connections=0)


def try_endpoint(app: Flask, url: str, now: datetime) -> Trial:
    """Send a test event to an address in FORWARD_URL: one attempt of 15 s at most."""
    settings: Settings = app.extensions["backstop"]
    sender: Sender = app.extensions["backstop_trial_sender"]
    body = _body(now)
    headers = {"content-type": "application/json"}
    headers |= sign(settings.forward_secrets, f"msg_test_{secrets.token_hex(8)}", now, body)
    return Trial(url, headers, body, sender.send(Request(url, headers, body, may_be_private=True)))


def _body(now: datetime) -> bytes:
    """Return an event like a real one, of a task that does not exist, with `"test": true`."""
    result = json.dumps({"image_url": "https://example.com/test.png", "progress": 100})
    task = Task(
        id=f"test-{secrets.token_hex(4)}",
        service=DEFAULT.name,
        type="imagine",
        status=SUCCEEDED,
        settled_by="lookup",
        registered_at=now,
        settled_at=now,
        finished_at=now,
        lookup_status=SUCCEEDED,
        lookup_response=result,
    )
    event = Event(type="task.succeeded", task_id=task.id, sequence=1, happened_at=now)
    told = event_json(event, task)
    return dump({"type": told.pop("type"), "test": True} | told).encode()
