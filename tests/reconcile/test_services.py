"""Runs and discoveries over several services: one that may not be asked about stops no other."""

import threading
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses
from receiver.ledger.models import Pause, Task
from receiver.ledger.reading import queries
from receiver.upstream.client import ErrorScope, UpstreamError
from receiver.upstream.services import DEFAULT, SERVICES
from reconcile.discovering import Discoverers, services_to_discover
from reconcile.jobs import discover_tasks
from tests.callers import make_discoverer, make_reconciler
from tests.clocks import SetClock
from tests.factories import finished_item, item, register
from tests.processes import wait_until

NOW_DUE = timedelta(0)
MINE, OTHER = DEFAULT.name, "suno"


@pytest.fixture
def clock():
    clock = SetClock()
    # What a test registers is due, although the machine is busy.
    clock.at, clock.ahead = utcnow() + timedelta(seconds=30), timedelta(seconds=1)
    return clock


@pytest.fixture
def make(ledger, make_settings, stand_in, stop, clock):
    """Make a reconciler without a rate limit, one call at a time."""

    def make(**variables):
        fast = {"RECONCILE_GRACE": 0, "RECONCILE_MAX_RATE": 0, "RECONCILE_CONCURRENCY": 1}
        return make_reconciler(make_settings(**fast | variables), stand_in, stop, clock)

    return make


@pytest.fixture
def broken(monkeypatch):
    """Errors of single services, by name; upstream answers all other calls."""
    errors: dict[str, UpstreamError] = {}

    def plant(asking):
        ask = asking._caller.upstream.retrieve_batch

        def fail_or_ask(service, *rest):
            if service.name in errors:
                raise errors[service.name]
            return ask(service, *rest)

        monkeypatch.setattr(asking._caller.upstream, "retrieve_batch", fail_or_ask)
        return errors

    return plant


def submit(stand_in, service, *ids, due_for=NOW_DUE):
    """Register finished tasks of a service that are due."""
    register(*ids, grace=NOW_DUE, now=utcnow() - due_for, service=service)
    for task_id in ids:
        stand_in.add_record(finished_item(task_id), service)


def disabled():
    return UpstreamError("403 disabled", permanent=True, scope=ErrorScope.SERVICE)


def unknown():
    return UpstreamError("400 odd", permanent=True, scope=ErrorScope.ID, is_known=False, shows_access=True)


def statuses():
    return {task.id: task.status for task in Task.select()}


def asked_of(stand_in):
    return [call.service.name for call in stand_in.calls]


