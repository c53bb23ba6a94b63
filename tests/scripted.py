"""An upstream on a real socket whose answers a test writes."""

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Scripted:
    """Serves `answer`, in a thread for each connection. `received` are the requests, in their order."""

    answer: Callable[[Received, "Connection"], None] = lambda request, connection: connection.send_json({})
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> "Scripted":
        scripted = self

        class Handler(Connection):
            script = scripted

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that is gone."""


class Connection(BaseHTTPRequestHandler):
    """One connection of a client. An answer is sent with it."""

    protocol_version = "HTTP/1.1"
    script: Scripted

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Received(self.command, self.path, dict(self.headers.items()), body)
        self.script.received.append(request)
        self.script.answer(request, self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def send_json(self, value: Any, status: int = 200, **headers: str) -> None:
        """Answer JSON. In the names of headers `_` stands for `-`."""
        self.send_bytes(json.dumps(value).encode(), status, content_type="application/json", **headers)

    def send_bytes(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_chunks(self, **headers: str) -> None:
        """Begin an answer of unknown length."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_chunk(self, chunk: bytes) -> None:
        """Send a part of it; an empty one is its end."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.flush()

    def cut(self) -> None:
        """End the connection without a further answer."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)
        self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Write no log."""
