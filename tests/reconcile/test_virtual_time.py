"""A reconciler and its jobs live through many hours in a moment: nothing in them waits but by the clock."""

import random
import threading
import time
from datetime import datetime, timedelta

import pytest

from receiver.clock import to_unix
from receiver.ledger import pauses, returns, store
from receiver.ledger.models import Delivery, Discovery, Lookup, Pause, ReconcileRun, Task
from receiver.ledger.paces import Paces
from receiver.ledger.reading import queries
from receiver.ledger.registration import Registration
from receiver.upstream import services
from reconcile.calls import Caller
from reconcile.discover import Discoverer
from reconcile.jobs import list_jobs
from reconcile.pacemaker import Pacemaker, SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler
from tests.clocks import VirtualClock, VirtualThreads
from tests.factories import body, finished_item, item, progress_body, record, register

# What the databases do differently has tests of its own.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NOON = datetime(2026, 1, 31, 12)
HOUR = timedelta(hours=1)
HERE = "https://backstop.example.com"


class FakeUpstream:
    """Upstream under the same clock: each task ends at its moment."""

    clock_ahead = None

    def __init__(self, clock, **ends_at):
        self.clock, self.ends_at = clock, ends_at
        self.looked_up, self.listed = [], 0

    def compare_clocks(self):
        return self.clock.ahead

    def retrieve_batch(self, service, ids, before_page):
        self.looked_up.append((self.clock.now(), tuple(ids)))
        return [self._item(task_id) for task_id in ids if task_id in self.ends_at]

    def list_recent(self, service, *, since, until, limit, offset):
        self.listed += 1
        submitted = {"created_at": to_unix(NOON), "request": {"callback_url": f"{HERE}/callbacks/token"}}
        return [self._item(task_id) | submitted for task_id in self.ends_at][offset:]

    def _item(self, task_id):
        return (finished_item if self.ends_at[task_id] <= self.clock.now() else item)(task_id)


class World:
    """The jobs of one process, run when they are due by a virtual clock."""

    def __init__(self, settings, seed, **ends_at):
        self.clock = VirtualClock(NOON)
        self.upstream = FakeUpstream(self.clock, **ends_at)
        limiter = RateLimiter(settings.reconcile_max_rate, self.clock)
        caller = Caller(self.upstream, VirtualThreads(self.clock, latency=2), limiter, self.clock)
        steady, stop = SteadyClock(self.clock), threading.Event()
        self.paces = paces = Paces(settings.reconcile_grace)
        reconciler, discoverer = (
            Reconciler(settings, caller, paces, steady, random.Random(seed), stop),
            Discoverer(settings, caller, paces, services.DEFAULT, stop),
        )
        self.jobs = {
            job.name: job
            for job in list_jobs(
                settings, self.upstream, reconciler, [discoverer], paces, self.clock, self.run_in
            )
        }
        self.due = {job.name: job.first_in.total_seconds() for job in self.jobs.values()}  # monotonic
        self.pacemaker = Pacemaker(steady, self.make_all_due)

    def run_in(self, name, wait):
        self.due[name] = self.clock.monotonic() + wait.total_seconds()

    def make_all_due(self):
        for name, job in self.jobs.items():
            self.run_in(name, job.wait_after_jump())

    def live(self, span):
        ends_at = self.clock.monotonic() + span.total_seconds()
        while (at := min(self.due.values())) < ends_at:
            name = min(self.due, key=self.due.get)
            self.clock.wait(max(at - self.clock.monotonic(), 0))
            self.run_in(name, self.jobs[name].every)
            self.jobs[name].run()
            self.pacemaker.look()


@pytest.fixture
def make_world(ledger, make_settings):
    settings = {
        "PUBLIC_URL": HERE,
        "RECONCILE_MAX_RATE": 0.5,
        "RECONCILE_GIVE_UP_AFTER": 4 * 3600,
    }
    return lambda seed=1, interval=120, **ends_at: World(
        make_settings(**settings | {"RECONCILE_INTERVAL": interval}), seed, **ends_at
    )


def test_hours_pass_in_seconds_and_tasks_are_settled_when_upstream_is_done(make_world):
    began = time.monotonic()
    world = make_world(brief=NOON + timedelta(minutes=5), long=NOON + 3 * HOUR)
    register("brief", now=NOON)
    world.live(5 * HOUR)
    assert time.monotonic() - began < 60
    tasks = {task.id: task for task in Task.select()}
    assert {task.status for task in tasks.values()} == {"succeeded"}
    assert tasks["long"].created_at - NOON < timedelta(minutes=1)  # discovered
    assert NOON + timedelta(minutes=5) < tasks["brief"].settled_at < NOON + timedelta(minutes=15)
    assert NOON + 3 * HOUR < tasks["long"].settled_at < NOON + 4.3 * HOUR
    assert 8 < len(world.upstream.looked_up) < 30
    assert world.upstream.listed >= 29
    assert Discovery.get().finished_at > NOON + 4 * HOUR
    assert world.clock.now() - queries.list_runs(1)[0].started_at < timedelta(minutes=5)


