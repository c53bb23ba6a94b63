"""Large tasks: no page, export or answer loads more of them than fits into a few MB."""

import json
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from receiver.clock import utcnow
from receiver.ledger.models import Lookup, Task, database
from receiver.ledger.reading import portions, queries
from receiver.ledger.reading.listing import TaskFilter, list_briefly, list_tasks
from tests.factories import body, failure_body, finished_item, look_up, record, register

NOW = utcnow()
MIB = 2**20


def large(task_id: str, size: int = MIB, now: Any = None) -> None:
    record(body(task_id, text="x" * size), now or NOW)


@pytest.fixture
def thirty_large(ledger) -> list[str]:
    """Thirty tasks of 1 MiB, the newest first."""
    for n in range(30):
        large(f"task-{n:02}", now=NOW + timedelta(seconds=n))
    return [f"task-{n:02}" for n in reversed(range(30))]


def peak_of(work: Callable[[], Any]) -> int:
    """Return how many bytes Python had allocated at most during some work, beyond those before it."""
    work()  # what is made once
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_page_ends_by_bytes_and_the_pages_hold_all(thirty_large):
    ids, before, pages = [], None, 0
    while True:
        found = list_tasks(TaskFilter(), 200, before)
        assert sum(len(task.callback_response) for task in found.tasks) <= portions.MOST_BYTES
        ids += [task.id for task in found.tasks]
        pages, before = pages + 1, found.next
        if before is None:
            break
    assert (ids, pages) == (thirty_large, 10)


def test_a_task_that_is_larger_than_a_page_has_one_of_its_own(ledger):
    for n, size in enumerate((1000, 5 * MIB, 1000)):
        large(f"task-{n}", size, NOW + timedelta(seconds=n))
    first = list_tasks(TaskFilter(), 10)
    second = list_tasks(TaskFilter(), 10, first.next)
    third = list_tasks(TaskFilter(), 10, second.next)
    assert [[task.id for task in page.tasks] for page in (first, second, third)] == [
        ["task-2"],
        ["task-1"],
        ["task-0"],
    ]
    assert third.next is None


@pytest.mark.parametrize("column", ["callback_error", "lookup_response", "lookup_error", "request", "prompt"])
def test_whatever_is_large_counts(ledger, column):
    register(*(f"task-{n}" for n in range(5)))
    with database.connection_context():
        Task.update({column: json.dumps("я" * MIB, ensure_ascii=False)}).execute()
    assert len(list_tasks(TaskFilter(), 10).tasks) == 1


def test_a_table_of_tasks_holds_its_rows_however_large_they_are(ledger):
    for n in range(20):
        register(f"task-{n:02}", now=NOW)
    prompt = "a harbour " * 1000
    response = {"success": True, "image_url": "https://x/1.png"}
    look_up(
        [
            finished_item(f"task-{n:02}", request={"prompt": prompt})
            | {"response": response | ({"text": "x" * MIB} if n % 2 else {})}
            for n in range(20)
        ],
        NOW + timedelta(hours=1),
    )
    peak = peak_of(lambda: list_briefly(TaskFilter(), 20))
    tasks = list_briefly(TaskFilter(), 20).tasks
    assert (len(tasks), peak < 4 * MIB) == (20, True)
    assert {bool(task.response) for task in tasks if int(task.id[-2:]) % 2 == 0} == {
        True
    }  # for their pictures
    assert {task.prompt for task in tasks} == {prompt[:1000]}


def test_no_list_takes_more_memory_than_a_page(client, auth, thirty_large):
    def drain(path: str) -> int:
        answer = client.get(path, headers=auth)
        return sum(len(piece) for piece in answer.iter_encoded())

    for path in ("/", "/tasks", "/api/tasks?limit=200", "/tasks.csv", "/tasks.jsonl"):
        # A task is there as the row, parsed, and as text: some times four MB, not thirty.
        assert peak_of(lambda path=path: drain(path)) < 28 * MIB, path


def test_exports_hold_all_large_tasks(client, auth, thirty_large):
    lines = client.get("/tasks.jsonl", headers=auth).text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == thirty_large
    assert {len(json.loads(line)["response"]["text"]) for line in lines} == {MIB}
    rows = client.get("/tasks.csv", headers=auth).text.splitlines()
    assert [row.partition(",")[0] for row in rows[1:]] == thirty_large


def test_the_api_goes_on_behind_a_page_that_bytes_ended(client, auth, thirty_large):
    first = client.get("/api/tasks?limit=200", headers=auth).json
    second = client.get(f"/api/tasks?limit=200&before={first['next']}", headers=auth).json
    assert [item["id"] for item in first["items"] + second["items"]] == thirty_large[:6]


def test_registering_large_tasks_answers_with_each_and_with_the_results_of_the_first(client, auth, ledger):
    for n in range(10):
        large(f"task-{n}")
    record(failure_body("failed"))
    ids = [f"task-{n}" for n in range(10)] + ["failed", "new"]
    answer = client.post("/api/tasks", headers=auth, json={"tasks": [{"id": task_id} for task_id in ids]})
    items = answer.json["items"]
    assert [item["id"] for item in items] == ids
    assert [item["status"] for item in items] == ["succeeded"] * 10 + ["failed", "pending"]
    # Left out, not null: null would say that there is none.
    assert ["response" in item for item in items] == [True] * 3 + [False] * 9


def test_registering_one_large_task_many_times_answers_with_it_a_few_times(client, auth, ledger):
    large("task-1")
    answer = client.post("/api/tasks", headers=auth, json={"tasks": [{"id": "task-1"}] * 100})
    assert (len(answer.json["items"]), len(answer.data) < 5 * MIB) == (100, True)


def test_a_run_s_page_loads_no_results(client, auth, ledger):
    for n in range(30):
        register(f"task-{n:02}", now=NOW)
    look_up(
        [
            finished_item(f"task-{n:02}") | {"response": {"success": True, "text": "x" * MIB}}
            for n in range(30)
        ],
        NOW + timedelta(hours=1),
    )
    with database.connection_context():
        run = Lookup.select().first().run_id
    assert peak_of(lambda: client.get(f"/runs/{run}", headers=auth)) < 5 * MIB


def test_a_task_with_many_large_deliveries_loads_none_of_their_bodies(client, auth, ledger):
    for n in range(30):
        record(body("task-1", progress=n, text="x" * MIB), NOW, headers=[("X-Long", "x" * 50_000)])
    deliveries = queries.deliveries_of("task-1")
    assert (len(deliveries), {name for one in deliveries for name in one.__data__} & {"body", "headers"}) == (
        30,
        set(),
    )
    # The task's own response is there, several times.
    assert peak_of(lambda: client.get("/api/tasks/task-1", headers=auth)) < 15 * MIB
