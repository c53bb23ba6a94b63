"""The command that reads stored deliveries again."""

import json
import signal
from datetime import timedelta

import pytest
from peewee import chunked

from receiver.app import create_app
from receiver.clock import from_iso, utcnow
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Delivery, Task, database
from tests.factories import body, failure_body, record, register, task
from tests.processes import Backstop, wait_until
from tests.rereading import HOUR, older_version, received


@pytest.fixture
def run(ledger, make_settings):
    """Runs the command: run("--since", "1d")."""
    runner = create_app(make_settings()).test_cli_runner()
    return lambda *arguments: runner.invoke(args=["reread", *arguments])


def test_it_tells_what_changed(run):
    register("t1", now=utcnow() - 2 * HOUR)
    received(body("t1"))
    received(failure_body("t2"))
    record(body("t3"), utcnow() - HOUR)
    with older_version():
        record(b"{}", utcnow() - HOUR)
    assert run("--since", "1d", "--dry-run").output == (
        "Nothing was changed: without --dry-run this is what comes of it.\n"
        "4 deliveries read again, 2 of them differently now.\n"
        "  unreadable -> failed: 1\n"
        "  unreadable -> succeeded: 1\n"
        "2 tasks changed.\n"
    )
    assert task("t1").status == "pending"
    told = json.loads(run("--since", "1d", "--verdict", "unreadable", "--json").stdout)
    assert from_iso(told.pop("reached")) == Delivery.get_by_id(4).received_at
    assert told == {
        "dry_run": False,
        "complete": True,
        "read": 3,
        "differently": 2,
        "changes": [
            {"before": "unreadable", "after": "failed", "deliveries": 1},
            {"before": "unreadable", "after": "succeeded", "deliveries": 1},
        ],
        "tasks": 2,
        "partial": 0,
    }
    # As with CONFIRM_CALLBACKS=true, the default: upstream is asked whether it is true.
    assert (task("t1").status, task("t1").next_lookup_at <= utcnow()) == ("succeeded", True)
    assert "0 tasks changed" in run("--since", "1d").output


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Missing option '--since'"),
        (("--since", "yesterday"), "neither a time like 90m"),
        (("--since", "1d", "--verdict", "lost"), "'lost' is not one of"),
    ],
)
def test_what_it_cannot_understand_it_names(run, arguments, complaint):
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.usefixtures("ledger")
def test_an_id_that_is_no_text_is_told_in_words(run):
    result = run("--since", "1d", "--task", "\udcff")
    assert (result.exit_code, "bytes that are not UTF-8" in result.output) == (1, True)


def test_a_database_without_its_schema_is_named_in_a_sentence(tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        done = backstop.command("flask", "--app", "wsgi", "reread", "--since", "1d")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The database cannot be used")


def test_stopped_it_says_from_where_to_go_on(tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        backstop.migrate()
        init_database(backstop.database_url)
        received(body("t0"))
        count = 8_000  # so many that it cannot end before the signal
        with database.connection_context(), database.atomic():
            first = Delivery.get().__data__
            later = [
                first
                | {"id": number + 1, "uid": str(number), "body": body(f"t{number}")}
                | {"size": len(body(f"t{number}"))}
                | {"received_at": first["received_at"] + number * timedelta(milliseconds=1)}
                for number in range(1, count)
            ]
            for some in chunked(later, 500):
                Delivery.insert_many(some).execute()
        process = backstop.start("reread", "-m", "flask", "--app", "wsgi", "reread", "--since", "1d")
        wait_until(lambda: Task.select().count() > 0)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
        done = Task.select().count()
        assert 0 < done < count
        (moment,) = [line.split()[-1] for line in backstop.log("reread").splitlines() if "Go on" in line]
        again = backstop.command("flask", "--app", "wsgi", "reread", "--since", moment, "--json")
        told = json.loads(again.stdout)
        assert told["complete"]
        assert Task.select().count() == count
        assert told["read"] <= count - done + 32
        database.obj.close_all()
