"""Forwards: leases those that are due, and notes what came of them.

See "Leases" in docs/design.md. For one task and endpoint one forward is in flight at a time, and no later one
goes out while an earlier one is pending.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import fn

from receiver.ledger import due_forwards, endpoints
from receiver.ledger.due_forwards import LEASE as LEASE
from receiver.ledger.due_forwards import Chain
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query, Statement
from receiver.ledger.forward import DELIVERED, GIVEN_UP, PENDING_FORWARD, WAITING
from receiver.ledger.models import Attempt, Endpoint, Forward


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of an attempt at a claimed forward."""

    forward: Forward
    began_at: datetime
    took: timedelta
    url: str
    headers: str  # strict JSON
    kind: str
    status: int | None
    answer: bytes
    error: str | None
    cause: str | None  # a few words that group what failed; None for a success
    counted: int  # the attempts that pace the next one, this one included
    next_attempt_at: datetime | None  # None: given up, where it failed


def claim(now: datetime, room: int, lengths: Mapping[int, int], begun: Mapping[int, int]) -> list[Chain]:
    """Lease up to `room` chains of forwards that are due, with their endpoints.

    The hosts take turns, and each gets at most PER_HOST chains at once, of all processes. A backlog goes
    out oldest first, and one chain in four is of the newest events. Of a held endpoint only probes are
    claimed, and what a person wants sent. By endpoint, `lengths` bounds the chains, and `begun` is how many
    the caller has begun before.
    """
    with writing():
        chosen = due_forwards.choose(now, room, lengths, begun)
        for chain in chosen:
            _lease.execute([{"number": forward.id, "until": forward.leased_until} for forward in chain])
    return chosen


def release(claimed: Iterable[Forward], now: datetime) -> None:
    """Return forwards that were claimed and not tried: they are due again, in their old order."""
    with writing():
        for forward in sorted(claimed, key=lambda forward: forward.id):
            due_at = min(forward.next_attempt_at or now, now)
            _release.execute(number=forward.id, leased_until=forward.leased_until, due_at=due_at)


def note(attempted: Sequence[Attempted], now: datetime) -> list[Endpoint]:
    """Note attempts and what follows from each. Returns the endpoints that are held from now on.

    When the lease had lapsed, only a success changes the forward: another process has it.
    """
    attempted = sorted(attempted, key=lambda one: one.forward.id)
    with writing():
        # Endpoints before forwards, and both in id order, like every writer of both: or two could deadlock.
        ids = sorted({one.forward.endpoint.id for one in attempted})
        known = {one.id: one for one in _locked_endpoints.objects(Endpoint, ids=ids)}
        kept = endpoints.locked_forwards([one.forward.id for one in attempted])
        attempted = [one for one in attempted if one.forward.id in kept]
        _insert_attempts.execute([_attempt(one) for one in attempted])
        _deliver.execute([{"number": one.forward.id, "now": now} for one in attempted if one.cause is None])
        for one in attempted:
            if one.cause is not None:
                _fail(one, now)
        return endpoints.note_health([(known[id_], all_) for id_, all_ in _health(attempted)], now)


def _attempt(one: Attempted) -> Mapping[str, Any]:
    return {
        "forward": one.forward.id,
        "began_at": one.began_at,
        "took": one.took.total_seconds(),
        "url": one.url,
        "headers": one.headers,
        "kind": one.kind,
        "status": one.status,
        "answer": one.answer,
        "error": one.error,
    }


def _fail(one: Attempted, now: datetime) -> None:
    forward, is_over = one.forward, one.next_attempt_at is None
    held_before = forward.endpoint.held_seconds_by(one.began_at)
    _note_failure.execute(
        number=forward.id,
        leased_until=forward.leased_until,
        counted=one.counted,
        began_at=forward.began_at or one.began_at,
        held_before=forward.held_before if forward.began_at else held_before,
        next_attempt_at=one.next_attempt_at,
        status=GIVEN_UP if is_over else WAITING,
        ended_at=now if is_over else None,
        cause=one.cause,
    )


def _build_lease(rows: Sequence[Mapping[str, Any]]) -> Any:
    until = rows[0]["until"]
    claimed = Forward.id.in_([row["number"] for row in rows])
    return Forward.update(next_attempt_at=until, leased_until=until).where(claimed)


def _build_deliver(rows: Sequence[Mapping[str, Any]]) -> Any:
    changes = {
        "status": DELIVERED,
        "counted": Forward.counted + 1,
        "began_at": fn.COALESCE(Forward.began_at, _first_attempt()),
        "next_attempt_at": None,
        "ended_at": rows[0]["now"],
        "cause": None,
    }
    # A success counts even if another process has given the forward up meanwhile.
    is_open = Forward.status.in_((WAITING, GIVEN_UP))
    return _change(changes, Forward.id.in_([row["number"] for row in rows]), is_open)


def _first_attempt() -> Any:
    return Attempt.select(fn.MIN(Attempt.began_at)).where(Attempt.forward == Forward.id)


def _build_failure(number: Any, leased_until: Any, **changes: Any) -> Any:
    return _change(changes, *_is_leased(number, leased_until))


def _build_release(number: Any, leased_until: Any, due_at: Any) -> Any:
    released = Forward.update(next_attempt_at=due_at, leased_until=None)
    return released.where(*_is_leased(number, leased_until))


def _change(changes: Mapping[str, Any], *conditions: Any) -> Any:
    after = {"attempts": Forward.attempts + 1, "leased_until": None, "pushed": False}
    return Forward.update(**after, **changes).where(*conditions)


def _is_leased(number: Any, until: Any) -> tuple[Any, ...]:
    return Forward.id == number, PENDING_FORWARD, Forward.leased_until == until


def _health(attempted: Sequence[Attempted]) -> list[tuple[int, endpoints.Health]]:
    by_endpoint: dict[int, list[Attempted]] = defaultdict(list)
    for one in sorted(attempted, key=lambda one: one.began_at + one.took):
        by_endpoint[one.forward.endpoint.id].append(one)
    return [
        (id_, endpoints.Health([one.cause for one in all_], is_gone=all_[-1].kind == "gone"))
        for id_, all_ in by_endpoint.items()
    ]


_lease, _deliver = Statement(_build_lease), Statement(_build_deliver)
_locked_endpoints = Query(lambda ids: endpoints.locking(Endpoint.select().where(Endpoint.id.in_(ids))))
_note_failure, _release = Query(_build_failure), Query(_build_release)
_insert_attempts = Statement(Attempt.insert_many)
