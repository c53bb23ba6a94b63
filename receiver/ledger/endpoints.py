"""Endpoints: which there are, whether they work, and when nothing is sent to them.

An endpoint is *held* when it has failed for long, when an address in FORWARD_URL has answered that it is
gone, or when a person has paused it. Its forwards wait, and their time does not run out. One forward an hour
is tried as a probe, except where a person has paused it. A success resumes it, and so does a person.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from peewee import Case, chunked, fn

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.forward import PENDING_FORWARD, HeldBecause
from receiver.ledger.models import Endpoint, Forward

HOLD_AFTER = timedelta(days=5)  # of failures without a success
PROBE_EVERY = timedelta(hours=1)
LONGEST_WAIT = timedelta(hours=27)  # a day, as an app may ask for, and what is added to that by chance
_OUTAGE = timedelta(minutes=1)  # an endpoint that failed so long without a success was away
_AT_ONCE = 1000
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Health:
    """What came of the last attempts at one endpoint, the latest last."""

    outcomes: Sequence[str | None]  # None for a success, else what failed
    is_gone: bool  # the latest answer says that nothing is to be sent there any more


def configure(urls: Sequence[str], now: datetime) -> None:
    """Make the endpoints those in FORWARD_URL. One that is no longer named is kept with what waits for it."""
    with writing():
        rows = [{"url": url, "is_app": True, "host": host_of(url), "created_at": now} for url in urls]
        if rows:
            Endpoint.insert_many(rows).on_conflict_ignore().execute()
        is_named = Endpoint.url.in_(urls)
        for back in locked(
            Endpoint.select().where(Endpoint.is_app, Endpoint.retired_at.is_null(False), is_named)
        ):
            _bring_back(back, now)
        Endpoint.update(retired_at=now).where(
            Endpoint.is_app, Endpoint.retired_at.is_null(), ~is_named
        ).execute()


def _bring_back(endpoint: Endpoint, now: datetime) -> None:
    """End an endpoint's retirement. Whether it works is unknown. The retired time counts for no forward."""
    retired_for = (endpoint.held_at or now) - (endpoint.retired_at or now)
    Endpoint.update(
        retired_at=None,
        failing_since=None,
        held_seconds=Endpoint.held_seconds + max(retired_for.total_seconds(), 0),
    ).where(Endpoint.id == endpoint.id).execute()


def apps() -> list[Endpoint]:
    """Return the endpoints in FORWARD_URL, in the caller's connection."""
    return _apps.objects(Endpoint)


def server_of(url: str, now: datetime) -> Endpoint:
    """Return the endpoint of the server that a task's callback URL leads to, in the caller's transaction."""
    origin = f"{url.partition(':')[0].lower()}://{host_of(url)}"
    row = {"url": origin, "is_app": False, "host": host_of(url), "created_at": now}
    Endpoint.insert(row).on_conflict_ignore().execute()
    server: Endpoint = Endpoint.get(~Endpoint.is_app, Endpoint.url == origin)
    return server


def host_of(url: str) -> str:
    """Return the host and the port of a URL, like app.example.com:443. One that is not valid has none."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return ":0"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def pause(endpoint_id: int, now: datetime) -> bool:
    """Hold an endpoint until a person resumes it. Returns False if a person has paused it, or it is unknown.

    One that was held because it failed stays held since then, and gets no more probes.
    """
    held = Endpoint.update(held_at=fn.COALESCE(Endpoint.held_at, now), held_because="person", probe_at=None)
    may_be = Endpoint.held_at.is_null() | (Endpoint.held_because != "person")
    with writing():
        return bool(held.where(Endpoint.id == endpoint_id, may_be).execute())


def resume(endpoint_id: int, now: datetime) -> bool:
    """End a hold: what waits is due. Returns False for an endpoint that is not held, or unknown."""
    with writing():
        for endpoint in locked(
            Endpoint.select().where(Endpoint.id == endpoint_id, Endpoint.held_at.is_null(False))
        ):
            _resume(endpoint, now)
            return True
    return False


def note_probe(endpoint: Endpoint, now: datetime) -> None:
    """Note that a held endpoint is tried, in the caller's transaction: the next probe comes an hour later."""
    if endpoint.held_at is not None and endpoint.probe_at is not None:
        Endpoint.update(probe_at=now + PROBE_EVERY).where(Endpoint.id == endpoint.id).execute()


