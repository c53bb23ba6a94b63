"""Forwards: leases those that are due, and notes what came of them.

See "Leases" in docs/design.md. For one task and endpoint one forward is in flight at a time, and no later one
goes out while an earlier one is pending.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from receiver.ledger import due_forwards, endpoints
from receiver.ledger.due_forwards import LEASE
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


def claim(now: datetime, room: int) -> list[Forward]:
    """Lease up to `room` forwards that are due, with their endpoints.

    The hosts take turns, and each gets at most PER_HOST attempts at once, of all processes. A backlog goes
    out oldest first. Of a held endpoint only probes are claimed, and what a person wants sent.
    """
    with writing():
        chosen = due_forwards.choose(now, room)
        if not chosen:
            return []
        until = now + LEASE
        Forward.update(next_attempt_at=until, leased_until=until).where(Forward.id.in_(chosen)).execute()
        claimed = Forward.select(Forward, Endpoint).join(Endpoint).where(Forward.id.in_(chosen))
        return sorted(claimed, key=lambda forward: chosen.index(forward.id))


def release(claimed: Iterable[Forward], now: datetime) -> None:
    """Return forwards that were claimed and not tried: they are due again at once."""
    for forward in claimed:
        with writing():
            ours = _is_leased(forward.id, forward.leased_until)
            Forward.update(next_attempt_at=now, leased_until=None).where(*ours).execute()


def note(attempted: Sequence[Attempted], now: datetime) -> list[Endpoint]:
    """Note attempts and what follows from each. Returns the endpoints that are held from now on.

    When the lease had lapsed, only a success changes the forward: another process has it.
    """
    attempted = sorted(attempted, key=lambda one: one.forward.id)
    with writing():
        # Endpoints before forwards, and both in id order, like every writer of both: or two could deadlock.
        ids = {one.forward.endpoint.id for one in attempted}
        known = {one.id: one for one in endpoints.locked(Endpoint.select().where(Endpoint.id.in_(ids)))}
        kept = endpoints.locked_forwards([one.forward.id for one in attempted])
        attempted = [one for one in attempted if one.forward.id in kept]
        _insert_attempts.execute([_attempt(one) for one in attempted])
        for one in attempted:
            _settle(one, now)
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


def _settle(one: Attempted, now: datetime) -> None:
    forward, is_over = one.forward, one.cause is None or one.next_attempt_at is None
    held_before = forward.endpoint.held_seconds_by(one.began_at)
    changes = {
        "number": forward.id,
        "counted": one.counted,
        "began_at": forward.began_at or one.began_at,
        "held_before": forward.held_before if forward.began_at else held_before,
        "next_attempt_at": None if is_over else one.next_attempt_at,
        "status": DELIVERED if one.cause is None else GIVEN_UP if is_over else WAITING,
        "ended_at": now if is_over else None,
        "cause": one.cause,
    }
    if one.cause is None:
        _deliver.execute(**changes)
    else:
        _fail.execute(leased_until=forward.leased_until, **changes)


def _build_deliver(number: Any, **changes: Any) -> Any:
    # A success counts even if another process has given the forward up meanwhile.
    return _change(changes, Forward.id == number, Forward.status.in_((WAITING, GIVEN_UP)))


def _build_fail(number: Any, leased_until: Any, **changes: Any) -> Any:
    return _change(changes, *_is_leased(number, leased_until))


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


_deliver, _fail = Query(_build_deliver), Query(_build_fail)
_insert_attempts = Statement(Attempt.insert_many)
