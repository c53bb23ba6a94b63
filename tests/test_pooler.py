"""Backstop behind a real PgBouncer, in both modes, with fewer server sessions than clients."""

import ast
import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from peewee import OperationalError

from receiver.ledger import record as recording
from receiver.ledger.engine import db, schema
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.engine.schema import migrate, pending_migrations
from receiver.ledger.models import Delivery, Task, database
from tests.factories import body, finished_item, record
from tests.pgbouncer import pgbouncer
from tests.processes import REPOSITORY, Backstop, wait_until

MODES = ("transaction", "session")
PRINT_MIGRATED = "from receiver.ledger.engine.db import *; from receiver.ledger.engine.schema import *; init_database({!r}); print(migrate())"


@pytest.fixture
def make_pooled(postgresql_server):
    """Makes databases behind a pooler: make_pooled("transaction") returns the pooled and the direct URL."""
    names = []
    with contextlib.ExitStack() as running:

        def make(mode="transaction", template="template0", pool_size=3):
            pooler = running.enter_context(pgbouncer(postgresql_server, mode, pool_size))
            name = f"pooled_{len(names)}"
            with psycopg.connect(postgresql_server, autocommit=True) as server:
                server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            names.append(name)
            direct = urlunsplit(urlsplit(postgresql_server)._replace(path=f"/{name}"))
            return pooler.before(direct), direct

        yield make
        if database.obj is not None:
            database.obj.close_all()
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        for name in names:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def settings_of(url: str, count: int) -> set[tuple[str, ...]]:
    """Return what another client sees that shares `count` of the pooler's sessions with us."""
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    connections = [psycopg.connect(url) for _ in range(count)]
    try:  # each in a transaction, so that each has a session of its own
        return {
            tuple(connection.execute(f"SHOW {name}").fetchone()[0] for name in names)
            for connection in connections
        }
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_deployment_behind_a_pooler_does_all_of_its_work(make_pooled, stand_in, tmp_path, mode):
    # In session mode each of our connections keeps its session until it is closed.
    sessions = 3 if mode == "transaction" else 20
    url, direct = make_pooled(mode, pool_size=sessions)
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=url, WEB_CONCURRENCY=2) as backstop:
        backstop.migrate()
        assert "up to date" in backstop.command("flask", "--app", "wsgi", "migrate").stdout
        for n in range(30):
            stand_in.add_record(finished_item(f"silent-{n}"))
        backstop.start_web()
        reconciler = backstop.start_reconciler()
        silent = [{"id": f"silent-{n}"} for n in range(30)]
        assert backstop.request("POST", "/api/tasks", {"tasks": silent}).status == 201

        def use(n: int) -> tuple[str, int]:
            if n % 10:
                return "callback", backstop.post_callback(body(f"t{n}")).status
            pages = ("/", "/tasks", "/runs", "/tasks.csv", "/tasks.jsonl", "/readyz", "/tasks/silent-1")
            path = pages[n // 10 % len(pages)]
            # On a busy machine a page may find no free connection in time. Callbacks have some of their own.
            return "page", wait_until(lambda: backstop.request("GET", path).status == 200) and 200

        with ThreadPoolExecutor(16) as pool:
            answers = Counter(pool.map(use, range(600)))
        assert answers == {("callback", 200): 540, ("page", 200): 60}
        assert backstop.request("GET", "/readyz").json()["spooled"] == 0
        wait_until(lambda: len(_succeeded(direct, "silent-%")) == 30)
        assert len(_succeeded(direct, "t%")) == 540
        assert reconciler.poll() is None
        logs = backstop.log("web") + backstop.log("reconcile")
        assert "prepared statement" not in logs
        assert "Traceback" not in logs
        backstop.stop(reconciler)
        assert settings_of(url, 3) == {("0", "0", "0")}


def _succeeded(url: str, ids: str) -> list[tuple[str]]:
    with psycopg.connect(url) as connection:
        query = "SELECT id FROM task WHERE id LIKE %s AND status = 'succeeded'"
        return connection.execute(query, (ids,)).fetchall()


@pytest.mark.parametrize("mode", MODES)
def test_many_processes_may_migrate_at_once_through_a_pooler(make_pooled, mode):
    url, direct = make_pooled(mode, pool_size=2 if mode == "transaction" else 10)
    command = [sys.executable, "-c", PRINT_MIGRATED.format(url)]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    printed = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    applied = Counter(name for line in printed for name in ast.literal_eval(line))
    assert set(applied.values()) == {1}
    init_database(url)
    assert (pending_migrations(), migrate()) == ([], [])
    with psycopg.connect(direct) as connection:
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.execute(query).fetchall() == []


def test_migrations_take_the_direct_way_where_there_is_one(make_pooled, stand_in, tmp_path):
    url, direct = make_pooled()
    nowhere = url.replace("/pooled_0", "/nowhere")
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=nowhere, DIRECT_DATABASE_URL=direct) as backstop:
        backstop.migrate()
    init_database(url)
    assert pending_migrations() == []


