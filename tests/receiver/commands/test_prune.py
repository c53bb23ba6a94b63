"""The command that deletes old rows."""

import json
import signal
from datetime import timedelta

import pytest

from receiver.app import create_app
from receiver.clock import utcnow
from receiver.ledger.dealing import deal
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Delivery, Task, database
from tests.factories import DAY, body, record
from tests.processes import Backstop, free_port, wait_until

NOW = utcnow()


@pytest.fixture
def make_run(ledger, make_settings, stand_in):
    """Makes what runs the command, with settings: make_run(TASK_RETENTION_DAYS=50)."""

    def make(**variables):
        settings = make_settings(**{"ACEDATACLOUD_API_BASE_URL": stand_in.url} | variables)
        runner = create_app(settings).test_cli_runner()
        return lambda *arguments: runner.invoke(args=["prune", *arguments])

    return make


@pytest.fixture
def run(make_run):
    """Runs the command: run("--dry-run")."""
    return make_run()


def test_it_tells_what_it_deletes_by_kind(run):
    for days in (40, 20):
        record(body(f"t{days}"), NOW - timedelta(days=days))
    assert run("--dry-run").output == (
        "Nothing was deleted: without --dry-run these rows go.\n  deliveries: 1\n"
    )
    told = json.loads(run("--older-than", "10", "--dry-run", "--json").stdout)
    assert (told["dry_run"], told["complete"], told["rows"]["deliveries"]) == (True, True, 2)
    assert Delivery.select().count() == 2
    assert run().output == "These rows are deleted.\n  deliveries: 1\n"
    assert run().output == "Nothing is old enough to be deleted.\n"
    assert json.loads(run("--older-than", "10", "--json").stdout) == {
        "dry_run": False,
        "complete": True,
        "rows": {"deliveries": 1},
    }
    assert Task.select().count() == 2


@pytest.mark.parametrize(("setting", "goes"), [(None, False), (90, False), (50, True)])
def test_tasks_go_only_by_their_own_setting(make_run, setting, goes):
    run = make_run(**{"TASK_RETENTION_DAYS": setting} if setting else {})
    record(body(), NOW - 60 * DAY)
    deal(NOW, "settled")
    told = run("--older-than", "10").output
    assert ("  tasks: 1\n  events: 1\n" in told) == goes
    assert Task.select().count() == (0 if goes else 1)


@pytest.mark.parametrize(("ahead", "kept"), [(40 * DAY, 1), (-40 * DAY, 2), (timedelta(), 1)])
def test_a_wrong_clock_deletes_nothing_too_early(run, monkeypatch, ahead, kept):
    for age in (40 * DAY, timedelta(hours=1)):
        record(body(), NOW - age)
    monkeypatch.setattr("receiver.commands.prune.utcnow", lambda: utcnow() + ahead)
    assert run().exit_code == 0
    assert Delivery.select().count() == kept


def test_nothing_is_deleted_while_upstream_does_not_tell_the_time(make_run):
    run = make_run(ACEDATACLOUD_API_BASE_URL=f"http://127.0.0.1:{free_port()}")
    record(body(), NOW - 40 * DAY)
    told = run()
    assert told.exit_code == 1
    assert "Nothing is deleted: this machine's clock may be ahead" in told.output
    assert Delivery.select().count() == 1


def test_a_database_without_its_schema_is_named_in_a_sentence(tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        done = backstop.command("flask", "--app", "wsgi", "prune")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The database cannot be used")


def test_callbacks_are_answered_meanwhile_and_a_signal_ends_it(tmp_path, stand_in):
    with Backstop(tmp_path, stand_in.url) as backstop:
        backstop.migrate()
        init_database(backstop.database_url)
        _fill(6_000)
        backstop.start_web()
        process = backstop.start("prune", "-m", "flask", "--app", "wsgi", "prune")
        wait_until(lambda: Delivery.select().count() < 6_000)
        for task in range(10):
            assert backstop.post_callback(body(f"new-{task}")).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
        assert "Run it again" in backstop.log("prune")
        assert 10 < Delivery.select().count() < 6_000
        again = backstop.command("flask", "--app", "wsgi", "prune", "--json")
        assert json.loads(again.stdout)["complete"]
        assert Delivery.select().count() == 10
        database.obj.close_all()


def _fill(number):
    record(body("t0"), NOW - 60 * DAY)
    first = Delivery.get().__data__
    with database.connection_context(), database.atomic():
        for begin in range(1, number, 500):
            rows = [first | {"id": n + 1, "uid": str(n)} for n in range(begin, min(begin + 500, number))]
            Delivery.insert_many(rows).execute()
