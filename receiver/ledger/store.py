"""The one door for state: record, register, adopt, claim, apply.

Callback routes and the reconciler change tasks only through it. Each function that writes does so in its own
transaction, which is durable when the function returns.

See "Leases" in docs/design.md.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from receiver.ledger import evidence, giving_up
from receiver.ledger.claims import Claim, claim, claim_these, is_anything_due, locked, release
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query, Statement, parts
from receiver.ledger.evidence import Answer, Discovered
from receiver.ledger.kinds import IN_HAND, LOOKUP, InHandRow, LookupRow
from receiver.ledger.merge import insert_new, merge
from receiver.ledger.models import UNACKNOWLEDGED, Lookup, Task, database
from receiver.ledger.patience import Patience
from receiver.ledger.pauses import pauses_since
from receiver.ledger.record import Callback, Recorded, record
from receiver.ledger.registering import OtherService, log_registered, register, register_within
from receiver.ledger.timetable import Timetable
from receiver.logs import log_lines
from receiver.upstream.results import FINAL, Result

log = logging.getLogger(__name__)

__all__ = [
    "Callback",
    "Claim",
    "OtherService",
    "Recorded",
    "acknowledge",
    "adopt",
    "apply",
    "ask_now",
    "claim",
    "claim_these",
    "is_anything_due",
    "log_registered",
    "record",
    "register",
    "register_within",
    "release",
    "settle",
]


def adopt(discovered: Sequence[Discovered], now: datetime, *, timetable: Timetable) -> int:
    """Add the tasks from upstream's list that we have not heard of, and return how many these are.

    Known tasks stay as they are. Of several items about one task the one that says most counts.
    """
    best: dict[str, Discovered] = {}
    for one in sorted(discovered, key=lambda one: one.result.key):
        best[one.result.task_id] = one
    adopted: list[str] = []
    with writing():
        for some in parts(sorted(best)):
            rows = [evidence.of_discovered(best[task_id], now, timetable) for task_id in some]
            new = [task_id for (task_id,) in _insert_new.returning(rows)]
            adopted += new
            lookups = [_lookup(task_id, Answer(best[task_id].result), None, now, now) for task_id in new]
            _insert_lookups.execute(lookups)
    log_lines(log, [(f"Task {one}: found in upstream's list.", {"task": one}) for one in adopted])
    return len(adopted)


def apply(
    claimed: Claim,
    answers: Mapping[str, Answer],
    run_id: int | None,
    asked_at: datetime,
    now: datetime,
    patience: Patience,
) -> int:
    """Merge the answers about claimed tasks, and return how many tasks they settled.

    Only look-ups with news leave a row of their own. The others are counted in their task's row. `run_id` is
    None for a question that no run of the reconciler asked.
    """
    pauses = pauses_since(min(task.silent_since for task in claimed.tasks), claimed.service)
    # In id order, like every writer that locks several rows. Otherwise two of them could deadlock.
    tasks = sorted(claimed.tasks, key=lambda task: task.id)
    said = [evidence.of_lookup(task, answers[task.id], now, patience, pauses) for task in tasks]
    news = [task.id for task in tasks if _is_news(task, answers[task.id])]
    lookups = [_lookup(task_id, answers[task_id], run_id, asked_at, now) for task_id in news]
    said, in_hand = _with_results_in_hand(said, now)
    with writing():
        before = dict(_locked_statuses.rows(ids=claimed.ids))
        if in_hand:
            # Before the answers. Otherwise the task would expire and then succeed, with an event for each.
            merge(IN_HAND, in_hand).execute()
        _merge_answers.execute(said)
        _insert_lookups.execute(lookups)
        settled = _settled_by_lookup.rows(ids=claimed.ids)
        return sum(before.get(task_id) != status for task_id, status in settled)


def settle(result: Result, now: datetime) -> None:
    """Apply upstream's final result of a registered task, told in the answer to its submission.

    It counts as a look-up: it came over the connection that we made to upstream with our token.
    """
    with writing():
        task = Task.get_or_none(Task.id == result.task_id)
        if task is not None:
            _merge_answers.execute([evidence.of_lookup(task, Answer(result), now, _ASKED_NO_MORE, ())])
            _insert_lookups.execute([_lookup(task.id, Answer(result), None, now, now)])


def _with_results_in_hand(said: list[LookupRow], now: datetime) -> tuple[list[LookupRow], list[InHandRow]]:
    """Settle given-up tasks that have a result in hand: by that of look-ups, else by that of callbacks."""
    given_up = [row["id"] for row in said if row["gave_up_at"]]
    if not given_up:
        return said, []
    # Claims do not load the responses: they may be large, and only this function needs them.
    known = Task.select(
        *(Task.id, Task.service, Task.lookup_status, Task.lookup_progress, Task.lookup_response),
        *(Task.callback_status, Task.callback_progress, Task.callback_response, Task.lookup_envelope),
    )
    with database.connection_context():
        before = {task.id: task for task in known.where(Task.id.in_(given_up))}
    told = [
        giving_up.with_result_in_hand(row, before[row["id"]], now) if row["id"] in before else row
        for row in said
    ]
    still = [before[row["id"]] for row in told if row["gave_up_at"] and row["id"] in before]
    in_hand = (giving_up.of_callback_in_hand(task, now) for task in still)
    return told, [row for row in in_hand if row]


def ask_now(task_id: str, now: datetime) -> bool:
    """Make a task due at once, whatever its status. Returns False for a task we never heard of."""
    with writing():
        return bool(Task.update(next_lookup_at=now).where(Task.id == task_id).execute())


def acknowledge(task_ids: Collection[str], now: datetime) -> int:
    """Note that a person has seen the disputes of these tasks. Return how many were unacknowledged."""
    seen = Task.select(Task.id).where(Task.id.in_(task_ids), UNACKNOWLEDGED)
    with writing():
        return int(Task.update(acknowledged_at=now).where(Task.id.in_(locked(seen))).execute())


def _is_news(task: Task, answer: Answer) -> bool:
    """Tell whether an answer says something that the task's last look-up did not say."""
    if answer.result is None or answer.error != task.last_lookup_error:
        return answer.error != task.last_lookup_error
    first_of_kind = task.lookup_status != answer.result.status or task.lookup_count == 0
    return first_of_kind or answer.result.progress != task.lookup_progress or answer.verdict in FINAL


def _lookup(
    task_id: str, answer: Answer, run_id: int | None, asked_at: datetime, now: datetime
) -> dict[str, Any]:
    return {
        "task": task_id,
        "run": run_id,
        "asked_at": asked_at,
        "answered_at": now,
        "verdict": answer.verdict,
        "progress": answer.result.progress if answer.result else None,
        "error": answer.error,
    }


def _statuses(ids: Any) -> Any:
    return Task.select(Task.id, Task.status).where(Task.id.in_(ids))


_locked_statuses = Query(lambda ids: locked(_statuses(ids)))
_settled_by_lookup = Query(lambda ids: _statuses(ids).where(Task.settled_by == "lookup"))
# A final result ends all waiting, so none of these times is used.
_ASKED_NO_MORE = Patience(lambda *_: timedelta(0), timedelta(0), timedelta(0))
_insert_new = Statement(lambda rows: insert_new(rows).returning(Task.id))
_merge_answers = Statement(partial(merge, LOOKUP))
_insert_lookups = Statement(Lookup.insert_many)
