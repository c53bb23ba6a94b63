"""The API's JSON of deliveries and look-ups."""

from typing import Any

from receiver.clock import to_iso
from receiver.ledger.models import Delivery, Lookup


def lookup_json(lookup: Lookup) -> dict[str, Any]:
    """Return a look-up as the API's JSON."""
    return {
        "id": lookup.id,
        "run": lookup.run_id,  # type: ignore[attr-defined]  # the stubs leave it out
        "asked_at": to_iso(lookup.asked_at),
        "answered_at": to_iso(lookup.answered_at),
        "verdict": lookup.verdict,
        "progress": lookup.progress,
        "error": lookup.error,
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as the API's JSON, without headers and body."""
    return {
        "id": delivery.id,
        "received_at": to_iso(delivery.received_at),
        "verdict": delivery.verdict,
        "ref": delivery.ref,
        "remote_addr": delivery.remote_addr,
        "token": None if delivery.token is None else delivery.token + 1,
        "size": delivery.size,
        "sha256": bytes(delivery.digest).hex(),
        "reread_at": to_iso(delivery.reread_at),
        "first_verdict": delivery.read_at_first.verdict,
    }