class TestPause:
    def test_a_service_without_an_api_stops_itself_alone(self, stand_in, make, caplog):
        register("w1", "w2", grace=NOW_DUE, service="wan")  # the stand-in answers 404 no_api
        submit(stand_in, MINE, "m1", "m2")
        counts = make().run()
        assert statuses() == {"m1": "succeeded", "m2": "succeeded", "w1": "pending", "w2": "pending"}
        pause = Pause.get()
        assert (pause.service, pause.account, pause.ended_at) == ("wan", True, None)
        assert "no_api" in counts.error
        assert pauses.current_pause(utcnow()) is None
        told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(told) == 1
        assert "Asking about wan is paused" in told[0]
        assert {
            (task.attempts, task.leased_until) for task in Task.select().where(Task.service == "wan")
        } == {(0, None)}

    def test_what_is_paused_neither_starts_runs_nor_keeps_others_waiting(self, stand_in, make, clock):
        register("w1", grace=NOW_DUE, service="wan")
        reconciler = make()
        reconciler.run()
        calls = len(stand_in.calls)
        assert not reconciler._is_due(clock.now(), None)
        submit(stand_in, MINE, "m1")
        assert reconciler.run().settled == 1
        assert len(stand_in.calls) == calls + 1

    def test_one_probe_at_growing_intervals_ends_it(self, stand_in, make, broken, clock):
        reconciler, other = make(), make()
        errors = broken(reconciler)
        broken(other)
        errors[OTHER] = disabled()
        submit(stand_in, OTHER, "s1", "s2", "s3")
        reconciler.run()
        probed = []
        for seconds in range(1, 400, 3):
            clock.ahead = timedelta(seconds=seconds)
            runs = (reconciler.run(), other.run())
            probed += [seconds] * sum(counts.calls for counts in runs)
        assert probed == [31, 91, 211]
        del errors[OTHER]
        clock.ahead = timedelta(seconds=452)
        assert reconciler.run().settled == 3
        assert Pause.select().where(Pause.ended_at.is_null()).count() == 0

    def test_a_probe_of_one_service_does_not_end_the_pause_of_another(self, stand_in, make, clock):
        submit(stand_in, MINE, "m1")
        pauses.pause_account("disabled", clock.now() - timedelta(minutes=1), MINE)
        pauses.pause_account("disabled", clock.now(), OTHER)
        assert make().run().settled == 1
        assert [pause.service for pause in pauses.paused_services(clock.now())] == [OTHER]

    def test_a_wrong_token_stops_all_and_the_probe_asks_about_a_service_that_may_be_asked(
        self, stand_in, make, clock
    ):
        register("w1", grace=NOW_DUE, service="wan", now=utcnow() - timedelta(hours=1))
        submit(stand_in, MINE, "m1", "m2")
        pauses.pause_account("404 no_api", clock.now(), "wan")
        pauses.pause_account("401 invalid_token", clock.now() - timedelta(minutes=1))
        stand_in.options.account_error = "invalid_token"
        reconciler = make()
        reconciler.run()
        assert [len(call.body["ids"]) for call in stand_in.calls] == [1]
        stand_in.options.account_error = None
        pauses.probe_at_once(clock.now())
        reconciler.run()
        assert asked_of(stand_in)[:2] == [MINE, MINE]
        assert (statuses()["m1"], statuses()["m2"]) == ("succeeded", "succeeded")
        assert pauses.current_pause(clock.now()) is None

    def test_the_account_is_probed_although_the_only_service_in_use_is_paused_too(
        self, stand_in, make, clock
    ):
        submit(stand_in, OTHER, "s1", "s2")
        for service in (pauses.ALL, OTHER):
            pauses.pause_account("refused", clock.now() - timedelta(minutes=1), service)
        assert make().run().settled == 2
        assert pauses.pauses_in_force(clock.now()) == []

    def test_the_give_up_clock_of_other_services_runs_on(self, ledger, clock):
        moment = clock.now()
        pauses.pause_account("disabled", moment, OTHER)
        pauses.throttle("429", timedelta(seconds=5), moment)
        assert len(pauses.pauses_since(moment, OTHER)) == 2
        assert len(pauses.pauses_since(moment, MINE)) == 1


class TestOutage:
    """A service whose calls hang holds one place, and no task of another waits for its answer."""

    def test_tasks_of_others_are_asked_about_while_its_calls_hang(self, stand_in, make, monkeypatch, clock):
        reconciler = make(RECONCILE_CONCURRENCY=2)
        ask, over = reconciler._caller.upstream.retrieve_batch, threading.Event()

        def hang_or_ask(service, ids, *rest):
            if service.name == OTHER:
                over.wait(300)
                raise UpstreamError("no answer", permanent=False)
            return ask(service, ids, *rest)

        monkeypatch.setattr(reconciler._caller.upstream, "retrieve_batch", hang_or_ask)
        over.set()
        submit(stand_in, OTHER, *(f"theirs-{number}" for number in range(150)))
        reconciler.run()  # learns that it fails
        Task.update(next_lookup_at=utcnow() - timedelta(minutes=1)).execute()
        over.clear()
        running = threading.Thread(target=reconciler.run)
        running.start()
        try:
            wait_until(lambda: Task.select().where(Task.leased_until.is_null(False)).exists())
            submit(stand_in, MINE, "mine", due_for=timedelta(minutes=1))
            wait_until(lambda: statuses()["mine"] == "succeeded")
            assert not over.is_set()
        finally:
            over.set()
            running.join(60)


class TestSuspicion:
    def test_a_service_that_refuses_everything_with_an_unknown_code_stops_itself_alone(
        self, stand_in, make, broken
    ):
        reconciler = make(RECONCILE_BATCH_SIZE=5)
        broken(reconciler)[OTHER] = unknown()
        submit(stand_in, OTHER, *(f"s{n:02}" for n in range(40)))
        submit(stand_in, MINE, *(f"m{n:02}" for n in range(40)))
        counts = reconciler.run()
        assert counts.settled == 40
        assert (Pause.get().service, Pause.get().account) == (OTHER, False)
        assert Task.select().where(Task.refused_at.is_null(False)).count() == 0
        assert Task.select().where(Task.leased_until.is_null(False), Task.service == OTHER).count() == 0

    def test_what_another_service_answers_refuses_no_id(self, stand_in, make, broken):
        reconciler = make()
        broken(reconciler)[OTHER] = unknown()
        submit(stand_in, MINE, "m1", due_for=timedelta(minutes=1))
        submit(stand_in, OTHER, "s1")
        reconciler.run()
        task = queries.find_task("s1")
        assert (statuses()["m1"], task.refused_at, task.attempts) == ("succeeded", None, 1)


