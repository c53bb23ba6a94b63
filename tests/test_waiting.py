"""Many requests that wait, in a real web process."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from receiver.ledger.engine.db import writing
from receiver.ledger.models import Task
from receiver.web.waiting import MOST_WAITING
from tests.factories import body, register
from tests.processes import API_KEY, Backstop, wait_until
from tests.upstream import StandIn

SETTLED = {"status": "succeeded", "settled_by": "lookup"}


@pytest.fixture
def backstop(ledger: str, tmp_path: Path, stand_in: StandIn) -> Iterator[Backstop]:
    """One web process on the test's ledger, which counts."""
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=ledger, WEB_CONCURRENCY=1) as backstop:
        backstop.application = "tests.counting_app:app"
        yield backstop


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the connections of all clients."""
    with ExitStack() as stack:
        yield stack


def begin(backstop: Backstop, clients: ExitStack, paths: list[str]) -> list[socket.socket]:
    """Send requests, each by a connection of its own, and return once all of them wait."""
    connections = []
    for path in paths:
        connection = clients.enter_context(
            socket.create_connection(("127.0.0.1", backstop.port), timeout=150)
        )
        head = (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode())
        connections.append(connection)
    wait_until(lambda: counts(backstop)["waiting"] == len(paths))
    return connections


def counts(backstop: Backstop) -> Any:
    return backstop.request("GET", "/counts").json()


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Return the answer's status and JSON."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    head, _, content = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


def answer_in_the_end(backstop: Backstop, connection: socket.socket, path: str) -> Any:
    """Return the answer's JSON. A busy machine's database may be too slow: then it is asked again, as clients do."""
    status, told = answer(connection)
    if status == 503:
        again = wait_until(lambda: (got := backstop.request("GET", path)).status == 200 and got)
        return again.json()
    assert status == 200, told
    return told


def looks(statements: list[str]) -> int:
    return sum(bool(re.search(r"MAX\(.+event", statement)) for statement in statements)


def test_two_hundred_cost_two_small_queries_a_second_and_all_are_answered(backstop, clients):
    ids = [f"t{n:03}" for n in range(MOST_WAITING // 2)]
    register(*ids, "other")
    backstop.start_web()
    paths = [f"/api/tasks/{task_id}?wait=99" for task_id in ids] + ["/api/events?wait=99"] * len(ids)
    waiting = begin(backstop, clients, paths)
    before = len(counts(backstop)["statements"])
    new = wait_until(lambda: looks(found := counts(backstop)["statements"][before:]) >= 3 and found)
    assert len(new) < len(paths) / 4, (
        new
    )  # those of the background threads too, for as long as three looks take

    # Others are served meanwhile. One more that would wait is answered at once.
    assert backstop.request("GET", "/api/tasks/other?wait=99").json()["status"] == "pending"
    assert backstop.post_callback(body("another")).status == 200
    news = [answer_in_the_end(backstop, connection, "/api/events") for connection in waiting[len(ids) :]]
    assert {one["next"] for one in news} == {1}

    with writing():
        Task.update(**SETTLED).where(Task.id.in_(ids)).execute()
    told = [
        answer_in_the_end(backstop, connection, f"/api/tasks/{task_id}")
        for connection, task_id in zip(waiting, ids, strict=False)
    ]
    assert [(task["id"], task["status"]) for task in told] == [(task_id, "succeeded") for task_id in ids]


def test_clients_that_go_away_free_their_places(backstop, clients):
    register("t1")
    backstop.start_web()
    connections = begin(backstop, clients, ["/api/tasks/t1?wait=99", "/api/events?wait=99"] * 5)
    for connection in connections[:8]:
        connection.close()
    wait_until(lambda: counts(backstop)["waiting"] == 2, seconds=80)


def test_a_worker_that_is_to_end_answers_them_at_once(backstop, clients):
    register("t1")
    process = backstop.start_web()
    for_task, for_events = begin(backstop, clients, ["/api/tasks/t1?wait=99", "/api/events?wait=99"])
    assert backstop.stop(process) == 0
    assert (answer(for_task)[1]["status"], answer(for_events)) == ("pending", (200, {"items": [], "next": 0}))
    assert "graceful timeout" not in backstop.log("web")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite is never away
def test_they_end_with_a_503_when_the_database_goes_away(backstop, clients, ledger, postgresql_server):
    register("t1")
    backstop.start_web()
    connections = begin(backstop, clients, ["/api/tasks/t1?wait=99", "/api/events?wait=99"])
    began = time.monotonic()
    with psycopg.connect(ledger) as ours:
        name = ours.info.dbname
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        assert [answer(connection)[0] for connection in connections] == [503, 503]
        assert time.monotonic() - began < 80  # before they have waited enough
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    record_when_it_is_back = wait_until(lambda: backstop.post_callback(body("t1")).status == 200)
    assert record_when_it_is_back
    wait_until(lambda: backstop.request("GET", "/api/tasks/t1?wait=99").status == 200)
