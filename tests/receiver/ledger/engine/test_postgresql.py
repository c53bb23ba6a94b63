import contextlib
import threading

import pytest
from peewee import InternalError, OperationalError
from playhouse.pool import MaxConnectionsExceeded

from receiver.clock import utcnow
from receiver.ledger import refusals
from receiver.ledger.engine import db, postgresql
from receiver.ledger.engine.db import init_database, writing
from receiver.ledger.engine.errors import is_of_data, is_outage
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import Delivery, Task, database
from tests.factories import body, record, register
from tests.processes import wait_until

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)


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
    assert is_outage(refused.value)  # all of a group go to the spool,
    assert not is_of_data(refused.value)  # from where they are tried again
    assert len(idle) == 3
    wait_until(lambda: all(connection.closed for connection in idle))
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


@pytest.mark.direct
@on_postgresql
def test_a_direct_connection_prepares_its_statements_and_sets_its_bounds_once(ledger):
    init_database(ledger, connections=1)
    for n in range(3):
        record(body(f"t{n}"))
    with database.connection_context():
        prepared = (
            "SELECT 1 FROM pg_prepared_statements WHERE starts_with(statement, 'INSERT INTO \"delivery\"')"
        )
        assert len(database.execute_sql(prepared).fetchall()) == 1
        assert database.execute_sql("SHOW statement_timeout").fetchone() == ("30s",)
        assert database.execute_sql("SHOW default_transaction_isolation").fetchone() == ("read committed",)


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
