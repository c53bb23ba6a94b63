from datetime import timedelta

import pytest

from reconcile.backoff import LONGEST_UNKNOWN_WAIT, backoff, unknown_backoff


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 30), (1, 60), (2, 120), (6, 1920), (7, 3600), (8, 3600), (10**9, 3600)]
)
def test_it_doubles_from_30_seconds_to_an_hour_within_a_fifth(attempts, seconds):
    waits = [backoff(attempts) for _ in range(200)]
    assert timedelta(seconds=seconds * 0.8) <= min(waits) < timedelta(seconds=seconds)
    assert timedelta(seconds=seconds) < max(waits) <= timedelta(seconds=seconds * 1.2)


def test_what_upstream_does_not_know_costs_few_look_ups_a_day():
    since, asked = timedelta(0), 0
    while since <= timedelta(days=1):
        since += unknown_backoff(asked) / 1.2  # at the least
        asked += 1
    assert asked <= 8
    assert unknown_backoff(10**9) <= LONGEST_UNKNOWN_WAIT * 1.2
