"""What the ledger knows of the receiver's returns, and which tasks are then asked about early, on both databases."""

import threading
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import returns
from receiver.ledger.models import Task
from tests.factories import body, claim, item, look_up, record, register

pytestmark = pytest.mark.usefixtures("ledger")

NOW = utcnow()
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def due() -> set[str]:
    return {task.id for task in Task.select().where(Task.next_lookup_at <= NOW)}


def test_a_return_is_unfollowed_until_a_discovery_has_followed_it():
    assert (returns.count_returns(), returns.unfollowed()) == (0, None)
    returns.note_return()
    assert (returns.count_returns(), returns.unfollowed()) == (1, 1)
    returns.note_followed(1)
    assert (returns.count_returns(), returns.unfollowed()) == (1, None)


def test_a_return_during_a_discovery_is_not_followed_by_it():
    returns.note_return()
    began_after = returns.count_returns()
    returns.note_return()
    returns.note_followed(began_after)
    assert returns.unfollowed() == 2
    returns.note_followed(2)
    returns.note_followed(1)  # another one that began earlier ends later
    assert returns.unfollowed() is None


def test_returns_at_one_moment_all_count():
    threads = [threading.Thread(target=returns.note_return) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert returns.count_returns() == 8


def test_the_open_tasks_that_would_be_due_soonest_are_due_at_once():
    for n in range(4):
        register(f"t{n}", now=NOW - MINUTE, grace=MINUTE + n * HOUR + SECOND)
    assert returns.ask_early(NOW, most=3) == 3
    assert due() == {"t0", "t1", "t2"}
    assert returns.ask_early(NOW, most=3) == 1


def test_tasks_of_which_nothing_new_can_be_expected_keep_their_time():
    register("new", now=NOW - 5 * SECOND)
    register("looked_at", now=NOW - MINUTE, grace=timedelta(0))
    look_up([item("looked_at")], now=NOW - 5 * SECOND)
    register("leased", now=NOW - MINUTE, grace=timedelta(0))
    assert claim(NOW - SECOND).ids == ["leased"]
    register("confirmed_later", now=NOW - MINUTE)
    record(body("confirmed_later"), now=NOW - MINUTE)
    Task.update(next_lookup_at=NOW + HOUR).where(Task.id == "confirmed_later").execute()
    register("given_up", now=NOW - HOUR)
    Task.update(next_lookup_at=None, status="expired", gave_up_at=NOW).where(Task.id == "given_up").execute()
    assert returns.ask_early(NOW, most=100) == 0
    assert due() == set()
