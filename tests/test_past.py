"""The invented week of the demonstration."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger import runs, store
from receiver.ledger.evidence import Answer
from receiver.ledger.models import Delivery, Event, Lookup, ReconcileRun, Tally, Task
from receiver.upstream.results import read_item
from tests import past
from tests.past import GRACE, PATIENCE, TIMETABLE, PastTask, make_past, make_up

NOW = datetime(2026, 1, 31, 12, 0, 0)
UPSTREAM = "http://127.0.0.1:9090"
A_DAY = 12


def live(task: PastTask) -> None:
    """Let a task happen as in a deployment: step by step, through the store's functions."""
    store.register([task.registration], task.submitted_at, timetable=TIMETABLE)
    if not task.lost:
        callback = store.Callback(
            task.callback, len(task.callback), task.ref, past.SENDER, past.HEADERS, uid=f"past-{task.id}"
        )
        store.record(callback, task.done_at, timetable=TIMETABLE, confirm=True)
    claimed = store.claim(task.asked_at, limit=10, lease=GRACE)
    run_id = runs.open_run("demo:1", task.asked_at)
    answers = {task.id: Answer(read_item(task.item()))}
    settled = store.apply(claimed, answers, run_id, task.asked_at, task.answered_at, PATIENCE)
    counts = {"due": 1, "asked": 1, "settled": settled, "calls": 1}
    runs.close_run(run_id, task.answered_at + timedelta(milliseconds=20), counts)


def kept() -> dict[str, list[dict]]:
    """Return the whole ledger except ids that only count rows."""
    numbers = {
        Delivery: {"id"},
        Event: {"id"},
        Lookup: {"id", "run"},
        ReconcileRun: {"id"},
        Task: set(),
        Tally: {"id", "shard"},
    }
    tables = {}
    for model, left_out in numbers.items():
        rows = [{name: row[name] for name in row.keys() - left_out} for row in model.select().dicts()]
        tables[model.__name__] = sorted(rows, key=lambda row: sorted((name, str(row[name])) for name in row))
    return tables


def test_it_is_what_a_deployment_would_have_kept(ledger, monkeypatch):
    monkeypatch.setattr(past, "_LOST", 0.2)
    monkeypatch.setattr(past, "_DISPUTED", 0.2)
    tasks = make_up(NOW, UPSTREAM, 7, A_DAY, 1)
    assert make_past(NOW, UPSTREAM, a_day=A_DAY) == len(tasks)
    made = kept()
    assert {row["status"] for row in made["Task"]} == {"succeeded", "failed"}
    for model in (Lookup, Delivery, ReconcileRun, Event, Task, Tally):
        model.delete().execute()
    for task in tasks:
        live(task)
    assert len(made["Task"]) > 50
    assert any(task.lost for task in tasks)
    assert any(task.disputed for task in tasks)
    for name, rows in kept().items():
        assert made[name] == rows, name


def test_it_is_written_whole_or_not_at_all(ledger, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("receiver.ledger.evidence.of_lookup", fail)
    with pytest.raises(KeyboardInterrupt):
        make_past(NOW, UPSTREAM, a_day=A_DAY)
    assert [model.select().count() for model in (Task, Delivery, Lookup, ReconcileRun)] == [0, 0, 0, 0]
