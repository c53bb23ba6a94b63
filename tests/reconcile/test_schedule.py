from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.jobstores.base import JobLookupError
from peewee import OperationalError

from reconcile import schedule
from reconcile.discover import PAGES_PER_RUN, Found


class Scheduler:
    def __init__(self, error=None):
        self.moved, self.error = [], error

    def modify_job(self, name, next_run_time):
        self.moved.append((name, next_run_time))
        if self.error:
            raise self.error


class Discoverer:
    def __init__(self, came):
        self.came = came

    def run(self):
        if isinstance(self.came, Exception):
            raise self.came
        return self.came


@pytest.mark.parametrize("error", [None, JobLookupError("discovery")])
def test_a_discovery_that_has_more_to_ask_goes_on_soon(error):
    scheduler = Scheduler(error)
    schedule.discover_tasks(Discoverer(Found(pages=PAGES_PER_RUN)), scheduler)
    ((name, at),) = scheduler.moved
    assert name == "discovery"
    assert timedelta(seconds=20) < at - datetime.now(UTC) <= schedule.DISCOVER_ON_AFTER


@pytest.mark.parametrize(
    "found",
    [
        Found(pages=PAGES_PER_RUN, finished=True),
        Found(pages=PAGES_PER_RUN, error="500"),
        Found(pages=PAGES_PER_RUN, stopped=True),
        Found(pages=3),
    ],
)
def test_any_other_waits_for_its_time(found):
    scheduler = Scheduler()
    schedule.discover_tasks(Discoverer(found), scheduler)
    assert scheduler.moved == []


def test_a_database_that_is_away_is_one_line(caplog):
    schedule.discover_tasks(Discoverer(OperationalError("away")), Scheduler())
    assert [record.getMessage() for record in caplog.records] == [
        "The database is away, discovering tasks later: away"
    ]


def test_nothing_is_discovered_without_the_public_url(ledger, make_settings, monkeypatch):
    jobs = []
    monkeypatch.setattr(schedule.BackgroundScheduler, "add_job", lambda self, job, *_, **__: jobs.append(job))
    monkeypatch.setattr(schedule.BackgroundScheduler, "start", lambda self: None)
    schedule.start_scheduler(make_settings(), None, None)
    assert schedule.discover_tasks not in jobs
    schedule.start_scheduler(make_settings(PUBLIC_URL="https://backstop.example.com"), None, None)
    assert schedule.discover_tasks in jobs
