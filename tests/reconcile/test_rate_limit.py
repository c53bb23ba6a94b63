from reconcile.rate_limit import RateLimiter
from tests.clocks import VirtualClock


def test_it_lets_calls_through_evenly():
    clock = VirtualClock()
    limiter = RateLimiter(8, clock)
    taken = []
    for _ in range(30):
        taken.append(limiter.take())
        clock.wait(1 / 16)
    assert taken == [True, False] * 15
    assert 0.01 <= limiter.seconds_left() <= 0.1


def test_0_is_no_limit():
    limiter = RateLimiter(0, VirtualClock())
    assert all(limiter.take() for _ in range(100))


def test_a_stop_is_noticed_however_long_the_wait():
    limiter = RateLimiter(0.001, VirtualClock())
    assert limiter.take()
    assert limiter.seconds_left() == 0.25
