"""The indexes of forwards: a backlog costs a claim no more than a few rows, however long it is."""

from datetime import timedelta

import pytest
from peewee import SQL, fn

from receiver.clock import utcnow
from receiver.ledger import forwards
from receiver.ledger.forward import PENDING_FORWARD
from receiver.ledger.models import Forward
from tests.factories import create_endpoint, create_forward
from tests.receiver.ledger.reading.test_listing import plan_of

NOW = utcnow()

pytestmark = pytest.mark.usefixtures("ledger")


@pytest.fixture
def plans(monkeypatch):
    """The plans of the queries by which a claim finds what to send."""
    seen: list[str] = []
    unlocked = forwards._unlocked

    def look(due, limit):
        seen.append(plan_of(due.limit(limit)))
        return unlocked(due, limit)

    monkeypatch.setattr(forwards, "_unlocked", look)
    return seen


def backlog(endpoint):
    for number in range(30):
        create_forward(endpoint=endpoint, task_id=f"t{number}", created_at=NOW - timedelta(seconds=number))


def test_a_claim_finds_the_oldest_and_the_new_ones_by_an_index(plans):
    backlog(create_endpoint())
    assert len(forwards.claim(NOW, 8)) == 8
    oldest, new = plans
    assert "forward_due" in oldest, oldest
    assert "forward_fresh" in new, new
    assert not any("TEMP B-TREE" in plan for plan in plans), plans


def test_a_claim_of_a_held_endpoint_finds_what_a_person_sends_by_an_index(plans):
    backlog(create_endpoint(held_at=NOW, held_because="person"))
    assert forwards.claim(NOW, 8) == []
    (plan,) = plans
    assert "forward_pushed" in plan, plan


def test_what_is_due_first_and_what_is_in_flight_are_found_by_an_index():
    backlog(create_endpoint())
    soonest = plan_of(Forward.select(fn.MIN(Forward.next_attempt_at)).where(PENDING_FORWARD))
    assert "forward_soonest" in soonest, soonest
    leased = plan_of(Forward.select(SQL("1")).where(Forward.leased_until > NOW))
    assert "forward_leased" in leased, leased
