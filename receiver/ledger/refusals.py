"""How many requests to callback routes were not taken in, or not as a whole.

They are counted by the hour: never a row a request.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from peewee import EXCLUDED, Case

from receiver.ledger.engine.db import writing
from receiver.ledger.models import Refusal, database

NOT_KEPT = "not_kept"  # neither the database nor the spool took it: this callback is lost
WRONG_TOKEN = "wrong_token"  # noqa: S105 - the name of a kind
NO_ROUTE = "no_route"  # a path under /callback that is none of ours, or a method that it does not take
SHORTENED = "shortened"  # only the body's beginning was kept, see `ledger.record`
KINDS = (NOT_KEPT, WRONG_TOKEN, NO_ROUTE, SHORTENED)


@dataclass(frozen=True, slots=True)
class Refused:
    """So many requests of one kind; `remote_addr` and `reason` are the last one's."""

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
    """Add counts to those of the hours in which the last of them came."""
    rows = [
        {
            "kind": one.kind,
            "hour": f"{one.last_at:%Y-%m-%d %H}",
            "requests": one.requests,
            "first_at": one.first_at,
            "last_at": one.last_at,
            "remote_addr": one.remote_addr,
            "reason": one.reason,
        }
        for one in sorted(counted, key=lambda one: one.kind)
    ]
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
        for row in rows:
            conflict = (Refusal.kind, Refusal.hour)
            Refusal.insert(row).on_conflict(conflict_target=conflict, update=update).execute()


def since(moment: datetime) -> dict[str, Refused]:
    """Return what was refused since a moment, by kind; hours count as a whole."""
    with database.connection_context():
        rows: list[Refusal] = list(Refusal.select().where(Refusal.last_at >= moment, Refusal.kind.in_(KINDS)))
    return total(
        Refused(row.kind, row.requests, row.first_at, row.last_at, row.remote_addr, row.reason)
        for row in rows
    )


def total(counted: Iterable[Refused]) -> dict[str, Refused]:
    """Return the sums by kind."""
    sums: dict[str, Refused] = {}
    for one in counted:
        sums[one.kind] = sums[one.kind] + one if one.kind in sums else one
    return sums


def try_a_write(now: datetime) -> None:
    """Write one row durably, as a callback would be. Raises what keeps the database from it."""
    row = {"kind": "tried", "hour": "", "requests": 0, "first_at": now, "last_at": now}
    update = {Refusal.last_at: EXCLUDED.last_at}
    with writing(at_once=True):
        conflict = (Refusal.kind, Refusal.hour)
        Refusal.insert(row).on_conflict(conflict_target=conflict, update=update).execute()
