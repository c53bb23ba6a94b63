"""The settings as people may see them."""

from datetime import timedelta

import pytest

from receiver.web.settings_shown import shown_settings


def text(name, value):
    (one,) = shown_settings({name: (value, True)})
    return one.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "s3cret-s3cret-s3"),
        ("CALLBACK_TOKEN", ("s3cret-s3cret-s3", "s3cret-older-one")),
        ("FORWARD_SECRET", ("whsec_s3cret",)),
        ("SENTRY_DSN", "https://s3cret@sentry.example/1"),
        ("ALERT_URL", "https://hooks.slack.com/services/T/B/s3cret"),
        ("HEARTBEAT_URL", "https://hc-ping.com/s3cret?x=s3cret"),
        ("DATABASE_URL", "postgresql://user:s3cret@db.example/name?password=s3cret"),
        ("FORWARD_URL", ("https://u:s3cret@app.example/hooks/s3cret",)),
        ("SOME_NEW_TOKEN", "s3cret"),
    ],
)
def test_no_secret_is_shown(name, value):
    assert "s3cret" not in text(name, value)
    assert text(name, value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("RECONCILE_GRACE", timedelta(seconds=30), "30"),
        ("CONFIRM_CALLBACKS", True, "true"),
        ("PUBLIC_URL", "https://b.example", "https://b.example"),
        ("ALERT_URL", "ntfy+https://ntfy.example/topic", "ntfy+https://ntfy.example/…"),
        ("CALLBACK_TOKEN", ("a", "b"), "2 of them, ***"),
        ("FORWARD_URL", (), ""),
        ("PUBLIC_URL", None, ""),
    ],
)
def test_the_rest_is(name, value, shown):
    assert text(name, value) == shown
