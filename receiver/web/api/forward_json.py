"""The API's JSON of forwards, attempts, endpoints and resendings. Credentials in addresses are masked."""

import json
import zlib
from datetime import datetime
from typing import Any

from receiver.clock import to_iso
from receiver.ledger.models import Attempt, Forward, Resending
from receiver.ledger.reading.endpoints import EndpointHealth
from receiver.ledger.reading.next_attempt import next_of
from receiver.redact import mask_credentials
from receiver.web.trial import Trial


def forward_json(forward: Forward) -> dict[str, Any]:
    """Return a forward as the API's JSON, without its body and attempts."""
    return {
        "id": forward.id,
        "status": forward.state,
        "endpoint": forward.endpoint.id,
        "url": mask_credentials(forward.url or forward.endpoint.url),
        "webhook_id": forward.message_id,
        "type": forward.type,
        "task_id": forward.task_id,
        "sequence": forward.sequence,
        "happened_at": to_iso(forward.happened_at),
        "created_at": to_iso(forward.created_at),
        "attempts": forward.attempts,
        "cause": forward.cause,
        "ended_at": to_iso(forward.ended_at),
        "resends": forward.resends,
        "resent_at": to_iso(forward.resent_at),
    }


def whole_forward_json(forward: Forward, attempts: list[Attempt], now: datetime) -> dict[str, Any]:
    """Return a forward with its body, its attempts, newest first, and when the next one comes and why."""
    following = next_of(forward, now)
    return forward_json(forward) | {
        "next": following and {"at": to_iso(following.at), "because": following.because},
        "body": zlib.decompress(forward.body).decode(),
        "attempts": [attempt_json(attempt) for attempt in attempts],
    }


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as the API's JSON: what was sent, and what was answered."""
    return {
        "id": attempt.id,
        "began_at": to_iso(attempt.began_at),
        "milliseconds": round(attempt.took * 1000),
        "url": mask_credentials(attempt.url),
        "headers": json.loads(attempt.headers),
        "kind": attempt.kind,
        "status": attempt.status,
        "answer": answer_text(attempt.answer),
        "error": attempt.error,
    }


def endpoint_json(health: EndpointHealth) -> dict[str, Any]:
    """Return an endpoint as the API's JSON."""
    endpoint, share = health.endpoint, health.share
    return {
        "id": endpoint.id,
        "url": mask_credentials(endpoint.url),
        "in_forward_url": endpoint.is_app and endpoint.retired_at is None,
        "held_because": endpoint.held_because,
        "held_at": to_iso(endpoint.held_at),
        "next_probe_at": to_iso(endpoint.probe_at),
        "lately": {"delivered": share.delivered, "of": share.of},
        "waiting": health.waiting,
        "oldest_waiting_at": to_iso(health.oldest_waiting_at),
        "succeeded_at": to_iso(endpoint.succeeded_at),
        "failing_since": to_iso(endpoint.failing_since),
        "failed_at": to_iso(endpoint.failed_at),
        "failure": endpoint.failure,
        "created_at": to_iso(endpoint.created_at),
        "retired_at": to_iso(endpoint.retired_at),
    }


def resending_json(resending: Resending) -> dict[str, Any]:
    """Return a resending as the API's JSON."""
    return {
        "id": resending.id,
        "filter": json.loads(resending.wanted),
        "rate": resending.rate,
        "total": resending.total,
        "done": resending.done,
        "created_at": to_iso(resending.created_at),
        "ended_at": to_iso(resending.ended_at),
        "stopped_at": to_iso(resending.stopped_at),
    }


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return a test event as it was sent, and the answer."""
    outcome = trial.outcome
    return {
        "delivered": trial.is_delivered,
        "sent": {
            "url": mask_credentials(trial.url),
            "headers": dict(trial.headers),
            "body": trial.body.decode(),
        },
        "answered": {
            "kind": outcome.kind,
            "status": outcome.status,
            "answer": answer_text(outcome.answer),
            "milliseconds": round(outcome.took.total_seconds() * 1000),
            "error": outcome.error,
        },
    }


def answer_text(answer: bytes) -> str:
    """Return the first bytes of an answer as text, whatever they are."""
    return bytes(answer).decode(errors="replace")
