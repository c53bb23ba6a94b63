"""Incidents: begun once, told once, over once, by whichever process comes first."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import incidents
from receiver.ledger.models import Incident
from tests.factories import prune

NOW = utcnow()
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
WAITS = {"x": timedelta(0), "slow": 5 * MINUTE}


@pytest.fixture(autouse=True)
def on_a_ledger(ledger):
    return ledger


def claimed(now=NOW):
    return [(one.code, one.over_at is not None) for one in incidents.claim(WAITS, now)]


def tell(now):
    for one in incidents.claim(WAITS, now):
        incidents.note_told(one, now)


def test_it_is_told_once_and_again_when_it_is_over():
    incidents.note_seen({"x": "mend it"}, NOW)
    incidents.note_seen({"x": "mend it"}, NOW)
    (one,) = incidents.claim(WAITS, NOW)
    assert (one.code, one.message, one.over_at) == ("x", "mend it", None)
    incidents.note_told(one, NOW)
    incidents.note_seen({"x": "mend it"}, NOW + 5 * MINUTE)
    assert claimed(NOW + 5 * MINUTE) == []
    incidents.note_seen({}, NOW + 7 * MINUTE)
    assert claimed(NOW + 7 * MINUTE) == [("x", True)]
    tell(NOW + 9 * MINUTE)
    assert claimed(NOW + 60 * MINUTE) == []
    incidents.note_seen({"x": "mend it"}, NOW + 61 * MINUTE)
    assert claimed(NOW + 61 * MINUTE) == [("x", False)]


def test_of_two_processes_one_tells(monkeypatch):
    incidents.note_seen({"x": "mend it"}, NOW)
    (row,) = Incident.select()
    assert incidents._claim_one(row, NOW)
    assert not incidents._claim_one(row, NOW)
    assert claimed(NOW + SECOND) == []


def test_a_post_that_failed_is_tried_again_after_a_growing_wait():
    incidents.note_seen({"x": "mend it"}, NOW)
    (one,) = incidents.claim(WAITS, NOW)
    incidents.note_untold(one, NOW)
    assert claimed(NOW + 59 * SECOND) == []
    assert claimed(NOW + 60 * SECOND) == [("x", False)]
    assert claimed(NOW + 150 * SECOND) == []
    assert claimed(NOW + 180 * SECOND) == [("x", False)]


def test_what_does_not_last_is_never_told():
    incidents.note_seen({"slow": "mend it"}, NOW)
    assert claimed(NOW + 4 * MINUTE) == []
    incidents.note_seen({}, NOW + 4 * MINUTE)
    assert claimed(NOW + 9 * MINUTE) == []
    assert Incident.select().get().closed_at == NOW + 4 * MINUTE


def test_what_was_seen_for_a_moment_is_not_told_while_it_may_come_back():
    incidents.note_seen({"x": "mend it"}, NOW)
    incidents.note_seen({}, NOW + 10 * SECOND)
    assert list(incidents.claim({"x": 20 * SECOND}, NOW + 30 * SECOND)) == []


def test_what_lasts_is_told_after_its_time():
    incidents.note_seen({"slow": "mend it"}, NOW)
    incidents.note_seen({"slow": "mend it"}, NOW + 5 * MINUTE)
    assert claimed(NOW + 5 * MINUTE) == [("slow", False)]


def test_after_a_clock_was_ahead_it_is_told_as_late_as_ever():
    incidents.note_seen({"slow": "mend it"}, NOW + timedelta(days=1))
    incidents.note_seen({"slow": "mend it"}, NOW)
    assert claimed(NOW) == []
    incidents.note_seen({"slow": "mend it"}, NOW + 5 * MINUTE)
    assert claimed(NOW + 5 * MINUTE) == [("slow", False)]


def test_a_moment_without_it_is_no_end():
    incidents.note_seen({"x": "mend it"}, NOW)
    tell(NOW)
    incidents.note_seen({}, NOW + 59 * SECOND)
    incidents.note_seen({"x": "mend it"}, NOW + 65 * SECOND)
    incidents.note_seen({}, NOW + 120 * SECOND)
    assert claimed(NOW + 120 * SECOND) == []


@pytest.mark.parametrize("told_at", [None, NOW])
def test_one_that_a_process_has_remembered_keeps_its_beginning_and_is_not_told_again(told_at):
    incidents.note_seen({"slow": "mend it"}, NOW + 5 * MINUTE)
    incidents.take_over("slow", NOW, told_at)
    assert claimed(NOW + 5 * MINUTE) == ([] if told_at else [("slow", False)])
    assert Incident.select().get().began_at == NOW


def test_of_two_processes_that_see_the_end_one_dates_it():
    incidents.note_seen({"x": "mend it"}, NOW)
    tell(NOW)
    (row,) = Incident.select()
    incidents._end([row.id], NOW + 2 * MINUTE)
    incidents._end([row.id], NOW + 3 * MINUTE)
    assert Incident.select().get().over_at == NOW + 2 * MINUTE


def test_that_it_is_over_is_tried_for_a_day():
    incidents.note_seen({"x": "mend it"}, NOW)
    tell(NOW)
    over_at = NOW + 2 * MINUTE
    incidents.note_seen({}, over_at)
    for later in (timedelta(0), timedelta(hours=25)):
        (one,) = incidents.claim(WAITS, over_at + later)
        incidents.note_untold(one, over_at + later)
    assert claimed(over_at + timedelta(hours=27)) == []


def test_pruning_deletes_what_is_closed_and_nothing_else():
    incidents.note_seen({"x": "mend it", "slow": "mend it"}, NOW - timedelta(days=40))
    tell(NOW - timedelta(days=40))
    incidents.note_seen({"slow": "mend it"}, NOW - timedelta(days=39))
    tell(NOW - timedelta(days=39))
    prune(NOW - timedelta(days=30))
    assert [row.code for row in Incident.select()] == ["slow"]


def test_one_that_ends_while_it_is_told_is_told_to_be_over():
    incidents.note_seen({"x": "Something is wrong."}, NOW)
    at = NOW + timedelta(minutes=5)
    incidents.note_seen({"x": "Something is wrong."}, at)
    (slow,) = incidents.claim(WAITS, at)
    incidents.note_seen({}, at + timedelta(minutes=2))  # another process sees that it has ended
    incidents.note_told(slow, at + timedelta(minutes=2))
    (over,) = incidents.claim(WAITS, at + timedelta(minutes=3))
    assert (over.code, over.over_at is not None) == ("x", True)
