"""Lists of tasks: what a filter holds, page by page, and which index serves it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.clock import utcnow
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.models import Task, database
from receiver.ledger.reading import listing
from receiver.ledger.reading.listing import Found, TaskFilter, list_tasks
from receiver.ledger.store import acknowledge
from tests.factories import body, failed_item, finished_item, look_up, record, register
from tests.properties import on_a_ledger
from tests.receiver.ledger.test_order import rolled_back

NOW = utcnow()
MINUTE = timedelta(minutes=1)
SCARCE = ("status", "type", "settled_by", "api_key")

FILTERS = st.builds(
    TaskFilter,
    status=st.sampled_from((None, "pending", "succeeded", "failed")),
    type=st.sampled_from((None, "imagine", "edits")),
    settled_by=st.sampled_from((None, "callback", "lookup")),
    api_key=st.sampled_from((None, None, "web", "batch")),
    disputed=st.sampled_from((None, True, False)),
    acknowledged=st.sampled_from((None, None, True, False)),
    missed=st.sampled_from((None, True, False)),
    since=st.sampled_from((None, NOW - 20 * MINUTE)),
    until=st.sampled_from((None, NOW - 5 * MINUTE)),
    text=st.sampled_from((None, "harbour", "FOG harbour", "order-1", "task-07", "nobody", "", "100%")),
)


@pytest.fixture
def thirty(ledger):
    """Thirty tasks of all kinds, several of which were first heard of at the same moment."""
    for n in range(30):
        register(
            f"task-{n:02}",
            now=NOW - n // 3 * 3 * MINUTE,
            grace=timedelta(0),
            type=("imagine", "edits", None)[n % 3],
            ref=f"order-{n % 4}",
            api_key=("web", "batch", None)[n % 7 % 3],
        )
    register("order-1", now=NOW - 40 * MINUTE, type="imagine")  # which others have as their ref
    for n in range(0, 30, 2):
        if n % 4:
            record(body(f"task-{n:02}"), NOW, confirm=True)
    prompts = ("a harbour in fog", "a harbour at 100% noon", "an orchard")
    items = [finished_item(f"task-{n:02}", request={"prompt": prompts[n % 3]}) for n in range(0, 30, 5)]
    look_up([*items, failed_item("task-02"), failed_item("task-06"), failed_item("task-14")], NOW)
    acknowledge(["task-06"], NOW)


def holds(wanted: TaskFilter, task: Task, named: bool) -> bool:
    """Tell whether a filter holds a task, by the model's own properties."""
    missed = task.settled_by == "lookup" and task.callback_status not in ("failed", "succeeded")
    is_named = wanted.text in (task.id, task.ref, task.trace_id)
    words = (wanted.text or "").lower().split()
    found = is_named if named else all(word in (task.prompt or "").lower() for word in words)
    if not named and words == [] and wanted.text is not None:
        found = True
    return (
        all(getattr(wanted, name) in (None, getattr(task, name)) for name in SCARCE)
        and wanted.disputed in (None, task.disputed)
        and (wanted.acknowledged is None or task.disputed)
        and wanted.acknowledged in (None, task.acknowledged_at is not None)
        and wanted.missed in (None, missed)
        and (wanted.since is None or task.created_at >= wanted.since)
        and (wanted.until is None or task.created_at < wanted.until)
        and (wanted.text is None or found)
    )


def pages_of(wanted: TaskFilter, limit: int = 50) -> Iterator[Found]:
    """Yield page after page of what a filter holds."""
    before = None
    for _ in range(100):
        page = list_tasks(wanted, limit, before)
        yield page
        before = page.next
        if before is None:
            return
    raise AssertionError("it never ends")


