"""The ledger's part of the report of /readyz, as JSON. Pure.

`in_full` adds what needs the API key: reasons, addresses, error texts.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver.clock import SKEW, to_iso
from receiver.ledger.models import Endpoint, Pause, ReconcileRun
from receiver.ledger.reading.endpoints import ForwardFacts
from receiver.ledger.reading.standing import standing_of
from receiver.ledger.refusals import Refused
from receiver.ledger.unclear import Unclear
from receiver.redact import mask_credentials
from receiver.web.formatting import shown
from receiver.web.watch.facts import Facts
from receiver.web.watch.reading import Known


def of_ledger(known: Known, facts: Facts, has_urls: bool, in_full: bool) -> dict[str, Any]:
    """Return what the ledger tells of the reconciler, of upstream, and of how the customer's app is told.

    `has_urls` tells whether FORWARD_URL is set.
    """
    return {
        "last_run": _run(facts.last_run, facts),
        "last_good_run": _run(known.last_good_run, facts),
        "upstream": _upstream(known, facts, in_full),
        "paused": _pause(facts.pause, in_full) if facts.pause else None,
        "paused_services": {pause.service: _pause(pause, in_full) for pause in facts.paused_services},
        "forwards": _forwards(facts.forwards, facts.now, has_urls, in_full),
        "unclear": _unclear(facts.unclear, facts.now, in_full) if facts.unclear else None,
    }


def of_refused(counted: Mapping[str, Refused], in_full: bool) -> dict[str, Any]:
    """Return the refused requests by kind."""
    shown_fields = ("remote_addr", "reason") if in_full else ()
    return {
        kind: {
            "requests": one.requests,
            "first_at": to_iso(one.first_at),
            "last_at": to_iso(one.last_at),
            **{name: getattr(one, name) for name in shown_fields},
        }
        for kind, one in counted.items()
    }


def _run(run: ReconcileRun | None, facts: Facts) -> dict[str, Any] | None:
    if run is None:
        return None
    ended_at, interval = run.finished_at or run.started_at, facts.interval.total_seconds()
    return {"finished_at": to_iso(ended_at), "interval_seconds": interval, **_age(ended_at, facts.now)}


def _upstream(known: Known, facts: Facts, in_full: bool) -> dict[str, Any]:
    """Return upstream's standing. `state` is unknown, answering, failing or paused."""
    standing = standing_of(facts.now, facts.pause, known.last_answered_run, facts.failing_runs)
    newest = facts.last_asking_run if facts.failing_runs else None
    return {
        "state": standing.state,
        "last_answered_at": to_iso(standing.last_answered_at),
        **{f"answered_{name}": value for name, value in _age(standing.last_answered_at, facts.now).items()},
        "failing_since": to_iso(standing.failing_since),
        **({"reason": shown(newest.error) if newest else None} if in_full else {}),
    }


def _pause(pause: Pause, in_full: bool) -> dict[str, Any]:
    return {"since": to_iso(pause.started_at), **({"reason": pause.reason} if in_full else {})}


def _forwards(
    facts: ForwardFacts | None, now: datetime, has_urls: bool, in_full: bool
) -> dict[str, Any] | None:
    """Return how the customer's app is told; None where there is nobody to tell."""
    if facts is None or not (facts.is_used or has_urls):
        return None
    return {
        "delivered": facts.share.delivered,
        "of": facts.share.of,
        "waiting": facts.waiting,
        "oldest_age_seconds": _age(facts.oldest_waiting_at, now)["age_seconds"],
        "undealt_age_seconds": _age(facts.undealt_since, now)["age_seconds"],
        "failed": facts.failed,
        "held": len(facts.held),
        **({"held_endpoints": [_held(one) for one in facts.held]} if in_full else {}),
    }


def _held(endpoint: Endpoint) -> dict[str, Any]:
    since = to_iso(endpoint.held_at)
    url = mask_credentials(endpoint.url)
    return {"id": endpoint.id, "url": url, "because": endpoint.held_because, "since": since}


def _unclear(facts: Unclear, now: datetime, in_full: bool) -> dict[str, Any]:
    """Return how many submissions are unclear, in full with the trace ids of the oldest."""
    oldest_at = facts.oldest[0].sent_at if facts.oldest else None
    return {
        "submissions": facts.count,
        "oldest_age_seconds": _age(oldest_at, now)["age_seconds"],
        **({"trace_ids": [one.trace_id for one in facts.oldest]} if in_full else {}),
    }


def _age(moment: datetime | None, now: datetime) -> dict[str, Any]:
    """Return a moment's age; null if there is no moment, or if it is in the future and so unknown."""
    in_future = moment is not None and moment > now + SKEW
    if moment is None or in_future:
        return {"age_seconds": None, "in_future": in_future}
    return {"age_seconds": round(max((now - moment).total_seconds(), 0), 1), "in_future": False}
