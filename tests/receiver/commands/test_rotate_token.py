"""The command that prints a new callback token and how to change to it."""

import json
import logging
import re
from datetime import timedelta

import pytest

from receiver.app import create_app
from receiver.clock import to_iso, utcnow
from receiver.values import callback_tokens
from receiver.web.formatting import exact
from tests.conftest import CALLBACK_TOKEN
from tests.factories import body, record, register
from tests.processes import Backstop

NOW = utcnow()
HOUR = timedelta(hours=1)
OLD, OLDEST = "a-token-from-before", "an-even-older-token"


@pytest.fixture
def run(ledger, make_settings):
    """Runs the command, with the tokens in use and what else is set: run("--json")."""
    tokens = ",".join((CALLBACK_TOKEN, OLD, OLDEST))
    app = create_app(make_settings(CALLBACK_TOKEN=tokens, PUBLIC_URL="https://backstop.example"))
    return lambda *arguments: app.test_cli_runner().invoke(args=["rotate-token", *arguments])


def value_in(output: str) -> str:
    return re.search(r"CALLBACK_TOKEN=(\S+,\S+)", output)[1]


def test_the_new_token_comes_first_and_those_in_use_stay(run):
    first, again = (value_in(run().output) for _ in range(2))
    new, *others = callback_tokens(first)
    assert others == [CALLBACK_TOKEN, OLD, OLDEST]
    assert len(new) >= 43
    assert callback_tokens(again)[0] != new


def test_the_steps_name_the_new_url_and_what_to_drop_at_last(run):
    output = run().output
    new = callback_tokens(value_in(output))[0]
    assert re.findall(r"^\d", output, re.MULTILINE) == ["1", "2", "3", "4"]
    assert f"https://backstop.example/callbacks/{new}\n" in output
    assert f"set CALLBACK_TOKEN={new} and restart" in output


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("DYNO", "heroku config:set CALLBACK_TOKEN="),
        ("FLY_APP_NAME", "fly secrets set CALLBACK_TOKEN="),
        ("RENDER", "Set it under Environment"),
        ("HOME", "docker compose up --detach"),
    ],
)
def test_it_names_the_platforms_own_command(run, monkeypatch, variable, command):
    monkeypatch.setenv(variable, "1")
    assert command in run().output


def test_it_tells_when_each_token_was_last_used_and_what_is_open(run):
    for position, ago in ((0, 5), (0, 1), (1, 9), (1, 4)):
        record(body(f"t{ago}"), NOW - ago * HOUR, token=position)
    register("open", now=NOW - 3 * HOUR)
    output = run().output
    assert f"Token 1 of 3 was last used {exact(NOW - HOUR)}." in output
    assert f"Token 2 of 3 was last used {exact(NOW - 4 * HOUR)}." in output
    assert "No stored callback came with token 3 of 3." in output
    assert f"Open tasks: 1, the oldest since {exact(NOW - 3 * HOUR)}." in output
    told = json.loads(run("--json").stdout)
    assert told["tokens"] == [
        {"token": 1, "last_used_at": to_iso(NOW - HOUR)},
        {"token": 2, "last_used_at": to_iso(NOW - 4 * HOUR)},
        {"token": 3, "last_used_at": None},
    ]
    assert (told["open_tasks"], told["oldest_open_at"]) == (1, to_iso(NOW - 3 * HOUR))
    assert told["callback_token"].endswith(f",{CALLBACK_TOKEN},{OLD},{OLDEST}")


def test_the_secrets_are_in_no_log(run, caplog):
    caplog.set_level(logging.DEBUG)
    new = callback_tokens(value_in(run().output))[0]
    assert new not in caplog.text
    assert CALLBACK_TOKEN not in caplog.text


def test_it_refuses_nothing_while_the_ledger_is_away(tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        done = backstop.command("flask", "--app", "wsgi", "rotate-token")
    assert done.returncode == 0
    assert done.stdout.startswith("The ledger cannot be read now")
    assert value_in(done.stdout) not in done.stderr
