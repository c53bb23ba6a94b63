"""The page on this deployment."""

from receiver.ledger import growth
from receiver.version import VERSION
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.html import words


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
