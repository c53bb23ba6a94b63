from datetime import timedelta

import pytest

from reconcile.backoff import backoff


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 30), (1, 60), (2, 120), (6, 1920), (7, 3600), (8, 3600), (10**9, 3600)]
)
def test_it_doubles_from_30_seconds_to_an_hour_within_a_fifth(attempts, seconds):
    waits = [backoff(attempts) for _ in range(200)]
    assert timedelta(seconds=seconds * 0.8) <= min(waits) < timedelta(seconds=seconds)
    assert timedelta(seconds=seconds) < max(waits) <= timedelta(seconds=seconds * 1.2)
