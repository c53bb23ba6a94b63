"""What is posted to ALERT_URL, in each form."""

import json
from datetime import datetime, timedelta

import pytest

from receiver.web.watch.messages import Message, form_of, request_for

NOW = datetime(2026, 1, 31, 12)
BEGAN = Message("reconciler_silent", "The reconciler <has> not run. Start it.", NOW, None)
OVER = Message("reconciler_silent", "The reconciler <has> not run.", NOW, NOW + timedelta(minutes=9))


@pytest.mark.parametrize(
    ("url", "form", "address"),
    [
        ("https://hooks.slack.com/services/T/B/x", "slack", "https://hooks.slack.com/services/T/B/x"),
        ("https://ntfy.sh/topic", "ntfy", "https://ntfy.sh/topic"),
        ("slack+https://mattermost.example/hooks/x", "slack", "https://mattermost.example/hooks/x"),
        ("ntfy+http://10.0.0.7/topic", "ntfy", "http://10.0.0.7/topic"),
        ("json+https://ntfy.sh/topic", "json", "https://ntfy.sh/topic"),
        ("https://alerts.example/a+b", "json", "https://alerts.example/a+b"),
    ],
)
def test_the_host_or_a_prefix_tells_the_form(url, form, address):
    assert form_of(url) == (form, address)


def test_slack_gets_a_text_that_cannot_become_markup():
    request = request_for("https://hooks.slack.com/services/T/B/x", BEGAN, "https://b.example")
    text = json.loads(request.body)["text"]
    assert text.startswith("*Backstop: The reconciler is silent*\nThe reconciler &lt;has&gt; not run.")
    assert "<https://b.example|Overview>" in text


def test_ntfy_gets_a_title_a_priority_and_a_text():
    request = request_for("https://ntfy.sh/topic", BEGAN, "https://b.example")
    assert (request.headers["title"], request.headers["priority"]) == (
        "Backstop: The reconciler is silent",
        "high",
    )
    assert request.headers["click"] == "https://b.example"
    assert request.body == b"The reconciler <has> not run. Start it."


def test_the_end_tells_how_long_it_lasted():
    told = json.loads(request_for("https://alerts.example", OVER, None).body)
    assert (told["state"], told["title"]) == ("over", "Backstop: over: The reconciler is silent")
    assert told["message"] == "It lasted 9 min, from 2026-01-31 12:00:00 UTC."
    assert told["over_at"] == "2026-01-31T12:09:00Z"
