"""Counters: what adds to them, and that pruning takes nothing away."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import counters, pauses, refusals, runs
from receiver.ledger.models import Attempt, Counter, Delivery, Event, Forward, Reader
from receiver.ledger.refusals import Refused
from tests.factories import (
    body,
    create_forward,
    failed_item,
    failure_body,
    finished_item,
    look_up,
    prune,
    record,
    register,
)

NOW = utcnow()
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def on_a_ledger(ledger):
    return ledger


def counted(name):
    return counters.read_counters().get(name, {})


def test_deliveries_count_by_verdict_and_pruning_takes_none_away():
    for payload in (body("t1"), body("t2"), b"nonsense"):
        record(payload, NOW - timedelta(days=40))
    before = counted("deliveries")
    assert before == {("succeeded",): 2, ("unreadable",): 1}
    assert prune(NOW - timedelta(days=30)) >= 3
    assert Delivery.select().count() == 0
    assert counted("deliveries") == before


def test_runs_count_when_they_end_and_calls_as_they_are_noted():
    for error in (None, "upstream answered 500"):
        run = runs.open_run("test:1", NOW)
        runs.note_progress(run, NOW, {"calls": 2, "errors": 1})
        runs.close_run(run, NOW, {"calls": 5, "errors": 1, "error": error})
    assert counted("runs") == {("good",): 1, ("failed",): 1}
    assert counted("calls") == {("failed",): 2, ("answered",): 8}


def test_pauses_and_refusals_count():
    pauses.pause_account("no balance", NOW)
    pauses.throttle("too many", None, NOW)
    for requests in (3, 4):
        refusals.add([Refused("not_kept", requests, NOW, NOW)])
    assert counted("pauses") == {("account",): 1, ("throttled",): 1}
    assert counted("refusals") == {("not_kept",): 7}


def test_forwards_count_by_their_present_status_and_attempts_for_ever():
    forward = create_forward()
    create_forward(status="delivered")
    Attempt.create(forward=forward, began_at=NOW, took=1, url="u", headers="{}", kind="refused", answer=b"")
    Forward.update(status="delivered").where(Forward.id == forward.id).execute()
    assert counted("forwards") == {("pending",): 0, ("delivered",): 2}
    Forward.delete().execute()
    assert counted("forwards") == {("pending",): 0, ("delivered",): 0}
    assert counted("attempts") == {("refused",): 1}


def test_results_count_once_with_how_long_they_took_and_how_late_we_knew():
    began_at = NOW - timedelta(seconds=100)
    register("t1", "t2", "t3", now=began_at, grace=timedelta(0))
    record(body("t1"), NOW)
    late = finished_item("t2") | {"finished_at": (NOW - timedelta(seconds=20)).timestamp()}
    look_up([late, failed_item("t3")], NOW)
    assert counters.count() >= 3
    assert counters.count() == 0
    assert counted("results") == {
        ("midjourney", "succeeded", "callback"): 1,
        ("midjourney", "succeeded", "lookup"): 1,
        ("midjourney", "failed", "lookup"): 1,
    }
    lengths, seconds = counters.histogram(counted("duration"), "lookup")
    assert (sum(lengths), lengths[counters.BOUNDS.index(120)]) == (2, 2)
    assert 199 < seconds < 201
    lateness, _ = counters.histogram(counted("lateness"), "lookup")
    assert sum(lateness) == 2


def test_a_result_that_changes_counts_again_but_its_length_does_not():
    register("t1", now=NOW - MINUTE, grace=timedelta(0))
    record(failure_body("t1"), NOW, confirm=True)
    counters.count()
    look_up([finished_item("t1")], NOW)
    counters.count()
    assert sum(counted("results").values()) == 2
    lengths = [counters.histogram(counted("duration"), by)[0] for by in ("callback", "lookup")]
    assert sum(map(sum, lengths)) == 1


def test_a_task_of_which_only_callbacks_tell_has_no_known_length():
    record(body("t1"), NOW)
    counters.count()
    assert counted("duration") == {}


def test_of_two_processes_that_count_one_wins(monkeypatch):
    record(body("t1"), NOW)
    last = Event.select().order_by(Event.id.desc()).get().id

    def told(events):
        Reader.update(event=last).where(Reader.name == counters.READER).execute()
        return {("results", "a/b/c"): 1.0}

    monkeypatch.setattr(counters, "_told_by", told)
    assert counters.count() == 0
    assert counted("results") == {}


def test_folding_keeps_the_sums():
    Counter.insert(name="deliveries", labels="pending", shard=7, value=3).execute()
    Counter.insert(name="deliveries", labels="pending", shard=8, value=4).execute()
    assert counters.fold() == 2
    assert counted("deliveries") == {("pending",): 7}
    assert [row.shard for row in Counter.select()] == [0]
