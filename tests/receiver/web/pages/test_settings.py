"""The page on this deployment."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger import growth
from receiver.version import VERSION
from receiver.web.disk_room import Room
from receiver.web.pages.settings import when_full
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.html import words

NOW = datetime(2026, 1, 31, 12)


def test_it_needs_a_session_or_the_key(make_client):
    assert make_client().get("/settings").status_code == 401


def test_it_shows_the_version_the_schema_the_sizes_and_every_setting_without_secrets(make_client, auth):
    client = make_client(ALERT_URL="https://hooks.slack.com/services/T/B/s3cret")
    answer = client.get("/settings", headers=auth)
    page = words(answer.text)
    assert answer.status_code == 200
    assert VERSION in page
    assert "current: " in page
    assert "not known yet" in page
    for name in client.application.extensions["backstop"].given:
        assert name in page
    assert "https://hooks.slack.com/…" in page
    for secret in (API_KEY, CALLBACK_TOKEN, "test-token", "s3cret"):
        assert secret not in answer.text


def test_it_tells_the_growth(make_client, auth, monkeypatch):
    monkeypatch.setattr(growth, "bytes_a_day", lambda now: 3_000_000.0)
    assert "3.0 MB" in words(make_client().get("/settings", headers=auth).text)


@pytest.mark.parametrize(
    ("free", "a_day", "days"),
    [(10**9, 10**8, 10), (10**9, None, None), (10**9, -5.0, None), (10**15, 1.0, None)],
)
def test_a_disk_is_full_at_the_pace_of_its_database(free, a_day, days):
    full_at = when_full(Room("/data", free, 2 * free), a_day, NOW)
    assert full_at == (None if days is None else NOW + timedelta(days=days))
