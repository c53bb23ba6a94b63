"""Upgrades of a ledger with data in it, on both databases."""

from datetime import timedelta

import pytest
from playhouse.migrations import Runner

from receiver.clock import utcnow
from receiver.ledger.engine import schema
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import Delivery, Event, LearnedPace, Lookup, ReconcileRun, Task, database
from receiver.ledger.paces import learn
from receiver.ledger.reading import tally
from receiver.ledger.unclear import known_as_submitted
from tests import old_ledgers
from tests.factories import body, finished_item, look_up, record, register

NOW = utcnow()
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def test_a_ledger_from_before_is_learned_from_by_its_events(empty_url):
    init_database(empty_url)
    times = {"created_at": NOW - HOUR, "silent_since": NOW - HOUR, "submitted_at": NOW - HOUR}
    with database.connection_context():
        Runner(database.obj, directory=str(schema._MIGRATIONS)).up("0011_events")
        for n in range(3):
            Task.insert(id=f"t{n}", service="midjourney", type="imagine", **times).execute()
        done = {"status": "succeeded", "settled_by": "callback", "settled_at": NOW - HOUR + MINUTE}
        Task.update(**done).where(Task.id != "t2").execute()
    assert migrate()[0] == "0012_triggers_by_statement"
    record(body("t2"), NOW - MINUTE)
    assert learn(NOW) == 3
    kinds = {(row.service, row.type, row.mode) for row in LearnedPace.select()}
    assert kinds == {("midjourney", "imagine", ""), ("midjourney", "", "")}
    outcomes = tally.count_outcomes()
    assert (outcomes.tasks, outcomes.succeeded, outcomes.by_callback) == (3, 3, 3)
    database.obj.close_all()


def test_runs_and_submissions_from_before_0025_stay_as_they_are(empty_url):
    init_database(empty_url)
    with database.connection_context():
        Runner(database.obj, directory=str(schema._MIGRATIONS)).up("0024_rereading")
        old_ledgers.insert("reconcile_run", {"reconciler": "old:1", "started_at": NOW})
        sent = {"sent_at": NOW, "leased_until": NOW, "digest": b"d", "trace_id": "t"}
        whose = {"api_key": "default", "service": "midjourney", "type": "imagine"}
        old_ledgers.insert("submission", {**whose, **sent, "task_id": "t1"})
        old_ledgers.insert("submission", {**whose, **sent, "task_id": None})
    assert migrate() == ["0025_clock_and_submitted"]
    assert [(run.reconciler, run.clock_ahead) for run in ReconcileRun.select()] == [("old:1", None)]
    assert known_as_submitted(["t1", "t2"]) == {"t1"}
    with database.connection_context():  # as a process of the version before still does
        old_ledgers.insert("reconcile_run", {"reconciler": "old:2", "started_at": NOW})
    database.obj.close_all()


@pytest.mark.direct
@pytest.mark.parametrize("schema", old_ledgers.ALL[:-1])
def test_a_ledger_of_each_earlier_schema_keeps_its_rows_and_goes_on(empty_url, schema):
    init_database(empty_url)
    rows = old_ledgers.make(schema)
    assert migrate() == old_ledgers.ALL[old_ledgers.ALL.index(schema) + 1 :]
    counts = {model: model.select().count() for model in (Task, Delivery, Lookup, ReconcileRun)}
    assert {model._meta.table_name: number for model, number in counts.items()} == rows
    assert {task.id: task.status for task in Task.select()} == old_ledgers.STATUSES
    assert sorted(bytes(row.body) for row in Delivery.select()) == [bytes(range(256)), b'{"task_id": "told"}']
    before = tally.count_outcomes()
    assert (before.tasks, before.pending, before.succeeded, before.failed, before.expired) == (5, 1, 2, 1, 1)
    assert (before.by_callback, before.missed, before.disputed) == (1, 1, 1)
    told = Event.select().count()
    # It goes on: a callback, a look-up and a registration, whatever is known from before.
    record(body("open"), NOW)
    register("new", now=NOW - HOUR)
    look_up([finished_item("new")], NOW)
    after = tally.count_outcomes()
    assert (after.tasks, after.pending, after.succeeded) == (6, 0, 4)
    assert [event.task_id for event in Event.select().order_by(Event.id)][told:] == ["open", "new"]
    database.obj.close_all()
