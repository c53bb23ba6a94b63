"""What the log tells of an upstream that fails."""

import logging

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses
from reconcile.counts import Counts
from reconcile.outage import Outage
from tests.clocks import VirtualClock

FAILED = Counts(due=1, calls=1, errors=1, error="upstream answered 502")


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def test_it_is_told_once_and_once_when_it_is_over(ledger, clock, told):
    outage = Outage(clock)
    for _ in range(10):
        outage.note(FAILED)
        outage.note(Counts())  # idle runs change nothing
        clock.wait(60)
    assert told() == [
        "Upstream has failed for 120 s, the last time with: upstream answered 502."
        " Look-ups are repeated by themselves."
    ]
    outage.note(Counts(due=1, calls=1))
    outage.note(Counts(due=1, calls=1))
    assert told()[1:] == ["Upstream answers look-ups again, after 600 s."]


def test_what_the_next_look_up_mends_is_not_told(ledger, clock, told):
    outage = Outage(clock)
    for minute in range(10):
        outage.note(Counts(due=1, calls=1) if minute % 3 == 2 else FAILED)
        clock.wait(60)
    assert told() == []


def test_a_pause_is_told_by_itself(ledger, clock, told):
    pauses.pause_account("used_up", utcnow())
    outage = Outage(clock)
    for _ in range(10):
        outage.note(FAILED)
        clock.wait(60)
    assert told() == []
