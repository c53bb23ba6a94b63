"""An event as the customer's app is told it."""

import json
from datetime import datetime, timedelta

from receiver.ledger.event_json import event_json
from receiver.ledger.models import Task
from receiver.ledger.outbox import events_after
from receiver.ledger.task_json import task_json
from receiver.ledger.telling import body_for_app
from tests.factories import body, failure_body, finished_item, look_up, record, register, task

NOW = datetime(2026, 1, 31, 12, 0, 0, 250_000)


def test_it_tells_what_happened_and_the_task_as_it_is_now(ledger):
    register("t1", now=NOW, ref="order-7")
    record(failure_body(), NOW, confirm=True)
    look_up([finished_item()], NOW + timedelta(seconds=2))
    failed, succeeded = (event_json(event, task()) for event in events_after(0, 2))
    assert list(failed) == ["type", "timestamp", "data"]
    assert (failed["type"], failed["timestamp"]) == ("task.failed", "2026-01-31T12:00:00.250000Z")
    assert (succeeded["type"], succeeded["timestamp"]) == ("task.succeeded", "2026-01-31T12:00:02.250000Z")
    assert (failed["data"]["sequence"], succeeded["data"]["sequence"]) == (1, 2)
    assert failed["data"]["task"] == succeeded["data"]["task"]
    assert succeeded["data"]["task"]["status"] == "succeeded"


def test_its_task_is_that_of_the_api_without_what_tells_of_deliveries_and_look_ups(ledger):
    record(body(ref="order-7"), NOW, confirm=True)
    (event,) = events_after(0, 1)
    shown = task_json(task())
    told = event_json(event, task())["data"]["task"]
    assert told == {name: value for name, value in shown.items() if name in told}
    assert shown.keys() - told.keys() == {"deliveries", "lookups", "next_lookup_at"}


def test_it_is_strict_json_in_utf_8_whatever_upstream_wrote(ledger):
    record(body(title="ü\ud800\0", size=float("nan")), NOW)
    (event,) = events_after(0, 1)
    told = body_for_app(event, Task.get(), "settled")
    assert "ü\\ud800\\u0000".encode() in told
    assert b"NaN" not in told
    assert json.loads(told)["data"]["task"]["response"]["title"] == "ü\ud800\0"
