"""What is left to do in a world, seen from outside of the product."""

import sqlite3
from typing import TYPE_CHECKING

from tests.simulation.schedule import (
    HERE,
    has_nothing_ahead,
    has_nothing_old,
    has_nothing_to_learn,
    has_nothing_unclear,
)
from tests.simulation.told import is_told
from tests.simulation.works import Work

if TYPE_CHECKING:
    from tests.simulation.world import World

_KNOWN = "(registered_at IS NOT NULL OR lookup_status IS NOT NULL)"
_LEFT = f"SELECT 1 FROM task WHERE {_KNOWN} AND (next_lookup_at IS NOT NULL OR status = 'pending') LIMIT 1"

_UNTOLD = (
    "SELECT 1 FROM forward WHERE status = 'pending' UNION ALL SELECT 1 FROM event"
    " WHERE id > (SELECT event FROM reader WHERE name = 'forwards') LIMIT 1"
)


def is_over(world: "World", ledger: sqlite3.Connection) -> bool:
    """Tell whether nothing is left to do, except about doubtful tasks."""
    waits = world.application.on_their_way or any((world.directory / "spool").glob("[dr]e*"))
    if waits or ledger.execute(_LEFT).fetchone() or ledger.execute(_UNTOLD).fetchone():
        return False
    return has_nothing_unclear(ledger) and _are_all_known(world, ledger)


def is_idle(world: "World", ledger: sqlite3.Connection, job: str) -> bool:
    """Tell whether a job of a reconciler would find nothing to do."""
    now = world.clock.now()
    if job == "forward":
        return is_told(ledger, str(now))
    if job == "learn":
        return has_nothing_to_learn(ledger)
    if job == "follow":
        return not ledger.execute("SELECT 1 FROM receiver_return WHERE times > followed").fetchone()
    if job == "discovery":
        return _are_all_known(world, ledger)
    if job == "unclear":
        return has_nothing_unclear(ledger)
    if job == "prune":
        return has_nothing_old(ledger, now, world.pace.settings)
    if job == "mend":
        return has_nothing_ahead(ledger, now)
    due = ledger.execute("SELECT 1 FROM task WHERE next_lookup_at <= ? LIMIT 1", (str(now),))
    return job == "reconcile" and not due.fetchone()


def ours(world: "World") -> list[Work]:
    """Return upstream's tasks whose callbacks come to this deployment."""
    return [work for work in world.account.works.values() if work.callback_url.startswith(HERE)]


def _are_all_known(world: "World", ledger: sqlite3.Connection) -> bool:
    known = {task_id for (task_id,) in ledger.execute("SELECT id FROM task UNION SELECT id FROM gone")}
    return all(work.id in known or world.account.has_forgotten(work) for work in ours(world))
