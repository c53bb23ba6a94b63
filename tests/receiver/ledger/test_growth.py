"""How fast the database grows."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import growth
from receiver.ledger.models import Counter

NOW = utcnow()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def on_a_ledger(ledger):
    return ledger


def sizes():
    return Counter.select().where(Counter.name == growth.NAME)


def test_an_hour_has_one_size_and_a_week_is_kept():
    growth.note_size(NOW - 8 * DAY)
    growth.note_size(NOW)
    growth.note_size(NOW)
    assert [row.labels for row in sizes()] == [NOW.strftime("%Y-%m-%d %H")]


def test_the_pace_is_known_after_an_hour(monkeypatch):
    assert growth.bytes_a_day(NOW) is None
    monkeypatch.setattr(growth, "database_bytes", lambda: 10_000_000)
    growth.note_size(NOW)
    assert growth.bytes_a_day(NOW) is None
    began_at = NOW.replace(minute=0, second=0, microsecond=0)
    monkeypatch.setattr(growth, "database_bytes", lambda: 16_000_000)
    assert growth.bytes_a_day(began_at + 2 * DAY) == 3_000_000


def test_the_size_is_that_of_the_files():
    assert growth.database_bytes() > 50_000
