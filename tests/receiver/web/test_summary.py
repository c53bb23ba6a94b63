"""The overview's first sentence, by what is the case."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger.models import Pause, ReconcileRun
from receiver.web.summary import START_RECONCILER, Facts, next_run, summarise

NOW = datetime(2026, 1, 31, 12, 0, 0)
INTERVAL = timedelta(seconds=15)


def run(ago=5, took=1, **fields):
    started_at = NOW - timedelta(seconds=ago)
    finished_at = None if took is None else started_at + timedelta(seconds=took)
    counts = dict.fromkeys(("due", "asked", "settled", "running", "absent", "calls", "errors"), 0)
    return ReconcileRun(started_at=started_at, finished_at=finished_at, **counts | fields)


def facts(**fields):
    known = {"newest_at": NOW - timedelta(hours=1), "last_run": run(), "reconciler_seen_at": NOW - INTERVAL}
    return Facts(now=NOW, interval=INTERVAL, **known | fields)


def told(**fields):
    summary = summarise(facts(**fields))
    return summary.severity, f"{summary.label}: {summary.text}"


def test_all_is_well():
    assert told() == ("well", "All is well: every task heard of in the last 24 h is settled.")


@pytest.mark.parametrize(
    ("missed", "words"),
    [(1, "1 callback never came; it was recovered."), (3, "3 callbacks never came; all were recovered.")],
)
def test_it_tells_of_callbacks_that_never_came(missed, words):
    assert told(missed=missed)[1] == f"All is well: every task heard of in the last 24 h is settled. {words}"


def test_it_does_not_speak_of_the_last_day_when_nothing_came():
    assert told(newest_at=NOW - timedelta(days=2)) == (
        "well",
        "All is well: every task is settled, and the last 24 h brought no new one.",
    )


def test_tasks_that_wait_are_no_cause_for_alarm():
    oldest = NOW - timedelta(minutes=4)
    assert told(pending=12, oldest_pending_at=oldest, missed=3) == (
        "busy",
        "At work: 12 tasks are waiting for a result; the oldest was heard of 4 min ago."
        " In the last 24 h 3 callbacks never came; all were recovered.",
    )


def test_tasks_given_up_or_disputed_ask_for_attention():
    severity, text = told(expired=2, disputed=1, pending=1)
    assert severity == "attention"
    assert text == (
        "Attention: 2 tasks were given up in the last 24 h: upstream gave no final answer."
        " 1 task is disputed: the Tasks API contradicts a callback, or has not confirmed it in time."
        " 1 task is waiting for a result."
    )


def test_a_reconciler_that_never_ran_is_trouble():
    summary = summarise(facts(last_run=None, reconciler_seen_at=None))
    assert (summary.severity, summary.command) == ("trouble", START_RECONCILER)
    assert "the reconciler has never run" in summary.text


def test_an_empty_ledger_is_no_trouble_yet():
    assert told(newest_at=None, last_run=None, reconciler_seen_at=None)[0] == "attention"
    assert told(newest_at=None)[0] == "well"


def test_a_silent_reconciler_is_trouble():
    seen_at = NOW - timedelta(hours=2)
    summary = summarise(facts(reconciler_seen_at=seen_at, last_run=run(ago=7200)))
    assert (summary.severity, summary.command) == ("trouble", START_RECONCILER)
    assert "the reconciler has not run since 2026-01-31 10:00:00 UTC (2 h ago)" in summary.text


def test_a_long_run_that_still_notes_lookups_is_not_silent():
    known = facts(last_run=run(ago=1800, took=None), reconciler_seen_at=NOW - timedelta(seconds=20))
    assert summarise(known).severity == "well"
    assert next_run(known) == "A run is in progress."


def test_upstream_that_may_not_be_asked_is_trouble_and_tells_since_when_and_why():
    since, probe_at = NOW - timedelta(minutes=5), NOW + timedelta(seconds=40)
    reason = "upstream answered 403 used_up: no balance"
    pause = Pause(account=True, reason=reason, started_at=since, next_probe_at=probe_at)
    severity, text = told(pause=pause, pending=3)
    assert severity == "trouble"
    assert f"since 2026-01-31 11:55:00 UTC (5 min ago): “{reason}”" in text
    assert "the next probe comes in 40 s" in text
    assert "3 tasks are waiting" in text
    throttled = Pause(account=False, reason="upstream answered 429", started_at=NOW, ended_at=probe_at)
    assert told(pause=throttled)[0] == "attention"


@pytest.mark.parametrize(("pending", "severity"), [(3, "trouble"), (0, "attention")])
def test_a_failed_run_is_told_with_its_error(pending, severity):
    failed = run(ago=300, calls=2, errors=2, error="401 invalid_token")
    told_severity, text = told(last_asking_run=failed, pending=pending)
    assert told_severity == severity
    assert "the last run that asked upstream failed 5 min ago: “401 invalid_token”." in text


def test_a_run_of_which_some_calls_failed_asks_for_attention():
    failed = run(ago=300, calls=4, errors=1, error="HTTP 500")
    assert told(last_asking_run=failed) == (
        "attention",
        "Attention: 1 of 4 calls to upstream failed 5 min ago: “HTTP 500”.",
    )


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (facts(last_run=None, reconciler_seen_at=None), "The reconciler has never run."),
        (facts(last_run=run(ago=5)), "The next run is due in 10 s."),
        (facts(last_run=run(ago=20)), "The next run is due now."),
        (
            facts(last_run=run(ago=7200, took=None), reconciler_seen_at=NOW - timedelta(hours=2)),
            "Overdue: the reconciler has been silent in the middle of a run since 2026-01-31 10:00:00 UTC.",
        ),
    ],
)
def test_it_tells_when_the_next_run_is_due(known, words):
    assert next_run(known) == words
