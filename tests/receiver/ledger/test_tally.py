"""The totals against a count of the tasks themselves, whatever changed them and however."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhouse.migrations import Runner

from receiver.ledger import tally
from receiver.ledger.clock import utcnow
from receiver.ledger.db import init_database, migrate, on_postgresql
from receiver.ledger.evidence import Answer
from receiver.ledger.models import Delivery, Lookup, Tally, Task, database
from receiver.ledger.results import read_item
from receiver.ledger.tally import Outcomes
from tests.factories import (
    apply,
    body,
    claim,
    failed_item,
    failure_body,
    finished_item,
    look_up,
    progress_body,
    record,
    register,
)
from tests.processes import REPOSITORY
from tests.receiver.ledger.test_order import STEPS, rolled_back

NOW = utcnow()
HOUR = timedelta(hours=1)


def recount() -> Outcomes:
    """Count the tasks one by one, by the model's own properties."""
    tasks = list(Task.select())
    missed = [t for t in tasks if t.settled_by == "lookup" and t.claim_status not in ("failed", "succeeded")]
    statuses, settlers = Counter(t.status for t in tasks), Counter(t.settled_by for t in tasks)
    return Outcomes(
        tasks=len(tasks),
        pending=statuses["pending"],
        expired=statuses["expired"],
        failed=statuses["failed"],
        by_callback=settlers["callback"],
        by_lookup=settlers["lookup"],
        missed=len(missed),
        disputed=sum(t.disputed for t in tasks),
    )


@pytest.mark.usefixtures("ledger")
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from("abc")), max_size=8))
def test_it_never_drifts_whatever_happens_to_the_tasks(steps):
    with rolled_back():
        for step, task_id in steps:
            step(task_id)
            assert tally.count_outcomes() == recount()
        for model in (Delivery, Lookup):
            model.delete().where(model.task == "a").execute()
        Task.delete().where(Task.id == "a").execute()
        assert tally.count_outcomes() == recount()
        tally.fold(NOW + HOUR, NOW + HOUR)
        assert tally.count_outcomes() == recount()


@pytest.mark.usefixtures("ledger")
def test_it_tells_what_became_of_the_tasks():
    register("running", "silent", now=NOW - HOUR)
    for n in range(3):
        record(body(f"came-{n}"), NOW)
    record(failure_body("failed"), NOW)
    register("lost", "gave-up", now=NOW, grace=timedelta(0))
    look_up([finished_item("lost")], NOW + HOUR * 30, give_up_after=HOUR)
    assert tally.count_by_status() == {"pending": 0, "failed": 1, "succeeded": 4, "expired": 3}
    assert tally.count_outcomes() == recount()
    assert tally.count_outcomes().missed == 1
    assert tally.count_outcomes(NOW).tasks == 6
    assert tally.count_outcomes(NOW - HOUR).tasks == 8


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
            tally.fold(NOW + HOUR, NOW + HOUR)

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
    assert tally.fold(NOW - 2 * HOUR, NOW) > 0
    assert tally.count_outcomes() == before
    assert Tally.select().count() < rows
    assert {row.shard for row in Tally.select().where(Tally.hour < f"{NOW:%Y-%m-%d %H}")} == {0}
    assert tally.fold(NOW - 2 * HOUR, NOW) == 0
    record(body("r4"), NOW)  # of an hour that was folded
    assert tally.count_outcomes() == recount()


@pytest.mark.usefixtures("ledger")
def test_each_connection_of_postgresql_adds_to_rows_of_its_own():
    """Or transactions that change two kinds in different orders would wait for each other."""
    register("t1")
    assert (Tally.get().shard != 0) == on_postgresql()


def test_a_ledger_from_before_the_tally_is_counted_when_it_is_migrated(empty_url):
    init_database(empty_url)
    with database.connection_context():
        Runner(database.obj, directory=str(REPOSITORY / "receiver/ledger/migrations")).up("0004_discovery")
        Task.insert_many(
            {"id": f"t{n}", "status": status, "created_at": NOW, "silent_since": NOW, "settled_by": settler}
            for n, (status, settler) in enumerate(
                [("pending", None), ("succeeded", "lookup"), ("succeeded", "callback"), ("failed", "lookup")]
            )
        ).execute()
    migrate()
    assert tally.count_outcomes() == recount()
    assert tally.count_outcomes().missed == 2
    record(body("t0"), NOW)
    assert tally.count_outcomes() == recount()
    database.obj.close_all()
