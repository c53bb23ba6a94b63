"""The command that shows the settings and the sizes."""

import json

import pytest

from receiver.app import create_app
from receiver.ledger.models import database
from receiver.version import VERSION
from tests.conftest import API_KEY, CALLBACK_TOKEN


@pytest.fixture
def settings(make_settings):
    return make_settings(ALERT_URL="https://hooks.slack.com/services/T/B/s3cret")


@pytest.fixture
def run(ledger, settings):
    app = create_app(settings)
    return lambda *arguments: app.test_cli_runner().invoke(args=["settings", *arguments])


def test_it_shows_every_setting_without_secrets_the_schema_and_the_sizes(run, settings):
    told, item = run().stdout, json.loads(run("--json").stdout)
    assert told.startswith(f"Backstop {VERSION}\n")
    assert [one["name"] for one in item["settings"]] == list(settings.given)
    assert item["migrations"][0].startswith("0001")
    assert item["sizes"]["database_bytes"] > 0
    for name in settings.given:
        assert name in told
    assert "https://hooks.slack.com/…" in told
    assert f"the last is {item['migrations'][-1]}" in told
    for secret in (API_KEY, CALLBACK_TOKEN, "test-token", "s3cret"):
        assert secret not in told + json.dumps(item)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_it_shows_the_settings_while_the_database_is_away(run, tmp_path):
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    result = run()
    assert result.exit_code == 1
    assert "ALERT_URL" in result.stdout
    assert result.stderr.startswith("Error: The database cannot be used: ")
