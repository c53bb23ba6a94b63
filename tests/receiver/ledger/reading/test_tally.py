"""The totals against a count of the tasks themselves, whatever changed them and however."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peewee import Table
from playhouse.migrations import Runner

from receiver.clock import utcnow
from receiver.ledger import discoveries
from receiver.ledger.engine.db import init_database, on_postgresql
from receiver.ledger.engine.schema import migrate
from receiver.ledger.evidence import Answer
from receiver.ledger.models import SETTLED, Delivery, Lookup, Tally, Task, database
from receiver.ledger.reading import tally
from receiver.ledger.reading.tally import Outcomes
from receiver.upstream import services
from receiver.upstream.results import read_item
from tests.factories import (
    apply,
    body,
    claim,
    failed_item,
    failure_body,
    finished_item,
    give_up,
    look_up,
    progress_body,
    record,
    register,
)
from tests.processes import REPOSITORY
from tests.properties import on_a_ledger
from tests.receiver.ledger.test_order import STEPS, rolled_back

NOW = utcnow()
HOUR = timedelta(hours=1)


def recount() -> Outcomes:
    """Count the tasks one by one, by the model's own properties."""
    tasks = list(Task.select())
    missed = [
        t for t in tasks if t.settled_by == "lookup" and t.callback_status not in ("failed", "succeeded")
    ]
    statuses, settlers = Counter(t.status for t in tasks), Counter(t.settled_by for t in tasks)
    return Outcomes(
        tasks=len(tasks),
        pending=statuses["pending"],
        succeeded=statuses["succeeded"],
        failed=statuses["failed"],
        expired=statuses["expired"],
        succeeded_by_callback=sum(t.status == "succeeded" and t.settled_by == "callback" for t in tasks),
        by_callback=settlers["callback"],
        missed=len(missed),
        disputed=sum(t.disputed for t in tasks),
    )


def fold_all() -> int:
    return tally.fold(NOW + HOUR, NOW + HOUR, NOW + HOUR)


@pytest.mark.usefixtures("ledger")
@on_a_ledger
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from("abc")), max_size=8))
def test_it_never_drifts_whatever_happens_to_the_tasks(steps):
    with rolled_back():
        for step, task_id in steps:
            step(task_id)
            assert tally.count_outcomes() == recount()
        for model in (Delivery, Lookup):
            model.delete().where(model.task == "a").execute()
        counted = recount()
        is_settled = Task.select().where(Task.id == "a", SETTLED).exists()
        Task.delete().where(Task.id == "a").execute()
        counted = counted if is_settled else recount()  # settled ones of the past count too
        assert tally.count_outcomes() == counted
        fold_all()
        assert tally.count_outcomes() == counted


@pytest.mark.usefixtures("ledger")
def test_it_tells_what_became_of_the_tasks():
    register("running", "silent", now=NOW - HOUR)
    for n in range(3):
        record(body(f"came-{n}"), NOW)
    record(failure_body("failed"), NOW)
    register("lost", "gave-up", now=NOW, grace=timedelta(0))
    give_up([finished_item("lost")], NOW + HOUR * 30, give_up_after=HOUR)
    outcomes = tally.count_outcomes()
    assert outcomes == recount()
    assert (outcomes.succeeded, outcomes.failed, outcomes.expired) == (4, 1, 3)
    assert tally.count_outcomes().missed == 1
    assert outcomes.tasks == 8


def relength() -> dict[str, list[int]]:
    """Count the results one by one, by how long each took."""
    counted: dict[str, list[int]] = {}
    for task in Task.select().where(Task.settled_at.is_null(False)):
        seconds = (task.settled_at - (task.submitted_at or task.created_at)).total_seconds()
        step = sum(seconds >= limit for limit in tally.STEPS)
        counted.setdefault(task.settled_by, [0] * (len(tally.STEPS) + 1))[step] += 1
    return counted


@pytest.mark.usefixtures("ledger")
def test_it_tells_how_long_results_took_and_follows_what_is_learnt_later():
    for n, seconds in enumerate((0, 1, 4.9, 5.1, 100, 3599, 3601, 30000)):
        register(f"t{n}", now=NOW - timedelta(seconds=seconds), grace=timedelta(0))
        record(body(f"t{n}"), NOW)
    register("lost", now=NOW - 10 * HOUR, grace=timedelta(0))
    look_up([finished_item("lost")], NOW)
    register("ahead", now=NOW, submitted_at=NOW + HOUR)  # by a clock of its own
    record(body("ahead"), NOW)
    counted = tally.count_by_length(NOW - 11 * HOUR)
    assert counted == relength()
    assert counted["callback"][:2] == [4, 1]
    assert counted["lookup"][-1] == 1
    register("t0", submitted_at=NOW - timedelta(minutes=4))
    assert tally.count_by_length(NOW - 11 * HOUR) == relength() != counted
    fold_all()
    assert tally.count_by_length(NOW - 11 * HOUR) == {}
    assert tally.count_outcomes() == recount()


@pytest.mark.usefixtures("ledger")
def test_it_tells_what_became_of_the_tasks_of_each_hour():
    since = NOW - 30 * HOUR
    register("t1", now=NOW)
    record(body("t2"), NOW)
    record(failure_body("t3"), NOW - 29 * HOUR)
    record(body("t4"), NOW - 40 * HOUR)
    hours = tally.count_by_hour(since, NOW)
    begin = NOW.replace(minute=0, second=0, microsecond=0)
    assert list(hours) == [begin - n * HOUR for n in range(30, -1, -1)]
    assert hours[begin] == Outcomes(2, pending=1, succeeded=1, succeeded_by_callback=1, by_callback=1)
    assert hours[begin - 29 * HOUR] == Outcomes(1, failed=1, by_callback=1)
    assert sum(hours.values(), Outcomes()).tasks == 3


