import pytest

from receiver.upstream.client import UpstreamError
from reconcile.calls import Pages
from reconcile.rate_limit import RateLimiter
from tests.clocks import VirtualClock


@pytest.fixture
def clock():
    return VirtualClock()


def test_a_page_waits_for_its_place_and_counts(clock):
    pages = Pages(RateLimiter(1, clock), clock)
    for _ in range(5):
        pages.take_place(seconds_left=60)
    assert (pages.asked, clock.monotonic()) == (6, 4)


def test_a_page_that_gets_no_place_in_time_is_an_error(clock):
    pages = Pages(RateLimiter(0.01, clock), clock)
    pages.take_place(seconds_left=30)
    with pytest.raises(UpstreamError, match="RECONCILE_MAX_RATE"):
        pages.take_place(seconds_left=30)
    assert pages.asked == 2
    assert 30 < clock.monotonic() < 31
