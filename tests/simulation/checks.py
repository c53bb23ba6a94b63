"""What must be true of a world: of its ledger in the calm, and of all that happened before."""

import sqlite3
from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

from tests.simulation import books, pruned, told, truth
from tests.simulation.failure import Failure

if TYPE_CHECKING:
    from tests.simulation.world import World


def failures(world: "World", ledger: sqlite3.Connection) -> list[Failure]:
    """Return all that is wrong after the calm."""
    tasks = {row["id"]: row for row in ledger.execute("SELECT * FROM task")}
    gone = ledger.execute("SELECT * FROM gone").fetchall()
    changes = ledger.execute("SELECT * FROM change ORDER BY number").fetchall()
    return [
        *books.broken(ledger),
        *truth.outcomes(world, tasks, changes),
        *truth.still_open(tasks, world),
        *truth.undiscovered(world, {*tasks, *(task["id"] for task in gone)}),
        *truth.paid_twice(world),
        *truth.still_unclear(ledger),
        *books.missing(world, tasks, {task["id"] for task in gone}, ledger),
        *books.events(ledger, changes),
        *books.reader(world, ledger),
        *books.tally(ledger, [*tasks.values(), *gone]),
        *pruned.failures(world, ledger, gone),
        *truth.given_up_too_early(world, ledger, changes),
        *told.failures(world, ledger),
        *_too_many_calls(world),
        *_asked_twice(world),
        *(Failure("a stop kept a lease", task_id, "it was still claimed") for task_id in world.lost_leases),
    ]


def left_leased(world: "World", asked: Collection[str], since: float, lives: int) -> list[str]:
    """Return the tasks that a reconciler asked about when it was told to stop, and that it has not released.

    None if another one has begun to live after the first `lives`, or runs: it may have claimed them since. Nor if
    the database was out of order meanwhile.
    """
    runs = not all(process.has_stopped for process in world.reconcilers.values()) or world.lives > lives
    spans = [span for span in world.faults.spans if span.kind == "database"]
    if runs or any(span.start <= world.clock.passed and span.end > since for span in spans):
        return []
    leased = "SELECT id FROM task WHERE leased_until > ?"
    now = str(world.clock.now())
    return [row["id"] for row in world.beside.execute(leased, (now,)) if row["id"] in asked]


def _too_many_calls(world: "World") -> list[Failure]:
    """Compare each process's calls with its rate: one may have waited for a free thread, one is the first."""
    by_caller: dict[str, list[float]] = defaultdict(list)
    for at, caller in world.account.calls:
        by_caller[caller].append(at)
    for caller, moments in by_caller.items():
        for first, at in enumerate(moments):
            for last in range(first + 2, min(first + 30, len(moments))):
                if last - first + 1 > (moments[last] - at) * world.pace.rate + 3:
                    told = f"{caller}: {last - first + 1} calls in {moments[last] - at:.2f} s"
                    return [Failure("more calls than the rate allows", None, told)]
    return []


def _asked_twice(world: "World") -> list[Failure]:
    """Return the tasks about which two calls asked at once, unless their lease may have ended meanwhile."""
    if truth.has_wrong_clock(world) or {"stops", "deploys"} & world.faults.kinds:
        return []
    return [
        Failure("asked about twice at once", task_id, told) for task_id, told in world.account.asked_twice
    ]
