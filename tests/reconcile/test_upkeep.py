"""What the reconciler deletes, and by which clock."""

import logging
import threading
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger.models import Delivery
from receiver.upstream.client import Upstream
from receiver.upstream.date import Comparison
from receiver.upstream.services import DEFAULT
from reconcile.upkeep import prune_by
from tests.clocks import SetClock
from tests.factories import body, record


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


def test_nothing_is_deleted_before_upstream_has_told_its_time(prune, upstream, caplog):
    caplog.set_level(logging.INFO)
    prune()
    assert kept() == ["of-20", "of-40"]
    assert "Nothing is pruned before upstream has answered" in caplog.text
    upstream.retrieve(DEFAULT, "any")
    prune()
    assert kept() == ["of-20"]
