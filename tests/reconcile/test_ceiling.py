from reconcile import ceiling as ceiling_module
from reconcile.ceiling import Ceiling


def test_it_lets_calls_through_evenly(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ceiling_module.time, "monotonic", lambda: now[0])
    ceiling = Ceiling(rate=10)
    taken = []
    for tenth in range(30):
        now[0] = 100 + tenth / 20
        taken.append(ceiling.take())
    assert taken == [True, False] * 15
    assert 0.01 <= ceiling.seconds_left() <= 0.1


def test_0_is_no_ceiling():
    ceiling = Ceiling(rate=0)
    assert all(ceiling.take() for _ in range(100))


def test_a_stop_is_noticed_however_long_the_wait():
    ceiling = Ceiling(rate=0.001)
    assert ceiling.take()
    assert ceiling.seconds_left() == 0.25
