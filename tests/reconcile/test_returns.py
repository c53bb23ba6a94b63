"""When a return of the receiver is followed, and what a discovery makes of it, on both databases."""

from datetime import timedelta

import pytest

from receiver.ledger import returns
from receiver.ledger.models import Task
from reconcile import jobs
from reconcile.discover import PAGES_PER_RUN, Found
from reconcile.returns import AT_MOST_EVERY, ReturnsFollower
from tests.clocks import VirtualClock
from tests.factories import register

pytestmark = pytest.mark.usefixtures("ledger")

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
WHOLE = Found(is_whole=True, finished=True)


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def follower(clock):
    return ReturnsFollower(clock, is_discovered=True)


class Discoverer:
    """One whose discovery ends with `found`, and during which `meanwhile` happens."""

    def __init__(self, found, meanwhile=lambda: None):
        self.found, self.meanwhile = found, meanwhile

    def run(self):
        self.meanwhile()
        return self.found


def discover(*found, **options):
    jobs.discover_tasks([Discoverer(one, **options) for one in found], lambda *_: None)


def test_both_jobs_are_due_at_once_and_so_are_open_tasks(clock, follower):
    moved = []
    register("open", now=clock.now() - HOUR, grace=2 * HOUR)
    jobs.follow_returns(follower, lambda *moves: moved.append(moves))
    assert moved == []
    returns.note_return()
    jobs.follow_returns(follower, lambda *moves: moved.append(moves))
    assert moved == [("reconcile", timedelta(0)), ("discovery", timedelta(0))]
    assert Task.get().next_lookup_at == clock.now()


def test_returns_in_a_row_are_followed_once_a_minute(clock, follower):
    followed = []
    for _ in range(60):  # ten minutes
        returns.note_return()
        if follower.look():
            followed.append(clock.monotonic())
            discover(WHOLE)
        clock.wait(10)
    assert len(followed) == 10


def test_it_is_followed_again_until_a_discovery_is_complete_and_tasks_are_asked_about_once(clock, follower):
    returns.note_return()
    assert follower.look()
    register("open", now=clock.now() - HOUR, grace=2 * HOUR)
    for incomplete in (
        Found(is_whole=True, error="500"),
        Found(is_whole=True, pages=PAGES_PER_RUN),
        Found(finished=True),  # went on where another one ended
        Found(),  # another process has the lease
    ):
        discover(WHOLE, incomplete)
        clock.wait(AT_MOST_EVERY.total_seconds())
        assert follower.look()
    assert Task.get().next_lookup_at > clock.now()
    discover(WHOLE, WHOLE)
    clock.wait(AT_MOST_EVERY.total_seconds())
    assert not follower.look()


def test_a_return_during_a_discovery_is_followed_by_the_next_one(clock, follower):
    returns.note_return()
    assert follower.look()
    discover(WHOLE, meanwhile=returns.note_return)
    clock.wait(AT_MOST_EVERY.total_seconds())
    assert follower.look()


def test_a_reconciler_that_starts_follows_what_no_other_has(clock, follower):
    returns.note_return()
    assert ReturnsFollower(clock, is_discovered=True).look()
    discover(WHOLE)
    assert not follower.look()


def test_without_discovery_it_is_followed_once(clock):
    follower = ReturnsFollower(clock, is_discovered=False)
    returns.note_return()
    assert follower.look()
    clock.wait(AT_MOST_EVERY.total_seconds())
    assert not follower.look()


def test_a_service_that_is_paused_itself_keeps_no_return_from_being_followed():
    returns.note_return()
    discover(WHOLE, Found(error="asking is paused: disabled"))
    assert returns.unfollowed() == 1
    discover(WHOLE, Found(error="asking is paused: disabled", paused_itself=True))
    assert returns.unfollowed() is None
