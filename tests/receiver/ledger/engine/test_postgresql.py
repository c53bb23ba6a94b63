import contextlib
import threading

import gevent
import psycopg
import pytest
from gevent import monkey
from peewee import DataError, InternalError, OperationalError
from playhouse.pool import MaxConnectionsExceeded

from receiver.clock import utcnow
from receiver.ledger import refusals
from receiver.ledger.engine import db, postgresql
from receiver.ledger.engine.bounded import BoundedConnection
from receiver.ledger.engine.db import execute_built, init_database, writing
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


def divide_by_zero():
    return execute_built("SELECT 1 / $1::int", (0,))


@on_postgresql
@pytest.mark.parametrize("fail", [divide_by_zero, lambda: divide_by_zero().fetchall()])
def test_a_pipelined_transaction_writes_all_or_nothing_and_its_connection_is_used_again(ledger, fail):
    init_database(ledger, connections=1)
    register("t1")

    def write():
        with writing(pipelined=True):
            execute_built("DELETE FROM task WHERE id = $1", ("t1",))
            fail()  # an error that nobody reads comes at the end

    with pytest.raises(DataError, match="division by zero"):
        write()
    with writing(pipelined=True):
        execute_built("UPDATE task SET ref = $1 WHERE id = $2", ("order-1", "t1"))
    with database.connection_context():
        assert Task.get_by_id("t1").ref == "order-1"


@on_postgresql
def test_a_pipelined_transaction_tells_how_many_rows_a_statement_changed(ledger):
    init_database(ledger)
    register("t1")
    with writing(pipelined=True):
        assert Task.update(ref="order-1").where(Task.id == "t1").execute() == 1
        assert Task.update(ref="order-1").where(Task.id == "t2").execute() == 0


@pytest.mark.direct
@on_postgresql
def test_a_connection_that_the_server_has_just_ended_is_not_used_again(ledger):
    init_database(ledger, connections=1)
    with database.connection_context():
        connection = database.connection()
        pid = connection.info.backend_pid
    with psycopg.connect(ledger, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
    wait_until(connection.has_news)
    register("t1")
    assert connection.closed


class TestUnderGevent:
    """How a connection waits where greenlets run meanwhile."""

    @pytest.fixture(autouse=True)
    def connection(self, postgresql_server, monkeypatch):
        monkeypatch.setattr(monkey, "is_module_patched", lambda name: True)
        with BoundedConnection.connect(postgresql_server, autocommit=True) as connection:
            connection.answer_within = 30
            yield connection

    def test_it_gets_answers_that_take_time_and_large_ones(self, connection):
        (row,) = connection.execute("SELECT repeat('x', 1000000), pg_sleep(0.05)").fetchall()
        assert len(row[0]) == 1_000_000
        with connection.pipeline():
            first = connection.execute("SELECT %s", ("y" * 1_000_000,))
            second = connection.execute("SELECT 2")
            assert len(first.fetchall()[0][0]) == 1_000_000
        assert second.fetchall() == [(2,)]

    def test_others_run_meanwhile(self, connection):
        done = []
        other = gevent.spawn(done.append, "other")
        connection.execute("SELECT pg_sleep(0.05)")
        assert done == ["other"]
        other.join()

    def test_it_waits_no_longer_than_it_may(self, connection):
        connection.answer_within = 0.05
        with pytest.raises(psycopg.OperationalError, match="did not answer within"):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.closed

    def test_it_notices_that_the_session_has_ended(self, connection):
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
        assert connection.closed


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
