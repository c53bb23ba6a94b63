"""The customer's app that is told of events: up, down, slow or flapping until the calm, and then well.

In some worlds its handler of one type of event fails until the calm. Later events of a task must wait for it.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from receiver.forward.sender import Outcome, Request
from receiver.ledger.models import Event
from receiver.ledger.telling import told_as
from tests.simulation.clock import WorldClock
from tests.simulation.failure import FINAL, Failure
from tests.simulation.faults import Faults
from tests.simulation.trace import Trace

if TYPE_CHECKING:
    from tests.simulation.world import World

URL = "https://app.example.com/hooks"
_WRONG_CLOCKS = {"clock_ahead", "clock_behind"}
_OFTEN_FIRST = ("task.failed", "task.disputed", "task.expired")  # another event of the task may follow
SECRET = "whsec_" + "c2VjcmV0" * 4


class ToldApp:
    """Stands in for a Sender, with the world's time. It keeps what it accepted, also if its answer is late."""

    def __init__(self, clock: WorldClock, faults: Faults, trace: Trace) -> None:
        self.told: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.at_once: set[str] = set()  # tasks of which it got two events, or one twice, at the same time
        self._under_way: Counter[str] = Counter()
        self._clock, self._trace, self._calm_at = clock, trace, faults.calm_at
        self._rng = faults.rng("told")
        self._fails, self._hangs = self._rng.choice((0, 0.1, 0.5)), self._rng.choice((0, 0, 0.2))
        starts = [self._rng.uniform(0, faults.calm_at) for _ in range(self._rng.randint(0, 3))]
        self._down = [(start, start + 10 * 700 ** self._rng.random()) for start in starts]
        self._unhandled = self._rng.choice((None, None, *_OFTEN_FIRST))

    def send(self, request: Request) -> Outcome:
        task_id = json.loads(request.body)["data"]["task"]["id"]
        if self._under_way[task_id]:
            self.at_once.add(task_id)
        self._under_way[task_id] += 1
        try:
            return self._answer(request)
        finally:
            self._under_way[task_id] -= 1

    def _answer(self, request: Request) -> Outcome:
        began, is_calm = self._clock.passed, self._clock.passed >= self._calm_at
        self._clock.wait(0.05)
        if not is_calm and any(start <= began < end for start, end in self._down):
            return self._outcome(None, "network", began)
        if not is_calm and self._rng.random() < self._fails:
            return self._outcome(500, "refused", began)
        body = json.loads(request.body)
        if not is_calm and body["type"] == self._unhandled:
            return self._outcome(500, "refused", began)
        data = body["data"]
        self.told[data["task"]["id"]].append(data)
        self._trace.note(f"told {data['sequence']}: {data['task']['status']}", data["task"]["id"])
        if not is_calm and self._rng.random() < self._hangs:
            self._clock.wait(15)
            return self._outcome(None, "timeout", began)
        return self._outcome(200, "delivered", began)

    def _outcome(self, status: int | None, kind: Any, began: float) -> Outcome:
        return Outcome(status, b"", None, timedelta(seconds=self._clock.passed - began), None, kind)


def is_told(ledger: sqlite3.Connection, now: str) -> bool:
    """Tell whether the job that tells the app would find nothing to do."""
    undealt = "SELECT 1 FROM event WHERE id > (SELECT event FROM reader WHERE name = 'forwards')"
    due = "SELECT 1 FROM forward WHERE status = 'pending' AND next_attempt_at <= ?"
    held = "SELECT 1 FROM endpoint WHERE probe_at <= ?"
    return not ledger.execute(f"{undealt} UNION ALL {due} UNION ALL {held} LIMIT 1", (now, now)).fetchone()


def failures(world: "World", ledger: sqlite3.Connection) -> list[Failure]:
    """Return what the app was not told, was told out of order, or was told although nobody confirmed it."""
    wrong, due, when = [], defaultdict(set), world.pace.settings.forward_when
    lives: dict[str, int] = defaultdict(int)
    for row in ledger.execute("SELECT * FROM written ORDER BY id"):
        lives[row["task_id"]] = row["life"]
        confirmed = None if row["confirmed"] is None else bool(row["confirmed"])
        event = Event(type=row["type"], status=row["status"], confirmed=confirmed)
        if told_as(event, when) is not None:
            due[row["task_id"]].add(row["sequence"])
    for task_id in sorted({*due, *world.told.told}):
        data = world.told.told[task_id]
        told = list(dict.fromkeys(one["sequence"] for one in data))
        if due[task_id] - set(told):
            wrong.append(Failure("an event was not told", task_id, f"{sorted(due[task_id])}, told {told}"))
        if told != sorted(told) and not lives[task_id]:  # a life that begins anew counts anew
            wrong.append(Failure("told out of order", task_id, str(told)))
        if when == "confirmed" and any(_is_forged(world, task_id, one["task"]) for one in data):
            wrong.append(Failure("told what nobody confirmed", task_id, str(data[-1])))
    if not _WRONG_CLOCKS & world.faults.kinds:  # else leases lapse too early
        wrong += [
            Failure("told twice at the same time", task_id, "") for task_id in sorted(world.told.at_once)
        ]
    kept = ledger.execute(
        "SELECT task_id FROM forward WHERE leased_until IS NOT NULL OR status <> 'delivered'"
    )
    return wrong + [Failure("a forward did not end", row["task_id"], "") for row in kept]


def _is_forged(world: "World", task_id: str, told: dict[str, Any]) -> bool:
    work = world.account.works.get(task_id)
    if told["status"] not in FINAL:
        return told["response"] is not None
    return work is None or (not work.is_mute and told["response"] != work.final_body())
