"""A customer's app over real sockets: it keeps what it is sent, and answers as well or as badly as it is told."""

import contextlib
import itertools
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

Act = Callable[["Sink", socket.socket], bool]  # answers one request; tells whether the connection goes on


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    connection: int
    line: str
    headers: dict[str, str]  # their names in lower case
    body: bytes


def reply(status: int = 200, body: bytes = b"", **headers: str) -> Act:
    """Answer properly. Underscores in the names of headers stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in named.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    is_last = named.get("Connection") == "close"

    def act(sink: "Sink", connection: socket.socket) -> bool:
        connection.sendall(head + body)
        return not is_last

    return act


def say(data: bytes) -> Act:
    """Send these bytes and close the connection."""

    def act(sink: "Sink", connection: socket.socket) -> bool:
        connection.sendall(data)
        return False

    return act


def hang(data: bytes = b"") -> Act:
    """Send these bytes, and then nothing more until the sink stops."""

    def act(sink: "Sink", connection: socket.socket) -> bool:
        connection.sendall(data)
        sink.stopping.wait()
        return False

    return act


def drip(data: bytes, endless: bytes, every: float = 0.02) -> Act:
    """Send these bytes, and then others again and again."""

    def act(sink: "Sink", connection: socket.socket) -> bool:
        connection.sendall(data)
        while not sink.stopping.wait(every):
            connection.sendall(endless)
        return False

    return act


def reset(data: bytes = b"") -> Act:
    """Send these bytes and reset the connection."""

    def act(sink: "Sink", connection: socket.socket) -> bool:
        connection.sendall(data)
        # With a linger time of 0 s, to close is to reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return act


class Sink:
    """A server. It answers with what `then` has been given, one after the other, and after that with `always`."""

    def __init__(self, always: Act | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.always = always or reply()
        self.received: list[Received] = []
        self.connections = 0
        self.present: dict[socket.socket, Received] = {}  # the request that a connection waits for
        self.stopping = threading.Event()
        self._acts: deque[Act] = deque()
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{self.port}"

    def then(self, *acts: Act) -> None:
        """Answer the next requests so."""
        self._acts.extend(acts)

    def __enter__(self) -> "Sink":
        threading.Thread(target=self._accept, name="sink", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections = number
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(number, connection), daemon=True).start()

    def _serve(self, number: int, plain: socket.socket) -> None:
        connection = plain
        # A sender that goes away is what is tested here.
        with contextlib.suppress(OSError, ValueError):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                self._open.discard(plain)
                connection = self._tls.wrap_socket(plain, server_side=True)
                self._open.add(connection)
            with connection.makefile("rb") as stream:
                while (request := _read(number, stream)) is not None:
                    self.received.append(request)
                    self.present[connection] = request
                    act = self._acts.popleft() if self._acts else self.always
                    if not act(self, connection):
                        break
        self._open.discard(connection)
        self.present.pop(connection, None)
        connection.close()


def _read(number: int, stream: "socket.SocketIO") -> Received | None:
    line = stream.readline().decode("latin-1").strip()
    if not line:
        return None
    headers = {}
    while header := stream.readline().decode("latin-1").strip():
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return Received(number, line, headers, body)