@pytest.mark.usefixtures("ledger")
def test_what_is_not_committed_is_not_counted():
    with rolled_back():
        register("t1")
        assert tally.count_outcomes().pending == 1
    assert tally.count_outcomes().tasks == 0


@pytest.mark.usefixtures("ledger")
def test_it_is_right_after_many_threads_have_changed_the_same_tasks_while_others_fold():
    ids, ended = [f"task-{n}" for n in range(20)], threading.Event()

    def call(worker):
        for n in range(40):
            task_id = ids[(n * 7 + worker) % 20]
            record((progress_body, body, failure_body)[(n + worker) % 3](task_id), confirm=True)

    def ask():
        while not ended.is_set():
            claimed = claim()
            items = {i: finished_item(i) if i[-1] in "13579" else failed_item(i) for i in claimed.ids}
            if items:
                apply(claimed, {i: Answer(read_item(one)) for i, one in items.items()}, utcnow())
            fold_all()

    callers = [threading.Thread(target=call, args=(worker,)) for worker in range(6)]
    asker = threading.Thread(target=ask)
    for thread in (*callers, asker):
        thread.start()
    for thread in callers:
        thread.join()
    ended.set()
    asker.join()
    assert tally.count_outcomes() == recount()
    assert recount().tasks == 20


@pytest.mark.usefixtures("ledger")
def test_folding_leaves_few_rows_and_the_same_totals():
    for hours in range(5):
        record(body(f"t{hours}"), NOW - hours * HOUR)
        register(f"r{hours}", now=NOW - hours * HOUR)
    Tally.update(shard=7).where(Tally.status == "pending").execute()
    before, rows = tally.count_outcomes(), Tally.select().count()
    assert tally.fold(NOW - 2 * HOUR, NOW, NOW) > 0
    assert tally.count_outcomes() == before
    assert Tally.select().count() < rows
    assert {row.shard for row in Tally.select().where(Tally.hour < f"{NOW:%Y-%m-%d %H}")} == {0}
    assert tally.fold(NOW - 2 * HOUR, NOW, NOW) == 0
    record(body("r4"), NOW)  # of an hour that was folded
    assert tally.count_outcomes() == recount()


@pytest.mark.usefixtures("ledger")
def test_each_connection_of_postgresql_adds_to_rows_of_its_own():
    """Or transactions that change two kinds in different orders would wait for each other."""
    register("t1")
    assert (Tally.get().shard != 0) == on_postgresql()


def insert_old(**columns) -> None:
    """Insert a task as versions before the services did: the model has other columns."""
    row = {
        **{"status": "pending", "created_at": NOW, "silent_since": NOW, "attempts": 0},
        **{"claim_key": b"", "lookup_key": b"", "delivery_count": 0, "lookup_count": 0, **columns},
    }
    table = Table("task", tuple(row)).bind(database.obj)
    table.insert(row).execute()


def test_a_ledger_from_before_the_services_keeps_what_callbacks_said_and_its_totals(empty_url):
    init_database(empty_url)
    said = {
        "claim_key": b"\x02",
        "claim_status": "succeeded",
        "claim_progress": 100.0,
        "claim_response": "{}",
    }
    with database.connection_context():
        Runner(database.obj, directory=str(REPOSITORY / "receiver/ledger/migrations")).up("0009_run_progress")
        insert_old(id="t1", status="succeeded", settled_by="callback", settled_at=NOW, **said)
        insert_old(
            id="t2", status="failed", settled_by="lookup", settled_at=NOW, lookup_status="failed", **said
        )
        insert_old(id="t3")
        database.execute_sql(f"INSERT INTO discovery (id, covered_to, listed) VALUES (1, '{NOW}', 7)")
    migrate()
    tasks = {task.id: task for task in Task.select()}
    assert {(task.service, task.callback_status) for task in tasks.values()} == {
        ("midjourney", "succeeded"),
        ("midjourney", None),
    }
    assert (bytes(tasks["t1"].callback_key), tasks["t1"].callback_response) == (b"\x02", "{}")
    assert (tasks["t1"].callback_progress, tasks["t2"].disputed) == (100.0, True)
    assert tally.count_outcomes() == recount()
    assert tally.count_outcomes().disputed == 1
    record(body("t3"), NOW)  # the triggers are those of the new key
    assert tally.count_outcomes() == recount()
    assert (
        discoveries.take_turn(services.DEFAULT.name, NOW, NOW, timedelta(days=1)).listed == 7
    )  # where it was, not from the beginning
    database.obj.close_all()


def test_a_ledger_from_before_the_tally_is_counted_when_it_is_migrated(empty_url):
    init_database(empty_url)
    with database.connection_context():
        Runner(database.obj, directory=str(REPOSITORY / "receiver/ledger/migrations")).up("0004_discovery")
        for n, (status, settler) in enumerate(
            [("pending", None), ("succeeded", "lookup"), ("succeeded", "callback"), ("failed", "lookup")]
        ):
            insert_old(id=f"t{n}", status=status, settled_by=settler)
    migrate()
    assert tally.count_outcomes() == recount()
    assert tally.count_outcomes().missed == 2
    record(body("t0"), NOW)
    assert tally.count_outcomes() == recount()
    database.obj.close_all()