def test_a_task_that_never_ends_is_given_up_after_its_time_and_not_before(make_world):
    world = make_world(silent=NOON + 99 * HOUR)
    register("silent", now=NOON)
    world.live(4 * HOUR)
    assert Task.get().status == "pending"
    world.live(2 * HOUR)
    assert Task.get().status == "expired"
    assert 4 * HOUR <= Task.get().gave_up_at - NOON < 6 * HOUR


def test_a_wall_clock_that_is_set_back_delays_nothing(make_world):
    world = make_world(long=NOON + 99 * HOUR)
    world.live(HOUR / 2)
    world.clock.ahead = -8 * HOUR  # the task is due in more than eight hours by this clock
    world.upstream.ends_at["long"] = world.clock.now()
    world.live(HOUR / 4)
    assert Task.get().status == "succeeded"


def test_an_idle_reconciler_leaves_one_row_which_tells_four_times_a_minute_that_it_is_at_work(make_world):
    world = make_world(interval=1)
    for _ in range(10):
        world.live(timedelta(minutes=1))
        (run,) = ReconcileRun.select()
        assert world.clock.now() - run.started_at < timedelta(seconds=16)


def test_a_pause_leaves_no_row_a_second_while_tasks_wait(make_world):
    world = make_world(interval=1)
    register("waits", now=NOON - HOUR, grace=timedelta(0))
    pauses.throttle("429", timedelta(minutes=10), NOON)
    world.live(HOUR / 6)
    assert 39 <= ReconcileRun.select().count() <= 41
    world.live(timedelta(seconds=3))
    assert len(world.upstream.looked_up) == 1  # at once when it is over


def test_an_order_to_probe_ends_a_pause_within_seconds_although_no_task_is_due(make_world):
    world = make_world(interval=1)
    world.live(HOUR / 6)
    paused_at, listed = world.clock.now(), world.upstream.listed
    pauses.pause_account("no balance", paused_at)
    Pause.update(next_probe_at=paused_at + timedelta(minutes=14)).execute()
    world.live(timedelta(minutes=2))
    assert (pauses.may_ask(world.clock.now()), world.upstream.listed) == (False, listed)
    pauses.probe_at_once(world.clock.now())
    returns.note_return()
    world.live(timedelta(seconds=15))
    assert pauses.current_pause(world.clock.now()) is None
    assert world.upstream.listed > listed


def test_what_nobody_here_can_ask_about_leaves_no_row_a_second(make_world):
    world = make_world(interval=1)
    register("newer", now=NOON - HOUR, grace=timedelta(0), service="of-a-newer-version")
    world.live(HOUR / 6)
    assert ReconcileRun.select().count() <= 41


def test_a_callbacks_result_is_confirmed_at_the_next_look(make_world):
    world = make_world(interval=1, quick=NOON + timedelta(seconds=20))
    register("quick", now=NOON)
    world.live(timedelta(seconds=25))
    record(body("quick"), world.clock.now(), confirm=True)
    world.live(timedelta(seconds=4))  # upstream takes 2 s
    assert Task.get().confirmed


def test_a_task_that_is_due_waits_for_company_and_no_longer(make_world):
    world = make_world(interval=1, alone=NOON + timedelta(seconds=20))
    register("alone", now=NOON, grace=timedelta(seconds=30))
    world.live(timedelta(seconds=50))
    ((asked_at, _),) = world.upstream.looked_up
    assert asked_at - NOON == pytest.approx(timedelta(seconds=40), abs=timedelta(seconds=3))


def test_one_call_asks_about_all_that_came_due_meanwhile(make_world):
    world = make_world(interval=1, a=NOON + HOUR, b=NOON + HOUR)
    register("a", now=NOON, grace=timedelta(seconds=30))
    register("b", now=NOON, grace=timedelta(seconds=36))
    world.live(timedelta(seconds=45))
    assert [ids for _, ids in world.upstream.looked_up] == [("a", "b")]


def test_it_learns_how_long_tasks_take_and_asks_by_that(make_world):
    world = make_world(interval=1)
    for n in range(30):
        register(f"t{n}", now=NOON - HOUR, type="imagine", submitted_at=NOON - HOUR)
        record(body(f"t{n}"), NOON - HOUR + timedelta(seconds=25))
    world.live(timedelta(minutes=5))
    now = world.clock.now()
    world.upstream.ends_at["late"] = now + timedelta(seconds=24)
    store.register([Registration("late", type="imagine")], now, timetable=world.paces.timetable)
    world.live(timedelta(seconds=90))
    assert Task.get(Task.id == "late").settled_at - now < timedelta(seconds=45)
    assert len(world.upstream.looked_up) <= 2


def test_one_seed_makes_one_history(make_world):
    histories = []
    for seed in (7, 7, 8):
        for model in (Lookup, Delivery, Task, Discovery, ReconcileRun):
            model.delete().execute()
        world = make_world(seed, long=NOON + 2 * HOUR)
        record(progress_body("made-up"), NOON)  # its look-ups are spread by chance
        world.live(3 * HOUR)
        histories.append(world.upstream.looked_up)
    assert histories[0] == histories[1] != histories[2]
    assert len(histories[0]) > 5
