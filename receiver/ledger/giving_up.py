"""Gives a task up whose result is in hand: it then counts as succeeded, not as expired. Pure."""

from datetime import datetime

from receiver.ledger.evidence import callback_testimony, lookup_testimony
from receiver.ledger.kinds import InHandRow, LookupRow
from receiver.ledger.models import Task
from receiver.upstream.results import FINAL, PENDING, SUCCEEDED, Result, in_hand


def with_result_in_hand(said: LookupRow, before: Task, now: datetime) -> LookupRow:
    """Return the row of a look-up that gives a task up, changed if look-ups have brought a result.

    `before` is the task as earlier look-ups left it. Upstream never called that result finished.
    """
    told = before.lookup_response if said["lookup_response"] is None else said["lookup_response"]
    progress = before.lookup_progress if said["lookup_progress"] is None else said["lookup_progress"]
    found = in_hand(Result(before.id, PENDING, progress, told, None, key=b""))
    if found is None:
        return said
    return {
        **said,
        "gave_up_at": None,
        "status": SUCCEEDED,
        "settled_by": "lookup",
        "settled_at": now,
        **lookup_testimony(found),
    }


def of_callback_in_hand(before: Task, now: datetime) -> InHandRow | None:
    """Return the row that settles a task which is given up by the result that callbacks have brought.

    None if they brought none. Upstream has not confirmed the result: it counts as a callback's word.
    """
    told = Result(before.id, PENDING, before.callback_progress, before.callback_response, None, key=b"")
    found = (
        in_hand(told) if before.callback_status not in FINAL and before.lookup_status not in FINAL else None
    )
    if found is None:
        return None
    return {
        "id": before.id,
        "service": before.service,
        "status": SUCCEEDED,
        "created_at": now,
        "silent_since": now,
        "settled_by": "callback",
        "settled_at": now,
        **callback_testimony(found),
    }
