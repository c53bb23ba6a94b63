"""The commands that write the ledger to a file, fill a new one with it, and copy SQLite's file."""

import gzip
import io
import json
import sqlite3
import stat
import subprocess
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from receiver.app import create_app
from receiver.clock import utcnow
from receiver.database_url import sqlite_path
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Delivery, Task, database
from receiver.ledger.moving.exporting import export_ledger
from tests.conftest import CALLBACK_TOKEN
from tests.factories import body, finished_item, look_up, record, register
from tests.incoming import Incoming
from tests.processes import Backstop, wait_until


@pytest.fixture
def runner(ledger, make_settings):
    return create_app(make_settings()).test_cli_runner()


@pytest.fixture
def new_ledger(ledger, tmp_path, sqlite_template):
    """Binds the process to an empty ledger of SQLite when it is called."""

    def bind():
        database.obj.close_all()
        (tmp_path / "new.db").write_bytes(sqlite_template.read_bytes())
        init_database(f"sqlite:///{tmp_path}/new.db")

    return bind


@pytest.mark.parametrize("name", ["ledger.jsonl", "ledger.jsonl.gz"])
def test_a_ledger_moves_by_a_file(runner, new_ledger, tmp_path, name):
    record(body("t1"), utcnow())
    file = tmp_path / name
    told = runner.invoke(args=["export", str(file)])
    assert told.exit_code == 0, told.output
    assert "\n  task: 1\n" in told.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_bytes()
    lines = (gzip.decompress(text) if name.endswith("gz") else text).splitlines()
    assert json.loads(lines[0])["backstop"]["schema"] == told.output.splitlines()[0].split()[-1].rstrip(".")
    new_ledger()
    told = json.loads(runner.invoke(args=["import", str(file), "--json"]).stdout)
    assert (told["rows"]["task"], told["sha256"]) == (1, json.loads(lines[-1])["end"]["sha256"])
    assert Task.get().id == "t1"


def test_a_ledger_moves_by_standard_output_and_input(runner, new_ledger):
    record(body("t1"), utcnow())
    told = runner.invoke(args=["export", "-", "--json"])
    assert json.loads(told.stderr)["rows"]["task"] == 1
    new_ledger()
    assert runner.invoke(args=["import", "-"], input=told.stdout).exit_code == 0
    assert Task.get().id == "t1"


