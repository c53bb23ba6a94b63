import pytest

from receiver.config import Settings
from receiver.misspelt import misspelt

KNOWN = Settings.from_env({"CALLBACK_TOKEN": "c" * 16, "API_KEY": "a" * 16}).given


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CALBACK_TOKEN", "CALLBACK_TOKEN"),
        ("FORWARD_URLS", "FORWARD_URL"),
        ("RECONCILE_GRACE_S", "RECONCILE_GRACE"),
        ("RECONCILE_GRACE_SECONDS", "RECONCILE_GRACE"),
        ("APIKEY", "API_KEY"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("ACEDATACLOUD_TOKEN", "ACEDATACLOUD_API_TOKEN"),
        ("PUBLIC_URI", "PUBLIC_URL"),
        ("SENTRY_DNS", "SENTRY_DSN"),
        ("spool_dir", "SPOOL_DIR"),
    ],
)
def test_a_misspelt_name_is_found_with_the_setting_that_it_resembles(name, near):
    assert misspelt({name: "x"}, KNOWN) == {name: near}


@pytest.mark.parametrize("name", [*KNOWN, "APP_KEY", "HOST", "PGPORT", "BASE_URL", "DIRECT_URL"])
def test_a_setting_and_a_variable_of_another_program_are_no_mistake(name):
    assert misspelt({name: "x"}, KNOWN) == {}


def test_what_platforms_set_is_no_mistake():
    of_platforms = (
        "DATABASE_URL_UNPOOLED FORWARDED_ALLOW_IPS GUNICORN_CMD_ARGS RENDER_EXTERNAL_URL FLY_APP_NAME DYNO"
    )
    assert misspelt(dict.fromkeys(of_platforms.split(), "x"), KNOWN) == {}


def test_a_blank_one_does_no_harm():
    assert misspelt({"FORWARD_URLS": ""}, KNOWN) == {}
