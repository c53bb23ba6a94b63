"""What the reconciler deletes and mends, and by which clock."""

import logging
import threading
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import runs
from receiver.ledger.forward import GIVEN_UP
from receiver.ledger.models import Delivery, Forward, ReconcileRun, Task
from receiver.upstream.client import Upstream
from receiver.upstream.date import Comparison
from receiver.upstream.services import DEFAULT
from reconcile import jobs
from reconcile.upkeep import mend_times, prune_by
from tests.clocks import SetClock
from tests.factories import body, create_forward, record, register
from tests.processes import free_port


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def upstream(stand_in, make_settings, clock):
    upstream = Upstream.from_settings(make_settings(ACEDATACLOUD_API_BASE_URL=stand_in.url))
    upstream._clocks = Comparison(now=clock.now)
    return upstream


@pytest.fixture
def prune(ledger, make_settings, upstream, clock):
    """Delete what is older than 30 days. Two deliveries are 20 and 40 days old."""
    for days in (20, 40):
        record(body(f"of-{days}"), now=utcnow() - timedelta(days=days))
    return lambda: prune_by(make_settings(RETENTION_DAYS=30), upstream, clock, threading.Event())


def kept() -> list[str]:
    return sorted(delivery.task_id for delivery in Delivery.select())


@pytest.mark.parametrize("days", [0, 15, 9000])
def test_a_clock_that_is_ahead_makes_nothing_old(prune, upstream, clock, days):
    clock.ahead = timedelta(days=days)
    upstream.retrieve(DEFAULT, "any")
    prune()
    assert kept() == ["of-20"]


def test_a_clock_that_is_behind_deletes_later(prune, upstream, clock):
    clock.ahead = -timedelta(days=15)
    upstream.retrieve(DEFAULT, "any")
    prune()
    assert kept() == ["of-20", "of-40"]


def test_upstream_is_asked_for_its_time_where_it_has_not_been_asked_anything(prune, upstream):
    prune()
    assert kept() == ["of-20"]


def test_nothing_is_deleted_before_upstream_has_told_its_time(prune, upstream, unreachable, caplog):
    caplog.set_level(logging.INFO)
    prune()
    assert kept() == ["of-20", "of-40"]
    assert "Nothing is pruned before upstream has told its time" in caplog.text


@pytest.fixture
def unreachable(upstream):
    upstream._base_url = f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def mend(upstream, clock):
    """Mend what there is: a dead letter, and an expired task. A run was noted a minute ago."""
    now = utcnow()
    register("t1", now=now - timedelta(days=4))
    Task.update(status="expired", gave_up_at=now - timedelta(days=1), next_lookup_at=None).execute()
    create_forward(status=GIVEN_UP, ended_at=now - timedelta(hours=1), next_attempt_at=None)
    runs.open_run("here:1", now - timedelta(minutes=1))
    return lambda: mend_times(upstream, clock)


def statuses() -> tuple[str, str]:
    return Task.get().status, Forward.get().status


@pytest.mark.usefixtures("ledger")
def test_by_a_clock_that_is_behind_nothing_seems_to_be_of_the_future(mend, clock):
    clock.ahead = -timedelta(days=2500)
    assert mend()
    assert statuses() == ("expired", GIVEN_UP)
    assert ReconcileRun.get().started_at > utcnow() - timedelta(minutes=5)


@pytest.mark.usefixtures("ledger")
def test_what_a_clock_ahead_gave_up_is_mended_also_while_ours_is_behind(mend, clock):
    Task.update(gave_up_at=utcnow() + timedelta(days=300)).execute()
    Forward.update(ended_at=utcnow() + timedelta(days=300)).execute()
    ReconcileRun.update(started_at=utcnow() + timedelta(days=300)).execute()
    clock.ahead = -timedelta(days=2500)
    assert mend()
    assert statuses() == ("pending", "pending")


@pytest.mark.usefixtures("ledger", "unreachable")
def test_nothing_is_mended_before_upstream_has_told_its_time(mend, clock):
    clock.ahead = -timedelta(days=2500)
    assert not mend()
    assert statuses() == ("expired", GIVEN_UP)


@pytest.mark.usefixtures("ledger", "unreachable")
def test_mending_is_tried_again_soon(upstream, clock):
    again = []
    jobs.mend(upstream, clock, lambda name, wait: again.append((name, wait)))
    assert again == [(jobs.MEND, jobs.MEND_AGAIN_AFTER)]
