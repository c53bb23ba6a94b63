"""Counts requests that were refused, lost or shortened: callbacks, and guesses of keys.

There is one row for each kind and hour, never one for each request.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from peewee import EXCLUDED, Case

from receiver.ledger.engine.db import writing
from receiver.ledger.models import Refusal, database

NOT_KEPT = "not_kept"  # neither the database nor the spool could store it: this callback is lost
WRONG_TOKEN = "wrong_token"  # noqa: S105 - the name of a kind
NO_ROUTE = "no_route"  # an unknown path under /callback, or a method that the route does not allow
SHORTENED = "shortened"  # only the beginning of the body was stored, see `ledger.admission`
GUESSED = "guessed"  # a wrong API key beyond the rate, see `web.guesses`
UNKNOWN_REFUSED = "unknown_refused"  # beyond the limit for unknown tasks, see `ledger.admission`
UNKNOWN_SERVICE = "unknown_service"  # kept, but its URL names a service that is not known
KINDS = (NOT_KEPT, WRONG_TOKEN, NO_ROUTE, SHORTENED, GUESSED, UNKNOWN_REFUSED, UNKNOWN_SERVICE)


@dataclass(frozen=True, slots=True)
class Refused:
    """A count of requests of one kind. `remote_addr` and `reason` are those of the last request."""

    kind: str
    requests: int
    first_at: datetime
    last_at: datetime
    remote_addr: str | None = None
    reason: str | None = None

    def __add__(self, other: "Refused") -> "Refused":
        last = other if other.last_at >= self.last_at else self
        requests, first_at = self.requests + other.requests, min(self.first_at, other.first_at)
        return replace(last, requests=requests, first_at=first_at)


def add(counted: Iterable[Refused]) -> None:
    """Add counts to the ledger. Each goes to the hour of its last request."""
    later = EXCLUDED.last_at >= Refusal.last_at
    update = {
        Refusal.requests: Refusal.requests + EXCLUDED.requests,
        Refusal.first_at: Case(
            None, [(EXCLUDED.first_at < Refusal.first_at, EXCLUDED.first_at)], Refusal.first_at
        ),
        Refusal.last_at: Case(None, [(later, EXCLUDED.last_at)], Refusal.last_at),
        Refusal.remote_addr: Case(None, [(later, EXCLUDED.remote_addr)], Refusal.remote_addr),
        Refusal.reason: Case(None, [(later, EXCLUDED.reason)], Refusal.reason),
    }
    with writing():
        for one in sorted(counted, key=lambda one: one.kind):
            row = {**asdict(one), "hour": f"{one.last_at:%Y-%m-%d %H}"}
            conflict = (Refusal.kind, Refusal.hour)
            Refusal.insert(row).on_conflict(conflict_target=conflict, update=update).execute()


def since(moment: datetime) -> dict[str, Refused]:
    """Return the counts since a moment, by kind. The moment's whole hour is included."""
    with database.connection_context():
        rows: list[Refusal] = list(Refusal.select().where(Refusal.last_at >= moment, Refusal.kind.in_(KINDS)))
    return total(
        Refused(row.kind, row.requests, row.first_at, row.last_at, row.remote_addr, row.reason)
        for row in rows
    )


def total(counted: Iterable[Refused]) -> dict[str, Refused]:
    """Return the sum for each kind."""
    sums: dict[str, Refused] = {}
    for one in counted:
        sums[one.kind] = sums[one.kind] + one if one.kind in sums else one
    return sums


def try_a_write(now: datetime) -> None:
    """Commit one row, as a callback would. Raises the database's error when that fails."""
    row = {"kind": "tried", "hour": "", "requests": 0, "first_at": now, "last_at": now}
    update = {Refusal.last_at: EXCLUDED.last_at}
    with writing(at_once=True):
        conflict = (Refusal.kind, Refusal.hour)
        Refusal.insert(row).on_conflict(conflict_target=conflict, update=update).execute()
