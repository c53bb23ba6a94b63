"""The change feed over HTTP. How requests wait is in tests/receiver/web/test_waiting.py."""

import random
import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from receiver.ledger.engine.db import writing
from receiver.ledger.models import Event, Task
from receiver.ledger.reading import portions
from receiver.web import waiting
from tests.factories import body, failure_body, finished_item, look_up, record, register

NOW = datetime(2026, 1, 31, 12, 0, 0, 250_000)


@pytest.fixture
def api(client, auth):
    """Calls the API with the key: api.get("/api/events")."""
    client.environ_base["HTTP_AUTHORIZATION"] = auth["Authorization"]
    return client


def page(api, query: str = "") -> Any:
    answer = api.get(f"/api/events{query}")
    assert answer.status_code == 200, answer.text
    return answer.json


def ids(found: Any) -> list[str]:
    return [item["data"]["task"]["id"] for item in found["items"]]


def test_an_item_is_what_is_posted_with_its_number_and_what_was_true_when_it_happened(api):
    register("t1", now=NOW, ref="order-7")
    record(failure_body("t1"), NOW, confirm=True)
    look_up([finished_item("t1")], NOW + timedelta(seconds=2))
    first, second, third = page(api)["items"]
    assert list(first) == ["id", "status", "settled_by", "confirmed", "type", "timestamp", "data"]
    then = [(item["type"], item["status"], item["settled_by"], item["confirmed"]) for item in (first, second)]
    assert then == [
        ("task.failed", "failed", "callback", None),
        ("task.succeeded", "succeeded", "lookup", False),
    ]
    assert (third["type"], third["timestamp"]) == ("task.disputed", "2026-01-31T12:00:02.250000Z")
    assert [item["data"]["sequence"] for item in (first, second, third)] == [1, 2, 3]
    task = api.get("/api/tasks/t1").json
    left_out = {"deliveries", "lookups", "timeline", "next_lookup_at", "callback_url", "forwards"}
    now = {name: value for name, value in task.items() if name not in left_out}
    assert first["data"]["task"] == second["data"]["task"] == now
    assert list(first["data"]) == ["sequence", "task"]


def test_it_pages_through_all_in_their_order(api):
    for n in range(7):
        record(body(f"t{n}"))
    found, query = [], "?limit=3"
    while (one := page(api, query))["items"]:
        found += ids(one)
        query = f"?limit=3&after={one['next']}"
    assert found == [f"t{n}" for n in range(7)]
    assert one == {"items": [], "next": 7}
    assert ids(page(api, "?after=0&limit=200")) == found


def test_without_events_it_goes_on_from_the_beginning(api):
    register("t1")
    assert page(api) == {"items": [], "next": 0}


def test_a_type_that_it_does_not_know_is_told_like_any_other(api):
    record(body("t1"))
    Event.update(type="task.something").execute()
    assert [item["type"] for item in page(api)["items"]] == ["task.something"]


def test_a_page_ends_by_bytes_where_a_task_counts_for_each_of_its_events(api, monkeypatch):
    monkeypatch.setattr(portions, "MOST_BYTES", 1000)
    record(failure_body("t1", message="x" * 300), NOW, confirm=True)
    look_up([finished_item("t1", request={"prompt": "y" * 300})], NOW)
    for n in (2, 3):
        record(body(f"t{n}", text="x" * 3000), NOW)
    found, pages, after = [], [], 0
    while (one := page(api, f"?after={after}"))["items"]:
        found += [item["id"] for item in one["items"]]
        pages.append(len(one["items"]))
        after = one["next"]
    assert found == [1, 2, 3, 4, 5]
    assert pages == [1, 1, 1, 1, 1]


def test_of_a_deleted_task_it_tells_the_id(api):
    record(body("t1"))
    record(body("t2"))
    Event.update(task_id="deleted").where(Event.id == 1).execute()
    found = page(api)
    assert found["items"][0]["data"] == {"sequence": 1, "task": {"id": "deleted"}}
    assert (ids(found), found["next"]) == (["deleted", "t2"], 2)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        *((f"after={bad}", "after must be a cursor") for bad in ("x", "-1", "", "1.0", "²", "9" * 19, "9" * 20)),
        *((f"limit={bad}", "limit must be") for bad in ("0", "201", "x", "")),
        *((f"wait={bad}", "wait must be") for bad in ("26", "-1", "1.5", "", "x")),
        *((f"{name}=1", f"Unknown parameter '{name}'; the known ones are after, limit, wait.") for name in ("before", "since")),
        ("after=1&after=2", "after is there more than once. Give it once."),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_a_400_that_names_it(api, query, complaint):
    answer = api.get(f"/api/events?{query}")
    assert answer.status_code == 400
    assert complaint in answer.json["error"]["message"]


@pytest.mark.parametrize("wait", ["", "&wait=25"])
def test_a_cursor_from_before_the_ledger_was_restored_is_a_400_as_it_would_miss_the_next_events(api, wait):
    record(body("t1"))
    answer = api.get(f"/api/events?after=2{wait}")
    assert answer.status_code == 400
    assert answer.json["error"]["message"].startswith("after is beyond the newest event, which is 1: ")
    assert page(api, "?after=1") == {"items": [], "next": 1}


def test_readers_that_wait_miss_no_event_beside_concurrent_writers(client, auth, monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_EVERY_SECONDS", 0.01)
    wanted = [f"t{n:03}" for n in range(160)]
    register(*wanted)
    rng, read, failures = random.Random(1), [[], []], []
    work = [(task_id, rng.random() * 0.03) for task_id in wanted]

    def settle(some):
        for task_id, pause in some:
            with writing():
                Task.update(status="failed", settled_at=NOW).where(Task.id == task_id).execute()
                time.sleep(pause)  # others take higher numbers meanwhile

    def follow(items):
        api, after = client.application.test_client(), 0
        deadline = time.monotonic() + 60
        while len(items) < len(wanted) and time.monotonic() < deadline:
            answer = api.get(f"/api/events?limit=7&wait=5&after={after}", headers=auth)
            if answer.status_code != 200:
                failures.append(answer.text)
                return
            items += answer.json["items"]
            after = answer.json["next"]

    threads = [threading.Thread(target=follow, args=(items,)) for items in read]
    threads += [threading.Thread(target=settle, args=(work[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for items in read:
        numbers = [item["id"] for item in items]
        assert numbers == sorted(set(numbers))
        assert sorted(ids({"items": items})) == wanted
