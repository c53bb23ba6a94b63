import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from peewee import OperationalError

from reconcile import jobs, start
from reconcile.counts import Counts
from reconcile.discover import PAGES_PER_RUN, Found
from tests.processes import wait_until


class Discoverer:
    def __init__(self, came):
        self.came = came

    def run(self):
        if isinstance(self.came, Exception):
            raise self.came
        return self.came


@pytest.fixture
def moved():
    """What was to be run earlier, and when: a list."""
    return []


@pytest.fixture
def run_in(moved):
    return lambda name, wait: moved.append((name, wait))


def test_a_discovery_that_has_more_to_ask_goes_on_soon(ledger, moved, run_in):
    jobs.discover_tasks([Discoverer(Found(pages=PAGES_PER_RUN))], run_in)
    assert moved == [("discovery", jobs.DISCOVER_ON_AFTER)]


@pytest.mark.parametrize(
    "found",
    [
        Found(pages=PAGES_PER_RUN, finished=True),
        Found(pages=PAGES_PER_RUN, error="500"),
        Found(pages=PAGES_PER_RUN, stopped=True),
        Found(pages=3),
    ],
)
def test_any_other_waits_for_its_time(ledger, moved, run_in, found):
    jobs.discover_tasks([Discoverer(found)], run_in)
    assert moved == []


def test_a_database_that_is_away_is_tried_again_in_some_seconds(moved, run_in, caplog):
    jobs.reconcile_due_tasks(Discoverer(OperationalError("away")), None, run_in)
    assert moved == [("reconcile", jobs.AGAIN_AFTER)]
    assert [record.getMessage() for record in caplog.records] == [
        "The database cannot be used, trying again in 5 s: away"
    ]


def test_a_database_that_is_away_is_one_line(ledger, caplog, run_in):
    jobs.discover_tasks([Discoverer(OperationalError("away"))], run_in)
    assert [record.getMessage() for record in caplog.records] == [
        "The database cannot be used, discovering tasks later: away"
    ]


@pytest.mark.parametrize(("public_url", "is_there"), [("", False), ("https://b.example", True)])
def test_nothing_is_discovered_without_the_public_url(ledger, make_settings, public_url, is_there):
    scheduler = start.start_scheduler(make_settings(PUBLIC_URL=public_url), None, stopped())
    names = {job.id for job in scheduler.get_jobs()}
    scheduler.shutdown()
    assert names - {"discovery"} == {"reconcile", "forward", "learn", "follow", "unclear", "mend", "prune"}
    assert ("discovery" in names) == is_there


def test_the_first_run_begins_at_once(ledger, make_settings, monkeypatch):
    has_run = threading.Event()

    class Reconciler:
        has_more = was_good = False

        def __init__(self, *_):
            pass

        def run(self):
            has_run.set()
            return Counts()

    monkeypatch.setattr(start, "Reconciler", Reconciler)
    scheduler = start.start_scheduler(make_settings(RECONCILE_INTERVAL=3600), None, threading.Event())
    try:
        assert has_run.wait(120)
    finally:
        scheduler.shutdown()


def test_runs_never_overlap(ledger, make_settings, monkeypatch):
    running, most = threading.Semaphore(1), []

    class SlowReconciler:
        has_more = False

        def __init__(self, *_):
            pass

        def run(self):
            most.append(running.acquire(blocking=False))
            time.sleep(0.3)  # six intervals
            running.release()
            return Counts()

    monkeypatch.setattr(start, "Reconciler", SlowReconciler)
    settings = make_settings(RECONCILE_INTERVAL=0.05)
    scheduler = start.start_scheduler(settings, None, threading.Event())
    try:
        wait_until(lambda: len(most) >= 4)
    finally:
        scheduler.shutdown()
    assert all(most)


def test_a_job_that_the_scheduler_no_longer_has_is_not_run_earlier(ledger, make_settings):
    scheduler = start.start_scheduler(make_settings(), None, stopped())
    scheduler.run_in("discovery", timedelta(0))
    scheduler.shutdown()


def test_no_job_is_skipped_for_being_late_and_none_runs_twice_at_once(ledger, make_settings):
    scheduler = start.start_scheduler(make_settings(PUBLIC_URL="https://b.example"), None, stopped())
    scheduled = scheduler.get_jobs()
    scheduler.shutdown()
    assert len(scheduled) == 8
    rules = {(job.misfire_grace_time, job.max_instances, job.coalesce) for job in scheduled}
    assert rules == {(None, 1, True)}


def test_a_job_that_missed_half_a_century_runs_once(ledger, make_settings):
    scheduler = start.start_scheduler(make_settings(), None, stopped())
    scheduled = scheduler.get_jobs()
    scheduler.shutdown()
    due_at = datetime(1970, 1, 1, tzinfo=UTC)
    for job in scheduled:
        job._modify(next_run_time=due_at)
        assert job._get_run_times(datetime.now(UTC)) == [due_at]


def test_a_clock_that_was_set_makes_all_due_and_pruning_wait(ledger, make_settings):
    scheduler = start.start_scheduler(make_settings(PUBLIC_URL="https://b.example"), None, stopped())
    try:
        scheduler.pause()
        for job in scheduler.get_jobs():
            scheduler.modify_job(job.id, next_run_time=datetime.now(UTC) + timedelta(hours=8))
        scheduler.follow_jump()
        waits = {job.id: job.next_run_time - datetime.now(UTC) for job in scheduler.get_jobs()}
    finally:
        scheduler.shutdown()
    assert timedelta(minutes=59) < waits.pop("prune") <= jobs.PRUNE_EVERY
    assert len(waits) == 7
    assert all(wait <= timedelta(0) for wait in waits.values())


def stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop
