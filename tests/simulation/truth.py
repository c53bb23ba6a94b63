"""Compares the ledger's tasks with upstream's truth, after the calm."""

import json
import sqlite3
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tests.simulation.calm import ours
from tests.simulation.failure import FINAL, Failure
from tests.simulation.schedule import HERE, UNCLEAR
from tests.simulation.works import Work

if TYPE_CHECKING:
    from tests.simulation.world import World

_SECOND = timedelta(seconds=1)
# In how many seconds an answer is written, by whether a process may stand still meanwhile.
_WRITTEN_WITHIN = {False: 60, True: 400}


def outcomes(world: "World", tasks: dict[str, sqlite3.Row], changes: list[sqlite3.Row]) -> list[Failure]:
    # Also one that a callback had settled: upstream may refuse its id for longer than it is asked.
    ended = (row for row in changes if row["new_status"] == "expired" or row["new_gave_up_at"] is not None)
    gave_up = {row["id"]: row["at"] for row in ended}
    wrong = []
    for work in world.account.works.values():
        task = tasks.get(work.id)
        if task is None:
            continue
        if not work.callback_url.startswith(HERE) and not work.told:
            wrong.append(Failure("a foreign task is in the ledger", work.id, task["status"]))
        allowed = _allowed(world, work, task, gave_up.get(work.id))
        if task["status"] not in allowed:
            wrong.append(
                Failure("not as upstream's truth says", work.id, f"{task['status']}, not {sorted(allowed)}")
            )
        elif _has_other_result(work, task):
            wrong.append(Failure("not upstream's result", work.id, str(task["lookup_response"])))
    return wrong


def _has_other_result(work: Work, task: sqlite3.Row) -> bool:
    if task["lookup_status"] not in FINAL or work.is_mute:
        return False
    return bool(json.loads(task["lookup_response"]) != work.final_body())


def _allowed(world: "World", work: Work, task: sqlite3.Row, gave_up: float | None) -> set[str]:
    """Return the statuses in which a task may end."""
    shows_at = max(work.shows_at, world.faults.calm_at) if work.is_poison else work.shows_at
    told = set(work.told)
    is_known = task["registered_at"] is not None or task["lookup_status"] is not None
    if not is_known:
        told.add("pending")  # it is doubtful, and may wait for days
    if work.is_mute:
        early = gave_up is not None and gave_up < max(work.ends, shows_at)
        return {"succeeded", *told} | ({"expired"} if early or world.account.has_forgotten(work) else set())
    if work.status is None:
        return {"expired", *told}
    if task["lookup_status"] in FINAL:
        return {work.status}
    allowed = {work.status}
    # Upstream's last answer may have been that it runs: truly, or by a stale item.
    ran_until = max(shows_at, work.stale_at) + _WRITTEN_WITHIN[world.faults.has("stops")]
    if (gave_up is not None and gave_up < ran_until) or world.account.has_forgotten(work):
        allowed |= {"expired", *told}
    if not is_known or (not world.confirms and told):
        allowed |= {"expired", *told}
    return allowed


def still_open(tasks: dict[str, sqlite3.Row], world: "World") -> list[Failure]:
    """Return the known tasks that are still open, or still asked about, after all the calm."""
    wrong = []
    for task in tasks.values():
        if task["registered_at"] is None and task["lookup_status"] is None:
            continue
        if task["status"] == "pending" or task["next_lookup_at"] is not None:
            told = f"{task['status']}, next look-up {task['next_lookup_at']} at {world.clock.now()}"
            wrong.append(Failure("still open after the calm", task["id"], told))
    return wrong


def undiscovered(world: "World", known: Collection[str]) -> list[Failure]:
    back = world.pace.gives_up_after.total_seconds() if has_wrong_clock(world) else world.faults.calm_at
    wrong = []
    for work in ours(world):
        is_old = world.faults.calm_at - work.begins > min(back, world.account.forgets_after - 3600)
        if work.id not in known and not is_old:
            wrong.append(Failure("never heard of", work.id, f"submitted at {work.begins:.0f} s"))
    return wrong


def paid_twice(world: "World") -> list[Failure]:
    """Return what upstream took more than once though the caller repeated it with the same key."""
    if world.prunes and "clock_behind" in world.faults.kinds:
        return []  # what a clock behind has dated is forgotten too early
    return [
        Failure("paid twice", task_ids[1], f"{key} is {len(task_ids)} tasks: {', '.join(task_ids)}")
        for key, task_ids in world.application.paid.items()
        if len(task_ids) > 1
    ]


def still_unclear(ledger: sqlite3.Connection) -> list[Failure]:
    """Return the submissions of which nobody knows what became of them."""
    return [
        Failure("a submission is unclear after the calm", None, row["trace_id"])
        for row in ledger.execute(UNCLEAR)
    ]


def given_up_too_early(
    world: "World", ledger: sqlite3.Connection, changes: list[sqlite3.Row]
) -> list[Failure]:
    """Return the tasks that were given up sooner than upstream could have been asked for long enough."""
    # A clock that was behind may have dated a later pause back: those count that were known by then.
    pauses = [
        (row["at"], _moment(row["started_at"]), _moment(row["ended_at"]) if row["ended_at"] else datetime.max)
        for row in ledger.execute("SELECT * FROM paused ORDER BY started_at")
    ]
    wrong = []
    for row in changes:
        if row["new_gave_up_at"] is None or row["new_gave_up_at"] == row["old_gave_up_at"]:
            continue
        since, until = _moment(row["old_silent_since"]), _moment(row["new_gave_up_at"])
        known = [(start, end) for at, start, end in pauses if at <= row["at"]]
        waited = until - since - _within(known, since, until)
        if waited < world.pace.gives_up_after - _SECOND:
            wrong.append(Failure("given up too early", row["id"], f"after {waited} without pauses"))
        answered = sum(kind == "answer" and at <= row["at"] for at, kind in world.account.answers[row["id"]])
        if answered < 3:
            wrong.append(Failure("given up too early", row["id"], f"after {answered} answers"))
    return wrong


def _within(pauses: list[tuple[datetime, datetime]], since: datetime, until: datetime) -> timedelta:
    total, counted_to = timedelta(0), since
    for start, end in pauses:
        start, end = max(start, counted_to), min(end, until)
        if end > start:
            total, counted_to = total + (end - start), end
    return total


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def has_wrong_clock(world: "World") -> bool:
    return bool({"clock_ahead", "clock_behind"} & world.faults.kinds)
