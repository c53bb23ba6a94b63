from datetime import timedelta

import pytest

from receiver.upstream.client import UpstreamError
from reconcile.calls import Pages
from reconcile.rate_limit import RateLimiter


def test_a_page_waits_for_its_place_and_counts():
    pages = Pages(RateLimiter(rate=1000), timedelta(seconds=60))
    for _ in range(5):
        pages.take_place()
    assert pages.asked == 6


def test_a_page_that_gets_no_place_in_time_is_an_error():
    pages = Pages(RateLimiter(rate=0.001), timedelta(seconds=0.1))
    pages.take_place()
    with pytest.raises(UpstreamError, match="RECONCILE_MAX_RATE"):
        pages.take_place()
    assert pages.asked == 2
