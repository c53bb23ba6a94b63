import threading
from datetime import timedelta

import psycopg
import pytest
from peewee import IntegrityError, OperationalError

from receiver.clock import to_unix, utcnow
from receiver.ledger import record as record_module
from receiver.ledger import store
from receiver.ledger.engine.statements import Statement
from receiver.ledger.evidence import ABSENT, Answer, Discovered
from receiver.ledger.models import Delivery, Lookup, ReconcileRun, Task, database
from receiver.ledger.outbox import events_after
from receiver.ledger.reading import queries, tally
from receiver.ledger.timetable import APART
from receiver.upstream import services
from receiver.upstream.results import read_item
from tests.factories import (
    DAY,
    GRACE,
    TIMETABLE,
    apply,
    body,
    claim,
    failed_item,
    failure_body,
    finished_item,
    give_up,
    item,
    look_up,
    progress_body,
    prune,
    record,
    register,
    task,
)

pytestmark = pytest.mark.usefixtures("ledger")

NOW = utcnow()
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class TestRecord:
    def test_it_creates_a_task_that_nobody_registered(self):
        assert record(body(), ref="order-7") == store.Recorded("t1", "succeeded")
        assert (task().status, task().settled_by, task().ref) == ("succeeded", "callback", "order-7")
        assert task().registered_at is None

    def test_it_keeps_the_bytes_as_they_came(self):
        raw = b' {"task_id":"t1" ,\n"a":NaN, "task_id":"t1"}\r\n'
        record(raw, remote_addr="192.0.2.1", headers=[("X-A", "1")])
        row = Delivery.get()
        assert (bytes(row.body), row.size, row.remote_addr, row.headers) == (
            raw,
            len(raw),
            "192.0.2.1",
            '[["X-A", "1"]]',
        )

    def test_it_keeps_what_it_cannot_read_and_touches_no_task(self):
        recorded = record(b"\xff", ref="a\0b\ud800")
        assert (recorded.task_id, recorded.problem and recorded.problem.code) == (None, "bad_utf8")
        row = Delivery.get()
        assert (bytes(row.body), row.verdict, row.task_id, row.ref) == (
            b"\xff",
            "unreadable",
            None,
            "a\ufffdb?",
        )
        assert "bad_utf8" in row.problem
        assert Task.select().count() == 0

    def test_progress_does_not_settle_and_puts_the_look_up_off(self):
        register("t1", now=NOW)
        record(progress_body(progress=40), NOW + MINUTE)
        assert (task().status, task().progress) == ("pending", 40)
        assert task().next_lookup_at == NOW + MINUTE + GRACE

    def test_a_repetition_is_kept_and_marked_and_changes_nothing(self):
        for wait in range(3):
            record(body(), NOW + wait * SECOND)
        assert [row.duplicate for row in queries.deliveries_of("t1")] == [True, True, False]
        assert (task().settled_at, task().delivery_count) == (NOW, 3)

    def test_a_repetition_does_not_hurry_a_confirmation_that_is_waiting(self):
        record(body(), NOW, confirm=True)
        look_up([item()], NOW)
        waiting = task()
        record(body(), NOW + SECOND, confirm=True)
        assert (task().next_lookup_at, task().attempts) == (waiting.next_lookup_at, 1)

    def test_progress_after_the_end_changes_nothing(self):
        record(body(progress=100), NOW)
        assert record(progress_body(progress=60), NOW + SECOND).status == "succeeded"
        assert (task().progress, task().next_lookup_at, task().settled_at) == (100, None, NOW)

    def test_a_success_beats_a_failure_whichever_comes_first(self):
        for task_id, bodies in {
            "a": (body("a"), failure_body("a")),
            "b": (failure_body("b"), body("b")),
        }.items():
            for raw in bodies:
                record(raw)
            assert (task(task_id).status, task(task_id).error) == ("succeeded", None)

    def test_a_settled_task_is_due_for_confirmation_when_asked_to_confirm(self):
        record(body("t1"), NOW, confirm=True)
        record(body("t2"), NOW, confirm=False)
        assert (task("t1").next_lookup_at, task("t2").next_lookup_at) == (NOW, None)

    def test_a_delivery_is_kept_once_whichever_way_it_comes(self):
        callback = store.Callback(body=body(), size=len(body()))
        for _ in range(2):
            store.record(callback, NOW, timetable=TIMETABLE, confirm=False)
        assert (Delivery.select().count(), task().delivery_count) == (1, 1)

    def test_deliveries_are_taken_however_many_were_kept_before(self):
        # On one connection, where a failure must leave nothing behind that spoils the next.
        kept = store.Callback(body=body("t1"), size=len(body("t1")))
        for n, again in enumerate([kept] * 3 + [None] + [kept] * 6 + [None, None, *[kept] * 9, None]):
            callback = again or store.Callback(body=body(f"n{n}"), size=len(body(f"n{n}")))
            store.record(callback, NOW, timetable=TIMETABLE, confirm=False)
        assert Delivery.select().count() == Task.select().count() == 5

    def test_simultaneous_deliveries_for_one_task_all_arrive(self):
        bodies = [progress_body(progress=p) for p in range(1, 20)] + [body(progress=100)] * 5
        threads = [threading.Thread(target=record, args=(raw,)) for raw in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (task().status, task().progress, task().delivery_count) == ("succeeded", 100, 24)
        assert Delivery.select().count() == 24
        assert sum(row.duplicate for row in queries.deliveries_of("t1")) == 4

    def test_a_failure_in_the_middle_leaves_neither_delivery_nor_task(self, monkeypatch):
        broken = Statement(lambda rows: Delivery.insert_many([{**row, "received_at": None} for row in rows]))
        monkeypatch.setattr(record_module, "_insert_deliveries", broken)
        with pytest.raises(IntegrityError):
            record(body())
        assert database.is_closed()
        assert (Task.select().count(), Delivery.select().count()) == (0, 0)

    @pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)  # SQLite locks no rows
    def test_callbacks_do_not_wait_for_a_task_that_somebody_has_locked(self, ledger):
        register("locked")
        outcomes = {}

        def call(task_id):
            try:
                outcomes[task_id] = record(body(task_id)).status
            except OperationalError as problem:
                outcomes[task_id] = str(problem)

        with psycopg.connect(ledger) as other:
            other.execute("SELECT * FROM task WHERE id = 'locked' FOR UPDATE")
            threads = [threading.Thread(target=call, args=(i,)) for i in ("locked", "a", "b", "c")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert "lock timeout" in outcomes.pop("locked")
        assert outcomes == dict.fromkeys("abc", "succeeded")

    def test_registering_and_recording_the_same_tasks_at_once_never_deadlocks(self):
        problems = []

        def work(write):
            try:
                for n in range(30):
                    write(n)
            except OperationalError as problem:
                problems.append(problem)

        def register_some(n):
            register(*(f"task-{n:02}-{k}" for k in range(5)))

        writers = [register_some] * 3 + [lambda n, k=k: record(body(f"task-{n:02}-{k}")) for k in range(5)]
        threads = [threading.Thread(target=work, args=(write,)) for write in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert Task.select().where(Task.status == "succeeded").count() == 150


class TestRegister:
    def test_it_counts_the_new_ones(self):
        assert register("a", "b", "a", now=NOW) == 2
        assert register("b", "c", now=NOW) == 1
        assert register("a", "c", now=NOW) == 0

    def test_a_task_known_under_another_service_is_refused_and_so_are_all_with_it(self, other_service):
        register("t1", service=other_service)
        with pytest.raises(store.OtherService, match=f"'t1' belongs to the service {other_service}"):
            register("t0", "t1", "t2")
        assert [(known.id, known.service) for known in Task.select()] == [("t1", other_service)]

    def test_it_tells_the_service_of_a_task_that_only_a_callback_has_named(self, other_service):
        record(body(), NOW)
        register("t1", now=NOW, service=other_service)
        assert (task().service, task().status) == (other_service, "succeeded")

    def test_it_overrules_the_service_that_a_callback_url_names(self, other_service):
        record(body(), NOW, service="suno")
        assert task().service == "suno"
        register("t1", now=NOW, service=other_service)
        record(body(), NOW, service="suno")
        assert task().service == other_service

    def test_a_callback_url_names_the_service_of_a_task_that_has_none_yet(self):
        record(progress_body(), NOW)
        assert (task().service, task().service_is_assumed) == ("midjourney", True)
        record(body(), NOW, service="suno")
        record(body(), NOW, service="veo")
        assert (task().service, task().service_is_assumed) == ("suno", False)

    def test_upstream_overrules_a_callback_url_only_by_an_item(self, other_service):
        record(body(), NOW, confirm=True, service="suno")
        look_up([], NOW)
        assert task().service == "suno"
        look_up([finished_item()], NOW + timedelta(minutes=5))
        with pytest.raises(store.OtherService):
            register("t1", now=NOW, service=other_service)

    def test_a_callback_and_a_look_up_leave_the_service(self, other_service):
        register("t1", now=NOW, grace=timedelta(0), service=other_service)
        look_up([finished_item()], NOW)
        record(body(), NOW)
        assert task().service == other_service

    def test_its_first_look_up_comes_after_the_grace(self):
        register("t1", now=NOW)
        assert task().next_lookup_at == NOW + GRACE
        assert (claim(NOW + GRACE - SECOND).ids, claim(NOW + GRACE).ids) == ([], ["t1"])

    def test_repeating_it_changes_nothing_but_fills_what_was_empty(self):
        register("t1", now=NOW, type="imagine")
        register("t1", now=NOW + MINUTE, type="imagine", ref="order-7", submitted_at=NOW - MINUTE)
        known = task()
        assert (known.type, known.ref, known.submitted_at) == ("imagine", "order-7", NOW - MINUTE)
        assert (known.registered_at, known.created_at, known.next_lookup_at) == (NOW, NOW, NOW + GRACE)

    def test_a_registration_after_the_callback_leaves_the_result(self):
        record(body(trace_id="from-callback"), NOW, ref="from-callback")
        register("t1", now=NOW + MINUTE, ref="from-caller")
        known = task()
        assert (known.status, known.settled_by, known.next_lookup_at) == ("succeeded", "callback", None)
        assert (known.ref, known.trace_id, known.registered_at) == (
            "from-caller",
            "from-callback",
            NOW + MINUTE,
        )

    def test_many_at_once(self):
        assert register(*(f"task-{n}" for n in range(1000))) == 1000
        assert register(*(f"task-{n}" for n in range(1000))) == 0

    def test_simultaneous_registrations_of_the_same_tasks_do_not_hurt(self):
        ids = [f"task-{n}" for n in range(1000)]  # more than one statement takes
        created: list[int] = []
        threads = [
            threading.Thread(target=lambda order: created.append(register(*order)), args=(ids[::step],))
            for step in (1, -1, 1, -1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(created) == 1000


class TestAdopt:
    def adopt(self, *items, ref=None):
        return store.adopt(
            [Discovered(read_item(one), services.DEFAULT.name, ref) for one in items],
            NOW,
            timetable=TIMETABLE,
        )

    def test_it_takes_in_what_is_new_and_counts_it(self):
        register("known", now=NOW - MINUTE)
        assert self.adopt(finished_item("b"), finished_item("known"), item("a")) == 2
        assert self.adopt(finished_item("b"), item("a")) == 0
        assert (task("a").status, task("a").next_lookup_at, task("a").lookup_count) == (
            "pending",
            NOW + APART,
            1,
        )
        assert (task("b").status, task("b").settled_at, task("b").next_lookup_at) == ("succeeded", NOW, None)
        assert (task("known").status, task("known").created_at) == ("pending", NOW - MINUTE)
        assert sorted((row.task_id, row.verdict, row.run_id) for row in Lookup.select()) == [
            ("a", "pending", None),
            ("b", "succeeded", None),
        ]

    def test_nothing_to_adopt_is_no_trouble(self):
        assert self.adopt() == 0

    def test_of_several_items_of_one_task_the_one_that_says_most_counts(self):
        running = item("t1", {"success": True, "progress": 40})
        assert self.adopt(finished_item("t1"), running) == 1
        assert task().status == "succeeded"

    def test_more_than_a_statement_takes(self):
        assert self.adopt(*(finished_item(f"task-{n}") for n in range(1200))) == 1200

    def test_a_registration_afterwards_knows_better(self):
        self.adopt(item("t1", type="edits"), ref="in-the-url")
        assert (task().ref, task().registered_at) == ("in-the-url", None)
        register("t1", ref="registered", type="imagine")
        assert (task().ref, task().type) == ("registered", "imagine")

    @pytest.mark.parametrize(("ref", "kept"), [("", None), ("x" * 201, None), ("a\0b", None), ("a/b", "a/b")])
    def test_a_ref_that_no_database_can_hold_is_none(self, ref, kept):
        self.adopt(item("t1"), ref=ref)
        assert task().ref == kept

    def test_a_callback_afterwards_confirms_and_is_not_missed(self):
        self.adopt(finished_item("t1"))
        assert record(body("t1"), now=NOW, confirm=True).status == "succeeded"
        assert (task().settled_by, task().confirmed, task().next_lookup_at) == ("lookup", True, None)
        assert tally.count_outcomes().missed == 0

    def test_a_look_up_goes_on_from_it(self):
        self.adopt(item("t1"))
        assert look_up([finished_item("t1")], now=NOW + GRACE) == 1
        assert (task().status, task().lookup_count) == ("succeeded", 2)

    def test_adopting_and_registering_at_once_do_not_hurt(self):
        names = [f"task-{n:03}" for n in range(200)]
        items, created = [finished_item(name) for name in names], []
        work = [lambda: self.adopt(*reversed(items)), lambda: register(*names)] * 4
        threads = [threading.Thread(target=lambda one=one: created.append(one())) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(created), sum(created), Task.select().count()) == (8, 200, 200)


class TestApply:
    def test_a_final_answer_settles(self):
        register("t1", "t2", now=NOW, grace=timedelta(0))
        assert look_up([finished_item("t1", request={"prompt": "p"}), failed_item("t2")], NOW) == 2
        one, two = task("t1"), task("t2")
        assert (one.status, one.settled_by, one.settled_at, one.prompt) == ("succeeded", "lookup", NOW, "p")
        assert (two.status, two.confirmed, two.next_lookup_at) == ("failed", True, None)
        assert "bad_request" in (two.error or "")
        assert {(row.task_id, row.verdict) for row in Lookup.select()} == {
            ("t1", "succeeded"),
            ("t2", "failed"),
        }

    def test_it_counts_what_it_has_settled_itself(self):
        register("t1", "t2", now=NOW, grace=timedelta(0))
        assert look_up([finished_item("t1")], NOW) == 1
        record(body("t2"), NOW, confirm=True)
        for task_id in ("t1", "t2"):
            store.ask_now(task_id, NOW)
        assert look_up([finished_item("t1"), failed_item("t2")], NOW) == 1
        store.ask_now("t2", NOW)
        assert look_up([failed_item("t2")], NOW) == 0

    def test_a_running_task_waits_for_the_backoff(self):
        register("t1", now=NOW, grace=timedelta(0))
        asked: list[int] = []
        backoff = lambda task, _: asked.append(task.attempts) or MINUTE  # noqa: E731 - a recorder
        for _ in range(3):
            look_up([item()], task().next_lookup_at, backoff=backoff)
        assert asked == [0, 1, 2]
        assert (task().status, task().lookup_count, task().last_lookup_error) == ("pending", 3, None)

    def test_an_absent_task_says_so(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([], NOW)
        assert (task().last_lookup_error, task().next_lookup_at) == (
            ABSENT,
            NOW + timedelta(seconds=30),
        )
        assert Lookup.get().verdict == "absent"

    def test_silence_ends_in_expired_once_upstream_has_answered_too_late(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([item()], NOW + DAY - SECOND)
        assert task().status == "pending"
        ended_at = give_up([item()], NOW + 2 * DAY)
        assert (task().status, task().gave_up_at, task().next_lookup_at) == ("expired", ended_at, None)

    def test_one_late_answer_does_not_give_a_task_up(self):
        """The reconciler may just have come back after a long absence, or its clock may be wrong."""
        register("t1", now=NOW, grace=timedelta(0))
        for n in range(2):
            look_up([], NOW + 2 * DAY + n * 5 * MINUTE)
            assert (task().status, task().gave_up_at) == ("pending", None)
        assert task().next_lookup_at == NOW + 2 * DAY + 10 * MINUTE
        look_up([], NOW + 2 * DAY + 10 * MINUTE)
        assert task().status == "expired"

    def test_a_clock_that_was_ahead_leaves_no_late_answers_behind(self):
        register("t1", now=NOW, grace=timedelta(0))
        for n in range(2):
            look_up([], NOW + 2 * DAY + n * 5 * MINUTE)
        Task.update(next_lookup_at=NOW + HOUR).execute()
        look_up([], NOW + HOUR)
        look_up([], NOW + 2 * DAY)
        assert task().status == "pending"

    def test_nothing_is_given_up_while_the_clock_is_not_steady(self):
        register("t1", now=NOW, grace=timedelta(0))
        unsteady_until = give_up([], NOW + 2 * DAY, clock_is_steady=False)
        assert (task().status, task().gave_up_at) == ("pending", None)
        look_up([], unsteady_until + 5 * MINUTE)
        assert task().status == "expired"

    def test_what_a_clock_that_was_behind_has_dated_waits_as_long_as_other_tasks(self):
        register("t1", now=NOW - timedelta(days=2500), grace=timedelta(0))
        running = item("t1", created_at=to_unix(NOW))
        give_up([running], NOW + HOUR)
        assert task().status == "pending"
        give_up([running], NOW + timedelta(days=1))
        assert task().status == "expired"

    def test_upstreams_errors_never_expire_a_task(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([], NOW + 9 * DAY, error="upstream answered 500")
        assert (task().status, task().last_lookup_error) == ("pending", "upstream answered 500")
        assert task().next_lookup_at == NOW + 9 * DAY + timedelta(seconds=30)

    def test_after_an_error_of_upstreams_no_task_waits_an_hour(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([], NOW, error="upstream answered 500", backoff=lambda *_: HOUR)
        assert task().next_lookup_at == NOW + 2 * MINUTE

    @pytest.mark.parametrize("late", [body(), None])
    def test_a_late_result_settles_an_expired_task(self, late):
        register("t1", now=NOW, grace=timedelta(0))
        give_up([], NOW + 2 * DAY)
        if late:
            record(late, NOW + 3 * DAY)
        else:
            store.ask_now("t1", NOW + 3 * DAY)
            look_up([finished_item()], NOW + 3 * DAY)
        assert (task().status, task().settled_at) == ("succeeded", NOW + 3 * DAY)

    @pytest.mark.parametrize("is_still_known", [True, False])
    def test_a_task_given_up_with_a_result_in_hand_is_succeeded(self, is_still_known):
        register("t1", now=NOW)
        song = item("t1", {"success": True, "data": [{"state": "pending", "audio_url": "https://x/1.mp3"}]})
        look_up([song], NOW + HOUR)
        assert task().status == "pending"
        ended_at = give_up([song] if is_still_known else [], NOW + 2 * DAY)
        found = task()
        assert (found.status, found.settled_by, found.settled_at) == ("succeeded", "lookup", ended_at)
        assert (found.gave_up_at, found.next_lookup_at) == (None, None)
        assert "1.mp3" in found.lookup_response

    def test_so_is_one_whose_result_only_a_callback_has_told_and_it_is_not_confirmed(self):
        record(b'{"task_id": "t1", "image_url": "https://x/1.png"}', NOW, confirm=True)
        record(progress_body("t2", progress=40), NOW, confirm=True)
        assert task().status == "pending"
        ended_at = give_up([], NOW + 2 * DAY)
        found = task()
        assert (found.status, found.settled_by, found.confirmed) == ("succeeded", "callback", None)
        assert (found.settled_at, found.next_lookup_at) == (ended_at, None)
        assert task("t2").status == "expired"

    @pytest.mark.parametrize("more", [{"error": "hiccup"}, {"progress": 42}])
    def test_a_picture_that_is_not_final_is_no_result_in_hand(self, more):
        register("t1", now=NOW)
        give_up([item("t1", {"image_url": "https://x/1.png", **more})], NOW + 2 * DAY)
        give_up([item("t1", {"image_url": "https://x/1.png", **more})], NOW + 4 * DAY)
        assert task().status == "expired"

    def test_progress_restarts_the_give_up_clock(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([item("t1", {"progress": 10})], NOW + 2 * DAY)
        assert (task().status, task().progress) == ("pending", 10)
        give_up([item("t1", {"progress": 10})], NOW + 4 * DAY)
        assert task().status == "expired"

    def test_progress_that_a_look_up_sees_restarts_the_backoff(self):
        register("t1", now=NOW, grace=timedelta(0))
        waits = []
        for progress in (None, None, 10, 10, 20):
            asked_at = task().next_lookup_at
            look_up(
                [item("t1", {"progress": progress})],
                asked_at,
                backoff=lambda task, _: 2**task.attempts * MINUTE,
            )
            waits.append((task().next_lookup_at - asked_at) // MINUTE)
        assert waits == [1, 2, 1, 2, 1]

    def test_progress_of_zero_restarts_it_only_once(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([item("t1", {"progress": 0})], NOW + 2 * DAY)
        give_up([item("t1", {"progress": 0})], NOW + 4 * DAY)
        assert task().status == "expired"

    def test_progress_of_an_expired_task_makes_it_due_again(self):
        register("t1", now=NOW, grace=timedelta(0))
        give_up([], NOW + 2 * DAY)
        record(progress_body(), NOW + 3 * DAY)
        look_up([finished_item()], NOW + 3 * DAY + GRACE)
        assert task().status == "succeeded"

    def test_a_final_look_up_beats_any_callback(self):
        record(body(), NOW, confirm=True)
        look_up([failed_item()], NOW + SECOND)
        assert (task().status, task().settled_by, task().settled_at) == ("failed", "lookup", NOW + SECOND)
        assert (task().confirmed, task().disputed) == (False, True)
        record(body(progress=100), NOW + MINUTE, confirm=True)
        assert (task().status, task().next_lookup_at) == ("failed", None)

    def test_a_final_callback_that_contradicts_upstream_makes_the_task_due_once_more(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([failed_item()], NOW)
        assert task().next_lookup_at is None
        record(body(), NOW + MINUTE)
        assert (task().status, task().next_lookup_at) == ("failed", NOW + MINUTE)
        look_up([finished_item()], NOW + MINUTE)
        assert (task().status, task().disputed, task().next_lookup_at) == ("succeeded", False, None)

    def test_upstream_that_stays_with_its_answer_is_not_asked_again_however_many_callbacks_come(self):
        register("t1", now=NOW, grace=timedelta(0))
        look_up([failed_item()], NOW)
        asked = 0
        for n in range(20):
            record(body(image_url=f"https://x/{n}.png"), NOW + MINUTE, confirm=True)
            asked += len(claim(NOW + MINUTE).ids)
            Task.update(next_lookup_at=None, leased_until=None).execute()
        assert asked == 1
        assert (task().status, task().disputed) == ("failed", True)

    def test_a_callback_that_contradicts_an_earlier_one_makes_a_task_due_that_nobody_asks_about(self):
        register("t1", now=NOW)
        record(body("t1"), NOW, confirm=True)  # it may be forged
        look_up([item("t1")], NOW)
        later = give_up([item("t1")], NOW + 2 * DAY)  # upstream is still at work
        assert (task().status, task().next_lookup_at) == ("succeeded", None)
        record(body("t1"), later + MINUTE, confirm=True)
        assert task().next_lookup_at is None  # it only repeats
        record(failure_body("t1"), later + HOUR, confirm=True)
        assert (task().status, task().next_lookup_at) == ("succeeded", later + HOUR)
        look_up([failed_item("t1")], later + HOUR)
        assert (task().status, task().confirmed, task().disputed) == ("failed", False, True)

    def test_a_contradiction_that_comes_while_upstream_is_asked_is_asked_about_too(self):
        register("t1", now=NOW, grace=timedelta(0))
        asked = claim(NOW)
        record(body(), NOW + SECOND, confirm=True)
        apply(asked, {"t1": Answer(read_item(failed_item()))}, NOW + 2 * SECOND)
        assert (task().status, task().next_lookup_at) == ("failed", NOW + SECOND)
        look_up([failed_item()], NOW + 3 * SECOND)
        assert task().next_lookup_at is None

    def test_an_id_that_upstream_refuses_counts_as_absent_and_expires_with_the_error(self):
        register("t1", now=NOW, grace=timedelta(0))
        refused = Answer(error="upstream answered 400 bad_request: no such id", refused=True)
        hour = {"backoff": lambda *_: HOUR}
        apply(claim(NOW), {"t1": refused}, NOW, **hour)
        assert (task().next_lookup_at, task().refused_at) == (NOW + HOUR, NOW)
        now = NOW + 2 * DAY
        while task().next_lookup_at:
            apply(claim(now), {"t1": refused}, now, **hour)
            now += 5 * MINUTE
        assert (task().status, task().last_lookup_error) == ("expired", refused.error)
        assert {lookup.verdict for lookup in Lookup.select()} == {"absent"}

    def test_refused_ids_and_such_as_only_callbacks_name_never_share_a_claim_with_known_tasks(self):
        register("known", "refused", now=NOW, grace=timedelta(0))
        refused = Answer(error="upstream answered 400 bad_request: no such id", refused=True)
        answers = {"refused": refused, "known": Answer(read_item(item("known")))}
        apply(claim(NOW), answers, NOW)
        record(progress_body("named"), NOW - GRACE)
        later = NOW + MINUTE
        assert store.claim(later, limit=9, lease=MINUTE).ids == ["known"]
        doubtful = store.claim(later, limit=9, lease=MINUTE, doubtful=True)
        assert sorted(doubtful.ids) == ["named", "refused"]
        apply(doubtful, {i: Answer(read_item(item(i))) for i in doubtful.ids}, later)
        after = store.claim(later + MINUTE, limit=9, lease=MINUTE)
        assert sorted(after.ids) == ["known", "named", "refused"]  # upstream knows them all by now

    def test_a_look_up_that_agrees_confirms_and_leaves_who_settled_it(self):
        record(body(), NOW, confirm=True)
        assert task().confirmed is None
        assert look_up([finished_item()], NOW + SECOND) == 0
        assert (task().settled_by, task().settled_at, task().confirmed) == ("callback", NOW, True)

    def test_a_late_apply_does_not_disturb_who_timed_the_task_since(self):
        register("t1", now=NOW, grace=timedelta(0))
        stale = claim(NOW)
        assert claim(NOW + 5 * MINUTE).ids == ["t1"]
        answers = {"t1": Answer(error=ABSENT)}
        apply(stale, answers, NOW + 9 * DAY)
        assert (task().next_lookup_at, task().status) == (NOW + 7 * MINUTE, "pending")

    def test_asking_now_during_a_look_up_asks_once_more(self):
        register("t1", now=NOW, grace=timedelta(0))
        claimed = claim(NOW)
        store.ask_now("t1", NOW + SECOND)
        answers = {"t1": Answer(error=ABSENT)}
        apply(claimed, answers, NOW + SECOND)
        assert claim(NOW + SECOND).ids == ["t1"]


class TestLookupRows:
    def rows(self) -> list[tuple[str, str | None]]:
        return [(row.verdict, row.error) for row in Lookup.select().order_by(Lookup.id)]

    def test_a_look_up_that_brings_nothing_new_leaves_no_row_and_is_counted(self):
        register("t1", now=NOW, grace=timedelta(0))
        for n in range(3):
            look_up([item("t1")], NOW + n * MINUTE)
        assert self.rows() == [("pending", None)]
        assert (task().lookup_count, task().looked_at) == (3, NOW + 2 * MINUTE)

    def test_progress_errors_absence_and_results_leave_one(self):
        register("t1", now=NOW, grace=timedelta(0))
        answers = (
            *([item("t1")], [item("t1", {"progress": 10})], [item("t1", {"progress": 20})]),
            *([], [], [item("t1", {"progress": 20})], [finished_item("t1")]),
        )
        for n, items in enumerate(answers):
            look_up(items, NOW + n * HOUR)
        look_up([], NOW + DAY, error="500")
        assert [verdict for verdict, _ in self.rows()] == [
            *("pending", "pending", "pending", "absent", "pending", "succeeded"),
        ]

    def test_an_error_is_kept_when_it_begins_and_when_it_ends(self):
        register("t1", now=NOW, grace=timedelta(0))
        for n, error in enumerate(("500", "500", None, "500")):
            look_up([] if error else [item("t1")], NOW + n * HOUR, error=error)
        assert self.rows() == [("error", "500"), ("pending", None), ("error", "500")]


class TestPrune:
    def test_it_deletes_what_is_old_and_keeps_tasks_and_their_events(self):
        for age in (40 * DAY, DAY):
            record(body("settled"), NOW - age)
            register(f"silent-{age.days}", now=NOW - age, grace=timedelta(0))
            look_up([], NOW - age)
        assert prune(NOW - 30 * DAY) == 3
        assert [model.select().count() for model in (Delivery, Lookup, ReconcileRun, Task)] == [1, 1, 1, 3]
        assert [event.happened_at for event in events_after(0, 10)] == [NOW - 40 * DAY]


def test_a_sign_of_life_from_the_future_holds_up_no_give_up_clock():
    record(body(), NOW + 12 * HOUR)  # by a clock that was ahead
    assert task().silent_since == NOW + 12 * HOUR
    store.ask_now("t1", NOW)
    look_up([], NOW)
    assert task().silent_since == NOW
