"""Which requests may take which share of a worker; what clients do to a real one is in test_processes.py."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPResponse
from types import SimpleNamespace
from unittest import mock

import pytest
from gunicorn.workers.ggevent import GeventWorker

from receiver.web.connections import Connections
from receiver.web.lasting import Lasting
from receiver.web.waiting import Waiting
from receiver.web.worker import BoundedWorker
from tests.processes import REPOSITORY

TOKEN = "callback-token-of-the-tests"


@pytest.fixture
def worker(monkeypatch) -> BoundedWorker:
    """A worker of four connections, three of which others than callbacks may take."""
    worker = BoundedWorker.__new__(BoundedWorker)
    settings = SimpleNamespace(callback_tokens=(TOKEN, "older-token-of-the-tests"))
    counted = {"backstop_waiting": Waiting(), "backstop_lasting": Lasting()}
    worker.wsgi = SimpleNamespace(extensions={"backstop": settings} | counted)
    worker._most_others, worker._others = 3, 3
    worker.log, worker._logged_full_at = mock.Mock(), -60.0
    worker._connections = Connections(3)
    worker.alive = True
    monkeypatch.setattr(GeventWorker, "handle_request", lambda *_: None)
    return worker


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        yield ours, theirs


@pytest.mark.parametrize(
    "path",
    [
        *(f"/callbacks/{TOKEN}", f"/callbacks/{TOKEN}/order-1", "/callbacks/older-token-of-the-tests"),
        *(f"//callbacks/{TOKEN}", f"/callbacks/%63{TOKEN[1:]}", "/healthz"),
    ],
)
def test_callbacks_and_health_checks_are_served_when_others_have_taken_their_share(worker, connection, path):
    worker.handle_request(None, SimpleNamespace(path=path), connection[0], None)


@pytest.mark.parametrize(
    "path", ["/", "/static/backstop.css", "/readyz", "/callbacks/made-up", "/callbacks/", "/callbacks"]
)
def test_others_are_turned_away_at_once_those_with_a_made_up_token_too(worker, connection, path):
    with pytest.raises(ConnectionResetError):
        worker.handle_request(None, SimpleNamespace(path=path), connection[0], None)
    answer = HTTPResponse(connection[1])
    answer.begin()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert json.loads(answer.read())["error"]["code"] == "busy"
    assert worker.log.warning.call_count == 1
    assert worker._others == 3


def test_one_that_does_not_read_does_not_hold_the_worker_while_it_is_turned_away(
    worker, connection, monkeypatch
):
    monkeypatch.setattr("receiver.web.worker._FULL_WITHIN_SECONDS", 0.1)
    connection[0].setblocking(False)
    with suppress(BlockingIOError):
        while True:  # until nothing more fits
            connection[0].send(bytes(65536))
    connection[0].setblocking(True)
    with pytest.raises(ConnectionResetError):
        worker.handle_request(None, SimpleNamespace(path="/"), connection[0], None)


@pytest.mark.parametrize(("waiting", "seconds"), [(0, 0.4), (60, 0.1), (90, 0)])
def test_the_busier_it_is_the_later_the_next_request_is_read_where_waiting_is_no_work(
    worker, connection, monkeypatch, waiting, seconds
):
    worker._most_others, worker._others = 300, 99
    worker.wsgi.extensions["backstop_waiting"] = SimpleNamespace(count=waiting)
    slept = []
    monkeypatch.setattr("receiver.web.worker.gevent.sleep", slept.append)
    worker.handle_request(None, SimpleNamespace(path="/"), connection[0], None)
    assert slept == [pytest.approx(seconds)]


def test_a_request_that_ends_gives_its_place_back(worker, connection):
    worker._others = 0
    for _ in range(10):
        worker.handle_request(None, SimpleNamespace(path="/"), connection[0], None)
    assert worker._others == 0


_STOPS_WHILE_A_CALL_HANGS = """
import os, threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock
from receiver.web.worker import BoundedWorker
ThreadPoolExecutor(1).submit(threading.Event().wait)
worker = BoundedWorker.__new__(BoundedWorker)
worker._background, worker.pid, worker.booted = mock.Mock(), os.getpid(), True
worker.stop_background()
"""


@pytest.mark.processes
def test_a_call_that_hangs_does_not_keep_a_worker_from_ending():
    ended = subprocess.run([sys.executable, "-c", _STOPS_WHILE_A_CALL_HANGS], cwd=REPOSITORY, timeout=60)
    assert ended.returncode == 0