def test_a_migration_says_which_session_has_kept_it_waiting(make_pooled, monkeypatch):
    monkeypatch.setattr(schema, "_MIGRATE_AFTER_ANOTHER_WITHIN", "200ms")
    url, direct = make_pooled()
    init_database(url)
    with psycopg.connect(direct, autocommit=True) as other:
        # As old versions did, which locked for the session: the lock stays when they have ended.
        other.execute("SELECT pg_advisory_lock(%s)", (schema._MIGRATE_LOCK,))
        terminate = rf"pg_terminate_backend\({other.info.backend_pid}\)"
        with pytest.raises(OperationalError, match=terminate):
            migrate()
    assert migrate()


def test_a_migration_waits_within_a_bound_for_a_table_that_is_locked(make_pooled, monkeypatch):
    monkeypatch.setattr(schema, "_MIGRATE_LOCKED_WITHIN", "200ms")
    url, direct = make_pooled()
    init_database(url)
    names = pending_migrations()
    with database.connection_context():
        schema._runner().up(names[-2])
    with psycopg.connect(direct) as other:
        other.execute("LOCK TABLE schema_migration IN SHARE MODE")
        with pytest.raises(OperationalError, match="kept a table locked for 200ms"):
            migrate()
    assert migrate() == names[-1:]


def test_what_is_read_is_bounded_by_the_server_too(make_pooled, postgresql_template):
    url, _ = make_pooled(template=postgresql_template)
    init_database(url)
    with database.connection_context():
        shown = [
            database.execute_sql(f"SHOW {name}").fetchone()[0]
            for name in ("statement_timeout", "lock_timeout", "synchronous_commit", "transaction_isolation")
        ]
    assert shown == ["30s", "3s", "on", "read committed"]


def test_a_pooler_that_passes_for_the_server_is_found_out_by_its_errors(
    make_pooled, postgresql_template, monkeypatch
):
    def pid_of_the_server(info: psycopg.ConnectionInfo) -> int:
        pid = info.pgconn.exec_(b"SELECT pg_backend_pid()").get_value(0, 0)
        if pid is None:  # the connection is gone already
            raise psycopg.OperationalError
        return int(pid)

    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(pid_of_the_server))
    # A busy machine may be slow, but that is no failure to count.
    monkeypatch.setattr(recording._commits, "_within", 120)
    for name in ("_CONNECT_WITHIN_SECONDS", "_CONNECTION_WAIT_SECONDS"):
        monkeypatch.setattr(db, name, 120)
    url, _ = make_pooled(template=postgresql_template, pool_size=1)
    init_database(url)
    failed = []

    def again_if_away(work: Callable[[], object]) -> None:
        try:
            work()
        except DATABASE_ERRORS as problem:  # deliveries that could not be recorded go to the spool
            failed.append(problem)
            work()

    def count_tasks() -> int:
        with database.connection_context():
            return Task.select().count()

    def use(worker: int) -> None:
        for n in range(20):
            again_if_away(lambda uid=f"{worker}-{n}": record(body(uid)))
            again_if_away(count_tasks)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, range(6)))
    assert database.obj._is_surely_pooled
    assert len(failed) < 20
    with database.connection_context():
        assert Delivery.select().count() == 120
        assert database.connection().prepare_threshold is None
