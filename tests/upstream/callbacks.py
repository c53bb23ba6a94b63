"""Sends callbacks, each once, as `requests.post(callback_url, json=body)` would send it."""

import base64
import contextlib
import json
import queue
import socket
import threading
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from .items import Task
from .records import Records

# Patient, but shorter than the stand-in's own shutdown.
TIMEOUT_SECONDS = 30
MAX_SENDERS = 64
MAX_REDIRECTS = 30
HEADERS = {
    "User-Agent": "python-requests/2.32.3",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
    "Connection": "keep-alive",
}


class Sender:
    """A bounded pool of threads. Only callbacks of the same task keep their order."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket | None] = set()
        self._stopped = False

    def send_from(self, task: Task) -> None:
        """Send everything in the task's outbox soon, in another thread. Only the scheduler may call it."""
        self._waiting.put(task)
        if not self._idle.acquire(blocking=False) and len(self._threads) < MAX_SENDERS:
            thread = threading.Thread(target=self._run, name="stand-in sender", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Abort callbacks in flight. Waiting ones are never sent."""
        with self._lock:
            self._stopped = True
            for plug in filter(None, self._open):
                with contextlib.suppress(OSError):
                    plug.shutdown(socket.SHUT_RDWR)
        for _ in self._threads:
            self._waiting.put(None)
        deadline = time.monotonic() + 2
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (task := self._waiting.get()) is not None and not self._stopped:
            while not self._stopped and (callback := self._records.next_callback(task)) is not None:
                kind, body = callback
                at = time.time()
                status, error = self._post(str(task.callback_url), json.dumps(body, allow_nan=False).encode())
                self._records.note_callback(task, kind, at, status, error)
            self._idle.release()

    def _post(self, url: str, body: bytes) -> tuple[int | None, str | None]:
        # As upstream does: record any error and drop the callback; never retry.
        try:
            return self._follow(url, body), None
        except (OSError, HTTPException, ValueError) as problem:
            return None, f"{type(problem).__name__}: {problem}"

    def _follow(self, url: str, payload: bytes) -> int:
        method, body = "POST", payload
        for _ in range(MAX_REDIRECTS + 1):
            status, location = self._exchange(method, url, body)
            if location is None or status not in (301, 302, 303, 307, 308):
                return status
            if status in (301, 302, 303):
                method, body = "GET", b""
            url = urljoin(url, location)
        raise HTTPException(f"more than {MAX_REDIRECTS} redirects")

    def _exchange(self, method: str, url: str, body: bytes) -> tuple[int, str | None]:
        parts = urlsplit(url)
        connection = _connection(parts)
        # Keep the socket here: the connection drops its reference when the answer ends the connection.
        plug: socket.socket | None = None
        try:
            connection.connect()
            plug = connection.sock
            self._hold(plug)
            target = quote(parts.path or "/", safe="!#$%&'()*+,/:;=?@[]~")
            query = "?" + quote(parts.query, safe="!#$%&'()*+,/:;=?@[]~") if parts.query else ""
            content = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
            headers = HEADERS | _basic_auth(parts) | (content if method == "POST" else {})
            connection.request(method, target + query, body or None, headers)
            with connection.getresponse() as response:
                while response.read(65536):
                    pass
                return response.status, response.headers.get("Location")
        finally:
            with self._lock:
                self._open.discard(plug)
            connection.close()

    def _hold(self, plug: socket.socket) -> None:
        with self._lock:
            if self._stopped:
                raise OSError("the stand-in is shutting down")
            self._open.add(plug)


def _connection(parts: SplitResult) -> HTTPConnection:
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"no connection adapters were found for {parts.geturl()!r}")
    scheme = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return scheme(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)


def _basic_auth(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(credentials.encode("latin-1")).decode()}
