"""A customer's app that is told about its tasks. It can be away for a while."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError


class Customer:
    """A server that keeps the events it is told, if their signatures are right."""

    def __init__(self, secret: str) -> None:
        self.is_away = False
        self.events: dict[str, Any] = {}  # by their webhook-ids: one may come twice
        self.unsigned = 0
        self._webhook = Webhook(secret)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks"

    def __enter__(self) -> "Customer":
        threading.Thread(target=self._server.serve_forever, name="customer", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def hear(self, body: bytes, headers: dict[str, str]) -> int:
        """Take a request and return the status of the answer."""
        if self.is_away:
            return 500
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            self.unsigned += 1
            return 401
        self.events[headers["webhook-id"]] = json.loads(body)
        return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        customer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(customer.hear(body, dict(self.headers.items())))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
