"""The customer's application: it submits tasks to upstream, registers most, and reads what became of them."""

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from receiver.ledger.registration import Registration
from receiver.ledger.store import Callback
from tests.simulation.clock import WorldClock
from tests.simulation.faults import Faults
from tests.simulation.receiver import Web
from tests.simulation.schedule import HERE, TOKEN
from tests.simulation.trace import Trace
from tests.simulation.upstream import Account
from tests.simulation.works import Work
from tests.upstream.options import Options
from tests.upstream.tasks import TYPES, Plan, Step, draw_plan

_TRIES = 4


class Application:
    """What it was promised: `acknowledged` callbacks by uid, `registered` ids, and `events` as it read them."""

    def __init__(
        self,
        seed: int,
        clock: WorldClock,
        faults: Faults,
        account: Account,
        trace: Trace,
        web: Callable[[], Web | None],
    ) -> None:
        self.acknowledged: dict[str, tuple[str, bytes]] = {}
        self.registered: set[str] = set()
        self.events: list[Any] = []
        self.on_their_way = 0  # callbacks that upstream has yet to send
        self._seed = seed
        self._clock, self._faults, self._account, self._trace = clock, faults, account, trace
        self._web = web
        self._rng = faults.rng("application")
        self._uids = random.Random(f"{seed}:uids")
        self._number = 0

    def submit(self) -> None:
        """Submit a task, and register it unless it forgets to."""
        work = self._new_work()
        self._account.works[work.id] = work
        self._trace.note(
            f"submitted {work.type}, ends after {work.ends - work.begins:.0f} s: {work.status}", work.id
        )
        for step in work.plan.steps:
            self._plan_step(work, step)
        is_ours = work.callback_url.startswith(HERE)
        if is_ours and not self._faults.happens("unregistered", self._clock):
            self._clock.plan(self._rng.expovariate(1 / 3), partial(self.register, work.id, _TRIES))

    def register(self, task_id: str, tries: int) -> None:
        """Register a task; while that fails, try again a few times."""
        web = self._web()

        def ask(web: Web) -> None:
            if web.register([Registration(task_id)]):
                self.registered.add(task_id)
                self._trace.note("registered", task_id)

        if web:
            web.spawn(partial(ask, web))
        if tries:
            self._clock.plan(self._rng.uniform(20, 200), partial(self._register_again, task_id, tries - 1))

    def post(self, body: bytes, task_id: str, why: str, headers: Any = ()) -> None:
        """Post a callback; what comes of it is known only if the receiver answers."""
        web, uid = self._web(), f"{self._uids.getrandbits(128):032x}"
        callback = Callback(body=body, size=len(body), headers=headers, token=0, uid=uid)

        def ask(web: Web) -> None:
            if web.take(callback):
                self.acknowledged[uid] = (task_id, body)
                self._trace.note(f"callback acknowledged: {why}", task_id)
            else:
                self._trace.note(f"callback refused: {why}", task_id)

        if web:
            web.spawn(partial(ask, web))
        else:
            self._trace.note(f"nobody takes a callback: {why}", task_id)

    def read_events(self) -> None:
        """Go on reading the outbox where it was left."""

        def ask(web: Web) -> None:
            while True:
                read = len(self.events)
                found = web.events_after(self.events[-1].id if self.events else 0)
                if len(self.events) == read:  # or a reader that was quicker has gone on meanwhile
                    if not found:
                        return
                    self.events += found

        if web := self._web():
            web.spawn(partial(ask, web))

    def _register_again(self, task_id: str, tries: int) -> None:
        if task_id not in self.registered:
            self.register(task_id, tries)

    def _new_work(self) -> Work:
        happens, clock, rng = partial(self._faults.happens, clock=self._clock), self._clock, self._rng
        lasts = 5 * 1000 ** rng.random()
        task_type, plan = self._draw(lasts)
        url = "https://other.example.com/callbacks/x" if happens("of_others") else f"{HERE}/callbacks/{TOKEN}"
        created_at = round(self._account.unix_now(), 3)
        work = Work(plan, task_type, url, created_at, clock.passed, trace_id=plan.trace_id)
        is_mute = happens("mute") and task_type != "describe"
        if not happens("endless"):
            work.ends = clock.passed + lasts
            work.shows_at = work.ends + (rng.uniform(1, 900) if happens("reveals_late") else 0)
            work.is_mute = is_mute
        if happens("poison"):
            self._account.bad_ids.add(work.id)
            work.is_poison = True
        return work

    def _draw(self, lasts: float) -> tuple[str, Plan]:
        self._number += 1
        shares = {"lost": "lost", "duplicated": "doubled"}
        shares |= {kind: kind for kind in ("disordered", "failing", "progress")}
        drawn: dict[str, Any] = {
            share: float(self._faults.happens(kind, self._clock)) for share, kind in shares.items()
        }
        options = Options(seed=self._seed, work=(lasts, lasts), **drawn)
        task_type = self._rng.choice(TYPES)
        return task_type, draw_plan(options, self._number, task_type)

    def _plan_step(self, work: Work, step: Step) -> None:
        silent = work.plan.lost or work.is_mute or not work.callback_url.startswith(HERE)
        if silent or (step.kind != "progress" and work.status is None):
            return
        late = 3000 * self._rng.random() ** 3 if self._faults.happens("late", self._clock) else 0
        is_progress = step.kind == "progress"
        body = work.progress_body(step.progress) if is_progress else work.final_body()
        why = f"{step.kind}, {step.progress} %" if is_progress else step.kind
        self.on_their_way += 1
        self._clock.plan(step.after + late, partial(self._deliver, json.dumps(body).encode(), work.id, why))

    def _deliver(self, body: bytes, task_id: str, why: str) -> None:
        self.on_their_way -= 1
        self.post(body, task_id, why)


def plan_of_nobody(seed: int, number: int) -> Plan:
    """Return a plan whose ids upstream does not know."""
    return draw_plan(Options(seed=seed + 10**9), number, "imagine")
