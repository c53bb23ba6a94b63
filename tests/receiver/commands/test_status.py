"""The command that says how things stand."""

import json

import pytest

from receiver.clock import utcnow
from receiver.ledger import runs
from receiver.ledger.models import database
from tests.factories import body, record


def test_it_says_what_the_overview_says_and_the_numbers(run):
    result = run("status")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "Almost ready: nothing has arrived yet, and the reconciler has never run."
    )
    assert "[reconciler_never_ran]" in result.stdout
    runs.close_run(runs.open_run("here:1", utcnow()), utcnow(), {})
    record(body("t1"))
    told = run("status").stdout
    assert told.startswith("All is well: the one task of the last 24 h is settled.")
    assert "0 pending; of the last 24 h 1 settled, 0 callbacks missing, 0 disputed" in told
    assert "[" not in told


def test_json_is_what_readyz_answers(run, client, auth):
    told = json.loads(run("status", "--json").stdout)
    assert told == client.get("/readyz", headers=auth).json
    assert told["troubles"][0]["message"].startswith("Nothing has arrived yet")


def test_it_fails_while_the_schema_is_behind(run):
    database.execute_sql("DELETE FROM schema_migration")
    result = run("status")
    assert (result.exit_code, "[schema_behind]" in result.stdout) == (1, True)
    assert "schema behind" in result.stdout


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_it_fails_while_the_database_is_away_and_says_so(run, tmp_path):
    (tmp_path / "x").write_bytes(b"no database" * 100)
    database.obj.init(str(tmp_path / "x"))
    result = run("status")
    assert (result.exit_code, "[database_down]" in result.stdout) == (1, True)
    assert json.loads(run("status", "--json").stdout)["database"] == "unreachable"
