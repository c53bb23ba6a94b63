"""What is deleted and what never, in steps that can be stopped; the totals and the feed stay right."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from receiver.clock import utcnow
from receiver.ledger import old, pruning, store, submissions
from receiver.ledger.dealing import deal
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.models import (
    DELETED,
    Attempt,
    Delivery,
    Event,
    Forward,
    Lookup,
    Pause,
    ReconcileRun,
    Resending,
    Submission,
    Tally,
    Task,
    database,
)
from receiver.ledger.old import Old
from receiver.ledger.reading import tally
from receiver.ledger.reading.events import list_events
from receiver.ledger.reading.forwards import ForwardFilter
from receiver.ledger.reading.listing import TaskFilter
from receiver.ledger.reading.matching import count_matching
from receiver.ledger.resending import dismiss, order, resend
from receiver.ledger.submissions import Asked, State
from tests.factories import (
    DAY,
    TIMETABLE,
    body,
    create_endpoint,
    create_forward,
    failure_body,
    finished_item,
    give_up,
    item,
    look_up,
    prune,
    record,
    register,
    task,
)

pytestmark = pytest.mark.usefixtures("ledger")

NOW = utcnow()
LONG_AGO = NOW - 100 * DAY
KEPT_SINCE, TASKS_KEPT_SINCE = NOW - 30 * DAY, NOW - 90 * DAY
OLD = Old(KEPT_SINCE, TASKS_KEPT_SINCE)


def settle(*ids, at=LONG_AGO):
    """Settle tasks by callbacks that nobody doubts, and deal their events."""
    for task_id in ids:
        record(body(task_id), at)
    deal_all(at)


def expire(*ids, now=LONG_AGO):
    """Give tasks up of which upstream knows nothing."""
    register(*ids, now=now - DAY, grace=timedelta(0))
    give_up(now=now)
    assert {task(task_id).status for task_id in ids} == {"expired"}


def deal_all(at=LONG_AGO):
    while deal(at, "settled"):
        pass


def _hour(moment):
    return moment.replace(minute=0, second=0, microsecond=0)


def left():
    return {row.id for row in Task.select(Task.id)}


class TestTasks:
    def test_old_settled_ones_go_with_all_that_hangs_on_them(self):
        settle("t1")
        record(failure_body("t2"), LONG_AGO)
        register("t3", now=LONG_AGO, grace=timedelta(0))
        look_up([finished_item("t3")], LONG_AGO)
        deal_all()
        settle("young", at=NOW - 80 * DAY)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"young"}
        assert [event.task_id for event in Event.select()] == ["young"]
        assert [model.select().count() for model in (Delivery, Lookup, ReconcileRun)] == [0, 0, 0]

    def test_its_age_counts_from_its_result(self):
        register("slow", now=LONG_AGO)
        settle("slow", at=NOW - 50 * DAY)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"slow"}

    def test_without_the_setting_all_stay(self):
        settle("t1")
        prune(KEPT_SINCE)
        assert left() == {"t1"}
        assert Event.select().count() == 1

    def test_open_ones_stay(self):
        register("open", now=LONG_AGO, grace=timedelta(0))
        look_up([item("open")], LONG_AGO)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"open"}

    def test_expired_ones_go_by_the_time_when_they_were_given_up(self):
        expire("old", "asked")
        expire("young", now=NOW - 80 * DAY)
        deal_all()
        store.ask_now("asked", NOW)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"young", "asked"}
        assert {event.task_id for event in Event.select()} == {"young", "asked"}

    def test_an_expired_one_that_was_not_told_stays(self):
        expire("told")
        deal_all()
        expire("untold")
        create_forward(task_id="told", status="failed", created_at=LONG_AGO)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"told", "untold"}
        deal_all()
        Forward.update(status="dismissed").execute()
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == set()

    def test_a_result_that_comes_after_an_expired_one_is_deleted_begins_it_anew(self):
        expire("t1")
        deal_all()
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        record(body("t1"), NOW)
        assert (task().status, task().created_at, task().gave_up_at) == ("succeeded", NOW, None)

    def test_one_that_upstream_is_still_asked_about_stays(self):
        settle("t1")
        store.ask_now("t1", NOW)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"t1"}

    @pytest.mark.parametrize("is_acknowledged", [True, False])
    @pytest.mark.parametrize("kind", ["dispute", "doubt"])
    def test_one_that_is_disputed_stays_until_somebody_acknowledges_it(self, kind, is_acknowledged):
        register("t1", now=LONG_AGO, grace=timedelta(0))
        if kind == "dispute":
            look_up([finished_item("t1")], LONG_AGO)
            record(failure_body("t1"), LONG_AGO)
        else:
            record(body("t1"), LONG_AGO)
            Task.update(doubted_at=LONG_AGO).execute()
        Task.update(next_lookup_at=None, acknowledged_at=NOW if is_acknowledged else None).execute()
        deal_all()
        assert task().disputed
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == (set() if is_acknowledged else {"t1"})

    def test_one_whose_event_nobody_has_dealt_with_stays(self):
        settle("told")
        record(body("untold"), LONG_AGO)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"untold"}
        assert [event.task_id for event in Event.select()] == ["untold"]

    def test_while_too_many_events_wait_to_be_dealt_with_all_stay(self, monkeypatch):
        monkeypatch.setattr(old, "_MOST_UNREAD", 1)
        settle("told")
        record(body("untold-1"), LONG_AGO)
        record(body("untold-2"), LONG_AGO)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"told", "untold-1", "untold-2"}

    @pytest.mark.parametrize("status", ["pending", "failed", "delivered", "dismissed"])
    def test_one_with_a_forward_stays_until_that_is_delivered_or_dismissed(self, status):
        settle("t1")
        create_forward(task_id="t1", status=status, created_at=LONG_AGO)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == ({"t1"} if status in ("pending", "failed") else set())

    def test_one_with_a_young_delivery_look_up_or_forward_stays(self):
        settle("delivered", "asked", "told")
        record(body("delivered"), NOW - DAY)
        store.ask_now("asked", NOW - DAY)
        look_up([finished_item("asked")], NOW - DAY)
        create_forward(task_id="told", status="delivered", created_at=LONG_AGO, ended_at=NOW - DAY)
        deal_all()
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"delivered", "asked", "told"}

    def test_what_comes_between_the_look_and_the_lock_keeps_a_task(self):
        settle("t1")
        Delivery.delete().execute()
        kind = old._Tasks("succeeded")
        with database.connection_context():
            assert kind.find(OLD, None).ids == ["t1"]
        record(body("t1"), LONG_AGO)  # from the spool, or by a clock that is wrong
        with writing():
            assert kind.delete(OLD, ["t1"]) == 0
        assert left() == {"t1"}

    def test_one_that_is_dealt_with_during_the_look_stays(self, monkeypatch):
        def deal_meanwhile(ids):
            with ThreadPoolExecutor(1) as other:
                other.submit(deal_all).result()
            return unread(ids)

        unread = old._unread
        create_endpoint()
        record(body("t1"), LONG_AGO)
        Delivery.delete().execute()
        monkeypatch.setattr(old, "_unread", deal_meanwhile)
        with database.connection_context():
            assert old._Tasks("succeeded").find(OLD, None).ids == []
        assert Forward.get().task_id == "t1"

    def test_totals_count_the_tasks_of_the_past(self):
        settle("t1")
        settle("kept", at=NOW)
        register("missed", "disputed", now=LONG_AGO, grace=timedelta(0))
        look_up([finished_item("missed"), finished_item("disputed")], LONG_AGO)
        record(failure_body("disputed"), LONG_AGO)
        Task.update(next_lookup_at=None, acknowledged_at=NOW).where(Task.id == "disputed").execute()
        expire("expired")
        deal_all()
        before = tally.count_outcomes()
        assert (before.tasks, before.missed, before.disputed, before.expired) == (5, 1, 1, 1)
        for _ in range(2):
            prune(KEPT_SINCE, TASKS_KEPT_SINCE)
            tally.fold(NOW + DAY, NOW + DAY, NOW + DAY)
            assert left() == {"kept"}
            assert tally.count_outcomes() == before

    def test_totals_of_the_past_are_joined_from_all_connections(self):
        settle("t1")
        expire("expired")
        deal_all()
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        Tally.update(shard=7).where(Tally.hour == DELETED, Tally.status == "expired").execute()
        tally.fold(NOW + DAY, NOW + DAY, NOW + DAY)
        past = Tally.select().where(Tally.hour == DELETED).order_by(Tally.status)
        assert [(row.status, row.shard, row.tasks) for row in past] == [
            ("expired", 0, 1),
            ("succeeded", 0, 1),
        ]

    def test_counts_of_what_there_is_leave_out_the_tasks_of_the_past(self):
        record(body("t1"), LONG_AGO, service="suno")
        settle("kept", at=NOW)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == {"kept"}
        assert count_matching(TaskFilter(), NOW) == 1
        assert count_matching(TaskFilter(status="succeeded"), NOW) == 1
        assert count_matching(TaskFilter(since=_hour(NOW - DAY)), NOW) == 1
        assert tally.services_in_use() == {"midjourney"}

    def test_a_callback_for_a_deleted_one_begins_a_new_task_and_tells_it(self):
        settle("t1")
        (first,) = list_events(0, 10)
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        record(body("t1"), NOW)
        assert (task().created_at, task().delivery_count) == (NOW, 1)
        ((event, of),) = list_events(first[0].id, 10)
        assert (event.sequence, event.type, of) == (1, "task.succeeded", task())

    def test_the_feed_goes_on_from_a_cursor_among_those_that_are_deleted(self):
        create_endpoint()
        settle("t1", "t2")
        settle("t3", at=NOW)
        cursors = [0, *(event.id for event, _ in list_events(0, 10))]
        Forward.delete().execute()
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        for cursor in cursors[:3]:
            assert [event.task_id for event, _ in list_events(cursor, 10)] == ["t3"]
        settle("t4", at=NOW)
        assert [event.task_id for event, _ in list_events(cursors[3], 10)] == ["t4"]

    def test_idempotency_keys_are_kept_as_long_as_the_task(self):
        def begin(key, at):
            return submissions.begin(Asked("web", "midjourney", "imagine", key, b"", key), at)

        for key in ("old", "young"):
            begun = begin(key, LONG_AGO)
            assert begun.state is State.NEW
            submissions.accept(begun.submission, key, LONG_AGO, timetable=TIMETABLE, forward_when="settled")
        settle("old")
        settle("young", at=NOW)
        Task.update(next_lookup_at=None).execute()
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert [row.task_id for row in Submission.select()] == ["young"]
        assert (begin("old", NOW).state, begin("young", NOW).state) == (State.NEW, State.TAKEN)


class TestSteps:
    def test_it_ends_between_two_steps_and_the_next_run_goes_on(self, monkeypatch):
        monkeypatch.setattr(pruning, "STEP_SECONDS", 0)  # a chunk each
        monkeypatch.setattr(old, "_AT_ONCE", 25)
        settle(*(f"t{number}" for number in range(45)))
        stop = threading.Event()
        for step in pruning.prune(OLD, stop):
            assert step == ("deliveries", pruning._CHUNK)
            stop.set()
        assert Delivery.select().count() == 45 - pruning._CHUNK
        stop.clear()
        deleted = Counter()
        for step in pruning.prune(OLD, stop):
            assert 0 < step.deleted <= pruning._CHUNK
            deleted[step.kind] += step.deleted
        assert deleted == {"deliveries": 45 - pruning._CHUNK, "tasks": 45, "events": 45}

    def test_it_goes_on_behind_rows_that_another_process_has_deleted(self, monkeypatch):
        monkeypatch.setattr(pruning, "STEP_SECONDS", 0)
        monkeypatch.setattr(old, "_AT_ONCE", 20)
        settle(*(f"t{number}" for number in range(45)))
        ours = pruning.prune(OLD, threading.Event())
        next(ours)
        first = Delivery.select(Delivery.id).order_by(Delivery.id).limit(10)
        Delivery.delete().where(Delivery.id.in_([row.id for row in first])).execute()  # the other process
        assert next(ours).deleted == 0
        deleted = Counter()
        for step in ours:
            deleted[step.kind] += step.deleted
        assert deleted == {"deliveries": 25, "tasks": 45, "events": 45}

    @pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)  # SQLite has one writer
    def test_what_another_transaction_holds_stays_and_delays_nothing_else(self, ledger):
        settle("held", "free")
        with psycopg.connect(ledger) as other:
            other.execute("SELECT FROM delivery WHERE task_id = 'held' FOR UPDATE")
            prune(KEPT_SINCE, TASKS_KEPT_SINCE)
            assert left() == {"held"}
        prune(KEPT_SINCE, TASKS_KEPT_SINCE)
        assert left() == set()

    def test_a_pause_stays_while_a_task_is_open_that_was_waited_for_meanwhile(self):
        register("old", now=LONG_AGO)
        for days in (2, -2):  # before it was registered, and after
            at = LONG_AGO - days * DAY
            Pause.create(reason="", account=True, started_at=at, ended_at=at + DAY)
        prune(KEPT_SINCE)
        assert [row.ended_at for row in Pause.select()] == [LONG_AGO + 3 * DAY]
        settle("old", at=NOW)
        prune(KEPT_SINCE)
        assert Pause.select().count() == 0

    @pytest.mark.parametrize("registered", [True, False])
    def test_a_pause_stays_while_a_settled_task_is_asked_about(self, registered):
        if registered:
            register("old", now=LONG_AGO)
        record(body("old"), LONG_AGO, confirm=True)
        Pause.create(reason="", account=True, started_at=LONG_AGO, ended_at=LONG_AGO + DAY)
        prune(KEPT_SINCE)
        assert Pause.select().count() == 1
        Task.update(next_lookup_at=None).execute()
        prune(KEPT_SINCE)
        assert Pause.select().count() == 0

    def test_a_dry_run_counts_what_would_go_and_deletes_nothing(self):
        settle("t1", "t2", "young")
        record(body("young"), NOW)
        create_forward(task_id="t1", status="delivered", created_at=LONG_AGO)
        counted = Counter()
        for step in pruning.count_old(OLD):
            counted[step.kind] += step.deleted
        assert +counted == {"forwards": 1, "deliveries": 3, "tasks": 2}
        assert (Task.select().count(), Delivery.select().count()) == (3, 4)

    def test_each_kind_is_found_by_an_index(self):
        statements = _statements()
        with writing():
            if on_postgresql():  # the tables are too small for an index to be cheaper
                database.execute_sql("SET LOCAL enable_seqscan = off")
            for sql, parameters in statements:
                plan = " ".join(str(row) for row in database.execute_sql(f"{_explain()} {sql}", parameters))
                assert "Seq Scan" not in plan, plan
                assert on_postgresql() or "SCAN" not in plan, plan


def _explain():
    return "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"


def _statements():
    """Return the statements of a look at each kind of which there may be many."""
    said = []
    execute = database.obj.execute_sql

    def note(sql, params=None, **options):
        said.append((sql, params))
        return execute(sql, params, **options)

    few = {"resendings"}
    settle("t1")
    expire("t2")
    for status in ("delivered", "resent"):
        create_forward(status=status, created_at=LONG_AGO)
    with pytest.MonkeyPatch.context() as patched, database.connection_context():
        patched.setattr(database.obj, "execute_sql", note)
        for kind in old.kinds_of(OLD):
            if kind.name not in few:
                kind.find(OLD, (LONG_AGO, 0) if isinstance(kind, old._Dated) else None)
    return [(sql, parameters) for sql, parameters in said if "(0 = 1)" not in sql]  # of no rows at all


class TestPruneForwards:
    def test_only_what_was_delivered_or_dismissed_long_ago_is_deleted(self, ledger, monkeypatch):
        monkeypatch.setattr(old, "_AT_ONCE", 2)
        now = utcnow()
        long_ago, lately = now - timedelta(days=40), now - timedelta(days=20)
        kept = []
        for status in ("pending", "delivered", "failed", "dismissed"):
            for _ in range(5):
                gone = create_forward(status=status, created_at=long_ago)
                Attempt.create(
                    forward=gone, began_at=long_ago, took=1, url="", headers="{}", kind="refused", answer=b""
                )
                if status in ("pending", "failed"):
                    kept.append(gone.id)
                # Made long ago and delivered lately, after a long outage.
                kept.append(create_forward(status=status, created_at=long_ago, ended_at=lately).id)
                kept.append(create_forward(status=status, created_at=lately).id)
        assert prune(now - timedelta(days=30)) == 10
        assert {row.id for row in Forward.select()} == set(kept)
        assert Attempt.select().count() == 10

    def test_a_failed_one_goes_with_what_made_up_for_it(self, ledger):
        now = utcnow()
        days = [now - timedelta(days=ago) for ago in (50, 45, 40)]
        first = create_forward(status="failed", created_at=days[0]).id
        second = resend(first, days[1])
        Forward.update(status="failed", ended_at=days[1]).where(Forward.id == second).execute()
        third = resend(first, days[2])
        assert prune(now - timedelta(days=30)) == 0
        Forward.update(status="delivered", ended_at=days[2]).where(Forward.id == third).execute()
        prune(now - timedelta(days=30))
        assert Forward.select().count() == 0

    @pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)  # SQLite has one writer
    def test_one_that_is_just_being_sent_again_is_not_waited_for(self, ledger):
        long_ago = utcnow() - timedelta(days=50)
        first = create_forward(status="failed", created_at=long_ago).id
        again = resend(first, long_ago)
        Forward.update(status="delivered", ended_at=long_ago).where(Forward.id == again).execute()
        with psycopg.connect(ledger) as other:
            other.execute("SELECT FROM forward WHERE id = %s FOR UPDATE", [first])
            assert prune(utcnow() - timedelta(days=30)) == 1
            assert [row.id for row in Forward.select()] == [first]
        assert prune(utcnow() - timedelta(days=30)) == 1

    @pytest.mark.parametrize("is_dismissed", [True, False])
    def test_one_that_was_sent_again_in_vain_stays(self, ledger, is_dismissed):
        now = utcnow()
        long_ago = now - timedelta(days=50)
        first = create_forward(status="failed", created_at=long_ago).id
        second = resend(first, long_ago)
        Forward.update(status="failed", ended_at=long_ago).where(Forward.id == second).execute()
        if is_dismissed:
            dismiss(second, long_ago)
        prune(now - timedelta(days=30))
        assert Forward.select().count() == (0 if is_dismissed else 2)

    def test_resendings_that_ended_long_ago_are_deleted(self, ledger):
        now = utcnow()
        create_forward(status="failed")
        order(ForwardFilter(status="failed"), 1, now - timedelta(days=50))
        order(ForwardFilter(status="dismissed"), 1, now - timedelta(days=50))
        order(ForwardFilter(status="dismissed"), 1, now)
        assert prune(now - timedelta(days=30)) == 1
        assert [one.id for one in Resending.select().order_by(Resending.id)] == [1, 3]