def note_health(health: Sequence[tuple[Endpoint, Health]], now: datetime) -> list[Endpoint]:
    """Note what came of attempts at locked endpoints, in the caller's transaction.

    Returns the endpoints that this held.
    """
    return [endpoint for endpoint, one in health if _note(endpoint, one, now)]


def _note(endpoint: Endpoint, health: Health, now: datetime) -> bool:
    """Note what came of attempts at an endpoint. Returns whether this held it."""
    if None in health.outcomes:
        _note_success(endpoint, now)
    changes: dict[Any, Any] = {}
    failure = health.outcomes[-1]
    failing_since = endpoint.failing_since
    if failure is not None:
        failing_since = _failing_since(endpoint, now)
        changes = {Endpoint.failing_since: failing_since, Endpoint.failed_at: now, Endpoint.failure: failure}
    because = _reason_to_hold(endpoint, health, failing_since, now)
    is_held = endpoint.held_at is None and because is not None
    if is_held:
        changes |= {
            Endpoint.held_at: now,
            Endpoint.held_because: because,
            Endpoint.probe_at: now + PROBE_EVERY,
        }
    if changes:
        Endpoint.update(changes).where(Endpoint.id == endpoint.id).execute()
        endpoint.failure = failure
    return is_held


def _failing_since(endpoint: Endpoint, now: datetime) -> datetime:
    # Between two failures so far apart nobody tried: the reconciler was away, or the clock was wrong.
    is_new = endpoint.failed_at is None or now - endpoint.failed_at > LONGEST_WAIT
    return now if is_new else endpoint.failing_since or now


def _reason_to_hold(
    endpoint: Endpoint, health: Health, failing_since: datetime | None, now: datetime
) -> HeldBecause | None:
    # At a server that callback URLs of tasks lead to, one URL is gone: the others must not wait for it.
    if health.is_gone and endpoint.is_app:
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
    held_for = (endpoint.retired_at or now) - (endpoint.held_at or now)
    Endpoint.update(
        held_at=None,
        held_because=None,
        probe_at=None,
        failing_since=None,
        held_seconds=Endpoint.held_seconds + max(held_for.total_seconds(), 0),
    ).where(Endpoint.id == endpoint.id).execute()
    endpoint.held_at = None
    _make_due(endpoint, now)


def _make_due(endpoint: Endpoint, now: datetime) -> None:
    """Make due now what waits for an endpoint, however long the wait after so many failures would be.

    The oldest goes first, whether it was tried before or not. There may be so many that one statement would
    take longer than PostgreSQL lets it.
    """
    waits = (Forward.leased_until.is_null(), Forward.next_attempt_at > now)
    later: Any = Forward.select(Forward.id).where(Forward.endpoint == endpoint.id, PENDING_FORWARD, *waits)
    since = Case(None, [(Forward.created_at > now, now)], Forward.created_at)
    for some in chunked(sorted(number for (number,) in later.tuples()), _AT_ONCE):
        # Without a condition on the status: SQLite would read all pending ones for each portion.
        is_known = Forward.id.in_(locked_forwards(some))
        Forward.update(next_attempt_at=since).where(is_known, *waits).execute()


def locked(query: Any) -> list[Endpoint]:
    """Return endpoints, locked until the transaction ends."""
    return list(locking(query))


def locking(query: Any) -> Any:
    """Let a query lock its endpoints in id order, so that two writers cannot deadlock.

    On SQLite there is one writer.
    """
    query = query.order_by(Endpoint.id)
    # Not FOR UPDATE: those who only refer to an endpoint need not wait.
    return query.for_update("FOR NO KEY UPDATE") if on_postgresql() else query


def locked_forwards(ids: Collection[int]) -> set[int]:
    """Lock forwards, and return which of them there are: somebody may have deleted the others."""
    return {number for (number,) in _locked_forwards.rows(ids=list(ids))}


def _build_locked_forwards(ids: Any) -> Any:
    query: Any = Forward.select(Forward.id).where(Forward.id.in_(ids)).order_by(Forward.id)
    return query.for_update() if on_postgresql() else query


_apps = Query(
    lambda: Endpoint.select().where(Endpoint.is_app, Endpoint.retired_at.is_null()).order_by(Endpoint.id)
)
_locked_forwards = Query(_build_locked_forwards)
