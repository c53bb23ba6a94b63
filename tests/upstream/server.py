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

from .answers import Answer, Stream, bad_request, error_answer, json_answer
from .catalogue import TASKS_PATHS
from .images import png
from .media import song, video
from .submissions import not_found

if TYPE_CHECKING:
    from .stand_in import StandIn

# Submissions may hold pictures in base64.
MAX_BODY_BYTES = 64 * 1_048_576
ABOUT = b"This is a stand-in for Ace Data Cloud's API. See /truth, /paid, /stats and /control.\n"
IMAGE = re.compile(r"/images/(?:(?P<final>[\w.-]+)|tmp/(?P<task_id>[\w-]+)-\d+)\.png")
SONG = re.compile(r"/audios/[\w-]+\.mp3")
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
        """200 for /, /truth, /paid, /stats, /control, pictures, videos, songs and what the API reads; else 404."""
        path = urlsplit(self.path).path
        if path == "/":
            self._send(Answer(200, ABOUT, {"Content-Type": "text/plain; charset=utf-8"}))
        elif path in ("/truth", "/paid", "/stats"):
            self._send(json_answer(getattr(self.stand_in, path[1:])()))
        elif path == "/control":
            self._send(json_answer(asdict(self.stand_in.options)))
        elif path.startswith(("/images/", "/videos/", "/audios/")):
            self._send(self._file(path) or not_found(path))
        else:
            self._send(self._api("GET", b""))

    def do_POST(self) -> None:
        """Submissions and look-ups; /control changes options; 413 for a body over 64 MiB."""
        raw = self._read()
        if raw is None:
            return
        path = urlsplit(self.path).path
        if path == "/control":
            self._send(self._control(raw))
        elif (service := TASKS_PATHS.get(path)) is not None:
            self._send(self.stand_in.lookups.answer(self._lower_headers(), raw, self._refusal(), service))
        else:
            self._send(self._api("POST", raw))

    def do_DELETE(self) -> None:
        """Whatever the API answers, also to PUT and PATCH."""
        raw = self._read()
        if raw is not None:
            self._send(self._api(self.command, raw))

    do_PUT = do_PATCH = do_DELETE

    def _api(self, method: str, raw: bytes) -> Answer | Stream:
        return self.stand_in.submissions.answer(
            method, self.path, self._lower_headers(), raw, self._refusal()
        )

    def _lower_headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _refusal(self) -> Answer | None:
        return self.stand_in.refusal(self.headers.get("Authorization"))

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
        if SONG.fullmatch(path):
            return song(self.headers.get("Range"))
        found = IMAGE.fullmatch(path)
        # The picture of a progress step is deleted once the task has finished.
        if not found or (found["task_id"] and not self.stand_in.records.is_working(found["task_id"])):
            return None
        headers = {"Content-Type": "image/png", "Cache-Control": "max-age=3600"}
        return Answer(200, png(found["final"] or found["task_id"]), headers)

    def _read(self) -> bytes | None:
        """Return the body; None if it was refused, or if the caller went away in the middle."""
        length = self.headers.get("Content-Length", "0" if self.command == "DELETE" else "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            status = 413 if length.isdecimal() else 411
            self._send(error_answer(status, "bad_request", "A Content-Length up to 64 MiB is needed."))
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return None
        return body

    def _send(self, answer: Answer | Stream) -> None:
        if isinstance(answer, Stream):
            self._send_parts(answer)
            return
        if answer.fate == "hang":
            self.close_connection = True
            return
        body = answer.body if answer.fate == "whole" else answer.body[: len(answer.body) // 2]
        headers = _with_length(answer.headers, len(answer.body))
        self.send_response_only(answer.status)
        self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.fate == "cut" or headers.get("Content-Length") != str(len(answer.body)):
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def _send_parts(self, stream: Stream) -> None:
        self.send_response_only(stream.status)
        self.send_header("Date", self.date_time_string())
        for name, value in {**stream.headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in stream.parts:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


def _with_length(headers: Mapping[str, str], length: int) -> dict[str, str]:
    named = {name.lower() for name in headers}
    if named & {"content-length", "transfer-encoding"}:
        return dict(headers)
    return {**headers, "Content-Length": str(length)}
