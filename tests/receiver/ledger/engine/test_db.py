import ast
import contextlib
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from peewee import OperationalError
from playhouse.schema_diff import diff_models

from receiver.clock import utcnow
from receiver.ledger import claims, store
from receiver.ledger.engine import db, postgresql, schema
from receiver.ledger.engine.db import init_database, on_postgresql
from receiver.ledger.engine.schema import (
    SchemaBehind,
    applied_migrations,
    migrate,
    pending_migrations,
    require_schema,
)
from receiver.ledger.evidence import Answer
from receiver.ledger.models import (
    DISPUTED,
    DOUBTFUL,
    KNOWN,
    MISSED,
    MODELS,
    OPEN,
    SETTLED,
    UNACKNOWLEDGED,
    Task,
    database,
)
from tests.factories import apply, body, claim, record, register
from tests.processes import REPOSITORY, wait_until


@pytest.mark.usefixtures("ledger")
def test_the_migrations_make_the_schema_of_the_models():
    with database.connection_context():
        diff = diff_models(database.obj, list(MODELS))
    assert not diff, str(diff)


def test_migrating_again_does_nothing(empty_url):
    init_database(empty_url)
    with pytest.raises(SchemaBehind, match="flask --app wsgi migrate"):
        require_schema()
    assert migrate() == applied_migrations()
    assert (migrate(), pending_migrations()) == ([], [])
    require_schema()
    database.obj.close_all()


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (
            None,
            "{path} is not there. If it should be, put it back or correct DATABASE_URL. Otherwise make it:",
        ),
        (b"no database" * 100, "file is not a database ({path})"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(tmp_path, contents, said):
    path = tmp_path / "there" / "backstop.db"
    if contents:
        path.parent.mkdir()
        path.write_bytes(contents)
    init_database(f"sqlite:///{path}")
    with pytest.raises(OperationalError) as caught, database.connection_context():
        pass
    assert str(caught.value).startswith(said.format(path=path))


def test_only_a_migration_makes_a_file(tmp_path):
    path = tmp_path / "backstop.db"
    init_database(f"sqlite:///{path}")
    with pytest.raises(OperationalError, match="is not there"):
        register("t1")
    assert list(tmp_path.iterdir()) == [Path(f"{path}.lock")]
    migrate()
    register("t1")
    database.obj.close_all()
    init_database(f"sqlite:///{tmp_path}/nowhere/backstop.db")
    with pytest.raises(OperationalError, match=r"unable to open database file .*: its directory must exist"):
        migrate()


def test_migrating_again_keeps_the_locks_of_open_connections(tmp_path):
    path = tmp_path / "backstop.db"
    init_database(f"sqlite:///{path}")
    migrate()
    with database.connection_context():
        register("t1")
        migrate()
        reads = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM task').fetchall()"
        subprocess.run([sys.executable, "-c", reads, str(path)], check=True)
        assert Path(f"{path}-wal").exists()
    database.obj.close_all()


def test_many_processes_may_migrate_at_once(empty_url):
    code = f"from receiver.ledger.engine.db import *; from receiver.ledger.engine.schema import *; init_database({empty_url!r}); print(migrate())"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    printed = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    init_database(empty_url)
    require_schema()
    database.obj.close_all()
    # Each migration was applied by one of them.
    applied = sorted(name for line in printed for name in ast.literal_eval(line))
    assert applied == sorted({name for line in printed for name in ast.literal_eval(line)})
    assert applied


@pytest.mark.usefixtures("ledger")
def test_commits_are_durable():
    with database.connection_context():
        if on_postgresql():
            assert database.execute_sql("SHOW synchronous_commit").fetchone() == ("on",)
        else:
            settings = [database.obj.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")]
            assert settings == ["wal", 2, 1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL has no such lock
def test_a_write_waits_while_another_program_holds_the_file(ledger):
    other = sqlite3.connect(database.obj.database, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, other.execute, ("COMMIT",))
    release.start()
    register("t1")
    release.join()
    other.close()
    assert Task.get().id == "t1"


def test_synchronous_commit_is_on_even_where_the_database_has_it_off(postgresql_server):
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE relaxed")
        connection.execute("ALTER DATABASE relaxed SET synchronous_commit TO off")
    init_database(postgresql_server.replace("/postgres?", "/relaxed?"))
    with database.connection_context():
        assert database.execute_sql("SHOW synchronous_commit").fetchone() == ("on",)
    database.obj.close_all()


def test_connections_that_died_with_the_server_are_replaced(ledger):
    register("t1")
    if on_postgresql():
        with psycopg.connect(ledger, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    record(b'{"task_id": "t2"}')
    assert Task.select().count() == 2
    database.close()


def test_a_password_with_odd_characters_is_unquoted():
    init_database("postgresql://us%40er:p%40ss%2Fword@db.example.com:6543/name")
    params = database.obj.connect_params
    assert (params["user"], params["password"], params["port"]) == ("us@er", "p@ss/word", "6543")


def test_an_unreachable_database_is_an_operational_error(tmp_path):
    init_database(f"sqlite:///{tmp_path}/nowhere/x.db")
    with pytest.raises(OperationalError):
        register("t1")


@pytest.fixture(params=["without statistics", "with statistics"])
def full_ledger(ledger, request):
    """A ledger of 20,000 tasks, all settled but for a few. SQLite has statistics only where somebody made them."""
    moment, empty = "datetime('2026-01-01', '+' || i || ' seconds')", "x''"
    if on_postgresql():
        moment, empty = "TIMESTAMP '2026-01-01' + i * INTERVAL '1 second'", "''::bytea"
    with database.connection_context():
        database.execute_sql(
            "INSERT INTO task (id, ref, trace_id, status, created_at, registered_at, silent_since, settled_at, next_lookup_at,"
            " callback_key, lookup_key, attempts, delivery_count, lookup_count)"
            " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
            " SELECT 'task-' || i, 'ref-' || i, 'trace-' || i,"
            " CASE WHEN i / 500 * 500 = i THEN 'pending' ELSE 'succeeded' END,"
            f" {moment}, CASE WHEN i / 3 * 3 <> i THEN {moment} END, {moment}, {moment}, CASE WHEN i / 250 * 250 = i THEN {moment} END,"
            f" {empty}, {empty}, 0, 0, 0 FROM n"
        )
        if on_postgresql() or request.param == "with statistics":
            database.execute_sql("ANALYZE")


@pytest.mark.usefixtures("full_ledger")
def test_a_run_with_nothing_due_costs_one_indexed_query():
    explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
    sql, values = claims._build_anything_due(utcnow(), utcnow()).sql()
    with database.connection_context():
        plan = str(database.execute_sql(f"{explain} {sql}", values).fetchall())
    assert "task_overdue" in plan
    assert "task_unconfirmed" in plan
    assert "task_doubtful" in plan
    assert not re.search(r"SCAN t|Seq Scan on task", plan), plan


@pytest.mark.usefixtures("full_ledger")
@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            f"WHERE next_lookup_at <= '2026-01-01 01:00:00' AND {OPEN.sql} AND {KNOWN.sql}"
            " ORDER BY next_lookup_at LIMIT 50",
            "task_overdue",
        ),
        (
            f"WHERE next_lookup_at <= '2026-01-01 01:00:00' AND {SETTLED.sql} AND {KNOWN.sql}"
            " ORDER BY next_lookup_at LIMIT 50",
            "task_unconfirmed",
        ),
        (
            f"WHERE next_lookup_at <= '2026-01-01 01:00:00' AND {DOUBTFUL.sql}"
            " ORDER BY next_lookup_at LIMIT 50",
            "task_doubtful",
        ),
        ("ORDER BY created_at DESC, id DESC LIMIT 50", "task_newest"),
        ("WHERE status = 'failed' ORDER BY created_at DESC, id DESC LIMIT 50", "task_status_newest"),
        (
            f"WHERE created_at >= '2026-01-01 05:00:00' AND {MISSED.sql} ORDER BY created_at DESC",
            "task_missed",
        ),
        (f"WHERE {DISPUTED.sql} ORDER BY created_at DESC, id DESC LIMIT 50", "task_disputed"),
        (
            f"WHERE {UNACKNOWLEDGED.sql} AND created_at >= '2026-01-01 05:00:00' LIMIT 10000",
            "task_disputed",
        ),
        ("WHERE ref = 'x'", "task_ref"),
        ("WHERE trace_id = 'x'", "task_trace_id"),
    ],
)
def test_the_queries_that_matter_use_an_index(query, index):
    explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
    with database.connection_context():
        plan = database.execute_sql(f"{explain} SELECT id FROM task {query}").fetchall()
    assert index in str(plan)


@pytest.fixture
def make_database(postgresql_server):
    """Makes PostgreSQL databases of the kind that a statement's end tells; yields their URLs."""
    names = []

    def make(how: str) -> str:
        names.append(f"made_{len(names)}")
        with psycopg.connect(postgresql_server, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {names[-1]} {how}")
        return postgresql_server.replace("/postgres?", f"/{names[-1]}?")

    yield make
    database.obj.close_all()
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        for name in names:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_postgresql_database_that_cannot_hold_every_text_is_refused(make_database, encoding):
    init_database(make_database(f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"))
    for use in (migrate, require_schema, pending_migrations, lambda: record(b"{}")):
        with pytest.raises(OperationalError, match=f"{encoding}.* needs UTF8"):
            use()


def test_the_encoding_of_the_connection_is_ours_whatever_the_environment_says(make_database, monkeypatch):
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    init_database(make_database("ENCODING 'UTF8' TEMPLATE template0"))
    migrate()
    assert record(body("ж")).task_id == "ж"


def test_many_may_write_to_a_database_that_is_serializable_by_default(make_database):
    url = make_database("ENCODING 'UTF8' TEMPLATE template0")
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("ALTER DATABASE made_0 SET default_transaction_isolation = 'serializable'")
    init_database(url)
    migrate()
    problems = []

    def write(worker):
        try:
            for n in range(20):
                register(f"t{n}", ref=f"order-{worker}")
                store.ask_now(f"t{n}", utcnow())
                if (claimed := claim()).tasks:
                    apply(claimed, dict.fromkeys(claimed.ids, Answer(error="no")), utcnow())
                record(body(f"t{n}"))
        except Exception as problem:  # noqa: BLE001 - shown by the test
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    with database.connection_context():
        assert Task.select().count() == 20


class _Silent:
    """A server that takes connections and never answers."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        return f"postgresql://user:password@127.0.0.1:{self.socket.getsockname()[1]}/name"

    def __exit__(self, *_):
        self.socket.close()


def test_while_a_server_is_not_asked_again_its_last_words_are_told():
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        init_database(f"postgresql://user:password@127.0.0.1:{nobody_listens.getsockname()[1]}/name")
        with pytest.raises(OperationalError, match="refused"):
            pending_migrations()
        with pytest.raises(OperationalError, match=r"did not answer a moment ago: .*refused") as told:
            pending_migrations()
        assert "password" not in str(told.value)
    database.obj.close_all()


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(db, "_CONNECT_WITHIN_SECONDS", 1)
    with _Silent() as url:
        init_database(url)
        began = time.monotonic()
        for _ in range(20):  # they wait for it once
            with pytest.raises(OperationalError, match=r"timeout expired|did not answer"):
                pending_migrations()
        assert time.monotonic() - began < 20
    database.obj.close_all()


@pytest.mark.direct
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_whose_server_stops_is_given_up_and_another_is_made(ledger, monkeypatch):
    monkeypatch.setattr(postgresql, "_PING_WITHIN_SECONDS", 0.5)
    monkeypatch.setattr(postgresql, "_PING_AFTER_SECONDS", 0)
    init_database(ledger, answer_within=0.5)
    with database.connection_context():
        backend = psutil.Process(database.connection().info.backend_pid)
    backend.suspend()
    try:
        with pytest.raises(OperationalError, match="did not answer a moment ago"):
            pending_migrations()
        wait_until(lambda: tried(pending_migrations) == [])
        with database.connection_context():
            busy = psutil.Process(database.connection().info.backend_pid)
            busy.suspend()
            try:
                with pytest.raises(OperationalError, match=r"did not answer within 0\.5 s"):
                    database.execute_sql("SELECT 1")
            finally:
                busy.resume()
    finally:
        backend.resume()


def tried(function):
    with contextlib.suppress(OperationalError):
        return function()


@pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)
def test_a_migration_may_take_as_long_as_it_takes(ledger, monkeypatch):
    init_database(ledger, answer_within=0.5)
    with database.connection_context(), schema._migrating_alone():
        database.execute_sql("SELECT pg_sleep(1)")
    with database.connection_context(), pytest.raises(OperationalError):
        database.execute_sql("SELECT pg_sleep(1)")


_WRITES_AGAIN_AND_AGAIN = """
from gevent import monkey
monkey.patch_all()
import sys, threading
import gevent
from receiver.ledger.engine.db import init_database, writing
from receiver.ledger.engine.schema import migrate
init_database(sys.argv[1])
migrate()
ended, turns = threading.Event(), 0
gevent.spawn(ended.set)
while not ended.is_set() and turns < 1000:
    with writing():
        turns += 1
print(turns)
"""


def test_a_greenlet_that_writes_to_sqlite_again_and_again_lets_others_run(tmp_path):
    command = [sys.executable, "-c", _WRITES_AGAIN_AND_AGAIN, f"sqlite:///{tmp_path}/ledger.db"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert int(ran.stdout) < 1000
