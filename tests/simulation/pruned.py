"""Checks what was deleted in a world: only what is old and finished with, and in the end all of that."""

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from receiver.ledger.models import UNACKNOWLEDGED
from tests.simulation.failure import FINAL, Failure
from tests.simulation.truth import has_wrong_clock

if TYPE_CHECKING:
    from tests.simulation.world import World

# In the calm, what is old is gone after so long.
LATEST_SECONDS = 3600
_LEFT = f"""
SELECT 'a delivery' AS what, task_id FROM delivery WHERE received_at < :rows
UNION ALL SELECT 'a look-up', task_id FROM lookup WHERE asked_at < :rows
UNION ALL SELECT 'a forward', task_id FROM forward WHERE ended_at < :rows
UNION ALL SELECT 'a task', id FROM task WHERE status <> 'pending' AND next_lookup_at IS NULL
  AND COALESCE(settled_at, gave_up_at) < :tasks AND COALESCE(gave_up_at, '') < :lately
  AND NOT COALESCE({UNACKNOWLEDGED.sql}, FALSE)
  AND id NOT IN (SELECT task_id FROM lookup UNION ALL SELECT task_id FROM delivery WHERE task_id IS NOT NULL)
  AND id NOT IN (SELECT task_id FROM forward)
UNION ALL SELECT 'an event', task_id FROM event WHERE happened_at < :tasks
  AND task_id NOT IN (SELECT id FROM task)
"""


def failures(world: "World", ledger: sqlite3.Connection, gone: Sequence[sqlite3.Row]) -> list[Failure]:
    """Return what was deleted although it had to stay, and what has stayed although it was old."""
    wrong = [Failure("a task is deleted", task["id"], why) for task in gone for why in _reasons(world, task)]
    return [*wrong, *_young(world, ledger), *_left(world, ledger)]


def _reasons(world: "World", task: sqlite3.Row) -> Iterator[str]:
    """Yield why a task that was deleted had to stay."""
    if not world.prunes:
        yield "nothing is deleted in this world"
    if task["status"] == "pending" or task["next_lookup_at"] is not None:
        yield f"it was {task['status']}, next look-up {task['next_lookup_at']}"
    if _is_disputed(task) and task["acknowledged_at"] is None:
        yield "nobody had acknowledged its dispute"
    if task["forwards"] or task["undealt"]:
        yield f"{task['forwards']} forwards were kept, {task['undealt']} events not dealt"
    retention = world.pace.settings.task_retention or timedelta(0)
    ended_at = task["settled_at"] or task["gave_up_at"]
    if not _dates_early(world) and not ended_at < _ago(world, task["at"], retention):
        yield f"it was young: of {ended_at}"


def _is_disputed(task: sqlite3.Row) -> bool:
    doubted = task["doubted_at"] is not None and task["lookup_status"] not in FINAL
    return doubted or {task["callback_status"], task["lookup_status"]} == set(FINAL)


def _young(world: "World", ledger: sqlite3.Connection) -> list[Failure]:
    if _dates_early(world):
        return []
    retention = world.pace.settings.retention
    return [
        Failure("a young delivery is deleted", row["task_id"], row["received_at"])
        for row in ledger.execute("SELECT * FROM gone_delivery")
        if not row["received_at"] < _ago(world, row["at"], retention)
    ]


def _dates_early(world: "World") -> bool:
    """Tell whether what is young may seem old. A clock that is ahead makes nothing old."""
    return "clock_behind" in world.faults.kinds


def _left(world: "World", ledger: sqlite3.Connection) -> list[Failure]:
    settings = world.pace.settings
    if settings.task_retention is None or has_wrong_clock(world):
        return []
    late = timedelta(seconds=LATEST_SECONDS)
    old = {
        "rows": _ago(world, world.clock.passed, settings.retention + late),
        "tasks": _ago(world, world.clock.passed, settings.task_retention + late),
        "lately": _ago(world, world.clock.passed, late),
    }
    return [Failure("what is old is left", row["task_id"], row["what"]) for row in ledger.execute(_LEFT, old)]


def _ago(world: "World", at: float, retention: timedelta) -> str:
    """Return what is old at a moment of the world if it is smaller."""
    return str(world.clock.true_now() - timedelta(seconds=world.clock.passed - at) - retention)
