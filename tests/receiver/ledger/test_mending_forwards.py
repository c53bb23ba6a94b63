"""What a process tells of forwards while its clock is ahead, and what is made of it afterwards."""

import pytest

from receiver.ledger import resending
from receiver.ledger.choosing import ForwardFilter
from receiver.ledger.due_forwards import LEASE
from receiver.ledger.endpoints import LONGEST_WAIT
from receiver.ledger.forward import GIVEN_UP
from receiver.ledger.mending_forwards import mend_forwards
from receiver.ledger.models import Endpoint
from tests.forwarding import (
    APP,
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    claim,
    found,
    hold,
    ids,
    make_apps,
    make_forward,
    note,
)

pytestmark = pytest.mark.usefixtures("ledger")
YEAR = 365 * DAY


def test_a_lease_from_the_future_is_void():
    (app,) = make_apps(APP)
    number = make_forward(app, "t1")
    claim(NOW + 9 * MINUTE, 1)
    assert claim(NOW + 5 * MINUTE, 1) == []
    assert mend_forwards(NOW) == 1
    assert ids(claim(NOW, 1)) == [number]


def test_a_lease_of_now_is_left_to_the_process_that_has_it():
    (app,) = make_apps(APP)
    make_forward(app, "t1")
    claim(NOW, 1)
    assert mend_forwards(NOW) == 0
    assert claim(NOW + LEASE - SECOND, 1) == []


@pytest.mark.parametrize(("ahead", "is_mended"), [(LONGEST_WAIT, False), (LONGEST_WAIT + SECOND, True)])
def test_a_retry_later_than_any_can_be_is_due(ahead, is_mended):
    (app,) = make_apps(APP)
    make_forward(app, "t1", next_attempt_at=NOW + ahead)
    assert mend_forwards(NOW) == is_mended
    assert len(claim(NOW, 1)) == is_mended


def test_one_that_was_made_in_the_future_is_due():
    (app,) = make_apps(APP)
    make_forward(app, "t1", created_at=NOW + 12 * HOUR, next_attempt_at=NOW + 12 * HOUR)
    assert mend_forwards(NOW) == 1
    assert len(claim(NOW, 1)) == 1


def test_one_that_waits_after_an_attempt_in_the_future_is_due():
    (app,) = make_apps(APP)
    make_forward(app, "t1")
    (claimed,) = claim(NOW + 12 * HOUR, 1)
    note(claimed, NOW + 12 * HOUR, "HTTP 500", next_attempt_at=NOW + 13 * HOUR)
    assert mend_forwards(NOW) == 1
    assert mend_forwards(NOW) == 0


def test_what_was_given_up_in_the_future_is_sent_again():
    (app,) = make_apps(APP)
    number = make_forward(app, "t1")
    (claimed,) = claim(NOW, 1)
    note(claimed, NOW + YEAR, "HTTP 500", next_attempt_at=None)
    assert found(number).status == "failed"
    assert mend_forwards(NOW) == 1
    assert (found(number).began_at, found(number).ended_at) == (NOW, None)
    assert ids(claim(NOW, 1)) == [number]
    assert mend_forwards(NOW) == 0


def test_an_endpoint_that_seemed_to_fail_for_a_year_is_open_again():
    (app,) = make_apps(APP)
    make_forward(app, "t1")
    make_forward(app, "t2")
    note(claim(NOW, 1)[0], NOW, "HTTP 500", next_attempt_at=NOW + HOUR)
    hold(app.id, "failing", NOW + YEAR)
    assert Endpoint.get().held_because == "failing"
    mend_forwards(NOW + 2 * MINUTE)
    assert (Endpoint.get().held_at, Endpoint.get().failing_since) == (None, None)
    assert len(claim(NOW + 2 * HOUR, 9)) == 2


@pytest.mark.parametrize(("because", "probes"), [("person", 0), ("gone", 1)])
def test_what_is_held_otherwise_stays_held_and_is_probed_within_the_hour(because, probes):
    (app,) = make_apps(APP)
    make_forward(app, "t1")
    hold(app.id, because, NOW + YEAR)
    mend_forwards(NOW)
    assert (Endpoint.get().held_at, Endpoint.get().held_because) == (NOW, because)
    assert len(claim(NOW + HOUR, 9)) == probes


def test_a_resending_that_was_ordered_in_the_future_begins_now():
    (app,) = make_apps(APP)
    make_forward(app, "t1", status=GIVEN_UP, ended_at=NOW, next_attempt_at=None)
    resending.order(ForwardFilter(status=GIVEN_UP), rate=1, now=NOW + YEAR)
    assert not resending.advance(NOW)
    mend_forwards(NOW)
    assert resending.advance(NOW)
    assert len(claim(NOW, 1)) == 1
