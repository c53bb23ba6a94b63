"""Events are sent again at a person's word, and forwards dismissed."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import resending
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Forward, Resending, database
from receiver.ledger.reading.forwards import ForwardFilter
from receiver.ledger.resending import dismiss, order, resend, stop
from tests.factories import create_endpoint, create_forward
from tests.forwarding import claim

NOW = utcnow().replace(microsecond=0)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
FAILED = ForwardFilter(status="failed")

pytestmark = pytest.mark.usefixtures("ledger")


def forward(number: int) -> Forward:
    return Forward.get(Forward.id == number)


def sent_again() -> list[int]:
    """Return the numbers of the first forwards of what was sent again."""
    query = Forward.select(Forward.resends).where(Forward.resends.is_null(False)).order_by(Forward.id)
    return [row.resends for row in query]


def fail(*minutes: int, **fields) -> list[int]:
    return [create_forward(status="failed", created_at=NOW - ago * MINUTE, **fields).id for ago in minutes]


class TestResend:
    def test_it_is_a_new_forward_with_the_same_id_body_and_event(self):
        one = create_forward(status="delivered", event=7, body=b"body", attempts=3, url="https://x.example/")
        number = resend(one.id, NOW)
        new, old = forward(number), forward(one.id)
        assert new.message_id == old.message_id
        for name in ("endpoint_id", "event", "task_id", "sequence", "type", "happened_at", "url"):
            assert getattr(new, name) == getattr(old, name)
        assert bytes(new.body) == b"body"
        assert (new.status, new.attempts, new.next_attempt_at, new.pushed) == ("pending", 0, NOW, True)
        assert (old.status, old.attempts, old.resent_at, old.ended_at) == (
            *("delivered", 3, NOW),
            one.ended_at,
        )

    def test_a_dead_letter_is_none_any_more_but_keeps_what_it_was(self):
        (number,) = fail(5, cause="HTTP 500", attempts=30)
        resend(number, NOW)
        old = forward(number)
        assert (old.status, old.cause, old.attempts, old.resent_at) == ("resent", "HTTP 500", 30, NOW)

    def test_what_was_sent_again_can_be_sent_again(self):
        (number,) = fail(5)
        second = resend(number, NOW)
        Forward.update(status="failed").where(Forward.id == second).execute()
        third = resend(number, NOW)
        assert (forward(second).status, forward(third).resends) == ("resent", number)
        Forward.update(status="delivered").where(Forward.id == third).execute()
        assert forward(resend(third, NOW)).message_id == forward(number).message_id

    def test_a_number_that_is_given_again_comes_with_another_webhook_id(self):
        (number,) = fail(5)  # then the ledger is restored from a copy without it
        before = forward(number).message_id
        Forward.delete().execute()
        assert create_forward(id=number, created_at=NOW).message_id != before

    def test_a_pending_one_is_made_due_instead(self):
        one = create_forward(next_attempt_at=NOW + 99 * MINUTE, attempts=5)
        assert resend(one.id, NOW) == one.id
        found = forward(one.id)
        assert (found.next_attempt_at, found.pushed, found.attempts, found.resent_at) == (NOW, True, 5, None)
        assert Forward.select().count() == 1

    def test_one_that_is_being_sent_is_left_alone(self):
        until = NOW + MINUTE
        one = create_forward(next_attempt_at=until, leased_until=until)
        assert resend(one.id, NOW) == one.id
        assert (forward(one.id).next_attempt_at, forward(one.id).pushed) == (until, False)

    def test_what_is_sent_again_already_is_not_sent_twice(self):
        (number,) = fail(5)
        assert resend(number, NOW) == resend(number, NOW)
        assert Forward.select().count() == 2

    def test_nothing_is_sent_to_an_endpoint_that_is_no_longer_configured(self):
        (number,) = fail(5, endpoint=create_endpoint("https://old.example/", retired_at=NOW))
        assert resend(number, NOW) is None
        assert resend(10**9, NOW) is None
        assert forward(number).status == "failed"

    @pytest.mark.parametrize("because", ["person", "failing"])
    def test_it_is_claimed_although_its_endpoint_is_held(self, because):
        held = create_endpoint(held_at=NOW - MINUTE, held_because=because, probe_at=None)
        first, second = (create_forward(endpoint=held, task_id=name, created_at=NOW) for name in "ab")
        assert claim(NOW, 8) == []
        resend(second.id, NOW)
        assert [one.id for one in claim(NOW, 8)] == [second.id]
        number = resend(create_forward(endpoint=held, task_id="c", status="delivered").id, NOW)
        assert [one.id for one in claim(NOW, 8)] == [number]
        assert forward(first.id).leased_until is None


class TestFairness:
    def test_what_is_sent_again_takes_no_place_from_what_happens_now(self):
        for number in range(20):
            old = create_forward(task_id=f"old{number}", status="delivered", created_at=NOW - MINUTE)
            resend(old.id, NOW - SECOND)
        new = create_forward(task_id="new", created_at=NOW)
        for number in range(20):
            old = create_forward(task_id=f"older{number}", status="delivered", created_at=NOW - MINUTE)
            resend(old.id, NOW)
        assert new.id in [one.id for one in claim(NOW, 8)]


class TestDismiss:
    @pytest.mark.parametrize("status", ["pending", "failed"])
    def test_what_was_not_delivered_is_given_up_for_good(self, status):
        one = create_forward(status=status, cause="HTTP 500")
        assert dismiss(one.id, NOW)
        found = forward(one.id)
        assert (found.status, found.ended_at, found.next_attempt_at) == ("dismissed", NOW, None)
        assert found.cause == "HTTP 500"
        assert claim(NOW + MINUTE, 8) == []

    @pytest.mark.parametrize("status", ["delivered", "resent", "dismissed"])
    def test_nothing_else_can_be_dismissed(self, status):
        assert not dismiss(create_forward(status=status).id, NOW)
        assert not dismiss(10**9, NOW)


class TestOrder:
    def test_all_that_the_filter_holds_is_sent_oldest_first_at_the_pace(self):
        numbers = fail(1, 9, 5, 7)
        create_forward(status="delivered")
        ordered = order(FAILED, 2, NOW)
        assert (ordered.total, ordered.done, ordered.ended_at) == (4, 0, None)
        oldest_first = [numbers[1], numbers[3], numbers[2], numbers[0]]
        assert resending.advance(NOW)
        assert sent_again() == oldest_first[:1]
        assert not resending.advance(NOW + 0.4 * SECOND)
        assert resending.advance(NOW + SECOND)
        assert sent_again() == oldest_first[:3]
        resending.advance(NOW + 2 * SECOND)
        found = resending.find(ordered.id)
        assert (sent_again(), found.done) == (oldest_first, 4)
        assert found.ended_at is not None
        assert not resending.advance(NOW + 9 * MINUTE)

    def test_a_pause_is_not_made_up_for(self):
        fail(*range(1, 30))
        order(FAILED, 3, NOW)
        resending.advance(NOW)
        resending.advance(NOW + 9 * MINUTE)
        assert len(sent_again()) == 1 + 4

    def test_it_goes_on_after_a_restart(self, ledger):
        fail(*range(1, 6))
        ordered = order(FAILED, 2, NOW)
        resending.advance(NOW)
        database.obj.close_all()
        init_database(ledger)
        for second in range(1, 5):
            resending.advance(NOW + second * SECOND)
        assert (len(sent_again()), resending.find(ordered.id).done) == (5, 5)

    def test_one_that_is_stopped_sends_no_more(self):
        fail(1, 2, 3)
        ordered = order(FAILED, 1, NOW)
        resending.advance(NOW)
        assert stop(ordered.id, NOW)
        assert not resending.advance(NOW + MINUTE)
        found = resending.find(ordered.id)
        assert (len(sent_again()), found.done, found.stopped_at) == (1, 1, NOW)
        assert not stop(ordered.id, NOW)
        assert not stop(99, NOW)

    def test_what_fails_or_comes_meanwhile_is_not_in_it(self):
        numbers = fail(1, 2)
        order(ForwardFilter(), 500, NOW)
        fail(3)
        create_forward(status="delivered", created_at=NOW)
        for second in range(5):
            resending.advance(NOW + second * SECOND)
        assert sorted(sent_again()) == numbers
        assert Resending.get().ended_at is not None

    def test_nothing_to_send_ends_at_once(self):
        ordered = order(FAILED, 1, NOW)
        assert (ordered.total, ordered.ended_at) == (0, NOW)
        assert not resending.advance(NOW)

    def test_few_among_many_are_found_portion_by_portion(self, monkeypatch):
        monkeypatch.setattr("receiver.ledger.choosing.MOST_LOOKED_AT", 3)
        other = create_endpoint("https://other.example/")
        fail(*range(2, 12))
        (number,) = fail(1, endpoint=other)
        order(ForwardFilter(status="failed", endpoint=other.id), 100, NOW)
        while resending.advance(NOW):
            pass
        assert sent_again() == [number]

    def test_its_filter_is_kept(self):
        wanted = ForwardFilter("failed", 1, "task.failed", "t1", "HTTP 500", NOW - MINUTE, NOW)
        assert resending.wanted_of(order(wanted, 1, NOW)) == wanted

    def test_too_many_are_refused(self, monkeypatch):
        monkeypatch.setattr("receiver.ledger.choosing.MOST_TO_COUNT", 2)
        fail(1, 2, 3)
        with pytest.raises(resending.TooMany):
            order(FAILED, 1, NOW)
        assert Resending.select().count() == 0
