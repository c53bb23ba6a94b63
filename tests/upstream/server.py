"""The stand-in's HTTP server: routes, credentials, and answers that end early on purpose."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from .answers import Answer, bad_request, error_answer, json_answer
from .images import png
from .records import Task
from .tasks import TYPES
from .videos import video

if TYPE_CHECKING:
    from .stand_in import StandIn

MAX_BODY_BYTES = 1_048_576
# The status of a synchronous submission whose task fails. The body is the result itself.
FAILURE_STATUS = {"bad_request": 400, "forbidden": 403, "api_error": 500, "timeout": 504}
ABOUT = b"This is a stand-in for Ace Data Cloud's Midjourney API. See /truth, /stats and /control.\n"
IMAGE = re.compile(r"/images/(?:(?P<final>[\w.-]+)|tmp/(?P<task_id>[\w-]+)-\d+)\.png")
VIDEO = re.compile(r"/videos/[\w-]+/0_[0-3]\.mp4")


class Server(socketserver.ThreadingTCPServer):
    """Serves each connection in a thread, and tracks open ones so that `stop` can close them."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, stand_in: StandIn, port: int) -> None:
        self.stand_in = stand_in
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="stand-in", daemon=True)

    def start(self) -> None:
        """Start to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, close every connection and wait briefly for their threads."""
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 2
        while self._open and time.monotonic() < deadline:
            time.sleep(0.005)
        self._thread.join(timeout=2)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection and hand it to its thread."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection, then forget it."""
        super().shutdown_request(request)
        with self._lock:
            self._open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of callers that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    @property
    def stand_in(self) -> StandIn:
        """Return the stand-in this connection belongs to."""
        return cast(Server, self.server).stand_in

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: /stats and /truth have more."""

    def do_GET(self) -> None:
        """200 for /, /truth, /stats, /control, images and videos; 404 for everything else."""
        path = urlsplit(self.path).path
        if path == "/":
            self._send(Answer(200, ABOUT, {"Content-Type": "text/plain; charset=utf-8"}))
        elif path == "/truth":
            self._send(json_answer(self.stand_in.truth()))
        elif path == "/stats":
            self._send(json_answer(self.stand_in.stats()))
        elif path == "/control":
            self._send(json_answer(asdict(self.stand_in.options)))
        else:
            self._send(self._file(path) or _not_found(path))

    def do_POST(self) -> None:
        """Submissions and look-ups under /midjourney; /control changes options; 413 for a body over 1 MiB."""
        raw = self._read()
        if raw is None:
            return
        path = urlsplit(self.path).path
        if path == "/control":
            self._send(self._control(raw))
        elif path == "/midjourney/tasks":
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(self.stand_in.lookups.answer(headers, raw, self._refusal()))
        elif path.startswith("/midjourney/"):
            self._send(self._refusal() or self._submission(path.removeprefix("/midjourney/"), raw))
        else:
            self._send(self._refusal() or _not_found(path))

    def _refusal(self) -> Answer | None:
        return self.stand_in.refusal(self.headers.get("Authorization"))

    def _submission(self, task_type: str, raw: bytes) -> Answer:
        if task_type not in TYPES:
            return error_answer(400, "api_not_implemented", f"The stand-in does not know {task_type!r}.")
        try:
            request = json.loads(raw)
        except (ValueError, RecursionError):
            return bad_request("The body is not JSON.")
        if not isinstance(request, dict) or not isinstance(request.get("callback_url"), str | None):
            return bad_request("The body has to be an object, and its `callback_url` a text.")
        streaming = "application/x-ndjson" in self.headers.get("Accept", "")
        task = self.stand_in.open_task(task_type, request, streaming)
        if task.done is not None:
            return self._hold(task, task.done)
        return json_answer({"task_id": task.plan.task_id, "trace_id": task.trace_id})

    def _hold(self, task: Task, done: threading.Event) -> Answer:
        while not done.wait(0.2):
            if self.stand_in.stopping.is_set():
                return Answer(503, b"", fate="hang")
        body = task.response or {}
        status = 200 if body.get("success") else FAILURE_STATUS[body["error"]["code"]]
        return json_answer(body, status)

    def _control(self, raw: bytes) -> Answer:
        try:
            changes = json.loads(raw)
            if not isinstance(changes, dict):
                raise ValueError("the body has to be a JSON object of option names")
            self.stand_in.options.change(changes)
        except (ValueError, RecursionError) as problem:
            return bad_request(str(problem))
        return json_answer(asdict(self.stand_in.options))

    def _file(self, path: str) -> Answer | None:
        if VIDEO.fullmatch(path):
            return video(self.headers.get("Range"))
        found = IMAGE.fullmatch(path)
        # The picture of a progress step is deleted once the task has finished.
        if not found or (found["task_id"] and not self.stand_in.records.is_working(found["task_id"])):
            return None
        headers = {"Content-Type": "image/png", "Cache-Control": "max-age=3600"}
        return Answer(200, png(found["final"] or found["task_id"]), headers)

    def _read(self) -> bytes | None:
        """Return the body; None if it was refused, or if the caller went away in the middle."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            status = 413 if length.isdecimal() else 411
            self._send(error_answer(status, "bad_request", "A Content-Length up to 1 MiB is needed."))
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return None
        return body

    def _send(self, answer: Answer) -> None:
        if answer.fate == "hang":
            self.close_connection = True
            return
        body = answer.body if answer.fate == "whole" else answer.body[: len(answer.body) // 2]
        headers = _with_length(answer.headers, len(answer.body))
        self.send_response_only(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.fate == "cut" or headers.get("Content-Length") != str(len(answer.body)):
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


def _with_length(headers: Mapping[str, str], length: int) -> dict[str, str]:
    named = {name.lower() for name in headers}
    if named & {"content-length", "transfer-encoding"}:
        return dict(headers)
    return {**headers, "Content-Length": str(length)}


def _not_found(path: str) -> Answer:
    return error_answer(404, "no_api", f"There is nothing at {path}.")
