"""How the customer's app is told: endpoints' health, and the facts altogether."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger.dealing import deal
from receiver.ledger.models import Event, Forward
from receiver.ledger.reading import endpoints
from receiver.ledger.reading.endpoints import Share, find_endpoint, forward_facts, list_endpoints
from tests.factories import body, create_endpoint, create_forward, record
from tests.receiver.ledger.reading.test_listing import plan_of

NOW = utcnow().replace(microsecond=0)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)

pytestmark = pytest.mark.usefixtures("ledger")


def test_an_endpoints_health_is_its_share_and_what_waits_for_it():
    one, other = create_endpoint("https://a.example/"), create_endpoint("https://b.example/")
    for _ in range(3):
        create_forward(endpoint=one, status="delivered", created_at=NOW - 5 * MINUTE)
    create_forward(endpoint=one, status="failed", created_at=NOW - 5 * MINUTE)
    create_forward(endpoint=one, created_at=NOW - 3 * MINUTE)
    create_forward(endpoint=one, created_at=NOW)  # had no time yet to arrive
    create_forward(endpoint=one, status="delivered", created_at=NOW - 2 * DAY)
    create_forward(endpoint=other, status="dismissed")
    found = find_endpoint(one.id, NOW)
    assert (found.share, found.waiting, found.oldest_waiting_at) == (Share(3, 5), 2, NOW - 3 * MINUTE)
    nothing = find_endpoint(other.id, NOW)
    assert (nothing.share, nothing.waiting, nothing.oldest_waiting_at) == (Share(), 0, None)
    assert find_endpoint(99, NOW) is None


def test_a_share_compares_statuses_over_one_span(monkeypatch):
    monkeypatch.setattr(endpoints, "MOST_SHARED", 4)
    for minutes in range(2, 12):
        create_forward(status="delivered", created_at=NOW - minutes * MINUTE)
        create_forward(status="failed", created_at=NOW - 2 * minutes * MINUTE)
    # The newest four delivered ones reach back five minutes. Two failed ones were made since then: at four.
    assert find_endpoint(1, NOW).share == Share(4, 5)


def test_apps_are_listed_first_then_held_servers_then_new_ones(monkeypatch):
    names = [create_endpoint(f"https://{n}.example/", is_app=False).id for n in range(3)]
    held = create_endpoint("https://held.example/", is_app=False, held_at=NOW, held_because="gone")
    new = create_endpoint("https://new.example/", is_app=False)
    app = create_endpoint("https://app.example/", is_app=True)
    expected = [app.id, held.id, new.id, *reversed(names)]
    assert [one.endpoint.id for one in list_endpoints(NOW)] == expected
    monkeypatch.setattr(endpoints, "MOST_ENDPOINTS", 2)
    assert [one.endpoint.id for one in list_endpoints(NOW)] == expected[:2]


def test_the_facts_are_those_of_all_endpoints(monkeypatch):
    facts = forward_facts(NOW)
    assert not facts.is_used
    one = create_endpoint("https://a.example/")
    held = create_endpoint("https://b.example/", held_at=NOW, held_because="failing")
    create_endpoint("https://c.example/", held_at=NOW, held_because="person", retired_at=NOW)
    create_forward(endpoint=one, status="delivered", created_at=NOW - 9 * MINUTE)
    create_forward(endpoint=held, created_at=NOW - 8 * MINUTE)
    create_forward(endpoint=one, status="failed", created_at=NOW - 7 * MINUTE)
    create_forward(endpoint=one, status="resent", created_at=NOW - 10 * MINUTE)
    facts = forward_facts(NOW)
    assert (facts.share, facts.waiting, facts.failed) == (Share(1, 4), 1, 1)
    assert (facts.oldest_waiting_at, facts.oldest_failed_at) == (NOW - 8 * MINUTE, NOW - 7 * MINUTE)
    assert ([endpoint.id for endpoint in facts.held], facts.is_used) == ([held.id], True)


def test_counts_end(monkeypatch):
    monkeypatch.setattr(endpoints, "MOST_COUNTED", 3)
    for _ in range(5):
        create_forward()
    assert (find_endpoint(1, NOW).waiting, forward_facts(NOW).waiting) == (3, 3)


@pytest.mark.parametrize("status", ["delivered", "failed", "pending"])
def test_a_share_is_read_from_an_index_alone(status):
    for _ in range(20):
        create_forward(status=status)
    plan = plan_of(endpoints._newest_query(status, NOW - DAY, NOW))
    assert "forward_status_newest" in plan, plan
    assert "COVERING INDEX" in plan or "Index Only Scan" in plan, plan


def test_what_waits_for_an_endpoint_is_found_by_an_index():
    for _ in range(20):
        create_forward()
    plan = plan_of(endpoints._waiting(1).order_by(Forward.id).limit(1))
    assert "forward_waiting" in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan


def test_an_event_of_which_no_forward_is_made_is_told_where_somebody_is_to_be_told():
    record(body("t1"), NOW)
    assert forward_facts(NOW).undealt_since is None
    create_endpoint()
    assert forward_facts(NOW).undealt_since == Event.get().happened_at
    deal(NOW, "settled")
    assert forward_facts(NOW).undealt_since is None


def test_what_waits_for_an_endpoint_that_is_gone_from_forward_url_does_not_count():
    create_forward(endpoint=create_endpoint(retired_at=NOW))
    assert (forward_facts(NOW).waiting, forward_facts(NOW).oldest_waiting_at) == (0, None)