def test_what_cannot_be_done_is_said_with_what_to_do(runner, new_ledger, tmp_path):
    record(body("t1"), utcnow())
    file = tmp_path / "ledger.jsonl"
    assert runner.invoke(args=["export", str(file)]).exit_code == 0

    def complaint(*arguments):
        told = runner.invoke(args=arguments)
        assert told.exit_code == 1
        return told.output

    assert "exists. Name a new file." in complaint("export", str(file))
    assert "cannot be written: No such file or directory" in complaint("export", str(tmp_path / "no/file"))
    assert "cannot be read: No such file or directory" in complaint("import", str(tmp_path / "missing"))
    told = complaint("import", str(file))
    assert told == (
        "Error: The database is not empty. Import into a new one, after `flask --app wsgi migrate`."
        " Nothing was imported.\n"
    )
    new_ledger()
    file.write_bytes(file.read_bytes()[:-10])
    assert "The file was cut: it ends within line" in complaint("import", str(file))
    database.obj.close_all()
    init_database(f"sqlite:///{tmp_path}/without.db")
    assert "run `flask --app wsgi migrate`" in complaint("import", str(file))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tasks.csv", b"id,status\nt1,succeeded", "is no export of Backstop"),
        ("tasks.jsonl", b'{"id": "t1"}\n', "is no export of Backstop"),
        ("one-line.json", b'{"id": "t1"}', "is no export of Backstop"),
        ("empty.jsonl", b"", "is no export of Backstop: it is empty"),
        ("another.db", b"SQLite format 3\0" * 300, "is no export of Backstop"),
        (
            "text.jsonl.gz",
            b"id,status\n",
            "is no export of Backstop, or was cut or changed within its line 1",
        ),
        ("packed.jsonl", gzip.compress(b"x", mtime=0), "is compressed: give it a name that ends in .gz"),
    ],
)
def test_a_file_that_is_no_export_is_called_so(runner, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    told = runner.invoke(args=["import", str(tmp_path / name)])
    assert (told.exit_code, f"The file {said}" in told.output) == (1, True), told.output
    assert "Nothing was imported." in told.output


@pytest.mark.usefixtures("ledger")
def test_a_backup_of_postgresql_is_for_its_own_tool(runner, ledger, tmp_path):
    told = runner.invoke(args=["backup", str(tmp_path / "copy")])
    if ledger.startswith("sqlite"):
        assert told.exit_code == 0
    else:
        assert "pg_dump --format=custom --file=" in told.output
        assert told.exit_code == 1


def tasks_of(path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {task_id for (task_id,) in connection.execute("SELECT id FROM task")}


def test_a_backup_holds_what_was_acknowledged_before_while_callbacks_come(tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        backstop.migrate()
        backstop.start_web()
        with Incoming(backstop) as incoming:
            incoming.wait_for_more()
            before = set(incoming.acknowledged)
            told = backstop.command("flask", "--app", "wsgi", "backup", "copy.db", "--json")
            incoming.wait_for_more()
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["bytes"] == (tmp_path / "copy.db").stat().st_size
        assert before <= tasks_of(tmp_path / "copy.db")
        assert incoming.refused == []
        again = backstop.command("flask", "--app", "wsgi", "backup", "copy.db")
        assert (again.returncode, again.stderr) == (1, "Error: copy.db exists. Name a new file.\n")


def is_locked(url: str) -> bool:
    """Whether somebody has locked the tasks against writers."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as server:
            locks = "SELECT 1 FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted AND relation = 'task'::regclass"
            return server.execute(locks).fetchone() is not None
    with closing(sqlite3.connect(sqlite_path(url), timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


def test_callbacks_that_come_during_an_import_follow_from_the_spool(empty_url, tmp_path, sqlite_template):
    (tmp_path / "old.db").write_bytes(sqlite_template.read_bytes())
    init_database(f"sqlite:///{tmp_path}/old.db")
    for number in range(3):
        record(body(f"old{number}"), utcnow())
    file = io.BytesIO()
    export_ledger(file, utcnow(), lambda *_: None)
    database.obj.close_all()
    header, rest = file.getvalue().split(b"\n", 1)
    with Backstop(tmp_path, "http://127.0.0.1:9", DATABASE_URL=empty_url) as backstop:
        backstop.migrate()
        backstop.start_web()
        process = backstop.start(
            "import", "-m", "flask", "--app", "wsgi", "import", "-", stdin=subprocess.PIPE
        )
        process.stdin.write(header + b"\n")
        process.stdin.flush()
        # Others write for a moment only.
        wait_until(lambda: all(is_locked(empty_url) for _ in range(20)))
        with Incoming(backstop) as incoming:
            wait_until(lambda: incoming.spooled)
            process.stdin.write(rest)
            process.stdin.close()
            assert process.wait(120) == 0, backstop.log("import")
            incoming.wait_for_more()
        init_database(empty_url)
        ids = {*incoming.acknowledged, "old0", "old1", "old2"}
        wait_until(lambda: {task.id for task in Task.select(Task.id)} == ids)
        assert incoming.refused == []
        assert Delivery.select().count() == len(ids)
        database.obj.close_all()


def test_the_move_that_the_guide_describes_refuses_no_callback(empty_url, tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        old = backstop.database_url
        backstop.migrate()
        web = backstop.start_web()
        assert backstop.post_callback(body("before")).status == 200
        backstop.stop(web)
        backstop.environ["DATABASE_URL"] = "sqlite:////nowhere/wait.db"
        web = backstop.start_web()
        assert backstop.post_callback(body("meanwhile")).status == 202
        backstop.environ["DATABASE_URL"] = old
        backstop.command("flask", "--app", "wsgi", "export", "file.gz").check_returncode()
        backstop.environ["DATABASE_URL"] = empty_url
        backstop.migrate()
        backstop.command("flask", "--app", "wsgi", "import", "file.gz").check_returncode()
        backstop.stop(web)
        backstop.start_web()
        wait_until(lambda: backstop.request("GET", "/api/tasks/meanwhile").status == 200)
        assert backstop.request("GET", "/api/tasks/before").status == 200


def test_an_export_holds_no_secret(client):
    url = f"https://backstop.example/callbacks/{CALLBACK_TOKEN}"
    client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body("t1"), headers={"X-Forwarded-Uri": url})
    register("t1", now=utcnow() - timedelta(hours=1))
    look_up([finished_item("t1", request={"prompt": "p", "callback_url": url})])
    file = io.BytesIO()
    export_ledger(file, utcnow(), lambda *_: None)
    assert b"/callbacks/***" in file.getvalue()
    assert CALLBACK_TOKEN.encode() not in file.getvalue()
