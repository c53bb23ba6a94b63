"""Endpoints: which there are, whether they work, and when nothing is sent to them.

An endpoint is *held* when it has failed for long, when it has answered that it is gone, or when a person has
paused it. Its forwards wait, and their time does not run out. One forward an hour is tried as a probe, except
where a person has paused it. A success resumes it, and so does a person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.forward import PENDING_FORWARD, HeldBecause
from receiver.ledger.models import Endpoint, Forward, database

HOLD_AFTER = timedelta(days=5)  # of failures without a success
PROBE_EVERY = timedelta(hours=1)
_OUTAGE = timedelta(minutes=1)  # an endpoint that failed so long without a success was away
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Health:
    """What came of the last attempts at one endpoint, the latest last."""

    endpoint_id: int
    outcomes: Sequence[str | None]  # None for a success, else what failed
    is_gone: bool  # the latest answer says that nothing is to be sent there any more


def configure(urls: Sequence[str], now: datetime) -> None:
    """Make the endpoints those in FORWARD_URL. One that is no longer named is kept with what waits for it."""
    with writing():
        rows = [{"url": url, "is_app": True, "host": host_of(url), "created_at": now} for url in urls]
        if rows:
            Endpoint.insert_many(rows).on_conflict_ignore().execute()
        is_named = Endpoint.url.in_(urls)
        Endpoint.update(retired_at=None).where(
            Endpoint.is_app, Endpoint.retired_at.is_null(False), is_named
        ).execute()
        Endpoint.update(retired_at=now).where(
            Endpoint.is_app, Endpoint.retired_at.is_null(), ~is_named
        ).execute()


def apps() -> list[Endpoint]:
    """Return the endpoints in FORWARD_URL, in the caller's connection."""
    return list(Endpoint.select().where(Endpoint.is_app, Endpoint.retired_at.is_null()).order_by(Endpoint.id))


def server_of(url: str, now: datetime) -> Endpoint:
    """Return the endpoint of the server that a task's callback URL leads to, in the caller's transaction."""
    origin = f"{urlsplit(url).scheme}://{host_of(url)}"
    row = {"url": origin, "is_app": False, "host": host_of(url), "created_at": now}
    Endpoint.insert(row).on_conflict_ignore().execute()
    server: Endpoint = Endpoint.get(~Endpoint.is_app, Endpoint.url == origin)
    return server


def host_of(url: str) -> str:
    """Return the host and the port of a URL, like app.example.com:443."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def hold(endpoint_id: int, because: HeldBecause, now: datetime) -> bool:
    """Hold an endpoint. Returns False for one that is held already, or unknown.

    Where it failed and a person pauses it, the hold becomes the person's, without probes.
    """
    probe_at = None if because == "person" else now + PROBE_EVERY
    held = Endpoint.update(held_at=now, held_because=because, probe_at=probe_at)
    paused = Endpoint.update(held_because=because, probe_at=None)
    is_failing = (Endpoint.held_at.is_null(False), Endpoint.held_because != "person")
    with writing():
        if because == "person" and paused.where(Endpoint.id == endpoint_id, *is_failing).execute():
            return True
        return bool(held.where(Endpoint.id == endpoint_id, Endpoint.held_at.is_null()).execute())


def resume(endpoint_id: int, now: datetime) -> bool:
    """End a hold: what waits is due. Returns False for an endpoint that is not held, or unknown."""
    with writing():
        endpoint = _locked(endpoint_id)
        if endpoint is None or endpoint.held_at is None:
            return False
        _resume(endpoint, now)
        return True


def note_health(health: Sequence[Health], now: datetime) -> list[Endpoint]:
    """Note what came of attempts, in the caller's transaction. Returns the endpoints that this held."""
    held = []
    # In the order of their ids, so that two processes cannot deadlock.
    for one in sorted(health, key=lambda one: one.endpoint_id):
        endpoint = _locked(one.endpoint_id)
        if endpoint is not None and _note(endpoint, one, now):
            held.append(endpoint)
    return held


def _note(endpoint: Endpoint, health: Health, now: datetime) -> bool:
    """Note what came of attempts at an endpoint. Returns whether this held it."""
    if None in health.outcomes:
        _note_success(endpoint, now)
    changes: dict[Any, Any] = {}
    failure = health.outcomes[-1]
    failing_since = endpoint.failing_since
    if failure is not None:
        failing_since = failing_since or now
        changes = {Endpoint.failing_since: failing_since, Endpoint.failed_at: now, Endpoint.failure: failure}
    because = _reason_to_hold(health, failing_since, now)
    is_held = endpoint.held_at is None and because is not None
    if is_held:
        changes |= {
            Endpoint.held_at: now,
            Endpoint.held_because: because,
            Endpoint.probe_at: now + PROBE_EVERY,
        }
    if changes:
        Endpoint.update(changes).where(Endpoint.id == endpoint.id).execute()
    return is_held


def _reason_to_hold(health: Health, failing_since: datetime | None, now: datetime) -> HeldBecause | None:
    if health.is_gone:
        return "gone"
    return "failing" if failing_since is not None and now - failing_since >= HOLD_AFTER else None


def _note_success(endpoint: Endpoint, now: datetime) -> None:
    was_away = endpoint.failing_since is not None and now - endpoint.failing_since >= _OUTAGE
    if endpoint.held_at is not None and endpoint.held_because != "person":
        _resume(endpoint, now)
    elif was_away:
        _make_due(endpoint, now)
    endpoint.failing_since = None
    Endpoint.update(succeeded_at=now, failing_since=None).where(Endpoint.id == endpoint.id).execute()


def _resume(endpoint: Endpoint, now: datetime) -> None:
    held_for = max((now - (endpoint.held_at or now)).total_seconds(), 0)
    Endpoint.update(
        held_at=None,
        held_because=None,
        probe_at=None,
        failing_since=None,
        held_seconds=Endpoint.held_seconds + held_for,
    ).where(Endpoint.id == endpoint.id).execute()
    endpoint.held_at = None
    _make_due(endpoint, now)


def _make_due(endpoint: Endpoint, now: datetime) -> None:
    """Make due what waits for an endpoint, instead of when its turn would come after so many failures."""
    waits = (Forward.endpoint == endpoint.id, PENDING_FORWARD, Forward.leased_until.is_null())
    Forward.update(next_attempt_at=now).where(*waits, Forward.next_attempt_at > now).execute()


def _locked(endpoint_id: int) -> Endpoint | None:
    query = Endpoint.select().where(Endpoint.id == endpoint_id)
    found: Endpoint | None = (query.for_update() if on_postgresql() else query).first()
    return found


def held() -> list[Endpoint]:
    """Return the endpoints that are held, the longest first."""
    with database.connection_context():
        return list(Endpoint.select().where(Endpoint.held_at.is_null(False)).order_by(Endpoint.held_at))
