import contextlib
import threading

import pytest
from peewee import InternalError, OperationalError
from playhouse.pool import MaxConnectionsExceeded

from receiver.database_url import postgresql_parameters, sqlite_path
from receiver.ledger import db, postgresql, refusals
from receiver.ledger.clock import utcnow
from receiver.ledger.db import init_database, is_away, is_of_data, migrate, writing
from receiver.ledger.models import Delivery, Task, database
from tests.factories import body, record, register

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@contextlib.contextmanager
def in_threads(count, work):
    """Let so many threads be in the middle of `work`, a context manager, until the block ends."""
    begun, over = threading.Barrier(count + 1), threading.Event()

    def hold():
        with work():
            begun.wait(30)
            over.wait(30)

    threads = [threading.Thread(target=hold) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        begun.wait(30)
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@on_postgresql
def test_a_callback_is_kept_while_pages_use_all_other_connections(ledger, monkeypatch):
    monkeypatch.setattr(db, "_CONNECTION_WAIT_SECONDS", 1)
    init_database(ledger, connections=3, for_callbacks=1)
    with in_threads(2, database.connection_context):
        assert record(body("t1")).task_id == "t1"
        refusals.try_a_write(utcnow())  # it says what would become of a callback
        with pytest.raises(MaxConnectionsExceeded):
            register("t2")
    register("t2")
    with in_threads(1, lambda: writing(at_once=True)), in_threads(2, database.connection_context):
        pass
    assert Task.select().count() == 2
    database.close()


@on_postgresql
def test_all_connections_together_are_no_more_than_told(ledger):
    init_database(ledger, connections=2, for_callbacks=1)

    def use():
        for n in range(5):
            register(f"t{n}")
            record(body(f"t{n}"))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.connection_context():
        sessions = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert database.execute_sql(sessions).fetchone()[0] <= 2
        assert Delivery.select().count() == 40


@pytest.mark.direct
@on_postgresql
def test_a_server_that_takes_no_writes_any_more_is_left(ledger, monkeypatch):
    monkeypatch.setattr(postgresql, "_REFUSE_AFTER_FAILURE_SECONDS", 0)
    init_database(ledger)
    with in_threads(3, database.connection_context):
        pass  # so many are idle now
    idle = [connection for _, _, connection in database.obj._connections]
    for connection in idle:
        connection.execute("SET default_transaction_read_only TO on")
    with pytest.raises(InternalError, match="read-only") as refused:
        record(body("t1"))
    assert is_away(refused.value)  # all of a group go to the spool,
    assert not is_of_data(refused.value)  # from where they are tried again
    assert len(idle) == 3
    assert all(connection.closed for connection in idle)
    assert record(body("t1")).status == "succeeded"


@pytest.mark.direct
@on_postgresql
def test_a_connection_in_use_when_its_server_is_left_is_not_used_again(ledger, monkeypatch):
    monkeypatch.setattr(postgresql, "_REFUSE_AFTER_FAILURE_SECONDS", 0)
    init_database(ledger)
    used = []

    @contextlib.contextmanager
    def use():
        with database.connection_context():
            used.append(database.connection())
            yield

    with in_threads(1, use), database.connection_context(), pytest.raises(OperationalError):
        database.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    assert used[0].closed


@pytest.mark.direct
@on_postgresql
def test_a_server_that_has_just_been_chosen_is_not_left_for_each_write(ledger):
    init_database(ledger)
    with database.connection_context():
        connection = database.connection()
        database.execute_sql("SET default_transaction_read_only TO on")
    for n in range(3):
        with pytest.raises(InternalError, match="read-only"):
            record(body(f"t{n}"))
    assert not connection.closed


def test_a_url_is_read_as_libpq_reads_it():
    parameters = postgresql_parameters(
        "postgres://us%40er:p%2Fw%25@%2Fvar%2FRun%2Fpg/my%20ledger?sslmode=require"
    )
    assert parameters == {
        "user": "us@er",
        "password": "p/w%",
        "host": "/var/Run/pg",
        "dbname": "my ledger",
        "sslmode": "require",
    }
    several = postgresql_parameters("postgresql://u@a:5432,b:5433/n?target_session_attrs=read-write")
    assert (several["host"], several["port"]) == ("a,b", "5432,5433")
    assert "pgbouncer" not in postgresql_parameters("postgresql://u@h/n?pgbouncer=true&connection_limit=1")


def test_what_is_no_url_is_refused_without_telling_it():
    for url in (
        "postgresql://u:hidden@h:port/n",
        "postgresql://u:hidden@h/n?hidden=1",
        "postgresql://[hidden/n",
    ):
        with pytest.raises(ValueError, match=r".") as refused:
            postgresql_parameters(url)
        assert "hidden" not in str(refused.value)


def test_a_database_and_a_socket_with_odd_names_are_found(postgresql_server):
    host = postgresql_server.partition("host=")[2].replace("/", "%2F")
    init_database(postgresql_server)
    with database.connection_context():
        database.execute_sql('CREATE DATABASE "odd name/é"')
    database.obj.close_all()
    init_database(f"postgresql://postgres@{host}/odd%20name%2F%C3%A9")
    assert migrate()
    assert record(body("t1")).task_id == "t1"
    database.obj.close_all()
    init_database(postgresql_server)
    with database.connection_context():
        database.execute_sql('DROP DATABASE "odd name/é" WITH (FORCE)')
    database.obj.close_all()


def test_the_name_of_a_sqlite_file_is_decoded_unless_one_of_the_encoded_name_is_in_use(tmp_path):
    assert sqlite_path(f"sqlite:///{tmp_path}/my%20ledger.db") == f"{tmp_path}/my ledger.db"
    (tmp_path / "my%20ledger.db").touch()
    assert sqlite_path(f"sqlite:///{tmp_path}/my%20ledger.db") == f"{tmp_path}/my%20ledger.db"
