"""What a look-up that gives a task up says where the task's result is in hand: pure."""

from datetime import datetime

from receiver.ledger.evidence import callback_testimony, lookup_testimony
from receiver.ledger.kinds import InHandRow, LookupRow
from receiver.ledger.models import Task
from receiver.upstream.results import FINAL, PENDING, SUCCEEDED, Result, in_hand


def with_result_in_hand(said: LookupRow, before: Task, now: datetime) -> LookupRow:
    """Return what a look-up says that gives a task up, `before` telling what earlier ones said.

    A task whose result is in hand is not expired, though upstream never called it finished.
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
    """Return what callbacks say of a task that is given up, where a result of theirs is in hand; else None.

    Upstream has not confirmed it, so that it counts as a callback's word.
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