class TestTurns:
    def test_a_backlog_of_one_service_keeps_no_other_waiting(self, stand_in, make):
        submit(stand_in, OTHER, *(f"s{n:02}" for n in range(60)), due_for=timedelta(hours=1))
        submit(stand_in, MINE, *(f"m{n}" for n in range(12)))
        submit(stand_in, "veo", "v1")
        make(RECONCILE_BATCH_SIZE=6).run()
        assert asked_of(stand_in)[:6] == [OTHER, MINE, "veo", OTHER, MINE, OTHER]
        assert set(statuses().values()) == {"succeeded"}

    def test_a_service_without_batches_is_asked_about_one_task_at_a_time(self, stand_in, make):
        register("d1", "d2", "d3", grace=NOW_DUE, service="digital-human")
        submit(stand_in, MINE, "m1", "m2")
        counts = make().run()
        assert [len(call.body.get("ids", [1])) for call in stand_in.calls].count(1) == 3
        assert (counts.calls, counts.due) == (4, 5)

    def test_a_service_that_cannot_be_asked_about_has_nothing_due(self, stand_in, make, clock):
        register("k1", grace=NOW_DUE, service="kickart")
        reconciler = make()
        assert not reconciler._is_due(clock.now(), None)
        assert (reconciler.run().calls, stand_in.calls) == (0, [])


class TestDiscovery:
    @pytest.fixture
    def settings(self, ledger, make_settings):
        return make_settings(RECONCILE_MAX_RATE=0, PUBLIC_URL="https://backstop.example")

    @pytest.fixture
    def discoverers(self, settings, stand_in, stop):
        return Discoverers(lambda service: make_discoverer(settings, stand_in, stop, service=service))

    @staticmethod
    def plant(stand_in, service, task_id):
        url = "https://backstop.example/callbacks/some-token/"
        record = item(task_id, None) | {"request": {"callback_url": url}, "created_at": utcnow().timestamp()}
        stand_in.add_record(record, service)

    def test_the_services_in_use_are_discovered_and_the_default_one_always(self, ledger):
        assert services_to_discover() == [DEFAULT]
        for service in ("suno", "kickart", "dreamina", "of-a-newer-version"):
            register(service, service=service)
        assert services_to_discover() == [DEFAULT, SERVICES["suno"]]

    def test_a_task_of_another_service_is_adopted_as_its_own(self, stand_in, discoverers):
        register("known", service=OTHER)
        self.plant(stand_in, OTHER, "s1")
        self.plant(stand_in, MINE, "m1")
        discover_tasks(discoverers, lambda *_: None)
        assert {task.id: task.service for task in Task.select()} == {"known": OTHER, "s1": OTHER, "m1": MINE}

    def test_one_services_pause_stops_its_discovery_alone(self, stand_in, discoverers):
        register("known", service=OTHER)
        pauses.pause_account("disabled", utcnow(), OTHER)
        self.plant(stand_in, MINE, "m1")
        discover_tasks(discoverers, lambda *_: None)
        assert set(asked_of(stand_in)) == {MINE}
        assert queries.find_task("m1") is not None

    def test_a_list_that_is_refused_pauses_its_service_and_a_later_one_probes(self, stand_in, settings, stop):
        discoverer = make_discoverer(settings, stand_in, stop, service=SERVICES["wan"])
        found = discoverer.run()  # the stand-in answers 404 no_api
        assert (found.paused_itself, Pause.get().service) == (True, "wan")
        assert "paused" in discoverer.run().error
        assert len(stand_in.calls) <= 1
        theirs = make_discoverer(settings, stand_in, stop, service=SERVICES[OTHER])
        pauses.pause_account("disabled", utcnow() - timedelta(minutes=1), OTHER)
        assert theirs.run().error is None
        assert [pause.service for pause in pauses.paused_services(utcnow())] == ["wan"]
