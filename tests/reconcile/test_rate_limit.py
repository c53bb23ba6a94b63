from reconcile import rate_limit as module
from reconcile.rate_limit import RateLimiter


def test_it_lets_calls_through_evenly(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    limiter = RateLimiter(rate=10)
    taken = []
    for tenth in range(30):
        now[0] = 100 + tenth / 20
        taken.append(limiter.take())
    assert taken == [True, False] * 15
    assert 0.01 <= limiter.seconds_left() <= 0.1


def test_0_is_no_limit():
    limiter = RateLimiter(rate=0)
    assert all(limiter.take() for _ in range(100))


def test_a_stop_is_noticed_however_long_the_wait():
    limiter = RateLimiter(rate=0.001)
    assert limiter.take()
    assert limiter.seconds_left() == 0.25
