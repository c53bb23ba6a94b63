"""Factories for tests of forwards: endpoints, events that are due to them, and attempts."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from receiver.ledger import endpoints, forwards
from receiver.ledger.endpoints import PROBE_EVERY
from receiver.ledger.engine.db import writing
from receiver.ledger.forward import HeldBecause
from receiver.ledger.forwards import Attempted
from receiver.ledger.models import Endpoint, Forward, database

NOW = datetime(2026, 1, 31, 12)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
APP = "https://app.example.com/hooks"


def make_apps(*urls: str, now: datetime = NOW) -> list[Endpoint]:
    """Make these the endpoints, and return them in the order of the URLs."""
    endpoints.configure(urls, now)
    return [Endpoint.get(Endpoint.url == url) for url in urls]


def hold(endpoint_id: int, because: HeldBecause, at: datetime) -> None:
    """Hold an endpoint as its failures do, or a person."""
    probe_at = None if because == "person" else at + PROBE_EVERY
    with writing():
        Endpoint.update(held_at=at, held_because=because, probe_at=probe_at).where(
            Endpoint.id == endpoint_id
        ).execute()


def make_forward(endpoint: Endpoint, task_id: str, sequence: int = 1, **fields: Any) -> int:
    """Make an event due to an endpoint, and return the number of the forward."""
    return make_forwards(endpoint, [(task_id, sequence)], **fields)[0]


def make_forwards(endpoint: Endpoint, events: Sequence[tuple[str, int]], **fields: Any) -> list[int]:
    """Make events due to an endpoint: each the id of a task, and a sequence."""
    at = fields.pop("at", NOW)
    known = {
        "type": "task.succeeded",
        "happened_at": at,
        "body": b"x",
        "created_at": at,
        "next_attempt_at": at,
    }
    one = {"endpoint": endpoint.id, "task_id": "", "sequence": 0} | known | fields
    # One statement with all the rows would take peewee and psycopg many times as long.
    statement, (endpoint_id, _, _, *others) = Forward.insert(one).sql()
    assert '("endpoint_id", "task_id", "sequence", ' in statement
    with writing():
        database.cursor().executemany(statement, [(endpoint_id, *event, *others) for event in events])
    with database.connection_context():
        newest = Forward.select(Forward.id).order_by(Forward.id.desc()).limit(len(events))
        return sorted(forward.id for forward in newest)


def claim(now: datetime, room: int, length: int = 1, begun: Mapping[int, int] | None = None) -> list[Forward]:
    """Lease forwards that are due, as chains of up to `length`, and return the forwards."""
    chains = forwards.claim(now, room, defaultdict(lambda: length), Counter(begun))
    return [forward for chain in chains for forward in chain]


def ids(claimed: Sequence[Forward]) -> list[int]:
    """Return the numbers of forwards."""
    return [forward.id for forward in claimed]


def attempted(forward: Forward, at: datetime, cause: str | None = None, **fields: Any) -> Attempted:
    """Return what came of an attempt: a success, or what failed, to be tried again after a minute."""
    known: dict[str, Any] = {
        "took": 0.1 * SECOND,
        "url": forward.url or APP,
        "headers": "{}",
        "kind": "delivered" if cause is None else "refused",
        "status": 200 if cause is None else 500,
        "answer": b"",
        "error": None,
        "counted": forward.counted + 1,
        "next_attempt_at": None if cause is None else at + MINUTE,
    }
    return Attempted(forward=forward, began_at=at, cause=cause, **known | fields)


def note(forward: Forward, at: datetime, cause: str | None = None, **fields: Any) -> list[Endpoint]:
    """Note an attempt, and return the endpoints that are held from now on."""
    return forwards.note([attempted(forward, at, cause, **fields)], at)


def found(number: int) -> Forward:
    """Return a forward as the ledger has it."""
    with database.connection_context():
        forward: Forward = Forward.get_by_id(number)
    return forward
