"""The commands that have upstream asked about tasks, and that acknowledge disputes."""

import json
from datetime import timedelta

from receiver.clock import to_iso, utcnow
from receiver.ledger import pauses, runs
from tests.factories import body, failed_item, look_up, record, register, task

NOW = utcnow()
HOUR = timedelta(hours=1)


def reconcile() -> None:
    """Leave the traces of a reconciler that is at work."""
    runs.close_run(runs.open_run("here:1", utcnow()), utcnow(), {})


def dispute(task_id: str) -> None:
    record(body(task_id), NOW - HOUR, confirm=True)
    look_up([failed_item(task_id)], NOW - HOUR)


def test_a_task_that_is_asked_about_is_due_now(run):
    reconcile()
    register("t1")
    assert task().next_lookup_at > utcnow()
    result = run("ask", "t1", "nope")
    assert (result.exit_code, result.stdout) == (1, "t1: the next run asks\n")
    assert result.stderr == "nope: No such task: it was never registered, and no callback named it.\n"
    assert task().next_lookup_at <= utcnow()


def test_json_of_a_task_that_is_asked_about_is_the_apis(run, client, auth):
    reconcile()
    register("t1", "t2")
    told = [json.loads(each) for each in run("ask", "t1", "t2", "--json").stdout.splitlines()]
    assert told == [
        {"id": name, "next_lookup_at": to_iso(task(name).next_lookup_at)} for name in ("t1", "t2")
    ]
    assert set(told[0]) == set(client.post("/api/tasks/t1/reconcile", headers=auth).json)


def test_it_says_when_nobody_asks(run):
    register("t1")
    result = run("ask", "t1")
    assert (result.exit_code, result.stdout) == (0, "t1: due, and not asked about yet\n")
    assert result.stderr == "t1: nobody asks now: the reconciler has never run\n"
    reconcile()
    pauses.pause_account("no balance", utcnow())
    result = run("ask", "t1", "--json")
    assert json.loads(result.stdout)["id"] == "t1"
    assert "upstream has refused look-ups" in result.stderr


def test_a_dispute_is_acknowledged_and_json_is_the_apis(run, client, auth):
    dispute("t1")
    assert run("acknowledge", "t1").stdout == "t1: acknowledged\n"
    assert run("acknowledge", "t1").stdout.startswith("t1: was acknowledged before, ")
    told = json.loads(run("acknowledge", "t1", "--json").stdout)
    assert told == client.post("/api/tasks/t1/acknowledge", headers=auth).json


def test_what_is_not_disputed_cannot_be_acknowledged(run):
    register("t1")
    result = run("acknowledge", "t1")
    assert (result.exit_code, result.stderr) == (1, "t1: This task is not disputed.\n")
