"""Starts and stops the real processes: gunicorn with the receiver, the reconciler, and commands."""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import urllib3

from tests import preloaded
from tests.preloaded import Forked, Preloaded

REPOSITORY = Path(__file__).resolve().parent.parent
CALLBACK_TOKEN = "callback-token-of-the-test"
API_KEY = "api-key-of-the-test"
# Below those that the system gives to connections: one of these could take the port before its server does.
_PORTS = range(20_000, 32_000)


def free_port(wanted: int | None = None) -> int:
    """Return `wanted`, or any port, if nobody listens on it; OSError if somebody does."""
    if wanted is None:
        return _any_free_port()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", wanted))
    return wanted


def _any_free_port() -> int:
    while True:
        with contextlib.suppress(OSError):
            return free_port(secrets.choice(_PORTS))


def wait_until(condition: Callable[[], Any], seconds: float = 120, every: float = 0.05) -> Any:
    """Wait until a condition is true and return its value. Raises TimeoutError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come true within {seconds} s: {condition}")
        time.sleep(every)
    return value


Process = subprocess.Popen[bytes] | Forked

# What these programs import, by the name that `python -m` gets. gevent patches the interpreter for gunicorn.
_COMMANDS = ("receiver.app", "reconcile.__main__")
_OF_CONFIGURATION = re.findall(
    r"^from (\S+) import", (REPOSITORY / "gunicorn.conf.py").read_text(), re.MULTILINE
)
_WEB = ("gevent.monkey", "receiver.app", "receiver.web.server_log", *_OF_CONFIGURATION)
_IMPORTS = {"flask": _COMMANDS, "reconcile": _COMMANDS, "gunicorn": _WEB}


def worker_ids(web: Process) -> list[int]:
    """Return the process ids of a web process's workers. Only Linux tells them."""
    return [int(pid) for pid in Path(f"/proc/{web.pid}/task/{web.pid}/children").read_text().split()]


class Backstop:
    """One deployment. Its processes run in `directory`, so that they do not read the repository's .env.

    Their logs are in that directory too. Use it as a context manager, which stops all processes at its end.
    """

    def __init__(self, directory: Path, upstream_url: str, port: int | None = None, **variables: Any) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self.environ = {
            "DATABASE_URL": f"sqlite:///{directory / 'backstop.db'}",
            "ACEDATACLOUD_API_TOKEN": "test-token",
            "ACEDATACLOUD_API_BASE_URL": upstream_url,
            "CALLBACK_TOKEN": CALLBACK_TOKEN,
            "API_KEY": API_KEY,
            "PUBLIC_URL": self.url,
            "PORT": str(self.port),
            "RECONCILE_INTERVAL": "1",
            "RECONCILE_GRACE": "2",
            "RECONCILE_MAX_RATE": "0",
            **{name: str(value) for name, value in variables.items()},
        }
        self.processes: list[Process] = []
        self.application = "wsgi:app"
        self.handicap: Callable[[], None] | None = None  # runs in each process as it starts
        self._http = urllib3.PoolManager(maxsize=16, retries=False, timeout=60)

    def __enter__(self) -> "Backstop":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.clear()  # the end of a web process waits a second for a connection that is kept
        for process in self.processes:
            self._send(process, signal.SIGTERM)
        for process in self.processes:
            self._wait(process)

    @property
    def database_url(self) -> str:
        return self.environ["DATABASE_URL"]

    @property
    def callback_url(self) -> str:
        return f"{self.url}/callbacks/{self.environ['CALLBACK_TOKEN']}"

    def migrate(self) -> None:
        """Bring the schema up to date, as the release phase of a platform does."""
        self.command("flask", "--app", "wsgi", "migrate").check_returncode()

    def start_web(self, *options: str) -> Process:
        """Start gunicorn and wait until it answers. Detects another server that has taken its port."""
        log = self.directory / "web.log"
        earlier = log.stat().st_size if log.exists() else 0
        process = self.start(
            "web", "-m", "gunicorn", "-c", f"{REPOSITORY}/gunicorn.conf.py", *options, self.application
        )

        def is_up() -> bool:
            return b"Listening at: " in log.read_bytes()[earlier:] and self._is_up()

        wait_until(lambda: process.poll() is not None or is_up())
        if process.returncode is not None:
            raise RuntimeError(f"the web process ended:\n{self.log('web')}")
        return process

    def start_reconciler(self, *options: str) -> Process:
        return self.start("reconcile", "-m", "reconcile", *options)

    def reconcile_once(self) -> "subprocess.CompletedProcess[str]":
        """Do one run of the reconciler and wait for its end."""
        return self.command("reconcile", "--once")

    def command(self, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a module as a command of this deployment and wait for its end."""
        run, environ = ["-m", module, *arguments], self._environ()
        if ready := self._preloaded(run):
            return ready.run(run, self.directory, environ, seconds=180)
        return subprocess.run(
            [sys.executable, *run],
            cwd=self.directory,
            env=environ,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def start(self, name: str, *arguments: str, stdin: int | None = None) -> Process:
        """Start a Python process whose output is appended to the log `name`."""
        process: Process
        with open(self.directory / f"{name}.log", "ab") as log, open(os.devnull, "rb") as nothing:
            if stdin is None and (ready := self._preloaded(arguments)):
                process = ready.start(arguments, self.directory, self._environ(), (nothing, log, log))
            else:
                process = subprocess.Popen(
                    [sys.executable, *arguments],
                    cwd=self.directory,
                    env=self._environ(),
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    preexec_fn=self.handicap,
                )
        self.processes.append(process)
        return process

    def _preloaded(self, arguments: Sequence[str]) -> Preloaded | None:
        """Return what starts a program faster, and the same. Others are started as always: a user's first of all."""
        if self.handicap is not None or arguments[0] != "-m" or arguments[1] not in _IMPORTS:
            return None
        return preloaded.find(sys.executable, _IMPORTS[arguments[1]], self._environ())

    def stop(self, process: Process, number: int = signal.SIGTERM) -> int:
        """Stop a process and return its exit code."""
        self._send(process, number)
        return self._wait(process)

    def kill_web(self, process: Process) -> None:
        """Kill a web process and its workers, without a chance to say anything."""
        for pid in (process.pid, *worker_ids(process)):
            with contextlib.suppress(ProcessLookupError):  # a worker that saw its master end
                os.kill(pid, signal.SIGKILL)
        self._wait(process)

    def _send(self, process: Process, number: int) -> None:
        if process.poll() is None:
            process.send_signal(number)

    def _wait(self, process: Process) -> int:
        try:
            return process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def request(self, method: str, path: str, json: Any = None) -> urllib3.BaseHTTPResponse:
        """Make a request to the API, with the key."""
        headers = {"Authorization": f"Bearer {self.environ['API_KEY']}"}
        return self._http.request(method, self.url + path, json=json, headers=headers)

    def post_callback(self, body: bytes, ref: str = "") -> urllib3.BaseHTTPResponse:
        return self._http.request("POST", self.callback_url + ref, body=body)

    def _is_up(self) -> bool:
        try:
            return self.request("GET", "/healthz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _environ(self) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RECONCILE_")}
        return {**inherited, "PYTHONPATH": str(REPOSITORY), **self.environ}
