"""When the disk is full."""

from datetime import datetime, timedelta

import pytest

from receiver.web.disk_room import Room
from receiver.web.watch.sizes import when_full

NOW = datetime(2026, 1, 31, 12)


@pytest.mark.parametrize(
    ("free", "a_day", "days"),
    [(10**9, 10**8, 10), (10**9, None, None), (10**9, -5.0, None), (10**15, 1.0, None)],
)
def test_a_disk_is_full_at_the_pace_of_its_database(free, a_day, days):
    full_at = when_full(Room("/data", free, 2 * free), a_day, NOW)
    assert full_at == (None if days is None else NOW + timedelta(days=days))
