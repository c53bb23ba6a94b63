"""The customer's application: it submits tasks to upstream, registers most, and reads what became of them."""

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from receiver.ledger.registration import Registration
from receiver.ledger.store import Callback
from receiver.ledger.submissions import Asked, digest_of, repeat_key
from tests.simulation.clock import WorldClock
from tests.simulation.faults import Faults
from tests.simulation.gateway import Answer, Sent
from tests.simulation.receiver import Web
from tests.simulation.schedule import HERE, TOKEN
from tests.simulation.trace import Trace
from tests.simulation.upstream import Account
from tests.simulation.works import Work
from tests.upstream.options import Options
from tests.upstream.tasks import TYPES, Plan, Step, draw_plan

HERE_WITH_TOKEN = f"{HERE}/callbacks/{TOKEN}"
_TRIES = 4
_UPSTREAM_FAILS = ("account", "outage", "refusals", "flood")


class Application:
    """What it was promised: `acknowledged` callbacks by uid, `registered` ids, and `events` as it read them.

    `paid` holds what upstream took of each submission through the gateway, by the submission's key.
    """

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
        self.paid: dict[str, list[str]] = {}
        self.events: list[Any] = []
        self.on_their_way = 0  # callbacks that upstream has yet to send, and repeated submissions
        self._seed = seed
        self._clock, self._faults, self._account, self._trace = clock, faults, account, trace
        self._web = web
        self._rng = faults.rng("application")
        self._uids = random.Random(f"{seed}:uids")
        self._number = 0

    def submit(self) -> None:
        """Submit a task: through the gateway, or to upstream, and then register it unless it forgets to."""
        if self._rng.random() < 0.5:
            self._submit_through_gateway(f"order-{self._number}-{self._rng.getrandbits(32)}", _TRIES)
            return
        work = self._new_work()
        self._take(work)
        is_ours = work.callback_url.startswith(HERE)
        if is_ours and not self._faults.happens("unregistered", self._clock):
            self._clock.plan(self._rng.expovariate(1 / 3), partial(self.register, work.id, _TRIES))

    def _take(self, work: Work) -> None:
        """Let upstream have a task."""
        self._account.works[work.id] = work
        self._trace.note(
            f"submitted {work.type}, ends after {work.ends - work.begins:.0f} s: {work.status}", work.id
        )
        for step in work.plan.steps:
            self._plan_step(work, step)

    def _submit_through_gateway(self, key: str, tries: int) -> None:
        """Submit with an idempotency key. While the answer is an error, or none comes, try again a few times."""
        web, digest = self._web(), digest_of("/midjourney/imagine", key.encode())
        asked = Asked(
            api_key="",
            service="midjourney",
            type="imagine",
            trace_id=f"{key}-{tries}",
            digest=digest,
            repeat_key=repeat_key(key, None, digest),
        )
        told: list[str] = []

        def ask(web: Web) -> None:
            if task_id := web.submit(asked, partial(self._send, key, asked.trace_id)):
                self._trace.note("the gateway tells of it", task_id)
                self.registered.add(task_id)
                told.append(task_id)

        def again() -> None:
            self.on_their_way -= 1
            if not told:
                self._submit_through_gateway(key, tries - 1)

        if web:
            web.spawn(partial(ask, web))
        if tries:
            self.on_their_way += 1
            self._clock.plan(self._rng.uniform(150, 1500), again)

    def _send(self, key: str, trace_id: str) -> Sent:
        """Let upstream answer a submission of the gateway's."""
        self._clock.wait(self._rng.uniform(0.05, 0.5))
        if any(self._faults.lasting(kind, self._clock) for kind in _UPSTREAM_FAILS):
            return Sent(self._rng.choice((Answer.REFUSED, Answer.LOST)))
        work = self._new_work(HERE_WITH_TOKEN, trace_id)
        self._take(work)
        self.paid.setdefault(key, []).append(work.id)
        if self._faults.happens("answers_lost", self._clock):
            self._trace.note("the answer to its submission is lost", work.id)
            return Sent(Answer.LOST)
        self._clock.wait(self._rng.uniform(0.05, 0.5))
        return Sent(Answer.TAKEN, work.id)

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

    def _new_work(self, url: str | None = None, trace_id: str | None = None) -> Work:
        happens, clock, rng = partial(self._faults.happens, clock=self._clock), self._clock, self._rng
        lasts = 5 * 1000 ** rng.random()
        task_type, plan = self._draw(lasts)
        if url is None:
            url = "https://other.example.com/callbacks/x" if happens("of_others") else HERE_WITH_TOKEN
        created_at = round(self._account.unix_now(), 3)
        work = Work(plan, task_type, url, created_at, clock.passed, trace_id=trace_id or plan.trace_id)
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
