"""python -m receiver: the whole service as one command, with its real processes."""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3

from tests.factories import body
from tests.processes import Backstop, wait_until
from tests.upstream import StandIn

PATIENCE_SECONDS = 90.0  # a shared machine may be slow
Start = Callable[..., "Service"]


class Service:
    """A deployment that runs as one command."""

    def __init__(self, backstop: Backstop) -> None:
        self.backstop = backstop
        self.process = backstop.start("service", "-m", "receiver")

    @property
    def log(self) -> str:
        return self.backstop.log("service")

    def wait_for(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until the log matches a pattern, and return the pattern's group."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log
            return re.search(pattern, self.log, re.DOTALL)

        match: re.Match[str] = wait_until(found, seconds)
        return match[1] if match.groups() else match[0]

    def pid_of(self, name: str) -> int:
        """Return the process id of a program when it has started."""
        self.wait_for(rf"The {name} has started")
        return int(re.findall(rf"The {name} has started \(process (\d+)\)", self.log)[-1])

    def wait_until_up(self) -> None:
        wait_until(self.is_up, PATIENCE_SECONDS)

    def is_up(self) -> bool:
        with contextlib.suppress(Exception):
            return self.backstop.request("GET", "/readyz").status == 200
        return False

    def everything(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def start(tmp_path: Path, stand_in: StandIn) -> Iterator[Start]:
    """Start the whole service in an empty directory: start(RECONCILE_GRACE=0). It has one web process."""
    made: list[Backstop] = []

    def start(**variables: Any) -> Service:
        made.append(Backstop(tmp_path, stand_in.url, **{"WEB_CONCURRENCY": 1} | variables))
        return Service(made[-1])

    yield start
    for backstop in made:
        backstop.__exit__(None, None, None)


def submit(stand_in: StandIn) -> str:
    """Submit a task that calls nobody back, and return its id."""
    answer = urllib3.request(
        "POST",
        f"{stand_in.url}/midjourney/imagine",
        headers={"Authorization": "Bearer test-token"},
        json={"prompt": "a lighthouse", "async": True},
    )
    return str(answer.json()["task_id"])


def test_one_command_migrates_receives_and_recovers(start: Start, stand_in: StandIn):
    service = start(WEB_CONCURRENCY=2)
    service.wait_until_up()
    assert service.backstop.post_callback(body("t1")).status == 200
    task = submit(stand_in)
    service.backstop.request("POST", "/api/tasks", {"id": task})
    wait_until(
        lambda: service.backstop.request("GET", f"/api/tasks/{task}").json()["settled_by"] == "lookup",
        PATIENCE_SECONDS,
    )
    assert "ERROR" not in service.log


@pytest.mark.parametrize("name", ["receiver", "reconciler"])
def test_it_starts_again_what_is_killed_and_says_so(start: Start, name: str):
    service = start()
    service.wait_until_up()
    killed = service.pid_of(name)
    workers = psutil.Process(killed).children()
    os.kill(killed, signal.SIGKILL)
    service.wait_for(f"The {name} HAS ENDED: it was killed by SIGKILL. It starts again in 0.5 s")
    wait_until(lambda: service.pid_of(name) != killed, PATIENCE_SECONDS)
    psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)
    assert not any(psutil.pid_exists(worker.pid) for worker in workers)
    service.wait_until_up()  # not before: a worker that is about to end answers too
    assert service.backstop.post_callback(body("t1")).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_after_what_is_in_flight(start: Start, number: signal.Signals):
    service = start()
    service.wait_until_up()
    service.pid_of("reconciler")
    everything = service.everything()
    payload = body("t1")
    with socket.create_connection(
        ("127.0.0.1", service.backstop.port), timeout=PATIENCE_SECONDS
    ) as connection:
        path = service.backstop.callback_url.removeprefix(service.backstop.url)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        connection.sendall(head + payload[:10])
        time.sleep(0.5)  # so that a worker has begun to read
        service.process.send_signal(number)
        service_said = f"{number.name}: stopping"
        wait_until(lambda: service_said in service.log, PATIENCE_SECONDS)
        connection.sendall(payload[10:])
        assert b" 200 OK" in connection.recv(65536)
    assert service.process.wait(PATIENCE_SECONDS) == 0
    assert "killed" not in service.log
    assert not any(process.is_running() for process in everything)


def test_ctrl_c_in_a_terminal_reaches_no_child_directly(start: Start):
    service = start()
    service.wait_until_up()
    groups = {os.getpgid(service.pid_of(name)) for name in ("receiver", "reconciler")}
    assert os.getpgid(service.process.pid) not in groups


def test_its_children_end_with_it_even_if_it_is_killed(start: Start):
    service = start()
    service.wait_until_up()
    service.pid_of("reconciler")
    everything = service.everything()
    service.process.kill()
    _, alive = psutil.wait_procs(everything, timeout=PATIENCE_SECONDS)
    assert alive == []


def test_a_child_that_does_not_end_is_killed_and_the_exit_code_tells(start: Start):
    service = start()
    service.wait_until_up()
    stuck = psutil.Process(service.pid_of("reconciler"))
    stuck.suspend()
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM: stopping" in service.log, PATIENCE_SECONDS)
    service.process.send_signal(signal.SIGTERM)  # a second one hurries
    assert service.process.wait(PATIENCE_SECONDS) == 1
    assert "The reconciler has not ended in time, so it is killed." in service.log
    assert not stuck.is_running()


def test_while_the_schema_cannot_be_migrated_callbacks_wait_in_the_spool(start: Start, tmp_path: Path):
    ledger = tmp_path / "later" / "backstop.db"
    service = start(DATABASE_URL=f"sqlite:///{ledger}")
    service.wait_for(r"cannot be migrated.*The migration HAS ENDED: it exited with 1\. It starts again in")
    wait_until(lambda: service.backstop._is_up(), PATIENCE_SECONDS)
    assert service.backstop.post_callback(body("t1")).json() == {"received": True, "spooled": True}
    service.wait_for(r"has failed 2 times in a row\. It starts again in 1 s")
    assert "The reconciler has started" not in service.log
    ledger.parent.mkdir()
    service.wait_until_up()
    service.pid_of("reconciler")
    wait_until(lambda: service.backstop.request("GET", "/api/tasks/t1").status == 200, PATIENCE_SECONDS)


def test_a_migration_that_takes_long_does_not_keep_the_receiver_from_starting(start: Start, tmp_path: Path):
    with contextlib.closing(sqlite3.connect(tmp_path / "backstop.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=wal")
        other.execute("BEGIN IMMEDIATE")
        service = start()
        wait_until(lambda: service.backstop._is_up(), PATIENCE_SECONDS)
        assert service.backstop.post_callback(body("t1")).status == 202
        other.rollback()
    wait_until(lambda: service.backstop.request("GET", "/api/tasks/t1").status == 200, PATIENCE_SECONDS)


def test_a_port_that_is_taken_ends_it_with_advice(start: Start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        service = start(PORT=other.getsockname()[1])
        assert service.process.wait(PATIENCE_SECONDS) == 1
    assert (
        "Stop the program that listens there (`ss -ltnp` names it), or set PORT to another port"
        in service.log
    )
    assert "has started" not in service.log


def test_bad_settings_end_it_before_anything_starts(start: Start):
    service = start(API_KEY="short")
    assert service.process.wait(PATIENCE_SECONDS) == 1
    assert "API_KEY must be" in service.log
    assert "has started" not in service.log


def test_without_upstreams_token_it_receives_and_says_loudly_what_is_missing(start: Start):
    service = start(ACEDATACLOUD_API_TOKEN="")
    service.wait_until_up()
    assert service.backstop.post_callback(body("t1")).status == 200
    assert "NO RECONCILER RUNS: ACEDATACLOUD_API_TOKEN is missing" in service.log
    assert "The reconciler has started" not in service.log


def test_where_the_web_process_reconciles_there_is_no_other_reconciler(start: Start, stand_in: StandIn):
    service = start(RECONCILE_IN_WEB="true", WEB_CONCURRENCY=1)
    service.wait_until_up()
    task = submit(stand_in)
    service.backstop.request("POST", "/api/tasks", {"id": task})
    wait_until(
        lambda: service.backstop.request("GET", f"/api/tasks/{task}").json()["settled_by"] == "lookup",
        PATIENCE_SECONDS,
    )
    assert "reconciler has started" not in service.log


def test_as_a_containers_first_process_it_collects_the_orphans(tmp_path: Path):
    """Without that, each worker whose master was killed would stay in the table of processes for ever."""
    code = (
        "import ctypes, subprocess, sys\n"
        "from receiver.supervisor import Program, Supervisor\n"
        "ctypes.CDLL(None).prctl(36, 1)\n"  # PR_SET_CHILD_SUBREAPER: orphans come to us, as to process 1
        'orphan = \'import subprocess, sys; print(subprocess.Popen(["sleep", "0.3"]).pid, flush=True)\'\n'
        "stays = Program('It', [sys.executable, '-c', orphan + '; import time; time.sleep(60)'])\n"
        "leaves = Program('Other', [sys.executable, '-c', orphan], ends=True)\n"
        "sys.exit(Supervisor([leaves, stays]).run())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        orphans = [int(process.stdout.readline()) for _ in range(2)]
        wait_until(lambda: sum(psutil.pid_exists(pid) for pid in orphans) == 1)  # of the other, one zombie
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0


def test_check_finds_a_running_service_good_and_leaves_no_trace(start: Start, tmp_path: Path):
    service = start()
    service.wait_until_up()
    service.pid_of("reconciler")
    wait_until(lambda: service.backstop.request("GET", "/readyz").json()["last_run"], PATIENCE_SECONDS)
    checked = service.backstop.command("flask", "--app", "wsgi", "check")
    told = {tuple(line.split(maxsplit=1)) for line in checked.stdout.splitlines()}
    assert ("good", f"callback URL   a probe reached the receiver at {service.backstop.url}") in told
    # The tests run inside a container or in memory, which does not last.
    bad = [line for line in checked.stdout.splitlines() if line.startswith("bad")]
    assert [line for line in bad if "does not last" not in line] == []
    assert checked.returncode == (1 if bad else 0)
    assert service.backstop.request("GET", "/api/deliveries").json()["items"] == []


def test_check_says_which_process_has_an_old_callback_token(start: Start):
    service = start()
    service.wait_until_up()
    service.backstop.environ["CALLBACK_TOKEN"] = "another-token-of-the-test"
    checked = service.backstop.command("flask", "--app", "wsgi", "check")
    assert "Restart the web process if CALLBACK_TOKEN was changed" in checked.stdout
    assert "another-token-of-the-test" not in checked.stdout + checked.stderr
    assert checked.returncode == 1
