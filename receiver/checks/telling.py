"""Checks what runs beside the receiver: the reconciler, and the endpoints that it tells."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from flask import Flask

from receiver.checks.finding import Finding, bad, good, warning
from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger.models import Pause
from receiver.ledger.pauses import current_pause, paused_services
from receiver.ledger.reading import queries
from receiver.ledger.reading.endpoints import forward_facts
from receiver.ledger.reading.standing import is_in_future, is_silent
from receiver.redact import mask_credentials
from receiver.web.trial import try_endpoint

RECONCILER, ENDPOINTS = "reconciler", "endpoints"


def check_reconciler(settings: Settings) -> Iterator[Finding]:
    """Yield whether a reconciler runs, and whether it may ask. Raises the database's error."""
    now = utcnow()
    seen = queries.reconciler_seen_at(now)
    if seen is None or is_silent(seen, settings.reconcile_interval, now):
        yield bad(
            RECONCILER,
            f"it {_absence(seen, now)}: no lost callback is recovered, and your app is told nothing",
            "Start it: python -m reconcile. `python -m receiver` runs it too. If it runs, the clocks of this"
            " machine and of its machine differ: set them right.",
        )
        return
    yield good(RECONCILER, f"it runs: its last sign of life is {_span(now - seen)} old")
    pause = current_pause(now)
    for each in [pause] if pause else paused_services(now):
        yield _paused(each)


def _absence(seen: datetime | None, now: datetime) -> str:
    if seen is None:
        return "has never run"
    if is_in_future(seen, now):
        return f"last ran {_span(seen - now)} in the future by its clock, so it may not run"
    return f"has been silent for {_span(now - seen)}"


def _paused(pause: Pause) -> Finding:
    what = f"asking about {pause.service}" if pause.service else "asking"
    said = f"{what} is paused since {pause.started_at:%Y-%m-%d %H:%M} UTC: {pause.reason}"
    if not pause.account:
        return warning(RECONCILER, said, "Wait: it resumes by itself.")
    return bad(RECONCILER, said, "Mend what it says, then restart the reconciler: that asks at once.")


def check_endpoints(app: Flask, settings: Settings, send: bool) -> Iterator[Finding]:
    """Yield how the customer's app is told. With `send` each address gets a test event."""
    if not settings.forward_urls:
        yield good(ENDPOINTS, "FORWARD_URL is not set: your app asks by itself")
        return
    for endpoint in forward_facts(utcnow()).held:
        yield bad(
            ENDPOINTS,
            f"{mask_credentials(endpoint.url)} is held: {endpoint.held_because}. Events wait",
            "Mend your app, then resume the endpoint on its page. `check --send` tries it.",
        )
    for url in settings.forward_urls:
        shown = mask_credentials(url)
        if send:
            yield _trial(app, url)
        else:
            yield good(ENDPOINTS, f"{shown} is told. `check --send` sends it a test event")


def _trial(app: Flask, url: str) -> Finding:
    shown, trial = mask_credentials(url), try_endpoint(app, url, utcnow())
    if trial.is_delivered:
        return good(ENDPOINTS, f"{shown} took a test event")
    outcome = trial.outcome
    why = f"it answered {outcome.status}" if outcome.status is not None else f"{outcome.error}"
    return bad(
        ENDPOINTS,
        f"{shown} did not take a test event: {why}",
        "See that FORWARD_URL is right and that your app checks signatures with FORWARD_SECRET"
        " (docs/forwarding.md), and answers 2xx within 15 s.",
    )


def _span(span: timedelta) -> str:
    seconds = max(span.total_seconds(), 0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