@pytest.mark.usefixtures("thirty")
@pytest.mark.parametrize("most_looked_at", [1000, 4])
def test_whatever_the_filter_the_pages_hold_each_task_once_and_newest_first(monkeypatch, most_looked_at):
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", most_looked_at)
    newest_first = list(Task.select().order_by(Task.created_at.desc(), Task.id.desc()))

    @on_a_ledger
    @given(FILTERS, st.sampled_from((1, 3, 50)))
    @example(TaskFilter(type="imagine", text="order-1"), 50)  # one look gives up, another finds what is older
    def check(wanted, limit):
        named = any(wanted.text in (task.id, task.ref, task.trace_id) for task in newest_first)
        found = []
        for page in pages_of(wanted, limit):
            assert len(page.tasks) <= limit
            assert page.looked_back_to is None or page.next is not None
            found += [task.id for task in page.tasks]
        assert found == [task.id for task in newest_first if holds(wanted, task, named)]

    with rolled_back():
        check()


@pytest.mark.usefixtures("thirty")
def test_a_look_ends_where_it_says_and_goes_on_behind_it(monkeypatch):
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 10)
    page = list_tasks(TaskFilter(text="nowhere"), 5)
    tenth = list_tasks(TaskFilter(), 10).tasks[-1]
    assert (page.tasks, page.looked_back_to, page.next) == (
        [],
        tenth.created_at,
        (tenth.created_at, tenth.id),
    )


@pytest.mark.usefixtures("thirty")
def test_tasks_that_arrive_during_a_look_push_none_out_of_it(monkeypatch):
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 10)
    wanted = TaskFilter(type="edits")
    before = [page.tasks for page in pages_of(wanted)]
    ask, arrived = database.obj.execute_sql, []

    def ask_and_arrive(*args, **kwargs):
        cursor = ask(*args, **kwargs)
        if len(arrived) < 100:
            arrived.append(f"new-{len(arrived):03}")
            with monkeypatch.context() as undone:
                undone.setattr(database.obj, "execute_sql", ask)
                register(*(f"{arrived[-1]}-{n}" for n in range(5)), now=NOW + MINUTE, type="imagine")
        return cursor

    monkeypatch.setattr(database.obj, "execute_sql", ask_and_arrive)
    assert [task.id for page in pages_of(wanted) for task in page.tasks] == [
        task.id for tasks in before for task in tasks
    ]
    assert arrived


def plan_of(query: Any) -> str:
    """Return how the database would go about a query."""
    with database.atomic():
        if on_postgresql():  # with thirty rows it would not care
            database.execute_sql(
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"
            )
        sql, values = query.sql()
        explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
        return " ".join(str(row[-1]) for row in database.execute_sql(f"{explain} {sql}", values))


@pytest.mark.usefixtures("thirty")
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (TaskFilter(), "task_newest"),
        (TaskFilter(since=NOW - MINUTE, until=NOW), "task_newest"),
        (TaskFilter(type="imagine"), "task_newest"),
        (TaskFilter(text="harbour"), "task_newest"),
        (TaskFilter(status="failed"), "task_status_newest"),
        (TaskFilter(disputed=True, type="imagine"), "task_disputed"),
        (TaskFilter(acknowledged=False), "task_disputed"),
        (TaskFilter(acknowledged=True), "task_disputed"),
        (TaskFilter(missed=True), "task_missed"),
        (TaskFilter(api_key="web", status="failed"), "task_api_key"),
        (TaskFilter(text="order-1"), "task_ref"),
    ],
)
def test_each_list_follows_an_index_from_its_newest_task_on(wanted, index):
    before = (NOW, "task-99")
    starts = [listing._newest(by, wanted, before) for _, by in listing._starts(wanted)]
    plans = [plan_of(start.limit(20)) for start in starts]
    assert any(index in plan for plan in plans), plans
    assert not any("TEMP B-TREE" in plan for plan in plans), plans
    assert not any("Sort" in plan for plan in plans if index in plan), plans


def test_a_look_reads_nothing_that_is_older_than_its_end(thirty):
    last = (NOW - 6 * MINUTE, "task-07")
    query = listing._down_to(listing._newest(None, TaskFilter(), None), last)
    plan = plan_of(query.limit(listing._NO_LIMIT))
    assert "task_newest" in plan
    assert "(created_at >= " in plan if on_postgresql() else "(created_at>?)" in plan, plan
